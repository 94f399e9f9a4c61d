"""What of a checkpoint goes into a network, and what is told of the rest."""

from dataclasses import replace

import pytest
import torch
from fewvox.data.labels import LabelTable
from fewvox.seg import checkpoint
from fewvox.seg.networks.registry import architecture_for, build
from fewvox.seg.transfer import TransferError, transfer

IMAGE = torch.randn(1, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
PARTS = ("encoder", "decoder", "output")


@pytest.fixture
def load_run(make_run):
    """A checkpoint of an untrained network of seed 1."""
    return lambda *args, **fields: checkpoint.load(make_run(*args, seed=1, **fields))


def fresh(plan):
    """A network of a seed that no checkpoint here has."""
    return build(architecture_for(plan), 2).eval()


def differing(network, plan):
    """Parts of which a tensor is not the fresh one (norms are 1 and 0 in every fresh network)."""
    before = fresh(plan).state_dict()
    return {n.split(".")[0] for n, t in network.state_dict().items() if not torch.equal(t, before[n])}


def test_the_same_network_takes_everything_and_gives_the_same_logits(load_run, make_plan):
    found, network = load_run(), fresh(make_plan())
    assert not torch.allclose(network(IMAGE), found.network().eval()(IMAGE))
    report = transfer(network, found, make_plan())
    torch.testing.assert_close(network(IMAGE), found.network().eval()(IMAGE), rtol=0, atol=0)
    assert all(t.loaded for t in report.tensors)
    assert [report.share(part) for part in PARTS] == [1, 1, 1]
    assert report.unused == ()
    assert {t.name for t in report.tensors} == set(network.state_dict())
    assert sum(t.parameters for t in report.tensors) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("values", [(0, 1), (0, 1, 3)])
def test_other_label_values_leave_the_output_fresh(load_run, make_plan, values):
    plan = make_plan(labels=LabelTable(values=values))
    network = fresh(plan)
    report = transfer(network, load_run(), plan)
    assert differing(network, plan) == {"encoder", "decoder"}
    assert [report.share(part) for part in PARTS] == [1, 1, 0]
    assert {t.reason for t in report.tensors if t.part == "output"} == {"its classes are others"}


def test_another_value_for_unannotated_voxels_leaves_the_classes_what_they_are(load_run, make_plan):
    plan = make_plan(labels=LabelTable(values=(0, 1, 2), ignore=255))
    assert transfer(fresh(plan), load_run(), plan).share("output") == 1


def test_overlapping_classes_do_not_take_the_output_of_others(load_run, make_plan):
    """Three channels both, but other questions: background, 1 and 2, and 1, 2 and 3."""
    plan = make_plan(labels=LabelTable(kind="overlapping", values=(0, 1, 2, 3)))
    network = fresh(plan)
    assert transfer(network, load_run(), plan).share("output") == 0
    assert differing(network, plan) == {"encoder", "decoder"}


@pytest.mark.parametrize("choice", ["encoder", "decoder"])
def test_a_chosen_part_is_all_that_is_loaded(load_run, make_plan, choice):
    network = fresh(make_plan())
    report = transfer(network, load_run(), make_plan(), choice)
    assert differing(network, make_plan()) == {choice}
    assert [report.share(part) for part in PARTS] == [float(part == choice) for part in PARTS]
    assert {t.reason for t in report.tensors if not t.loaded} == {"not chosen"}


def test_parts_that_no_loss_reached_are_not_loaded(load_run, make_plan):
    encoder_only = load_run(trained=("encoder",))
    network = fresh(make_plan())
    report = transfer(network, encoder_only, make_plan(), "encoder")
    assert differing(network, make_plan()) == {"encoder"}
    assert report.share("decoder") == 0
    with pytest.raises(TransferError, match="the checkpoint's loss did not reach it"):
        transfer(fresh(make_plan()), encoder_only, make_plan(), "both")


def test_a_pretrained_network_without_labels_gives_no_output(load_run, make_plan):
    pretrained = load_run(plan=make_plan(labels=None), trained=("encoder", "decoder"), method="mae")
    network = fresh(make_plan())
    report = transfer(network, pretrained, make_plan())
    assert differing(network, make_plan()) == {"encoder", "decoder"}
    assert report.source == "mae, 7 steps"


def test_another_width_is_an_error_that_names_the_shapes_and_loads_nothing(load_run, make_plan):
    plan = make_plan(width=3)
    network = fresh(plan)
    with pytest.raises(
        TransferError, match=r"shape \(2, 1, 3, 3, 3\) in the checkpoint, \(3, 1, 3, 3, 3\) here"
    ):
        transfer(network, load_run(), plan)
    assert differing(network, plan) == set()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "backbone."])
def test_names_with_a_prefix_are_an_error_and_not_random_weights(load_run, make_plan, prefix):
    found = load_run()
    renamed = replace(found, tensors={prefix + name: t for name, t in found.tensors.items()})
    network = fresh(make_plan())
    with pytest.raises(TransferError, match=r"(?s)0/\d+ tensors.*not in the checkpoint.*have no place"):
        transfer(network, renamed, make_plan())
    assert differing(network, make_plan()) == set()


def test_tensors_that_have_no_place_are_listed(load_run, make_plan):
    found = load_run()
    more = replace(found, tensors=found.tensors | {"head.weight": torch.zeros(2), "a.bias": torch.zeros(1)})
    report = transfer(fresh(make_plan()), more, make_plan())
    assert report.unused == ("a.bias", "head.weight")
    assert "2 tensors of the checkpoint have no place: a.bias, head.weight" in report.lines()[-1]


def test_one_small_tensor_may_be_missing_and_is_told(load_run, make_plan):
    plan = make_plan(width=8)
    found = load_run(plan=plan)
    name = "encoder.0.0.1.bias"
    fewer = replace(found, tensors={n: t for n, t in found.tensors.items() if n != name})
    report = transfer(fresh(plan), fewer, plan)
    assert [(t.name, t.reason) for t in report.tensors if not t.loaded] == [(name, "not in the checkpoint")]
    assert 0.99 < report.share("encoder") < 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"spacing": (2.0, 1.0, 1.01)}, r"spacing \(2.0, 1.0, 1.0\) mm, here \(2.0, 1.0, 1.01\) mm"),
        ({"spacing": None, "unit": None}, "spacing .*, here None"),
        ({"unit": "um"}, "spacing .* mm, here .* um"),
        ({"unit": None}, "spacing .* mm, here .* None"),
        ({"orientation": "stored"}, "orientation RAS, here stored"),
        ({"normalisation": ("minmax",)}, "normalisation .*zscore.*, here .*minmax"),
        ({"channels": ("a", "b")}, "channels"),
    ],
)
def test_other_preprocessing_is_an_error_that_names_it(load_run, make_plan, fields, message):
    plan = make_plan(**fields)
    network = fresh(plan)
    with pytest.raises(TransferError, match=message):
        transfer(network, load_run(), plan)
    assert differing(network, plan) == set()


@pytest.mark.parametrize(
    "fields",
    [
        {"unit": "um", "spacing": (2000.0, 1000.0, 1000.0)},
        {"spacing": (2.0, 1.0, 1.0005)},
        {"channels": ("another name",)},
    ],
)
def test_equal_preprocessing_told_otherwise_is_accepted(load_run, make_plan, fields):
    plan = make_plan(**fields)
    assert transfer(fresh(plan), load_run(), plan).share("encoder") == 1


def test_the_report_gives_tensors_parameters_and_shares_of_each_part(load_run, make_plan):
    lines = transfer(fresh(make_plan()), load_run(), make_plan(), "encoder").lines()
    assert lines[0] == "weights from supervised, 7 steps"
    # two levels of two convolutions with a norm each: 54 + 108 + 216 + 432 weights, 2 + 2 + 4 + 4 twice
    assert lines[1].strip() == "encoder  12/12 tensors, 834 of 834 parameters loaded (100.0%)"
    assert lines[2].split()[:2] == ["decoder", "0/7"]
    assert lines[3].strip() == "7 re-initialised: not chosen"


@pytest.fixture
def deep(make_plan):
    """A plan of three levels: two blocks in the decoder."""
    return make_plan(strides=((1, 2, 2), (1, 2, 2)))


def test_single_blocks_that_a_loss_reached_are_loaded_and_the_others_are_not(load_run, deep):
    network = fresh(deep)
    report = transfer(network, load_run(plan=deep, trained=("encoder", "decoder.0")), deep)
    before = fresh(deep).state_dict()
    moved = {n for n, t in network.state_dict().items() if not torch.equal(t, before[n])}
    assert {".".join(n.split(".")[:2]) for n in moved} == {"encoder.0", "encoder.1", "encoder.2", "decoder.0"}
    assert {t.name for t in report.tensors if t.loaded and t.part == "decoder"} == {
        n for n in before if n.startswith("decoder.0.")
    }
    reasons = {t.reason for t in report.tensors if t.part == "decoder" and not t.loaded}
    assert reasons == {"the checkpoint's loss did not reach it"}


def test_the_share_of_what_was_reached_does_not_count_the_rest(load_run, deep):
    report = transfer(fresh(deep), load_run(plan=deep, trained=("encoder", "decoder.0")), deep)
    of_block = [t.parameters for t in report.tensors if t.name.startswith("decoder.0.")]
    whole = [t.parameters for t in report.tensors if t.part == "decoder"]
    assert report.share("decoder") == pytest.approx(sum(of_block) / sum(whole))
    assert report.share("decoder", of_reached=True) == 1
    assert report.share("encoder") == report.share("encoder", of_reached=True) == 1
    # of the output nothing was reached: then all of it counts
    assert report.share("output", of_reached=True) == 0


def test_a_reached_block_that_does_not_fit_is_an_error_all_the_same(load_run, deep):
    found = load_run(plan=deep, trained=("encoder", "decoder.0"))
    fewer = replace(found, tensors={n: t for n, t in found.tensors.items() if not n.startswith("decoder.0.")})
    network = fresh(deep)
    with pytest.raises(TransferError, match="not in the checkpoint"):
        transfer(network, fewer, deep)
    assert differing(network, deep) == set()
