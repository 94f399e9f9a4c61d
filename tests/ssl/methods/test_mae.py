"""Which voxels are blanked, and that the loss and the network see no others than they should."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.data.settings import SettingsError, parse
from fewvox.ssl.method import Views
from fewvox.ssl.methods.mae import Mae, MaeConfig, random_mask
from fewvox.ssl.pretrain import reached_blocks
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

# the product of the architecture's strides
BLOCK = (2, 4, 2)


def mask_of(batch: Views, ratio=0.6, block=BLOCK) -> torch.Tensor:
    """What the method blanks of a batch."""
    generator = torch.Generator().manual_seed(batch.seed)
    z, y, x = batch.views[0].shape[2:]
    return random_mask(len(batch.cases), (z, y, x), block, ratio, generator)


def draw(extent, block, ratio, batch=3, seed=0) -> np.ndarray:
    return random_mask(batch, extent, block, ratio, torch.Generator().manual_seed(seed)).numpy()


@pytest.fixture
def make_mae(fresh_method, make_scope, painter):
    """The method on a fresh network, or on one that paints what it is told."""

    def make(paint=None, **fields) -> Mae:
        config = MaeConfig(**fields)
        if paint is not None:
            return Mae(painter(paint), nn.Identity(), config, make_scope(1))
        return fresh_method(Mae, config, make_scope(1))

    return make


small, sides = st.tuples(*[st.integers(1, 4)] * 3), st.tuples(*[st.integers(1, 11)] * 3)


@given(sides, small, st.floats(0.001, 0.999), st.integers(0, 2**32))
def test_the_same_number_of_whole_blocks_is_blanked_in_every_item(extent, block, ratio, seed):
    starts = [range(0, n, b) for n, b in zip(extent, block, strict=True)]
    blocks = math.prod(len(s) for s in starts)
    if blocks < 2:
        return
    mask = draw(extent, block, ratio, seed=seed)
    assert mask.shape == (3, 1, *extent)
    assert mask.dtype == bool
    expected = min(blocks - 1, max(1, round(ratio * blocks)))
    for item in mask[:, 0]:
        # a block over the border is cut off, and as whole as the others
        cut = [
            item[z : z + block[0], y : y + block[1], x : x + block[2]]
            for z in starts[0]
            for y in starts[1]
            for x in starts[2]
        ]
        assert all(c.all() or not c.any() for c in cut)
        assert sum(bool(c.all()) for c in cut) == expected


@pytest.mark.parametrize(("ratio", "masked"), [(0.001, 1), (0.25, 2), (0.5, 4), (0.6, 5), (0.999, 7)])
def test_one_block_is_always_blanked_and_one_left(ratio, masked):
    mask = draw((4, 8, 4), BLOCK, ratio)
    assert [item.sum() for item in mask] == [masked * 16] * 3


def test_items_and_seeds_have_masks_of_their_own():
    masks = [*draw((8, 16, 8), BLOCK, 0.6), *draw((8, 16, 8), BLOCK, 0.6, seed=1)]
    assert len({mask.tobytes() for mask in masks}) == 6
    np.testing.assert_array_equal(masks[:3], draw((8, 16, 8), BLOCK, 0.6))


def test_every_block_is_blanked_as_often():
    counts = draw((4, 8, 4), BLOCK, 0.6, batch=1000)[:, 0, ::2, ::4, ::2].sum(axis=0)
    assert counts.flatten().tolist() == pytest.approx([625] * 8, rel=0.1)


def test_a_view_of_one_block_is_refused(make_mae, make_views):
    with pytest.raises(UserError, match=r"block \(2, 4, 2\): .*\(2, 4, 2\) voxels is a single block"):
        make_mae()(make_views(1, extent=BLOCK), 0)
    with pytest.raises(UserError, match="single block"):
        draw((2, 3, 4), (4, 4, 4), 0.5)


def test_the_network_is_shown_the_view_without_the_masked_voxels(make_mae, make_views):
    method, batch = make_mae(paint=lambda shown: shown), make_views(1)
    method(batch, 0)
    mask, view = mask_of(batch), batch.views[0]
    assert (method.network.shown[mask] == 0).all()
    assert torch.equal(method.network.shown[~mask], view[~mask])


def test_the_loss_is_the_mean_square_over_masked_voxels_alone(make_mae, make_views):
    """What is painted over the others costs nothing."""
    batch = make_views(1)
    mask, view = mask_of(batch), batch.views[0]
    errors = [(0.5 - value) ** 2 for value in view[mask].tolist()]
    for beside in (0.0, 1e6):
        method = make_mae(paint=lambda shown, beside=beside: torch.where(mask, 0.5, beside))
        assert float(method(batch, 0).loss) == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    perfect = make_mae(paint=lambda shown: torch.where(mask, view, 1e6))(batch, 0)
    assert float(perfect.loss) == float(perfect.logs["unexplained_variance"]) == 0


def test_views_keep_their_grey_values():
    """He et al. 2022, table 1e: changed ones made it worse."""
    assert Mae.views(MaeConfig()).plain


def test_ratio_and_block_are_those_of_the_settings(make_mae, make_views):
    method, batch = make_mae(paint=lambda shown: shown, mask_ratio=0.25, block=(1, 2, 1)), make_views(1)
    method(batch, 0)
    hidden = method.network.shown == 0
    assert torch.equal(hidden, mask_of(batch, 0.25, (1, 2, 1)))
    assert hidden.float().mean() == 0.25


def test_a_batch_s_own_seed_decides_the_masks(make_mae, make_views, check_seed_decides):
    check_seed_decides(make_mae(), make_views(1))


def test_what_is_masked_changes_the_target_and_not_the_painting(make_mae, make_views):
    method, batch = make_mae(), make_views(1)
    painted = []
    method.head.register_forward_hook(lambda module, inputs, output: painted.append(output.detach()))
    mask = mask_of(batch)
    changed = replace(batch, views=(torch.where(mask, 3.0, batch.views[0]),))
    losses = [float(method(b, 0).loss.detach()) for b in (batch, changed)]
    assert torch.equal(*painted)
    assert losses[0] != losses[1]
    for b, loss in zip((batch, changed), losses, strict=True):
        errors = (painted[0] - b.views[0])[mask].double().square()
        assert loss == pytest.approx(errors.mean().item(), rel=1e-5)
    seen = replace(batch, views=(torch.where(mask, batch.views[0], 3.0),))
    method(seen, 0)
    assert not torch.equal(painted[0], painted[2])


def test_painting_the_mean_leaves_all_the_variance_unexplained(make_mae, make_views):
    batch = make_views(1, batch=1, extent=(8, 16, 8))
    shifted = replace(batch, views=(5 + 3 * batch.views[0],))
    mean = shifted.views[0][mask_of(batch)].mean()
    found = make_mae(paint=lambda shown: torch.full_like(shown, float(mean)))(shifted, 0)
    assert float(found.logs["unexplained_variance"]) == pytest.approx(1, abs=1e-4)
    # 0 is the mean of a z-scored volume
    blank = make_mae(paint=torch.zeros_like)(batch, 0)
    assert float(blank.logs["unexplained_variance"]) == pytest.approx(1, abs=0.02)


def test_a_flat_view_has_a_finite_loss_and_variance(make_mae, views_of):
    flat = views_of(torch.ones(2, 1, 4, 8, 4))
    found = make_mae()(flat, 0)
    assert torch.isfinite(found.loss)
    assert torch.isfinite(found.logs["unexplained_variance"])


def test_the_loss_reaches_encoder_and_decoder_wholly(make_mae, make_views):
    method, batch = make_mae(), make_views(1)
    assert reached_blocks(method, batch) == ("encoder", "decoder")
    method(batch, 0).loss.backward()
    gradients = {name: p.grad for name, p in method.network.named_parameters()}
    idle = [n for n, g in gradients.items() if not n.startswith("output.") and (g is None or g.norm() == 0)]
    assert idle == []


def test_a_few_steps_paint_a_pattern(make_mae, views_of, train):
    """Stripes of one phase for each item, the same along z: what is left tells what is masked."""
    phases = torch.tensor([0.0, 1.5])[:, None, None, None, None]
    stripes = torch.sin(1.5 * torch.arange(16.0).view(1, 1, 1, 16, 1) + phases).expand(2, 1, 4, 16, 4)
    method = make_mae(mask_ratio=0.3, block=(2, 2, 2))
    results = train(method, lambda step: views_of(stripes, seed=step), 40, lr=1e-2)
    losses = [float(result.loss) for result in results]
    assert sum(losses[-5:]) < sum(losses[:5]) / 3


@pytest.mark.parametrize(
    "values", [{"mask_ratio": 0}, {"mask_ratio": 1}, {"block": [0, 1, 1]}, {"ratio": 0.5}]
)
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        parse(MaeConfig, values, "options")
