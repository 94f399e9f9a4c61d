"""How often a view is changed in which way, and that all of it is to be restored."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from fewvox.data.augment.draws import Draws
from fewvox.data.settings import SettingsError, parse
from fewvox.ssl.methods.genesis import Genesis, GenesisConfig, corrupted
from fewvox.ssl.pretrain import reached_blocks
from torch import nn

OPERATIONS = ("shuffling", "curve", "in_painting", "out_painting")


@dataclass
class Recorder:
    """Stands for an operation: notes that it was called, and adds a number."""

    name: str
    probability: float
    called: list[str]

    def __call__(self, image: torch.Tensor, draws: Draws) -> torch.Tensor:
        assert 0 <= draws.numbers.random() < 1
        self.called.append(self.name)
        return image.add_(1)


def recorded(called: list[str], **probabilities: float) -> Any:
    """A configuration whose operations note their calls, as often as the defaults or as told."""
    usual = GenesisConfig()
    often = {name: probabilities.get(name, getattr(usual, name).probability) for name in OPERATIONS}
    return replace(usual, **{name: Recorder(name, p, called) for name, p in often.items()})


def only(name: str, **fields) -> GenesisConfig:
    """A configuration with one operation, always done."""
    usual = GenesisConfig()
    off = {n: replace(getattr(usual, n), probability=0.0) for n in OPERATIONS}
    return replace(usual, **off | {name: replace(off[name], probability=1.0, **fields)})


@pytest.fixture
def make_genesis(fresh_method, make_scope, painter):
    """The method on a fresh network, or on one that paints what it is told."""

    def make(config=None, paint=None) -> Genesis:
        config, scope = config or GenesisConfig(), make_scope(1)
        if paint is not None:
            return Genesis(painter(paint), nn.Identity(), config, scope)
        return fresh_method(Genesis, config, scope)

    return make


def test_defaults_are_the_probabilities_of_the_paper_s_code():
    config = GenesisConfig()
    paint_rate, outpaint_rate = 0.9, 0.8
    assert config.shuffling.probability == 0.5
    assert config.curve.probability == 0.9
    assert config.out_painting.probability == pytest.approx(paint_rate * outpaint_rate)
    assert config.in_painting.probability == pytest.approx(paint_rate * (1 - outpaint_rate))


def test_every_operation_is_done_as_often_as_it_is_told_and_paintings_never_both():
    called: list[str] = []
    config, view = recorded(called), torch.zeros(1, 2, 2, 2)
    kinds = []
    for seed in range(3000):
        called.clear()
        corrupted(view, config, Draws((seed,)))
        # in the order of the paper's code
        assert called == [name for name in OPERATIONS if name in called]
        kinds.append(tuple(called))
    counts = {name: sum(name in kind for kind in kinds) / 3000 for name in OPERATIONS}
    assert counts == pytest.approx(
        {"shuffling": 0.5, "curve": 0.9, "in_painting": 0.18, "out_painting": 0.72}, abs=0.03
    )
    assert not any("in_painting" in kind and "out_painting" in kind for kind in kinds)
    # drawn apart from each other
    assert sum("shuffling" in kind and "curve" in kind for kind in kinds) / 3000 == pytest.approx(
        0.45, abs=0.03
    )


def test_a_view_is_always_painted_over_where_the_probabilities_are_one_together():
    called: list[str] = []
    config = recorded(called, in_painting=0.4, out_painting=0.6, shuffling=0, curve=0)
    for seed in range(200):
        corrupted(torch.zeros(1, 2, 2, 2), config, Draws((seed,)))
    assert len(called) == 200


def test_operations_are_those_of_the_augmentation_one_after_the_other():
    view = torch.randn(2, 8, 12, 10, generator=torch.Generator().manual_seed(0))
    before = view.clone()
    for seed in range(8):
        config, draws = GenesisConfig(), Draws((seed,))
        expected = view.clone()
        if draws.chance(0.5):
            expected = config.shuffling(expected, draws)
        if draws.chance(0.9):
            expected = config.curve(expected, draws)
        painting = draws.numbers.uniform(0, 1)
        if painting < 0.9:
            expected = (config.in_painting if painting < 0.18 else config.out_painting)(expected, draws)
        assert torch.equal(corrupted(view, config, Draws((seed,))), expected)
    assert torch.equal(view, before)


def test_without_any_operation_a_view_is_given_as_it_is():
    view = torch.randn(1, 4, 4, 4)
    found = corrupted(view, recorded([], shuffling=0, curve=0, in_painting=0, out_painting=0), Draws((0,)))
    assert torch.equal(found, view)
    assert found.data_ptr() != view.data_ptr()


def test_the_network_is_shown_each_view_changed_in_its_own_way(make_genesis, make_views):
    method, batch = make_genesis(paint=lambda shown: shown), make_views(1)
    method(batch, 0)
    shown = [corrupted(v, GenesisConfig(), Draws((batch.seed, i))) for i, v in enumerate(batch.views[0])]
    assert torch.equal(method.network.shown, torch.stack(shown))
    # of the very same view too
    same = replace(batch, views=(batch.views[0][:1].expand(3, -1, -1, -1, -1),))
    method(same, 0)
    assert not torch.equal(method.network.shown[0], method.network.shown[1])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_loss_and_gradient_are_those_of_plain_loops_over_all_voxels(make_genesis, make_views, operation):
    """Voxels that were left alone count as well, in each channel."""
    batch = make_views(1, batch=2, extent=(2, 4, 2))
    painted = torch.randn(batch.views[0].shape, requires_grad=True)
    result = make_genesis(only(operation), paint=lambda shown: painted)(batch, 0)
    (gradient,) = torch.autograd.grad(result.loss, painted)
    pairs = list(zip(painted.flatten().tolist(), batch.views[0].flatten().tolist(), strict=True))
    assert float(result.loss.detach()) == pytest.approx(
        sum((p - v) ** 2 for p, v in pairs) / len(pairs), rel=1e-5
    )
    slopes = [2 * (p - v) / len(pairs) for p, v in pairs]
    assert gradient.flatten().tolist() == pytest.approx(slopes, rel=1e-4, abs=1e-7)


def test_a_copy_of_what_was_given_loses_what_the_log_says(make_genesis, make_views):
    batch = make_views(1)
    copied = make_genesis(paint=lambda shown: shown)(batch, 0)
    assert torch.equal(copied.loss, copied.logs["loss_of_a_copy"])
    assert float(copied.loss) > 0
    perfect = make_genesis(paint=lambda shown: batch.views[0])(batch, 0)
    assert float(perfect.loss) == float(perfect.logs["unexplained_variance"]) == 0
    mean = batch.views[0].mean()
    blank = make_genesis(paint=lambda shown: mean.expand(shown.shape))(batch, 0)
    assert float(blank.logs["unexplained_variance"]) == pytest.approx(1, abs=1e-5)


def test_a_flat_view_has_a_finite_loss_and_gradient(make_genesis, views_of, check_finite):
    found = check_finite(make_genesis(), views_of(torch.ones(2, 1, 4, 8, 4)))
    assert all(torch.isfinite(value) for value in found.logs.values())


def test_a_batch_s_own_seed_decides(make_genesis, make_views, check_seed_decides):
    check_seed_decides(make_genesis(), make_views(1))


def test_views_keep_their_grey_values(make_genesis):
    """An augmented view would be what is restored."""
    assert Genesis.views(GenesisConfig()).plain


def test_the_loss_reaches_encoder_and_decoder_wholly(make_genesis, make_views):
    assert reached_blocks(make_genesis(), make_views(1)) == ("encoder", "decoder")


def test_a_few_steps_restore_more_than_a_copy_of_what_is_given(make_genesis, views_of, train):
    """Stripes along y, of which windows are filled with noise."""
    stripes = torch.sin(1.5 * torch.arange(16.0)).view(1, 1, 1, 16, 1).expand(2, 1, 4, 16, 4)
    method = make_genesis(only("in_painting", windows=(3, 3)))
    results = train(method, lambda step: views_of(stripes, seed=step), 25, lr=1e-2)
    left = [float(result.loss / result.logs["loss_of_a_copy"]) for result in results]
    assert sum(left[-5:]) / 5 < 0.6


def test_what_is_not_said_of_an_operation_has_its_default():
    config = parse(
        GenesisConfig, {"out_painting": {"windows": [1, 2]}, "curve": {"probability": 0.3}}, "options"
    )
    assert config.out_painting.windows == (1, 2)
    assert config.out_painting.probability == 0.72
    assert config.curve.inversion_probability == GenesisConfig().curve.inversion_probability
    assert config.shuffling == GenesisConfig().shuffling


@pytest.mark.parametrize(
    "values",
    [
        {"curve": {"probability": 1.5}},
        {"in_painting": {"probability": 0.3}},
        {"out_painting": {"edge": [0.5, 2]}},
        {"painting": 0.9},
    ],
)
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        parse(GenesisConfig, values, "options")
