"""What is masked is gone, all else is as it was: against plain loops over voxels."""

import itertools

import numpy as np
import pytest
import torch
from fewvox.data.augment.blocks import as_slices, draw_blocks
from fewvox.data.augment.draws import Draws
from fewvox.data.augment.masking import Cutout, InPainting, OutPainting, fill_blocks, keep_blocks
from fewvox.data.settings import SettingsError, checked

SHAPES = [(7, 9, 8), (1, 12, 10), (1, 1, 1)]
OPERATIONS = [
    Cutout(),
    Cutout(fill="noise"),
    InPainting(),
    InPainting(fill="mean"),
    OutPainting(),
    OutPainting(fill="mean"),
]
BLOCKS = [(slice(0, 2), slice(3, 9), slice(1, 4)), (slice(1, 5), slice(2, 4), slice(3, 4))]


def image(shape=(7, 9, 8)) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(5, 1, size=(2, *shape)).astype(np.float32))


def inside(shape, blocks) -> torch.Tensor:
    """Which voxels lie in a block, one by one."""
    mask = torch.zeros(shape, dtype=torch.bool)
    for place in itertools.product(*(range(n) for n in shape)):
        mask[place] = any(all(s.start <= i < s.stop for i, s in zip(place, b, strict=True)) for b in blocks)
    return mask


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: f"{o.op}-{o.fill}")
def test_it_is_a_plain_loop_over_the_blocks_that_are_drawn(operation, shape):
    count = operation.blocks if operation.op == "cutout" else operation.windows
    draws = Draws((4,))
    blocks = as_slices(draw_blocks(shape, draws.integer(*count), operation.edge, draws))
    masked = inside(shape, blocks) ^ (operation.op == "out_painting")
    before = image(shape)
    after = operation(before.clone(), Draws((4,)))
    assert torch.equal(after[:, ~masked], before[:, ~masked])
    if operation.fill == "mean":
        assert (after[:, masked] == 0).all()
    else:
        assert (after[:, masked] != before[:, masked]).all()
        # noise of mean 0 beside grey values around 5
        assert (after[:, masked] < 4).all()


@pytest.mark.parametrize("fill", ["mean", "noise"])
def test_fixed_blocks_are_filled_or_kept_exactly(fill):
    before, mask = image(), inside((7, 9, 8), BLOCKS)
    for change, masked in ((fill_blocks, mask), (keep_blocks, ~mask)):
        after = change(before.clone(), BLOCKS, fill, Draws((0,)))
        assert torch.equal(after[:, ~masked], before[:, ~masked])
        assert ((after == before).all(0) == ~masked).all()


def test_noise_is_normal_and_of_each_channel_its_own():
    noise = keep_blocks(torch.zeros(2, 20, 30, 30), [], "noise", Draws((0,)))
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert np.corrcoef(noise.flatten(1).numpy())[0, 1] == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: f"{o.op}-{o.fill}")
def test_the_same_draws_give_the_same_image_whatever_the_global_state(operation):
    torch.manual_seed(1)
    one = operation(image(), Draws((1, 2)))
    torch.manual_seed(2)
    np.random.seed(2)
    assert torch.equal(one, operation(image(), Draws((1, 2))))
    assert not torch.equal(one, operation(image(), Draws((1, 3))))


@pytest.mark.parametrize(
    "values",
    [{"edge": (0.4, 0.1)}, {"edge": (0.1, 1.5)}, {"blocks": (0, 3)}, {"fill": "black"}, {"probability": 2}],
)
def test_settings_have_limits(values):
    with pytest.raises(SettingsError):
        checked(Cutout(**values), "cutout")
