"""The spatial transform alone, by every library that has one: a box in memory, turned and enlarged."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from monai.transforms.spatial.array import Affine
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch import Tensor
from torchio.data import LabelMap, ScalarImage, Subject
from torchio.transforms import Affine as TorchIOAffine
from torchio.transforms import Compose, CropOrPad

from ...data.augment.spatial import patch_map
from ...data.volume import Shape
from ...data.warp import warp, warp_labels
from .figure import Figure, measured
from .nnunet_patches import SUPPLYING, spatial_transform
from .volumes import spelled, volume, with_margin

ANGLES = (30.0, 20.0, 10.0)
SCALE = 1.1
Turned = tuple[np.ndarray, np.ndarray]


def spatial_figures(patch: Shape, runs: int) -> Iterator[Figure]:
    """Ours beside each library's: image and labels of a patch out of a box, turned by fixed angles."""
    box = TurnedBox.of(patch)
    work = f"image and labels of {spelled(patch)}, turned and enlarged, out of a box in memory"
    figure = partial(measured, "supply", work, lambda _: box.ours(), runs=runs)
    try:
        yield figure("nnU-Net", _each(box.nnunet()), key="spatial_vs_nnunet")
    except ImportError as error:
        missing = f"nnU-Net's transforms are not measured ({error}): {SUPPLYING}"
        yield figure("nnU-Net", None, key="spatial_vs_nnunet", missing=missing)
    else:
        yield figure("nnU-Net, nearest labels both", _each(box.nnunet(nearest=True)))
        by_share = partial(measured, "supply", work, lambda _: box.ours(by_share=True), runs=runs)
        yield by_share("nnU-Net, interpolated labels both", _each(box.nnunet()))
    yield figure("TorchIO", _each(box.torchio))
    yield figure("scipy", _each(box.scipy))
    yield figure("MONAI", _each(box.monai))
    yield figure("torch grid_sample", _each(box.grid_sample))
    yield figure("SimpleITK", _each(box.simpleitk))


@dataclass(frozen=True)
class TurnedBox:
    """An image (1, z, y, x) and labels (z, y, x), from which a patch around the middle is to be had.

    All but TorchIO give the same image. Every library has the voxels as it wants them before it is measured.
    """

    image: np.ndarray
    labels: np.ndarray
    patch: Shape

    @classmethod
    def of(cls, patch: Shape) -> "TurnedBox":
        """A box that is large enough for a patch."""
        image, labels = volume(with_margin(patch), seed=0)
        return cls(image[None].astype(np.float32), labels, patch)

    @cached_property
    def affine(self) -> np.ndarray:
        """The map (3, 4) from indices of the patch's voxels to the box's."""
        turn = Rotation.from_euler("xyz", ANGLES, degrees=True).as_matrix() / SCALE
        middle = (np.array(self.labels.shape) - 1) / 2
        return patch_map(turn, middle, (np.array(self.patch) - 1) / 2)

    def ours(self, *, by_share: bool = False) -> Turned:
        """Our two warps; labels are the nearest, or have the largest interpolated share."""
        image = warp(torch.from_numpy(self.image), self.affine, self.patch)
        labels = warp_labels(torch.from_numpy(self.labels)[None], self.affine, self.patch, by_share=by_share)
        return image[0].numpy(), labels[0].numpy()

    def scipy(self) -> Turned:
        """Two affine transforms of orders 1 and 0."""
        offset: Any = self.affine[:, 3]
        turned = partial(
            ndimage.affine_transform, matrix=self.affine[:, :3], offset=offset, output_shape=self.patch
        )
        return turned(self.image[0], order=1), turned(self.labels, order=0)

    def grid_sample(self) -> Turned:
        """Torch's, with one grid for both: what an own augmentation is usually made of."""
        size = torch.tensor(self.labels.shape)
        axes = [torch.arange(n, dtype=torch.float32) for n in self.patch]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        matrix = torch.from_numpy(self.affine).float()
        places = places @ matrix[:, :3].T + matrix[:, 3]
        grid = ((places * 2 + 1) / size - 1).flip(-1)[None]
        image = F.grid_sample(torch.from_numpy(self.image)[None], grid, align_corners=False)
        labels = torch.from_numpy(self.labels)[None, None].float()
        turned = F.grid_sample(labels, grid, mode="nearest", align_corners=False)
        return image[0, 0].numpy(), turned[0, 0].byte().numpy()

    def simpleitk(self) -> Turned:
        """Its resampling filter, twice."""
        turn, offset = self.affine[::-1, :3][:, ::-1], self.affine[::-1, 3]
        transform = sitk.AffineTransform(turn.ravel().tolist(), offset.tolist())
        size = [int(n) for n in reversed(self.patch)]
        image, labels = (
            sitk.Resample(voxels, size, transform, how, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
            for voxels, how in zip(self._simpleitk, (sitk.sitkLinear, sitk.sitkNearestNeighbor), strict=True)
        )
        return sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(labels)

    def monai(self) -> Turned:
        """Its affine transform, for image and labels each."""
        image, labels = (
            turned(voxels, mode=mode)
            for turned, voxels, mode in zip(self._monai, self._float, ("bilinear", "nearest"), strict=True)
        )
        return np.asarray(image[0]), np.asarray(labels[0])

    def torchio(self) -> Turned:
        """Its affine transform of the box, cropped to the patch: it cannot make less than it is given."""
        turned = self._torchio[1](self._torchio[0])
        return turned.image.numpy()[0], turned.labels.numpy()[0]

    def nnunet(self, *, nearest: bool = False) -> Callable[[], Turned]:
        """Its spatial transform, whose labels are interpolated unless told; ImportError without it."""
        angles = np.radians(ANGLES)
        transform: Any = spatial_transform(self.patch, tuple(map(float, angles)), SCALE, nearest=nearest)
        image, labels = torch.from_numpy(self.image), torch.from_numpy(self.labels.astype(np.int16))[None]

        def turned() -> Turned:
            both = transform(image=image, segmentation=labels)
            return both["image"][0].numpy(), both["segmentation"][0].numpy()

        return turned

    @cached_property
    def _simpleitk(self) -> tuple[sitk.Image, sitk.Image]:
        return sitk.GetImageFromArray(self.image[0]), sitk.GetImageFromArray(self.labels)

    @cached_property
    def _float(self) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.image), torch.from_numpy(self.labels[None].astype(np.float32))

    @cached_property
    def _monai(self) -> tuple[Affine, Affine]:
        # its map is between places counted from the middles
        linear = np.eye(4)
        linear[:3, :3] = self.affine[:, :3]
        made = [Affine(affine=linear, spatial_size=self.patch, padding_mode="zeros", image_only=True)] * 2
        return made[0], made[1]

    @cached_property
    def _torchio(self) -> tuple[Subject, Compose]:
        image, labels = (torch.from_numpy(self.image), torch.from_numpy(self.labels)[None])
        subject = Subject(image=ScalarImage(tensor=image), labels=LabelMap(tensor=labels))
        turn = TorchIOAffine(
            scales=(SCALE, SCALE, SCALE), degrees=ANGLES, translation=(0, 0, 0), default_pad_value=0
        )
        return subject, Compose([turn, CropOrPad(self.patch)])


def _each(turned: Callable[[], Turned]) -> Callable[[int], Turned]:
    return lambda _: turned()
