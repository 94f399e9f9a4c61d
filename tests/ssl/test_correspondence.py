"""Places that two views share: by hand, by loops, and in views of a volume whose values tell their place."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fewvox.data.augment.spatial import patch_map
from fewvox.data.warp import warp
from fewvox.ssl import correspondence, gather
from fewvox.ssl.correspondence import (
    SharedPlaces,
    label_at,
    middle,
    read_at,
    shared_places,
    to_view,
    to_volume,
    within,
)

VOLUME, EXTENT = (24, 28, 26), (8, 12, 10)


def turn(degrees: float, axis: int, scale: float = 1.0) -> np.ndarray:
    """A rotation around an axis, and how many voxels of the volume a step then is."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix, (i, j) = np.eye(3), [a for a in range(3) if a != axis]
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return scale * matrix


def map_of(matrix: np.ndarray, centre, extent=EXTENT) -> torch.Tensor:
    """The map (1, 3, 4) of a view whose middle lies at a place of the volume."""
    affine = patch_map(matrix, np.array(centre, float), (np.array(extent) - 1) / 2)
    return torch.from_numpy(affine)[None]


MIDDLE = map_of(np.eye(3), (12, 14, 13))
SHEAR = np.array([[1, 0.2, 0], [0, 1, 0], [0, 0.1, 0.8]])
# pairs of views
PAIRS = {
    "alike": (MIDDLE, MIDDLE),
    "shifted": (MIDDLE, map_of(np.eye(3), (13.3, 12.2, 13.5))),
    "turned": (map_of(turn(25, 0), (12, 14, 13)), map_of(turn(-20, 2), (11.4, 14.7, 12.2))),
    "scaled": (map_of(turn(10, 1, 1.2), (12, 14, 13)), map_of(turn(30, 0, 0.7), (11.5, 13.3, 13.9))),
    "mirrored": (
        map_of(np.diag([1, -1, 1.0]), (12, 14, 13)),
        map_of(turn(15, 1) @ np.diag([-1, 1, 1]), (12, 13, 13)),
    ),
    "sheared": (map_of(SHEAR, (12, 14, 13)), MIDDLE),
}


def draw(pair, count=50, seed=0, extents=(EXTENT, EXTENT)) -> SharedPlaces:
    return shared_places(pair, extents, count, torch.Generator().manual_seed(seed))


def place_volume() -> torch.Tensor:
    """A volume (3, Z, Y, X) whose channels are the indices of its voxels."""
    return torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in VOLUME), indexing="ij"))


def view_of(volume: torch.Tensor, affine_134: torch.Tensor, extent=EXTENT) -> torch.Tensor:
    return warp(volume, affine_134[0].numpy(), extent)[None]


def test_a_map_leads_to_the_volume_and_back_as_by_hand():
    """A quarter turn about z with steps of two voxels: y of the view runs along -x of the volume."""
    affine = torch.tensor([[[1.0, 0, 0, 5], [0, 0, 2, 1], [0, -2, 0, 9]]], dtype=torch.float64)
    places = torch.tensor([[[0.0, 0, 0], [1, 2, 3], [0.5, 0, -1]]], dtype=torch.float64)
    there = to_volume(affine, places)
    assert there[0].tolist() == [[5, 1, 9], [6, 7, 5], [5.5, -1, 9]]
    torch.testing.assert_close(to_view(affine, there), places)


@pytest.mark.parametrize("name", PAIRS)
def test_shared_places_are_the_same_places_of_the_volume_in_both_views(name):
    first, second = PAIRS[name]
    places = draw((first, second))
    assert places.found.tolist() == [True]
    assert places.first.shape == places.second.shape == (1, 50, 3)
    torch.testing.assert_close(to_volume(first, places.first), to_volume(second, places.second))
    for of_view in (places.first, places.second):
        assert within(of_view, EXTENT).all()
    assert len(places.first[0].unique(dim=0)) == 50


@pytest.mark.parametrize("name", PAIRS)
def test_what_is_read_in_two_views_of_a_volume_that_tells_its_places_is_equal(name):
    """And is the place itself: views are made by the code that makes those of a training."""
    first, second = PAIRS[name]
    places = draw((first, second), count=40)
    # towards the middle, where linear interpolation of a ramp is exact
    inside = (
        ((places.first >= 0) & (places.first <= torch.tensor(EXTENT) - 1)).all(dim=-1)
        & ((places.second >= 0) & (places.second <= torch.tensor(EXTENT) - 1)).all(dim=-1)
    )[0]
    assert inside.sum() > 15
    read = [
        read_at(view_of(place_volume(), affine), of_view, EXTENT)[0, inside]
        for affine, of_view in ((first, places.first), (second, places.second))
    ]
    torch.testing.assert_close(read[0], read[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(read[0], to_volume(first, places.first)[0, inside].float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("strides", [(2, 2, 2), (1, 2, 2), (4, 2, 1)])
def test_a_coarse_level_is_read_at_the_same_places(strides):
    """Means over blocks of a ramp lie on it at the middles of the blocks: half a voxel amiss would show."""
    first, second = PAIRS["turned"]
    places = draw((first, second), count=60)
    edge = (torch.tensor(strides) - 1) / 2
    read, inside = [], torch.ones(60, dtype=torch.bool)
    for affine, of_view in ((first, places.first), (second, places.second)):
        level = F.avg_pool3d(view_of(place_volume(), affine), strides)
        read.append(read_at(level, of_view, EXTENT)[0])
        inside &= ((of_view >= edge) & (of_view <= torch.tensor(EXTENT) - 1 - edge)).all(dim=-1)[0]
    assert inside.sum() > 10
    torch.testing.assert_close(read[0][inside], read[1][inside], atol=1e-4, rtol=0)
    expected = to_volume(first, places.first)[0].float()
    torch.testing.assert_close(read[0][inside], expected[inside], atol=1e-4, rtol=0)


def test_reading_is_trilinear_as_in_plain_loops_and_the_border_goes_on():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 4, 5, 3, generator=generator, requires_grad=True)
    extent = (8, 5, 6)
    places = torch.rand(2, 7, 3, generator=generator, dtype=torch.float64) * torch.tensor(extent) - 0.5
    found = read_at(features, places, extent)
    assert found.shape == (2, 7, 3)
    shape = features.shape[2:]
    for b, n in itertools.product(range(2), range(7)):
        # in voxels of the level, kept between the middles of its outermost ones
        at = [
            min(max((p + 0.5) * size / whole - 0.5, 0), size - 1)
            for p, size, whole in zip(places[b, n].tolist(), shape, extent, strict=True)
        ]
        low = [min(int(p), size - 2) for p, size in zip(at, shape, strict=True)]
        expected = torch.zeros(3)
        for corner in itertools.product((0, 1), repeat=3):
            share = math.prod(p - i if c else 1 - (p - i) for p, i, c in zip(at, low, corner, strict=True))
            z, y, x = (i + c for i, c in zip(low, corner, strict=True))
            expected = expected + share * features[b, :, z, y, x]
        torch.testing.assert_close(found[b, n], expected, atol=1e-5, rtol=1e-5)
    found.sum().backward()
    assert features.grad is not None
    # every reading hands on a whole
    assert float(features.grad.sum()) == pytest.approx(2 * 7 * 3, rel=1e-5)


def test_half_precision_features_are_read_at_exact_places():
    """The coordinates are not rounded with them: in bfloat16 voxel 100 of 128 would be 0.5 voxels off."""
    ramp = torch.arange(128.0).bfloat16().expand(1, 1, 2, 2, 128)
    places = torch.tensor([[[0.5, 0.5, 100.0], [0.5, 0.5, 37.5]]], dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = read_at(ramp, places, (2, 2, 128))
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == pytest.approx([100, 37.5], abs=1e-3)


def test_views_that_share_nothing_or_too_little_are_told():
    """An item for itself, whatever the others of the batch are."""
    whole = map_of(np.eye(3), (12, 14, 13))
    far = map_of(np.eye(3), (40, 14, 13))
    # three hundredths: some places are found, and fewer than are wanted
    edge = map_of(np.eye(3), (12, 14, 13 + 9.7))
    first = torch.cat([whole] * 3)
    places = draw((first, torch.cat([whole, far, edge])))
    assert places.found.tolist() == [True, False, False]
    assert torch.isfinite(places.second).all()


def test_a_small_view_within_a_large_one_is_found_whichever_comes_first():
    """A thousandth of the large view: drawn there, no place would be found."""
    small, large = map_of(turn(30, 0, 0.05), (12, 14, 13)), map_of(turn(5, 1, 0.8), (12, 14, 13))
    for pair in ((small, large), (large, small)):
        assert draw(pair, count=200).found.all()


def test_places_are_drawn_evenly_from_what_is_shared():
    """Half of the view along y and the whole of it along the others."""
    first, second = map_of(np.eye(3), (12, 14, 13)), map_of(np.eye(3), (12, 20, 13))
    places = draw((first, second), count=2000).first[0]
    shares = (places + 0.5) / torch.tensor(EXTENT)
    for axis, (low, high) in enumerate([(0, 1), (0.5, 1), (0, 1)]):
        counts = torch.histc(shares[:, axis].float(), 5, low, high)
        assert counts.sum() == 2000
        assert counts.tolist() == pytest.approx([400] * 5, rel=0.15)


def test_a_seed_decides_the_places():
    pair = PAIRS["turned"]
    assert torch.equal(draw(pair, seed=1).first, draw(pair, seed=1).first)
    assert not torch.equal(draw(pair, seed=1).first, draw(pair, seed=2).first)


def test_processes_with_one_seed_draw_what_one_process_would(monkeypatch):
    pairs = [
        torch.cat(maps)
        for maps in zip(*(PAIRS[n] for n in ("turned", "scaled", "shifted", "alike")), strict=True)
    ]
    together = draw(tuple(pairs))
    apart = []
    for rank in range(2):
        for place in (gather, correspondence):
            monkeypatch.setattr(place, "processes", lambda: 2)
        monkeypatch.setattr(gather, "rank", lambda rank=rank: rank)
        apart.append(draw(tuple(maps[2 * rank : 2 * rank + 2] for maps in pairs)))
    torch.testing.assert_close(torch.cat([a.first for a in apart]), together.first)
    torch.testing.assert_close(torch.cat([a.second for a in apart]), together.second)


def test_places_in_single_slices_are_found_and_read():
    """Views of one slice, one of them twice as large."""
    extent = (1, 6, 8)
    first, second = map_of(np.eye(3), (0, 10, 10), extent), map_of(turn(40, 0, 2.0), (0, 10, 10), extent)
    places = draw((first, second), extents=(extent, extent))
    assert places.found.all()
    ramp = torch.arange(8.0).expand(1, 1, 1, 6, 8)
    read = read_at(ramp, places.first, extent)[0, :, 0]
    torch.testing.assert_close(read, places.first[0, :, 2].clamp(0, 7).float(), atol=1e-5, rtol=0)


def test_labels_are_those_of_the_nearest_voxels():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(9, (2, 3, 4, 5), generator=generator)
    # in the outermost half voxels too, where rounding to even would go astray
    places = torch.rand(2, 30, 3, generator=generator, dtype=torch.float64) * torch.tensor((3, 4, 5)) - 0.5
    found = label_at(labels, places)
    for b, n in itertools.product(range(2), range(30)):
        z, y, x = (math.floor(p + 0.5) for p in places[b, n].tolist())
        assert found[b, n] == labels[b, z, y, x]
    # a place outside takes the last voxel, rather than one from the other end
    assert label_at(labels, torch.tensor([[[-9.0, 0, 0]]] * 2)).tolist() == labels[:, 0, :1, 0].tolist()


def test_the_middle_of_a_view_lies_between_its_voxels():
    assert middle(torch.zeros(2, 1, 4, 5, 6)).tolist() == [[[1.5, 2, 2.5]]] * 2
