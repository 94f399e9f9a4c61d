"""What it costs a network to leave the weights and features it started from."""

import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.seg.engine.schedules import ScheduleConfig
from fewvox.seg.keeping import KeepConfig, Keeper, check_encoder
from fewvox.seg.networks.registry import architecture_for, build
from fewvox.seg.transfer_report import TransferredTensor, TransferReport
from torch import nn

IMAGES = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network(make_plan):
    return build(architecture_for(make_plan()), 0)


def terms(network, keeper):
    return keeper.loss(network, IMAGES, network.encode(IMAGES))


def test_nothing_is_added_where_nothing_changed(network):
    keeper = Keeper(network, dict(network.named_parameters()), KeepConfig(l2sp=1, distillation=1))
    found = terms(network, keeper)
    assert {name: float(t.detach()) for name, t in found.items()} == {"loss/l2sp": 0, "loss/distillation": 0}


def test_weights_pull_back_to_where_they_came_from_and_others_do_not(network):
    name, other = "encoder.0.0.0.weight", "output.weight"
    keeper = Keeper(network, {name}, KeepConfig(l2sp=0.2))
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        parameters[name] += 0.5
        parameters[other] += 9
    (term,) = terms(network, keeper).values()
    term.backward()
    assert float(term.detach()) == pytest.approx(0.1 * 0.25 * parameters[name].numel())
    torch.testing.assert_close(parameters[name].grad, torch.full_like(parameters[name], 0.1))
    assert parameters[other].grad is None or not parameters[other].grad.any()


def test_features_that_are_doubled_cost_as_much_as_they_were(network):
    keeper = Keeper(network, (), KeepConfig(distillation=0.5))
    doubled = [2 * f for f in network.encode(IMAGES)]
    found = keeper.loss(network, IMAGES, doubled)
    assert float(found["loss/distillation"].detach()) == pytest.approx(0.5, rel=1e-4)


def test_the_teacher_does_not_learn_and_the_encoder_does(network):
    keeper = Keeper(network, (), KeepConfig(distillation=1))
    assert keeper.teacher is not None
    with torch.no_grad():
        network.encoder[0][0][0].weight += torch.randn_like(network.encoder[0][0][0].weight)
    terms(network, keeper)["loss/distillation"].backward()
    assert network.encoder[0][0][0].weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in keeper.teacher.parameters())


def test_what_is_kept_is_in_no_state(network):
    class Task(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network
            self.keeper = Keeper(network, (), KeepConfig(distillation=1))

    assert set(Task().state_dict()) == {f"network.{name}" for name in network.state_dict()}


def report_of(*states, fresh=0):
    """A report in which tensor n of so many is in level n of the encoder, and the output is random."""
    tensors = [
        TransferredTensor(name=f"encoder.{n}.0", part="encoder", parameters=4, state=state, fresh=fresh)
        for n, state in enumerate(states)
    ]
    output = TransferredTensor(name="output.bias", part="output", parameters=1, state="re-initialised")
    return TransferReport(
        source="mae", source_hash="", kind="fewvox", choice="both", tensors=(*tensors, output), unused=()
    )


FROZEN, TEACHER = (
    (KeepConfig(), ScheduleConfig(name="frozen")),
    (KeepConfig(distillation=1), ScheduleConfig()),
)


@pytest.mark.parametrize(
    ("settings", "named"), [(FROZEN, "schedule.name=frozen"), (TEACHER, "keep.distillation")]
)
def test_an_encoder_in_which_a_level_is_random_is_not_kept(settings, named):
    found = report_of("loaded", "adapted", "re-initialised", "re-initialised")
    with pytest.raises(UserError, match=rf"{named}: encoder\.2-3 did not arrive.*leave {named} out"):
        check_encoder(found, *settings)
    whole = report_of("loaded", "adapted")
    assert check_encoder(whole, *settings) == whole


def test_features_that_begin_at_random_are_kept_with_a_warning():
    found = report_of("adapted", "adapted", fresh=1)
    for settings in (FROZEN, TEACHER):
        (warning,) = check_encoder(found, *settings).warnings
        assert "encoder.0-1 that begin at random" in warning


def test_an_encoder_that_learns_freely_may_be_random():
    found = report_of("re-initialised", "adapted", fresh=1)
    for schedule in (ScheduleConfig(name="sawtooth"), ScheduleConfig()):
        assert check_encoder(found, KeepConfig(l2sp=1), schedule) == found
