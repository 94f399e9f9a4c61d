"""What a layer computes before and after its weights were adapted."""

import pytest
import torch
from fewvox.seg.adapt import Misfit, adapt, mixing
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

COUNTS = st.integers(1, 4)
EXTENTS = st.tuples(*(st.sampled_from((1, 3)) for _ in range(3)))
STRIDES = st.tuples(*(st.sampled_from((1, 2)) for _ in range(3)))
AXES = (2, 3, 4)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def adapted(theirs, shape, *, kind=nn.Conv3d, **how):
    """Adapted weights for a layer that begins with other ones."""
    return adapt(theirs, noise(*shape, seed=9), kind(1, 1, 1), **how)


def names(prefix, count):
    return [f"{prefix}{i}" for i in range(count)]


@settings(max_examples=25)
@given(theirs=COUNTS, ours=COUNTS, named=st.booleans())
def test_an_image_whose_channels_are_alike_gives_what_it_gave(theirs, ours, named):
    kernel, image = noise(2, theirs, 3, 3, 3), noise(1, 1, 5, 6, 7)
    mix = mixing(names("dye", ours), names("stain", theirs) if named else None, theirs)
    found = adapted(kernel, (2, ours, 3, 3, 3), mix=mix).tensor
    before = F.conv3d(image.expand(-1, theirs, -1, -1, -1), kernel)
    torch.testing.assert_close(F.conv3d(image.expand(-1, ours, -1, -1, -1), found), before, rtol=0, atol=1e-5)


@settings(max_examples=25)
@given(order=st.permutations(range(4)), count=COUNTS)
def test_channels_are_found_by_name_whatever_their_order_and_case(order, count):
    kernel, image = noise(2, 4, 3, 3, 3), noise(1, 4, 5, 6, 7)
    theirs, chosen = ["T1", "T2", "flair", "adc"], list(order[:count])
    image[:, [i for i in range(4) if i not in chosen]] = 0
    mix = mixing([theirs[i].lower() for i in chosen], theirs, 4)
    found = adapted(kernel, (2, count, 3, 3, 3), mix=mix)
    torch.testing.assert_close(F.conv3d(image[:, chosen], found.tensor), F.conv3d(image, kernel))
    assert bool(found.details) == (chosen != [0, 1, 2, 3])
    if found.details:
        assert found.details[0].startswith("image channels by name: ")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (["a", "b"], None),
        (["channel0", "channel1"], ["a", "b"]),
        (["a", "b"], ["channel0", "channel1"]),
        (["channel0", "b"], ["b", "a"]),
    ],
)
def test_as_many_channels_without_names_keep_their_order(ours, theirs):
    kernel = noise(2, 2, 3, 3, 3)
    mix = mixing(ours, theirs, 2)
    found = adapted(kernel, (2, 2, 3, 3, 3), mix=mix)
    assert torch.equal(found.tensor, kernel)
    assert (found.details, mix.told) == ((), "image channels in their order: not all have names")


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        (["a", "b"], ["c", "d"], "each the mean of the 2 there, times 1"),
        (["a", "c"], ["a", "b"], "each the mean of the 2 there, times 1"),
        (["a", "b"], ["a"], "each the mean of the 1 there, times 1/2"),
        (["channel0"], ["channel0", "channel1"], "each the mean of the 2 there, times 2"),
        (["a"], ["a", "a"], "each the mean of the 2 there, times 2"),
    ],
)
def test_channels_that_are_not_theirs_take_the_mean_of_theirs(ours, theirs, told):
    found = adapted(
        noise(2, len(theirs), 3, 3, 3), (2, len(ours), 3, 3, 3), mix=mixing(ours, theirs, len(theirs))
    )
    assert found.details == (f"image channels: {told}",)
    assert torch.equal(found.tensor[:, 0], found.tensor[:, -1])


def test_one_channel_of_another_name_is_taken_as_it_is():
    kernel = noise(2, 1, 3, 3, 3)
    found = adapted(kernel, (2, 1, 3, 3, 3), mix=mixing(["t1"], ["dapi"], 1))
    assert (found.details, torch.equal(found.tensor, kernel)) == ((), True)


@settings(max_examples=25)
@given(there=EXTENTS, stride=STRIDES)
def test_a_kernel_put_into_the_middle_of_a_wider_one_is_the_same_function(there, stride):
    kernel, image = noise(2, 3, *there), noise(1, 3, 6, 7, 8)
    found = adapted(kernel, (2, 3, 3, 3, 3)).tensor
    before = F.conv3d(image, kernel, stride=stride, padding=tuple(k // 2 for k in there))
    torch.testing.assert_close(F.conv3d(image, found, stride=stride, padding=1), before)


@settings(max_examples=25)
@given(here=EXTENTS)
def test_a_summed_kernel_is_the_same_where_the_image_does_not_change_along_the_axis(here):
    constant = [axis for axis, k in zip(AXES, here, strict=True) if k == 1]
    image = noise(1, 3, *(1 if axis in constant else 6 for axis in AXES))
    image = image.expand(-1, -1, *(5 if axis in constant else 6 for axis in AXES))
    kernel = noise(2, 3, 3, 3, 3)
    found = adapted(kernel, (2, 3, *here))
    inside = image[tuple(slice(1, -1) if axis in constant else slice(None) for axis in range(5))]
    torch.testing.assert_close(F.conv3d(inside, found.tensor), F.conv3d(image, kernel))
    told = ", ".join("zyx"[axis - 2] for axis in constant)
    assert all(f"3 -> 1 along {told}: summed" in detail for detail in found.details)
    assert len(found.details) == bool(constant)


@settings(max_examples=25)
@given(there=STRIDES, here=STRIDES)
def test_an_upsampling_of_another_stride_gives_the_mean_or_the_nearest_of_what_it_gave(there, here):
    kernel, image = noise(3, 2, *there), noise(1, 3, 4, 5, 6)
    found = adapted(kernel, (3, 2, *here), kind=nn.ConvTranspose3d).tensor
    before = F.conv_transpose3d(image, kernel, stride=there)
    fewer = tuple(2 if (t, h) == (2, 1) else 1 for t, h in zip(there, here, strict=True))
    more = tuple(2.0 if (t, h) == (1, 2) else 1.0 for t, h in zip(there, here, strict=True))
    expected = F.interpolate(F.avg_pool3d(before, fewer), scale_factor=more, mode="nearest")
    torch.testing.assert_close(F.conv_transpose3d(image, found, stride=here), expected)


@settings(max_examples=25)
@given(there=st.tuples(COUNTS, COUNTS), here=st.tuples(COUNTS, COUNTS), transposed=st.booleans())
def test_of_other_numbers_of_features_the_first_are_theirs_and_the_rest_fresh(there, here, transposed):
    kind = nn.ConvTranspose3d if transposed else nn.Conv3d
    theirs, fresh = noise(*there, 2, 2, 2), noise(*here, 2, 2, 2, seed=1)
    found = adapt(theirs, fresh, kind(1, 1, 1))
    o, i = min(there[0], here[0]), min(there[1], here[1])
    assert torch.equal(found.tensor[:o, :i], theirs[:o, :i])
    assert torch.equal(found.tensor[o:], fresh[o:])
    assert torch.equal(found.tensor[:, i:], fresh[:, i:])
    assert found.fresh == fresh.numel() - o * i * 8
    both = list(zip(there, here, strict=True))
    assert ("fewer" in found.features) == any(h < t for t, h in both)
    assert ("more" in found.features) == any(h > t for t, h in both)
    assert bool(found.details) == (there != here)


@settings(max_examples=25)
@given(there=COUNTS, here=COUNTS)
def test_what_comes_from_below_and_the_skip_are_for_themselves(there, here):
    """Where the features that only one side has are silent, the layer answers as it did."""
    kernel, shared = noise(2, 2 * there, 3, 3, 3), min(there, here)
    below, skip = noise(1, shared, 4, 4, 4, seed=2), noise(1, shared, 4, 4, 4, seed=3)

    def joined(count):
        silent = torch.zeros(1, count - shared, 4, 4, 4, dtype=below.dtype)
        return torch.cat([below, silent, skip, silent], dim=1)

    found = adapted(kernel, (2, 2 * here, 3, 3, 3), joined=True)
    torch.testing.assert_close(F.conv3d(joined(here), found.tensor), F.conv3d(joined(there), kernel))
    assert (found.details == ()) == (there == here)


@pytest.mark.parametrize(("there", "here"), [(4, 2), (2, 4), (3, 3)])
def test_norms_and_biases_go_with_their_features(there, here):
    theirs, fresh = noise(there), noise(here, seed=1)
    found = adapt(theirs, fresh, nn.InstanceNorm3d(here, affine=True))
    assert torch.equal(found.tensor, torch.cat([theirs[:here], fresh[there:]]))
    assert found.fresh == max(0, here - there)


def test_several_differences_are_taken_one_after_the_other():
    theirs, fresh = noise(4, 1, 3, 3, 3), noise(2, 2, 1, 3, 3, seed=1)
    found = adapt(theirs, fresh, nn.Conv3d(1, 1, 1), mixing(["a", "b"], ["c"], 1))
    expected = theirs[:2].sum(dim=2, keepdim=True) / 2
    torch.testing.assert_close(found.tensor, expected.expand(-1, 2, -1, -1, -1))
    assert [detail.split()[0] for detail in found.details] == ["image", "kernel", "the"]
    assert found.fresh == 0


def test_weights_take_the_type_of_those_they_replace_and_leave_theirs_alone():
    theirs, fresh = noise(3, 2, 3, 3, 3).half(), torch.zeros(2, 2, 3, 3, 3)
    found = adapt(theirs, fresh, nn.Conv3d(1, 1, 1))
    assert found.tensor.dtype == torch.float32
    torch.testing.assert_close(found.tensor, theirs[:2].float())
    assert not fresh.any()


@pytest.mark.parametrize(
    ("theirs", "ours", "kind", "why"),
    [
        ((2, 2, 5, 5, 5), (2, 2, 3, 3, 3), nn.Conv3d, r"kernel of \(5, 5, 5\) in the checkpoint, of \(3, 3"),
        ((2, 2, 3, 3), (2, 2, 3, 3, 3), nn.Conv3d, r"shape \(2, 2, 3, 3\) in the checkpoint"),
        ((2, 2, 2, 2, 2), (2, 2, 1, 1, 1), nn.Conv3d, r"kernel of \(2, 2, 2\)"),
        ((2, 2, 3, 3, 3), (2, 2, 1, 1, 1), nn.ConvTranspose3d, r"kernel of \(3, 3, 3\)"),
        ((2, 2), (3, 2), nn.Conv3d, r"shape \(2, 2\)"),
    ],
)
def test_what_no_rule_can_adapt_is_told(theirs, ours, kind, why):
    with pytest.raises(Misfit, match=why):
        adapted(noise(*theirs), ours, kind=kind)
