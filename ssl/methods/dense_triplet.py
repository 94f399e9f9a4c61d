"""Dense triplet: a place looks alike in two views, other places of this and of other volumes do not.

Source: ours. Features of single voxels are learned from the overlap of two views as in Pinheiro et al. 2020
(VADeR), https://arxiv.org/abs/2011.05499, section 3, and its kin (Xie et al. 2021, PixPro,
https://arxiv.org/abs/2011.10043; Wang et al. 2021, DenseCL, https://arxiv.org/abs/2011.09157); the loss is
the triplet of Schroff et al. 2015, https://arxiv.org/abs/1503.03832, section 3.1. We differ from them in
that places are drawn between voxels and carried over by the exact maps of the views, turns included,
instead of being matched by feature or grid cell; in that a place close by is no negative; and in that
negatives come from the batch, without a memory or a teacher. The features are those of the segmentation
network's own decoder.
"""

# Shapes: B = batch, N = points of an item, C = features, D = embedding size. Of pairs, (b, n) is a point of
# the first view and (c, m) one of the second.

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...data.settings import Probability, settings
from ...data.volume import Shape
from ...seg.networks.network import Network
from ..correspondence import SharedPlaces, extent_of, middle, read_at, shared_places
from ..gather import gathered
from ..heads import chosen_blocks, feature_widths, read_features
from ..method import Method, PretextResult, Scope, Views, ViewSpec, register_method


@settings
class DenseTripletConfig:
    """`margin` is in squared distance of unit vectors, FaceNet's 0.2.

    `points` places of each volume are compared. Those of one volume are negatives of each other where they
    are at least `distance` apart in both views, in shares of their extent (PixPro's positives are within 0.7
    diagonals of a bin of a 7 x 7 grid: 0.14). `across` is the share of the loss that the negatives from other
    volumes have: less suits volumes that all show the same anatomy, where the same place of another volume is
    none; with 0 there are no others, and a batch may be one volume.

    `block` is the level whose features are read, the last of the decoder when None. The head applies two
    layers to each point, `hidden` and `dimension` wide (PixPro: 2048 and 256).
    """

    margin: Annotated[float, Field(gt=0, le=4)] = 0.2
    points: Annotated[int, Field(ge=2, le=1024)] = 128
    distance: Annotated[float, Field(ge=0, lt=1)] = 0.1
    across: Probability = 0.5
    block: str | None = None
    hidden: Annotated[int, Field(ge=1)] = 64
    dimension: Annotated[int, Field(ge=2)] = 32


def dense_triplet_loss(
    first_BND: Tensor, second_BND: Tensor, apart_BNN: Tensor, used_B: Tensor, *, margin: float, across: float
) -> tuple[Tensor, Tensor]:
    """The loss and the share of triplets above 0, both ().

    Every point of either view is an anchor, the same place in the other view its positive, and every point
    of that view that may be one is a negative. The mean over negatives of the same volume and that over
    negatives of other volumes are weighted with 1 - `across` and `across`; where there are none of a kind,
    the other has all the weight.

    Args:
        first_BND, second_BND: unit vectors of the same places in two views.
        apart_BNN: which places of a volume are negatives of each other, symmetric.
        used_B: which items take part.
        margin: in squared distance.
        across: the weight of negatives from other volumes.
    """
    batch, points, _ = first_BND.shape
    with torch.autocast(first_BND.device.type, enabled=False):
        cosines = first_BND.float().flatten(0, 1) @ second_BND.float().flatten(0, 1).T
    far_BNBN = (2 - 2 * cosines).view(batch, points, batch, points)
    near_BN = far_BNBN.flatten(2).flatten(0, 1).diagonal().view(batch, points)
    hinges = (
        F.relu(near_BN[:, :, None, None] - far_BNBN + margin),
        F.relu(near_BN[None, None] - far_BNBN + margin),
    )
    same_BNN = apart_BNN & used_B[:, None, None]
    other_BB = used_B[:, None] & used_B[None] & ~torch.eye(batch, dtype=torch.bool, device=used_B.device)
    count_same, count_other = same_BNN.sum(), other_BB.sum() * points**2
    share = torch.where(count_other == 0, 0.0, torch.where(count_same == 0, 1.0, across))
    weight_other_BB = other_BB * (share / count_other.clamp(min=1))
    weight_same_BNN = same_BNN * ((1 - share) / count_same.clamp(min=1))

    def mean(values_BNBN: Tensor) -> Tensor:
        within_BNN = values_BNBN.diagonal(dim1=0, dim2=2).movedim(-1, 0)
        return (within_BNN * weight_same_BNN).sum() + (values_BNBN.sum(dim=(1, 3)) * weight_other_BB).sum()

    loss = (mean(hinges[0]) + mean(hinges[1])) / 2
    active = sum(mean((h.detach() > 0).float()) for h in hinges) / 2
    return loss, torch.as_tensor(active)


def far_apart(places: SharedPlaces, extents: tuple[Shape, Shape], distance: float) -> Tensor:
    """Which places of an item are at least so many extents apart in both views, (B, N, N)."""
    apart = torch.ones((), dtype=torch.bool, device=places.found.device)
    for places_BN3, extent in zip((places.first, places.second), extents, strict=True):
        shares_BN3 = places_BN3 / places_BN3.new_tensor(extent)
        offsets_BNN3 = shares_BN3[:, :, None] - shares_BN3[:, None]
        apart = apart & (offsets_BNN3.norm(dim=-1) >= distance)
    itself = torch.eye(places.first.shape[1], dtype=torch.bool, device=apart.device)
    return apart & ~itself


class PointHead(nn.Module):
    """Features of one block at places of a view, through two layers, as unit vectors (B, N, D)."""

    def __init__(self, scope: Scope, config: DenseTripletConfig) -> None:
        super().__init__()
        names = None if config.block is None else (config.block,)
        # of a whole part the last level
        self.block = chosen_blocks(scope.architecture, names)[-1]
        self.layers = nn.Sequential(
            nn.Linear(feature_widths(scope.architecture)[self.block], config.hidden),
            nn.LayerNorm(config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, config.dimension),
        )

    def forward(
        self, network: Network, views: tuple[Tensor, ...], places: tuple[Tensor, ...]
    ) -> list[Tensor]:
        """Of each view (B, C, Z, Y, X) the vectors at its places (B, N, 3)."""
        if len({view.shape[1:] for view in views}) == 1:
            (features,) = read_features(network, torch.cat(views), (self.block,))
            levels = features.split([len(view) for view in views])
        else:
            levels = tuple(read_features(network, view, (self.block,))[0] for view in views)
        read = [
            read_at(level, points, extent_of(view))
            for level, points, view in zip(levels, places, views, strict=True)
        ]
        return [F.normalize(self.layers(points).float(), dim=-1) for points in read]


@register_method("dense_triplet", DenseTripletConfig)
class DenseTriplet(Method):
    """A place attracts itself in another view; other places and volumes repel it."""

    source = "ours; after Pinheiro et al. 2020, arXiv:2011.05499, and Schroff et al. 2015, arXiv:1503.03832"
    embeds = True

    @staticmethod
    def views(config: DenseTripletConfig) -> ViewSpec:
        """Two global views of each volume; of two volumes or more, where others are negatives."""
        return ViewSpec(global_views=2, volumes=2 if config.across > 0 else 1)

    @staticmethod
    def heads(scope: Scope, config: DenseTripletConfig) -> nn.Module:
        """The head of single points."""
        return PointHead(scope, config)

    def forward(self, batch: Views, step: int) -> PretextResult:  # noqa: ARG002
        """The loss over the points of all processes; items whose views share too little are left out."""
        first, second = batch.views
        extents = extent_of(first), extent_of(second)
        generator = torch.Generator().manual_seed(batch.seed)
        places = shared_places(batch.maps, extents, self.config.points, generator)
        read = self.head(self.network, (first, second), (places.first, places.second))
        first_BND, second_BND = (gathered(z) for z in read)
        apart_BNN = gathered(far_apart(places, extents, self.config.distance).float()) > 0
        used_B = gathered(places.found.float()) > 0
        loss, active = dense_triplet_loss(
            first_BND, second_BND, apart_BNN, used_B, margin=self.config.margin, across=self.config.across
        )
        logs = {"active_triplets": active, "left_out": (~used_B).sum().float()}
        return PretextResult(loss=loss, logs=logs, embeddings=first_BND.flatten(0, 1))

    def embed(self, view: Tensor) -> Tensor:
        """The unit vector (B, D) of the place in the middle: single points are what the loss is made of."""
        return self.head(self.network, (view,), (middle(view),))[0][:, 0]

    def resting_loss(self) -> float:
        """The margin."""
        return self.config.margin
