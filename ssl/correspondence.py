"""Places that two views of a volume share, known exactly, and what is read there.

The maps of a batch lead from a view's voxels to those of its volume (see `Views`), through every turn and
scaling. A place lies anywhere between voxels; nothing is rounded before it is read.
"""

# Shapes: B = batch, N = places, C = features. The last axis of places is (z, y, x): voxel i of a view has its
# centre at i and reaches from i - 0.5 to i + 0.5.

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.volume import Shape
from .gather import own, processes

# as many places lie in both views as are wanted where these share a sixteenth of the smaller one
_TRIES = 16


@dataclass(frozen=True, kw_only=True)
class SharedPlaces:
    """The same places in two views: `first` and `second` (B, N, 3), float64, each in the voxels of its view.

    `found` (B,) tells in which items there were as many; in the others some of them lie in one view alone.
    """

    first: Tensor
    second: Tensor
    found: Tensor


def to_volume(maps_B34: Tensor, places_BN3: Tensor) -> Tensor:
    """Places of a view, (B, N, 3), in the voxels of its volume."""
    return places_BN3 @ maps_B34[:, :, :3].transpose(1, 2) + maps_B34[:, None, :, 3]


def to_view(maps_B34: Tensor, places_BN3: Tensor) -> Tensor:
    """Places of a volume, (B, N, 3), in the voxels of a view: the inverse of `to_volume`."""
    offsets_B3N = (places_BN3 - maps_B34[:, None, :, 3]).transpose(1, 2)
    return torch.linalg.solve(maps_B34[:, :, :3], offsets_B3N).transpose(1, 2)


def within(places_BN3: Tensor, extent: Shape) -> Tensor:
    """Which places lie in a view of that extent, (B, N)."""
    return ((places_BN3 >= -0.5) & (places_BN3 <= places_BN3.new_tensor(extent) - 0.5)).all(dim=-1)


def shared_places(
    maps: Sequence[Tensor], extents: Sequence[Shape], count: int, generator: torch.Generator
) -> SharedPlaces:
    """`count` places of each item, drawn evenly from what two views share.

    They are tried in the smaller view, of which the sampler of views promises a share in the other.

    Args:
        maps: (B, 3, 4) of each of the two views.
        extents: of each of them, in voxels.
        count: of places.
        generator: on the CPU. It draws for the items of all processes, each of which takes its own, so that
            several with one seed draw what one process would.
    """
    first_B34, second_B34 = maps
    drawn = torch.rand(
        processes() * len(first_B34), _TRIES * count, 3, generator=generator, dtype=torch.float64
    )
    shares_BN3 = own(drawn).to(first_B34)
    one_BN3, other_BN3 = (shares_BN3 * shares_BN3.new_tensor(extent) - 0.5 for extent in extents)
    smaller_B11 = (_size(first_B34, extents[0]) <= _size(second_B34, extents[1]))[:, None, None]
    first_BN3 = torch.where(smaller_B11, one_BN3, to_view(first_B34, to_volume(second_B34, other_BN3)))
    second_BN3 = torch.where(smaller_B11, to_view(second_B34, to_volume(first_B34, one_BN3)), other_BN3)
    inside_BN = within(first_BN3, extents[0]) & within(second_BN3, extents[1])
    # those inside come first, in the order in which they were drawn
    order_BN1 = (~inside_BN).byte().argsort(dim=1, stable=True)[:, :count, None]
    order_BN3 = order_BN1.expand(-1, -1, 3)
    return SharedPlaces(
        first=first_BN3.gather(1, order_BN3),
        second=second_BN3.gather(1, order_BN3),
        found=inside_BN.sum(dim=1) >= count,
    )


def _size(maps_B34: Tensor, extent: Shape) -> Tensor:
    """How much of its volume a view shows, (B,), in voxels."""
    return torch.linalg.det(maps_B34[:, :, :3]).abs() * math.prod(extent)


def read_at(features: Tensor, places_BN3: Tensor, extent: Shape) -> Tensor:
    """Features (B, C, z, y, x) of any level at places of its view, by trilinear interpolation: (B, N, C).

    A coarse level covers the view's `extent` from edge to edge, so that its first voxel, of stride s, has
    its centre at (s - 1) / 2. Beyond the centres of its outermost voxels these are read.
    """
    # grid_sample's coordinates: x first, -1 to 1 between the outer edges. Half precision could not tell
    # voxels apart.
    grid_BN3 = ((places_BN3 * 2 + 1) / places_BN3.new_tensor(extent) - 1).flip(-1).float()
    read = F.grid_sample(
        features.float(), grid_BN3[:, None, None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return read[:, :, 0, 0].transpose(1, 2)


def label_at(labels_Bzyx: Tensor, places_BN3: Tensor) -> Tensor:
    """Of labels, one for each voxel of a view, the nearest to each place: (B, N)."""
    extent_3 = torch.tensor(labels_Bzyx.shape[1:], device=places_BN3.device)
    nearest_BN3 = (places_BN3 + 0.5).floor().long().clamp(min=torch.zeros_like(extent_3), max=extent_3 - 1)
    z, y, x = nearest_BN3.unbind(-1)
    items_B1 = torch.arange(len(labels_Bzyx), device=places_BN3.device)[:, None]
    return labels_Bzyx[items_B1, z, y, x]


def extent_of(view: Tensor) -> Shape:
    """The extent of a view (B, C, Z, Y, X)."""
    z, y, x = view.shape[2:]
    return z, y, x


def middle(view: Tensor) -> Tensor:
    """The place (B, 1, 3), float64, in the middle of each view (B, C, Z, Y, X)."""
    extent_3 = torch.tensor(extent_of(view), dtype=torch.float64, device=view.device)
    return ((extent_3 - 1) / 2).expand(len(view), 1, 3)
