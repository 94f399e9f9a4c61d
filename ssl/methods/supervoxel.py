"""Supervoxels: the pieces of one view, found without labels, are segmented in another view of the volume.

Source: ours; after Ouyang et al. 2020, https://arxiv.org/abs/2007.09886, sections 3.2 and 3.3, where
superpixels stand for the missing labels of few-shot segmentation: one of them is the foreground of a pair
of slices, one of which is turned and changed, and a prototypical network segments it there. Supervoxels are
those of Achanta et al. 2012 (SLIC), https://doi.org/10.1109/TPAMI.2012.120, in three dimensions. We differ
from Ouyang et al. in that all supervoxels of a view are classes at once instead of one against the rest, so
that every voxel teaches; in that a prototype is the mean over its whole supervoxel, without a grid of local
ones; in that the second view is another reading of the volume, to which labels are carried by the exact
maps; and in that the network is the segmentation network itself, encoder and decoder, with one linear
layer. The loss is in units of the logarithm of the number of supervoxels, so that knowing nothing costs 1.
"""

# Shapes: B = batch, N = points of an item, K = supervoxels, C = features, D = embedding size.

import math
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...data.settings import settings
from ...data.volume import Shape, Triple
from ...seg.networks.network import Network
from ..correspondence import extent_of, label_at, middle, read_at, shared_places
from ..gather import gathered
from ..method import Method, PretextResult, Scope, Views, ViewSpec, register_method


@settings
class SupervoxelConfig:
    """A view is cut into about `supervoxels`: 6^3 voxels each of a patch of 32^3, 25^3 of one of 128^3.

    They are found on the mean of the channels, brought to at most `resolution` cubes and smoothed by a
    Gaussian of `smoothing` cubes. `compactness` weighs nearness against likeness of grey values, which range
    from 0 to 1: the larger, the nearer to cubes; below 0.1 most of a hippocampus merges with what is around.
    `points` voxels of the second view are classified, drawn from what the views share. `temperature` divides
    the cosines: 1/20, as there. The layer gives `dimension` numbers (there 256).
    """

    supervoxels: Annotated[int, Field(ge=2, le=1024)] = 128
    resolution: Annotated[int, Field(ge=512)] = 32**3
    smoothing: Annotated[float, Field(ge=0)] = 1.0
    compactness: Annotated[float, Field(gt=0)] = 0.3
    points: Annotated[int, Field(ge=2, le=65536)] = 2048
    temperature: Annotated[float, Field(gt=0)] = 0.05
    dimension: Annotated[int, Field(ge=2)] = 32


def cube_extent(extent: Shape, steps: Triple, most: int) -> Shape:
    """The extent of a view brought to cubes: about `most` of them at most, none finer than its finest step.

    `steps` are the lengths of its voxels. An axis of a single voxel stays one.
    """
    axes = [axis for axis in range(3) if extent[axis] > 1]
    lengths = [n * step for n, step in zip(extent, steps, strict=True)]
    if not axes:
        return extent
    edge = (math.prod(lengths[axis] for axis in axes) / most) ** (1 / len(axes))
    edge = max(edge, min(steps[axis] for axis in axes))
    z, y, x = (max(1, round(lengths[axis] / edge)) if axis in axes else 1 for axis in range(3))
    return z, y, x


def supervoxels(image: np.ndarray, config: SupervoxelConfig) -> np.ndarray:
    """The supervoxel of every cube of an image (z, y, x), numbered from 0."""
    # scikit-image takes half a second to import
    from skimage.segmentation import slic

    # SLIC scales grey values by their range, which must not be that of a few bright voxels
    bounded = np.clip(image, *np.percentile(image, (0.5, 99.5)))
    return slic(
        bounded.astype(np.float64),
        n_segments=config.supervoxels,
        compactness=config.compactness,
        sigma=config.smoothing,
        start_label=0,
        channel_axis=None,
    )


def pseudo_masks(view: Tensor, steps_B3: Tensor, config: SupervoxelConfig) -> Tensor:
    """The supervoxels (B, Z, Y, X) of views (B, C, Z, Y, X), numbered from 0 in each, without a gap."""
    extent = extent_of(view)
    mean = view.detach().float().mean(dim=1, keepdim=True)
    masks = []
    for image, steps in zip(mean, steps_B3.tolist(), strict=True):
        cubes = cube_extent(extent, tuple(steps), config.resolution)
        coarse = F.interpolate(image[None], cubes, mode="area")[0, 0]
        found = torch.from_numpy(supervoxels(coarse.cpu().numpy(), config)).to(view.device)
        # float32 holds every number there can be
        mask = F.interpolate(found[None, None].float(), extent, mode="nearest-exact")[0, 0].long()
        # of cubes finer than the view some supervoxel may have been lost
        there = mask.flatten().bincount() > 0
        masks.append((there.cumsum(0) - 1)[mask])
    return torch.stack(masks)


def steps_of(maps_B34: Tensor, spacing: Triple | None) -> Tensor:
    """The length of a step along each axis of a view, (B, 3): in the unit of `spacing`, or in voxels."""
    size_3 = maps_B34.new_tensor(spacing or (1.0, 1.0, 1.0))
    return (maps_B34[:, :, :3] * size_3[None, :, None]).norm(dim=1)


def prototypes(features: Tensor, masks_BZYX: Tensor, number: int) -> Tensor:
    """Means (B, K, C) of features (B, C, Z, Y, X) over `number` supervoxels; 0 of one that is not there."""
    flat, labels_B1V = features.float().flatten(2), masks_BZYX.flatten(1)[:, None]
    sums = flat.new_zeros(*flat.shape[:2], number).scatter_add(2, labels_B1V.expand_as(flat), flat)
    voxels = flat.new_zeros(len(flat), 1, number).scatter_add(2, labels_B1V, torch.ones_like(flat[:, :1]))
    return (sums / voxels.clamp(min=1)).transpose(1, 2)


def supervoxel_losses(
    points_BND: Tensor, targets_BN: Tensor, prototypes_BKD: Tensor, numbers_B: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor]:
    """The loss of each item, in units of what a guess costs, and the share of points told right, both (B,).

    Args:
        points_BND: unit vectors.
        targets_BN: which prototype each of them belongs to.
        prototypes_BKD: unit vectors; of item i only the first `numbers_B[i]`, 2 or more, are there.
        numbers_B: how many an item has.
        temperature: what cosines are divided by.
    """
    with torch.autocast(points_BND.device.type, enabled=False):
        logits_BNK = points_BND.float() @ prototypes_BKD.float().transpose(1, 2) / temperature
    lacking_BK = torch.arange(logits_BNK.shape[2], device=numbers_B.device) >= numbers_B[:, None]
    logits_BNK = logits_BNK.masked_fill(lacking_BK[:, None], -math.inf)
    costs_BN = F.cross_entropy(logits_BNK.transpose(1, 2), targets_BN, reduction="none")
    right_BN = logits_BNK.detach().argmax(dim=2) == targets_BN
    return costs_BN.mean(dim=1) / numbers_B.float().log(), right_BN.float().mean(dim=1)


@register_method("supervoxel", SupervoxelConfig)
class Supervoxel(Method):
    """The supervoxels of one view are segmented in another."""

    source = "ours; after Ouyang et al. 2020, arXiv:2007.09886"
    embeds = True

    @staticmethod
    def views(config: SupervoxelConfig) -> ViewSpec:  # noqa: ARG004
        """Two global views of each volume."""
        return ViewSpec(global_views=2)

    @staticmethod
    def heads(scope: Scope, config: SupervoxelConfig) -> nn.Module:
        """One linear layer, which makes no difference between a mean of voxels and single ones."""
        return nn.Linear(scope.architecture.topology.features[0], config.dimension)

    def forward(self, batch: Views, step: int) -> PretextResult:  # noqa: ARG002
        """Mean over the items of all processes; those whose views share too little are left out."""
        first, second = batch.views
        extents = extent_of(first), extent_of(second)
        masks = pseudo_masks(first, steps_of(batch.maps[0], self.scope.spacing), self.config)
        numbers_B = masks.flatten(1).amax(dim=1) + 1
        generator = torch.Generator().manual_seed(batch.seed)
        places = shared_places(batch.maps, extents, self.config.points, generator)
        found, sought = self._features(first, second)
        prototypes_BKD = self._embedded(prototypes(found, masks, int(numbers_B.max())))
        points_BND = self._embedded(read_at(sought, places.second, extents[1]))
        losses_B, right_B = supervoxel_losses(
            points_BND,
            label_at(masks, places.first),
            prototypes_BKD,
            numbers_B.clamp(min=2),
            temperature=self.config.temperature,
        )
        # a single supervoxel leaves nothing to tell
        used_B = gathered((places.found & (numbers_B > 1)).float())
        share_B = used_B / used_B.sum().clamp(min=1)
        return PretextResult(
            loss=(gathered(losses_B) * share_B).sum(),
            logs={
                "points_told": (gathered(right_B) * share_B).sum(),
                "supervoxels": numbers_B.float().mean(),
                "left_out": (1 - used_B).sum(),
            },
            embeddings=points_BND.flatten(0, 1),
        )

    def embed(self, view: Tensor) -> Tensor:
        """The unit vector (B, D) of the voxel in the middle: single voxels are what is segmented."""
        return self._embedded(read_at(self.network.features(view), middle(view), extent_of(view)))[:, 0]

    def resting_loss(self) -> float:
        """That of a guess, whatever the number of supervoxels."""
        return 1.0

    def _features(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the last decoder level; both views at once where they have one extent."""
        network: Network = self.network
        if first.shape[1:] != second.shape[1:]:
            return network.features(first), network.features(second)
        one, other = network.features(torch.cat([first, second])).split([len(first), len(second)])
        return one, other

    def _embedded(self, features: Tensor) -> Tensor:
        return F.normalize(self.head(features).float(), dim=-1)
