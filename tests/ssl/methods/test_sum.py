"""A sum is its parts, each on its own views of the shared ones, over one network that is stored once."""

import copy
from dataclasses import replace

import pytest
import torch
from fewvox.data.settings import SettingsError, parse, plain, settings
from fewvox.ssl.method import METHODS, Method, PretextResult, Registered, ViewSpec
from fewvox.ssl.methods.mae import Mae, MaeConfig
from fewvox.ssl.methods.sum import PartConfig, Sum, SumConfig, parts_of, union
from fewvox.ssl.methods.triplet import Triplet, TripletConfig
from fewvox.ssl.pretrain import reached_blocks
from torch import nn

MAE = {"mask_ratio": 0.5, "block": [2, 2, 2]}
TRIPLET = {"hidden": 16, "dimension": 8, "margin": 0.3}


def summed(**parts) -> SumConfig:
    """A sum of parts, each a weight and options."""
    said = {name: {"weight": weight, "options": options} for name, (weight, options) in parts.items()}
    return parse(SumConfig, {"methods": said}, "options")


BOTH = summed(mae=(2.0, MAE), triplet=(0.5, TRIPLET))


@pytest.fixture
def make_sum(fresh_method, make_scope):
    """The method on a fresh network."""

    def make(config: SumConfig = BOTH) -> Sum:
        return fresh_method(Sum, config, make_scope(Sum.views(config).count))

    return make


@settings
class SpyConfig:
    """Views that a spy asks for, and whether it has a teacher and embeddings."""

    views: tuple[int, int] = (1, 0)
    teacher: bool = False
    resting: float | None = None


class Spy(Method):
    """Notes what it is given."""

    source = "nobody"

    def __init__(self, network, head, config, scope):
        super().__init__(network, head, config, scope)
        self.teacher = copy.deepcopy(network) if config.teacher else None
        self.seen, self.steps = [], []

    @staticmethod
    def views(config):
        return ViewSpec(global_views=config.views[0], local_views=config.views[1])

    @staticmethod
    def heads(scope, config):
        return nn.Linear(len(scope.shapes), 1)

    def forward(self, batch, step):
        self.seen.append(batch)
        loss = self.network(batch.views[0]).mean()
        return PretextResult(loss=loss, logs={"views": torch.tensor(len(batch.views))}, embeddings=None)

    def after_step(self, step):
        self.steps.append(step)

    def resting_loss(self):
        return self.config.resting

    def exported_network(self):
        return self.teacher or self.network


class Embedding(Spy):
    """The same, with embeddings of its own."""

    embeds = True

    def forward(self, batch, step):
        return replace(super().forward(batch, step), embeddings=self.embed(batch.views[0]))

    def embed(self, view):
        return view.flatten(1)[:, :5]


@pytest.fixture
def spies(monkeypatch):
    """Methods "one", "two" and "three"; the last has embeddings of its own."""
    for name, kind in (("one", Spy), ("two", Spy), ("three", Embedding)):
        monkeypatch.setitem(METHODS, name, Registered(method=kind, config=SpyConfig))


def test_loss_and_gradient_are_the_weighted_sum_of_the_methods_own(
    make_sum, make_views, make_scope, fresh_method
):
    method, batch = make_sum(), make_views()
    method(batch, 0).loss.backward()
    expected = {name: torch.zeros_like(p) for name, p in method.network.named_parameters()}
    total = 0.0
    alone = {"mae": (2.0, Mae, MaeConfig, MAE, 1), "triplet": (0.5, Triplet, TripletConfig, TRIPLET, 2)}
    for name, (weight, kind, settings_of, options, views) in alone.items():
        one = fresh_method(kind, parse(settings_of, options, "options"), make_scope(views))
        one.head.load_state_dict(method.head[name].state_dict())
        result = one(replace(batch, views=batch.views[:views], maps=batch.maps[:views]), 0)
        (weight * result.loss).backward()
        total += weight * float(result.loss.detach())
        for tensor, p in one.network.named_parameters():
            if p.grad is not None:
                expected[tensor] += p.grad
        for tensor, p in one.head.named_parameters():
            torch.testing.assert_close(
                method.head[name].get_parameter(tensor).grad, p.grad, rtol=1e-5, atol=1e-8
            )
        logs = method(batch, 0).logs
        assert float(logs[f"{name}/loss"]) == pytest.approx(float(result.loss.detach()), rel=1e-5)
        assert {f"{name}/{key}" for key in result.logs} <= set(logs)
    assert float(method(batch, 0).loss.detach()) == pytest.approx(total, rel=1e-5)
    for tensor, p in method.network.named_parameters():
        found = torch.zeros_like(p) if p.grad is None else p.grad
        torch.testing.assert_close(found, expected[tensor], rtol=1e-4, atol=1e-7)


def test_a_sum_of_one_part_is_that_method(make_sum, make_views, make_scope, fresh_method):
    """The same draws, the same loss, to the last bit."""
    method, batch = make_sum(summed(mae=(1.0, MAE))), make_views(1)
    config = parse(MaeConfig, MAE, "options")
    one = fresh_method(Mae, config, make_scope(1))
    assert torch.equal(method(batch, 0).loss, one(batch, 0).loss)
    assert Sum.views(summed(mae=(1.0, MAE))) == Mae.views(config)


def test_every_tensor_is_stored_once(make_sum):
    method = make_sum()
    state = method.state_dict()
    assert len({t.data_ptr() for t in state.values() if t.numel()}) == len(
        [t for t in state.values() if t.numel()]
    )
    assert {name.split(".")[0] for name in state} == {"network", "head"}
    assert len(state) == len(method.network.state_dict()) + len(method.head.state_dict())
    assert {name.split(".")[1] for name in state if name.startswith("head.")} == {"mae", "triplet"}


def test_a_part_s_own_state_is_stored_beside_the_heads(spies, make_sum):
    state = make_sum(summed(one=(1.0, {"teacher": True}), two=(1.0, {}))).state_dict()
    assert "parts.one.teacher.encoder.0.0.0.weight" in state
    assert not any(name.startswith(("parts.two", "parts.one.network", "parts.one.head")) for name in state)


def test_a_copy_has_a_network_of_its_own_that_its_parts_share(make_sum, make_views):
    method = make_sum()
    other = copy.deepcopy(method)
    assert other.parts["mae"].network is other.network is not method.network
    assert other.parts["triplet"].head is other.head["triplet"]
    assert reached_blocks(method, make_views()) == ("encoder", "decoder")
    assert all(p.grad is None for p in method.parameters())


def test_training_and_evaluation_reach_every_part(make_sum):
    method = make_sum().eval()
    assert not any(module.training for module in method.modules())
    assert all(module.training for module in method.train().modules())


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        ([ViewSpec(), ViewSpec(local_views=1, volumes=2)], ViewSpec(local_views=1, volumes=2, times=2)),
        (
            [ViewSpec(global_views=2), ViewSpec(local_views=3)],
            ViewSpec(global_views=2, local_views=3, times=2),
        ),
        ([ViewSpec(upright=True), ViewSpec(plain=True)], ViewSpec(upright=True, plain=True, times=2)),
        ([ViewSpec(volumes=4), ViewSpec(volumes=3)], ViewSpec(volumes=4, times=2)),
    ],
)
def test_the_views_are_those_that_any_part_needs(specs, expected):
    assert union(specs) == union(specs[::-1]) == expected
    assert union(specs[:1]) == specs[0]


def test_each_part_is_given_the_first_of_each_kind_of_view(spies, make_sum, make_views):
    config = summed(one=(1.0, {"views": [2, 1]}), two=(1.0, {"views": [1, 2]}), three=(1.0, {}))
    assert Sum.views(config) == ViewSpec(global_views=2, local_views=2, times=3)
    method, batch = make_sum(config), make_views(4, seed=7)
    batch = replace(batch, maps=tuple(m + v for v, m in enumerate(batch.maps)))
    method(batch, 0)
    for name, numbers in {"one": (0, 1, 2), "two": (0, 2, 3), "three": (0,)}.items():
        part = method.parts[name]
        (seen,) = part.seen
        assert [s is batch.views[v] for s, v in zip(seen.views, numbers, strict=True)] == [True] * len(
            numbers
        )
        assert [torch.equal(s, batch.maps[v]) for s, v in zip(seen.maps, numbers, strict=True)] == [
            True
        ] * len(numbers)
        assert (seen.cases, seen.seed) == (batch.cases, batch.seed)
        assert len(part.scope.shapes) == len(numbers) == part.head.in_features
        assert (part.scope.cases, part.scope.steps) == (method.scope.cases, method.scope.steps)


def test_views_of_another_extent_keep_their_shapes(spies, make_scope):
    config = summed(one=(1.0, {"views": [2, 1]}), two=(1.0, {"views": [1, 1]}))
    scope = replace(make_scope(3), shapes=((8, 8, 8), (8, 8, 8), (4, 4, 4)))
    assert parts_of(config)["two"].scope(scope).shapes == ((8, 8, 8), (4, 4, 4))


def test_what_follows_a_step_follows_in_every_part(spies, make_sum):
    method = make_sum(summed(one=(1.0, {}), two=(1.0, {})))
    method.after_step(3)
    method.after_step(4)
    assert [method.parts[name].steps for name in ("one", "two")] == [[3, 4], [3, 4]]


def test_the_first_part_with_a_teacher_says_what_is_kept(spies, make_sum):
    teacher = {"teacher": True}
    method = make_sum(summed(one=(1.0, {}), two=(1.0, teacher), three=(1.0, teacher)))
    assert method.exported_network() is method.parts["two"].teacher
    shared = make_sum()
    assert shared.exported_network() is shared.network


def test_embeddings_are_those_of_the_first_part_that_has_some(spies, make_sum, make_views):
    method, batch = make_sum(summed(one=(1.0, {}), three=(1.0, {}))), make_views(1)
    expected = batch.views[0].flatten(1)[:, :5]
    assert torch.equal(method.embed(batch.views[0]), expected)
    assert torch.equal(method(batch, 0).embeddings, expected)
    without = make_sum(summed(one=(1.0, {}), two=(1.0, {})))
    # pooled features of the decoder: mean and deviation of 8 and 4 features
    assert without.embed(batch.views[0]).shape == (3, 24)
    assert without(batch, 0).embeddings is None
    assert (method.embeds, without.embeds) == (True, False)


def test_it_rests_where_all_of_its_parts_do(spies, make_sum):
    rests = make_sum(summed(one=(2.0, {"resting": 0.5}), two=(10.0, {"resting": 0.0})))
    assert rests.resting_loss() == 1.0
    assert make_sum(summed(one=(2.0, {"resting": 0.5}), two=(1.0, {}))).resting_loss() is None


def test_the_mistakes_of_all_parts_are_told_together_under_the_keys_that_were_typed():
    said = {
        "mae": {"weight": -1, "options": {"mask_ratio": 3, "ratio": 1}},
        "triplet": {"options": {"margin": 9, "dimension": "x"}, "wait": 1},
        "nosuch": {},
    }
    with pytest.raises(SettingsError) as error:
        parse(SumConfig, {"methods": said}, "options")
    told = str(error.value)
    for key in (
        "'methods.mae.weight' is -1",
        "'methods.mae.options.mask_ratio' is 3",
        "unknown key 'methods.mae.options.ratio'",
        "'methods.triplet.options.margin' is 9",
        "'methods.triplet.options.dimension' is 'x'",
        "unknown key 'methods.triplet.wait'",
        "'methods.nosuch' is 'nosuch': no such method; There are: ",
    ):
        assert key in told


@pytest.mark.parametrize(
    "methods", [{}, [], "mae", {"mae": 3}, {"mae": {"options": 3}}, {"mae": {"weight": 0}}]
)
def test_what_is_no_sum_of_methods_is_refused(methods):
    with pytest.raises(SettingsError, match="methods"):
        parse(SumConfig, {"methods": methods}, "options")


def test_options_are_written_in_full_and_in_their_order():
    config = summed(triplet=(0.1, {"margin": 0.4}), mae=(1.0, {}))
    written = plain(config)["methods"]
    assert list(written) == ["triplet", "mae"]
    assert written["triplet"]["options"] == plain(TripletConfig(margin=0.4))
    assert written["mae"] == {"weight": 1.0, "options": plain(MaeConfig())}
    assert parse(SumConfig, plain(config), "options") == config


def test_what_is_written_is_the_whole_sum():
    assert list(SumConfig().methods) == ["mae", "triplet"]
    assert list(parse(SumConfig, {"methods": {"mae": {}}}, "options").methods) == ["mae"]
    # as it is built in Python, without the options in full
    built = SumConfig(methods={"mae": PartConfig(weight=3.0, options={"mask_ratio": 0.4})})
    assert parts_of(built)["mae"].config == MaeConfig(mask_ratio=0.4)
    assert parts_of(built)["mae"].weight == 3


def test_a_few_steps_lower_every_part(make_sum, train, noisy):
    waves = torch.stack([torch.sin(torch.arange(8) * w) for w in (0.4, 0.9, 1.7)])
    clean = (waves[:, None, :, None] * torch.ones(1, 4, 1, 4))[:, None]
    method = make_sum(summed(mae=(1.0, MAE), triplet=(1.0, TRIPLET)))
    logs = [result.logs for result in train(method, lambda step: noisy(clean, 0.2, step), 40, lr=5e-3)]
    for name in ("mae/loss", "triplet/loss"):
        first, last = (sum(float(line[name]) for line in part) for part in (logs[:8], logs[-8:]))
        assert last < 0.7 * first, name
