"""What of a source goes into a network, and what is told of the rest."""

import math
import random
from dataclasses import replace

import pytest
import torch
from fewvox.data.labels import LabelTable
from fewvox.seg import checkpoint, probe
from fewvox.seg.networks.registry import architecture_for, build
from fewvox.seg.probe import BlockProbe, Probe
from fewvox.seg.source import Contract, source_of
from fewvox.seg.transfer import TransferError, transfer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

IMAGE = torch.randn(1, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
PARTS = ("encoder", "decoder", "output")
CUBE, FLAT = (2, 2, 2), (1, 2, 2)


@pytest.fixture
def load_run(make_run):
    """A checkpoint of an untrained network of seed 1."""
    return lambda *args, **fields: checkpoint.load(make_run(*args, seed=1, **fields))


@pytest.fixture
def load_source(load_run):
    """The same as a source, whose tensors are all of random values (fresh norms are 1 and 0 everywhere)."""

    def load(*args, probe=None, **fields):
        source = source_of(load_run(*args, **fields))
        draws = torch.Generator().manual_seed(3)
        tensors = {n: torch.randn(t.shape, generator=draws) for n, t in sorted(source.tensors.items())}
        return replace(source, tensors=tensors, probe=probe)

    return load


def fresh(plan):
    """A network of a seed that no source here has."""
    return build(architecture_for(plan), 2).eval()


def network_of(source):
    """The network that a source is of."""
    network = build(source.architecture).eval()
    network.load_state_dict(source.tensors)
    return network


def take(network, source, plan, **how):
    """What the transfer into a network of the plan reports."""
    return transfer(network, architecture_for(plan), source, plan, **how)


def differing(network, plan):
    """Blocks of which a tensor is not the fresh one."""
    before = fresh(plan).state_dict()
    changed = {n for n, t in network.state_dict().items() if not torch.equal(t, before[n])}
    return {n.rpartition(".")[0] if n.startswith("output") else ".".join(n.split(".")[:2]) for n in changed}


def blocks_of(plan, *parts):
    """Names of the blocks of these parts."""
    levels = len(plan.training.strides) + 1
    numbers = {"encoder": levels, "decoder": levels - 1}
    return {f"{p}.{i}" for p in parts if p != "output" for i in range(numbers[p])} | ({"output"} & {*parts})


def details(report, state="re-initialised"):
    """What is told of tensors of a state, by block."""
    return {(".".join(t.name.split(".")[:2]), t.detail) for t in report.tensors if t.state == state}


def shares(report):
    return [report.share(part) for part in PARTS]


def test_the_same_network_takes_everything_and_gives_the_same_logits(load_source, make_plan):
    source, network = load_source(), fresh(make_plan())
    assert not torch.allclose(network(IMAGE), network_of(source)(IMAGE))
    report = take(network, source, make_plan())
    torch.testing.assert_close(network(IMAGE), network_of(source)(IMAGE), rtol=0, atol=0)
    assert {(t.state, t.detail, t.source == t.name) for t in report.tensors} == {("loaded", "", True)}
    assert (shares(report), report.unused, report.warnings) == ([1, 1, 1], (), ())
    assert [t.name for t in report.tensors] == list(network.state_dict())
    assert sum(t.parameters for t in report.tensors) == sum(p.numel() for p in network.parameters())
    assert (report.source, report.kind, report.choice) == ("supervised, 7 steps", "fewvox", "both")


def test_what_is_built_on_the_way_does_not_touch_the_generator(load_source, make_plan):
    source, network = load_source(plan=make_plan(width=3)), fresh(make_plan())
    before = torch.random.get_rng_state()
    take(network, source, make_plan())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("values", [(0, 1), (0, 1, 3)])
def test_other_label_values_leave_the_output_fresh(load_source, make_plan, values):
    plan = make_plan(labels=LabelTable(values=values))
    network = fresh(plan)
    report = take(network, load_source(), plan)
    assert differing(network, plan) == blocks_of(plan, "encoder", "decoder")
    assert shares(report) == [1, 1, 0]
    assert {why for _, why in details(report)} == {"its classes are others"}


def test_another_value_for_unannotated_voxels_leaves_the_classes_what_they_are(load_source, make_plan):
    plan = make_plan(labels=LabelTable(values=(0, 1, 2), ignore=255))
    assert take(fresh(plan), load_source(), plan).share("output") == 1


def test_overlapping_classes_do_not_take_the_output_of_others(load_source, make_plan):
    """Three channels both, but other questions: background, 1 and 2, and 1, 2 and 3."""
    plan = make_plan(labels=LabelTable(kind="overlapping", values=(0, 1, 2, 3)))
    network = fresh(plan)
    assert take(network, load_source(), plan).share("output") == 0
    assert differing(network, plan) == blocks_of(plan, "encoder", "decoder")


@pytest.mark.parametrize(
    ("load", "blocks"),
    [
        ("encoder", {"encoder.0", "encoder.1", "encoder.2"}),
        ("decoder", {"decoder.0", "decoder.1"}),
        ("both", {"encoder.0", "encoder.1", "encoder.2", "decoder.0", "decoder.1", "output"}),
        (("encoder", "decoder"), {"encoder.0", "encoder.1", "encoder.2", "decoder.0", "decoder.1"}),
        (("output",), {"output"}),
        (("encoder.1", "decoder.0"), {"encoder.1", "decoder.0"}),
    ],
)
def test_what_is_chosen_is_all_that_is_loaded(load_source, deep, load, blocks):
    network = fresh(deep)
    report = take(network, load_source(plan=deep), deep, load=load)
    assert differing(network, deep) == blocks
    assert {why for _, why in details(report)} <= {"not chosen"}
    assert report.choice == load
    assert report.unused == ()


@pytest.mark.parametrize("load", [("decoder.7",), ("encoder", "head"), ()])
def test_a_choice_that_the_network_does_not_have_lists_its_blocks(load_source, deep, load):
    with pytest.raises(TransferError, match=r"blocks encoder\.0-2, decoder\.0-1, output"):
        take(fresh(deep), load_source(plan=deep), deep, load=load)


def test_a_network_of_one_level_has_no_decoder_to_wait_for(load_source, make_plan):
    plan = make_plan(strides=())
    assert shares(take(fresh(plan), load_source(plan=plan), plan)) == [1, 1, 1]
    with pytest.raises(TransferError, match="there is no decoder"):
        take(fresh(plan), load_source(plan=plan, name="b"), plan, load="decoder")


def test_an_output_that_is_named_and_cannot_be_taken_is_an_error(load_source, make_plan):
    plan = make_plan(labels=LabelTable(values=(0, 1)))
    with pytest.raises(TransferError, match=r"(?s)fits the output.*its classes are others"):
        take(fresh(plan), load_source(), plan, load=("encoder", "output"))


def test_parts_that_no_loss_reached_are_not_loaded(load_source, make_plan):
    encoder_only, plan = load_source(trained=("encoder",)), make_plan()
    network = fresh(plan)
    report = take(network, encoder_only, plan, load="encoder")
    assert differing(network, plan) == blocks_of(plan, "encoder")
    assert report.share("decoder") == 0
    # both are what there is, and it is told; the decoder by its name is asked for
    everything = take(fresh(plan), encoder_only, plan)
    assert (everything.share("encoder"), everything.share("decoder")) == (1, 0)
    assert any("only 0.0% of the decoder's parameters" in warning for warning in everything.warnings)
    with pytest.raises(TransferError, match="the checkpoint's loss did not reach it"):
        take(fresh(plan), encoder_only, plan, load="decoder")


def test_a_pretrained_network_without_labels_gives_no_output(load_source, make_plan):
    pretrained = load_source(plan=make_plan(labels=None), trained=("encoder", "decoder"), method="mae")
    network = fresh(make_plan())
    report = take(network, pretrained, make_plan())
    assert differing(network, make_plan()) == blocks_of(make_plan(), "encoder", "decoder")
    assert report.source == "mae, 7 steps"


@pytest.fixture
def deep(make_plan):
    """A plan of three levels: two blocks in the decoder."""
    return make_plan(strides=((1, 2, 2), (1, 2, 2)))


def test_single_blocks_that_a_loss_reached_are_loaded_and_the_others_are_not(load_source, deep):
    network = fresh(deep)
    report = take(network, load_source(plan=deep, trained=("encoder", "decoder.0")), deep)
    assert differing(network, deep) == blocks_of(deep, "encoder") | {"decoder.0"}
    reasons = {why for block, why in details(report) if block != "output"}
    assert reasons == {"the checkpoint's loss did not reach it"}


def test_blocks_reached_are_those_of_the_source_where_the_levels_differ(load_source, deep, make_plan):
    """With a level less here, its decoder.1 is our decoder.0."""
    plan = make_plan(strides=(FLAT,))
    network = fresh(plan)
    report = take(network, load_source(plan=deep, trained=("encoder", "decoder.1")), plan)
    assert report.share("decoder") == 1
    with pytest.raises(TransferError, match="did not reach it"):
        take(network, load_source(plan=deep, name="b", trained=("encoder", "decoder.0")), plan)


def test_a_reached_block_that_does_not_fit_is_an_error_all_the_same(load_source, deep):
    found = load_source(plan=deep, trained=("encoder", "decoder.0"))
    fewer = replace(found, tensors={n: t for n, t in found.tensors.items() if not n.startswith("decoder.0.")})
    network = fresh(deep)
    with pytest.raises(TransferError, match="not in the checkpoint"):
        take(network, fewer, deep)
    assert differing(network, deep) == set()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "backbone.", "encoder."])
def test_names_with_a_prefix_are_an_error_and_not_random_weights(load_source, make_plan, prefix):
    found = load_source()
    renamed = replace(found, tensors={prefix + name: t for name, t in found.tensors.items()})
    network = fresh(make_plan())
    with pytest.raises(TransferError, match=r"(?s)16 re-initialised.*not in the checkpoint.*have no place"):
        take(network, renamed, make_plan())
    assert differing(network, make_plan()) == set()


@pytest.mark.parametrize("seed", range(4))
def test_weights_under_names_that_are_not_theirs_are_an_error(load_source, make_plan, seed):
    """Features may be cut and kernels summed, but not of a tensor that is none such in its own network."""
    found, plan = load_source(plan=make_plan(width=3)), make_plan(width=4)
    names = list(found.tensors)
    random.Random(seed).shuffle(names)
    shuffled = replace(found, tensors=dict(zip(names, found.tensors.values(), strict=True)))
    network = fresh(plan)
    with pytest.raises(TransferError, match="too little of it fits"):
        take(network, shuffled, plan)
    assert differing(network, plan) == set()


def test_a_tensor_that_is_none_such_in_its_own_network_is_not_adapted(load_source, make_plan):
    """Its features could be cut, but then it is not what its name says."""
    found, plan, name = load_source(), make_plan(), "encoder.1.0.1.bias"
    other = replace(found, tensors=found.tensors | {name: torch.ones(5)})
    network = fresh(plan)
    report = take(network, other, plan, expected_share=0.9)
    assert details(report) == {("encoder.1", "shape (5,), of its own network (4,)")}
    assert not network.state_dict()[name].any()


def test_an_error_shows_both_architectures_and_the_ways_out(load_source, make_plan):
    found, plan = load_source(), make_plan(strides=(FLAT, CUBE))
    with pytest.raises(TransferError) as error:
        take(fresh(plan), replace(found, tensors={}), plan)
    text = str(error.value)
    assert "here:  unet of 1 image channels, features (2, 4, 8)" in text
    assert "strides ((1, 2, 2), (2, 2, 2))" in text
    assert "there: unet of 1 image channels, features (2, 4)" in text
    assert all(way in text for way in ("--set load=", "--set expected_share=", "--from-checkpoint"))


def test_tensors_that_have_no_place_are_listed(load_source, make_plan):
    found = load_source()
    more = replace(found, tensors=found.tensors | {"head.weight": torch.zeros(2), "a.bias": torch.zeros(1)})
    report = take(fresh(make_plan()), more, make_plan())
    assert report.unused == ("a.bias", "head.weight")
    assert "  2 tensors of the checkpoint have no place here: a.bias, head.weight" in report.lines()


def without(source, name):
    return replace(source, tensors={n: t for n, t in source.tensors.items() if n != name})


def test_one_small_tensor_may_be_missing_and_is_told(load_source, make_plan):
    plan, name = make_plan(width=8), "encoder.0.0.1.bias"
    report = take(fresh(plan), without(load_source(plan=plan), name), plan)
    assert details(report) == {("encoder.0", "not in the checkpoint")}
    assert 0.99 < report.share("encoder") < 1


def test_how_much_may_be_missing_is_the_user_s_choice(load_source, make_plan):
    fewer = without(load_source(), "encoder.0.1.0.weight")
    with pytest.raises(TransferError, match="at least 99%"):
        take(fresh(make_plan()), fewer, make_plan())
    report = take(fresh(make_plan()), fewer, make_plan(), expected_share=0.8)
    assert 0.8 < report.share("encoder") < 0.99
    with pytest.raises(TransferError, match="too little of it fits the encoder"):
        take(fresh(make_plan()), replace(fewer, tensors={}), make_plan(), expected_share=0)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e39])
def test_weights_that_are_no_numbers_are_named(load_source, make_plan, value):
    found = load_source()
    broken = found.tensors["encoder.1.0.0.bias"].double()
    broken[2] = value
    network = fresh(make_plan())
    with pytest.raises(TransferError, match=r"1 of 4 values of encoder\.1\.0\.0\.bias are no finite numbers"):
        take(network, replace(found, tensors=found.tensors | {"encoder.1.0.0.bias": broken}), make_plan())
    assert differing(network, make_plan()) == set()


def test_a_shape_that_no_rule_adapts_counts_against_the_share(load_source, make_plan):
    """Kernels of 5 voxels, as other programs have them."""
    found = load_source()
    wide = replace(found.architecture.topology, kernels=((5, 5, 5),) * 2)
    tensors = {
        n: torch.zeros(*t.shape[:2], 5, 5, 5) if t.shape[2:] == (3, 3, 3) else t
        for n, t in found.tensors.items()
    }
    other = replace(found, tensors=tensors, architecture=replace(found.architecture, topology=wide))
    with pytest.raises(
        TransferError, match=r"a kernel of \(5, 5, 5\) in the checkpoint, of \(3, 3, 3\) here"
    ):
        take(fresh(make_plan()), other, make_plan())


@pytest.fixture
def mri(make_plan):
    """One channel of MRI."""
    return make_plan(
        spacing=(1.0, 1.0, 1.0), patch=(40, 56, 40), strides=(CUBE, CUBE), width=8, labels=LabelTable()
    )


@pytest.fixture
def microscopy(make_plan):
    """Two channels of anisotropic microscopy, pooled otherwise, with other classes and a level more."""
    return make_plan(
        spacing=(1.0, 0.5, 0.5),
        unit="um",
        channels=("dapi", "gfp"),
        normalisation=("percentile", "percentile"),
        patch=(16, 64, 64),
        strides=(FLAT, FLAT, CUBE),
        width=8,
        labels=LabelTable(values=(0, 1, 2, 3)),
    )


def test_from_mri_to_microscopy(load_source, mri, microscopy):
    source, network = load_source(plan=mri), fresh(microscopy)
    report = take(network, source, microscopy)
    assert [t.name for t in report.tensors] == list(network.state_dict())
    assert details(report) == {
        ("encoder.3", "the checkpoint has no level as coarse as this one"),
        ("decoder.0", "the checkpoint has no level as coarse as this one"),
        ("output.weight", "its classes are others"),
        ("output.bias", "its classes are others"),
    }
    assert details(report, "adapted") == {
        ("encoder.0", "image channels: each the mean of the 1 there, times 1/2"),
        ("decoder.1", "stride 2 -> 1 along z: averaged"),
        ("decoder.2", "stride 2 -> 1 along z: averaged"),
    }
    assert report.notes == (
        "levels aligned finest with finest: 1 x 0.5 x 0.5 um here and 1 x 1 x 1 mm there are too far apart",
        "pooling differs: level 1 by (1, 2, 2) here and (2, 2, 2) there, "
        "level 2 by (1, 2, 2) here and (2, 2, 2) there",
    )
    assert report.unused == ()
    assert [w[:10] for w in report.warnings] == ["only 24.6%", "only 22.3%"]
    # the first level sees no pooling: it answers as it did
    image = torch.rand(1, 1, 8, 8, 8)
    found = network.encoder[0](image.expand(-1, 2, -1, -1, -1))
    torch.testing.assert_close(found, network_of(source).encoder[0](image), atol=1e-5, rtol=1e-5)
    assert torch.equal(network.decoder[2].up.weight, source.tensors["decoder.1.up.weight"].mean(2, True))
    assert len(report.lines()) <= 25


def test_from_microscopy_to_mri(load_source, mri, microscopy):
    source, network = load_source(plan=microscopy), fresh(mri)
    report = take(network, source, mri)
    assert {why for _, why in details(report)} == {"its classes are others"}
    assert details(report, "adapted") == {
        ("encoder.0", "image channels: each the mean of the 2 there, times 2"),
        ("decoder.0", "stride 1 -> 2 along z: repeated"),
        ("decoder.1", "stride 1 -> 2 along z: repeated"),
    }
    assert shares(report) == [1, 1, 0]
    assert {name[:9] for name in report.unused} == {"encoder.3", "decoder.0"}
    sources = {t.name: t.source for t in report.tensors}
    assert sources["decoder.0.up.weight"] == "decoder.1.up.weight"
    image = torch.rand(1, 1, 8, 8, 8)
    found = network.encoder[0](image)
    before = network_of(source).encoder[0](image.expand(-1, 2, -1, -1, -1))
    torch.testing.assert_close(found, before, atol=1e-5, rtol=1e-5)
    assert len(report.lines()) <= 25


def test_a_patch_of_one_slice_takes_summed_kernels_and_gives_them_back_in_the_middle(load_source, make_plan):
    volume, slices = make_plan(), make_plan(patch=(1, 8, 8))
    source, network = load_source(), fresh(slices)
    report = take(network, source, slices)
    weight = source.tensors["encoder.1.0.0.weight"]
    assert torch.equal(network.encoder[1][0][0].weight, weight.sum(2, keepdim=True))
    assert (
        "decoder.0",
        "kernel 3 -> 1 along z: summed, the same where the image does not change along it",
    ) in (details(report, "adapted"))
    flat = replace(source, tensors=network.state_dict(), architecture=architecture_for(slices))
    again = fresh(volume)
    take(again, flat, volume)
    torch.testing.assert_close(again.encode(IMAGE)[1], network.encode(IMAGE)[1])


def test_levels_that_see_alike_sizes_meet(load_source, make_plan):
    """Pretrained at 2 x 1 x 1 mm, fine-tuned at 4 x 2 x 2 mm: what was its second level is the first."""
    theirs = make_plan(strides=(CUBE,) * 3)
    plan = make_plan(spacing=(4.0, 2.0, 2.0), strides=(CUBE,) * 2)
    network, source = fresh(plan), load_source(plan=theirs)
    report = take(network, source, plan)
    sources = {t.name: t.source for t in report.tensors}
    assert sources["encoder.1.0.0.weight"] == "encoder.2.0.0.weight"
    assert sources["decoder.1.up.weight"] == "decoder.1.up.weight"
    assert torch.equal(network.encoder[0][1][0].weight, source.tensors["encoder.1.1.0.weight"][:2, :2])
    assert ("encoder.0", "it reads the image here, features in the checkpoint") in details(report)
    assert ("output.weight", "the finest levels do not answer to each other") in details(report)
    assert report.warnings[0].startswith(
        "fewer features here than in the checkpoint in encoder.0-2, decoder.0-1"
    )


def test_what_reads_the_image_there_is_not_taken_for_features_of_the_same_number(load_source, make_plan):
    """Two image channels there, two features into the second level here: the shapes would fit."""
    theirs = make_plan(channels=("a", "b"), normalisation=("zscore",) * 2, strides=(CUBE,) * 2)
    plan = make_plan(spacing=(1.0, 0.5, 0.5), strides=(CUBE,) * 3)
    report = take(fresh(plan), load_source(plan=theirs), plan)
    assert {
        ("encoder.0", "the checkpoint has no level as fine as this one"),
        ("encoder.1", "it reads features here, the image in the checkpoint"),
        ("decoder.2", "the checkpoint has no level as fine as this one"),
    } <= details(report)
    assert {t.source for t in report.tensors} >= {"encoder.0.1.0.weight", "decoder.0.up.weight"}


@pytest.mark.parametrize(("width", "change"), [(3, "more"), (1, "fewer")])
def test_another_width_is_taken_with_a_warning_that_names_the_blocks_once(
    load_source, make_plan, width, change
):
    plan = make_plan(width=width)
    network, source = fresh(plan), load_source()
    report = take(network, source, plan)
    told = f"{change} features here than in the checkpoint in encoder.0-1, decoder.0: "
    assert report.warnings[0].startswith(told)
    n = min(width, 2)
    found, weight = network.decoder[0].convolutions[0][0].weight, source.tensors
    theirs = weight["decoder.0.convolutions.0.0.weight"]
    # each half for itself
    assert torch.equal(found[:n, :n], theirs[:n, :n])
    assert torch.equal(found[:n, width : width + n], theirs[:n, 2 : 2 + n])
    arrived = sum(t.arrived for t in report.tensors if t.part == "encoder")
    assert report.share("encoder") == arrived / sum(p.numel() for p in network.encoder.parameters())
    assert (report.share("encoder") < 1) == (change == "more")


def test_another_network_gives_what_its_names_have_in_common(load_source, make_plan):
    """Such as the decoder of a network whose encoder is of residual blocks."""
    found, plan = load_source(), make_plan()
    renamed = {n.replace("encoder.1.", "encoder.1.blocks."): t for n, t in found.tensors.items()}
    other = replace(found, tensors=renamed)
    assert take(fresh(plan), other, plan, load="decoder").share("decoder") == 1
    with pytest.raises(TransferError, match=r"(?s)fits the encoder.*not in the checkpoint"):
        take(fresh(plan), other, plan)
    assert take(fresh(plan), other, plan, expected_share=0.1).unused[0].startswith("encoder.1.blocks.")


def test_a_source_that_tells_nothing_of_its_volumes_is_taken_level_by_level(load_source, make_plan):
    found = replace(load_source(), contract=Contract(preprocessing=None, patch=None), labels=None)
    report = take(fresh(make_plan()), found, make_plan())
    assert shares(report) == [1, 1, 0]
    assert report.notes == ("levels aligned finest with finest: the spacing is unknown there",)


PROBE = Probe(
    shape=(1, 4, 4, 4),
    blocks={
        name: BlockProbe(mean=0.0, std=1.0, values=(0.0,) * 16)
        for name in ("encoder.0", "encoder.1", "decoder.0", "output")
    },
)


@pytest.fixture
def told_deviation(monkeypatch):
    """Lets every block deviate so far; gives the blocks that were asked for."""
    asked = []

    def tell(deviation):
        def deviations(network, given):
            asked.extend(given.blocks)
            return dict.fromkeys(given.blocks, deviation)

        monkeypatch.setattr(probe, "deviations", deviations, raising=False)
        return asked

    return tell


def test_every_block_of_the_same_network_is_proven(load_source, make_plan, told_deviation):
    asked = told_deviation(2e-12)
    report = take(fresh(make_plan()), load_source(probe=PROBE), make_plan())
    assert report.proof is not None
    assert (asked, list(report.proof.deviations), report.proof.left_out) == ([*PROBE.blocks],) * 2 + ({},)
    assert "4 of 4 blocks, largest deviation 2e-12" in report.lines()[-1]


@pytest.mark.parametrize("deviation", [2e-5, math.nan, math.inf])
def test_a_block_that_answers_otherwise_is_an_error(load_source, make_plan, told_deviation, deviation):
    told_deviation(deviation)
    with pytest.raises(TransferError, match=r"encoder\.0 gives another answer than the checkpoint stored"):
        take(fresh(make_plan()), load_source(probe=PROBE), make_plan())


def test_no_level_is_proven_where_it_reads_a_coarser_one_that_changed(load_run, make_plan):
    """HRNet's levels exchange features: the finest answers otherwise when the coarsest begins at random."""
    plan = make_plan()
    architecture = architecture_for(plan, "hrnet")
    source = source_of(load_run(plan=plan, architecture=architecture))
    source = replace(source, probe=probe.probed(network_of(source), 1))
    network = build(architecture, 2)
    report = transfer(network, architecture, source, plan, load=("encoder.0", "decoder.0"))
    assert report.proof is not None
    assert report.proof.deviations == {}
    assert {report.proof.left_out[f"encoder.{level}"] for level in range(2)} == {"encoder.1 begins at random"}
    report = transfer(network, architecture, source, plan)
    assert report.proof is not None
    assert [*report.proof.deviations] == ["encoder.0", "encoder.1", "decoder.0", "output"]


@pytest.mark.parametrize("name", ["efficientnet_b0", "hrnet", "swin_unetr"])
def test_a_deeper_plan_takes_what_fits_or_is_refused(load_run, make_plan, name):
    """Every tensor that is told as loaded is that of the source under the name that is told."""
    plan, deeper = make_plan(), make_plan(patch=(8, 16, 16), strides=(FLAT, CUBE))
    source = source_of(load_run(plan=plan, architecture=architecture_for(plan, name)))
    architecture = architecture_for(deeper, name)
    network = build(architecture, 2)
    report = transfer(network, architecture, source, deeper, expected_share=1e-9)
    state = network.state_dict()
    for tensor in report.tensors:
        if tensor.state == "loaded":
            torch.testing.assert_close(state[tensor.name], source.tensors[tensor.source or ""])
    assert any(t.state == "re-initialised" for t in report.tensors)


def test_what_reads_from_changed_blocks_is_left_out_of_the_proof(load_source, make_plan, told_deviation):
    asked = told_deviation(0.0)
    report = take(fresh(make_plan()), load_source(probe=PROBE), make_plan(), load="encoder")
    assert asked == ["encoder.0", "encoder.1"]
    random = "decoder.0 begins at random"
    assert report.proof is not None
    assert report.proof.left_out == {"decoder.0": random, "output": random}


def test_without_the_encoder_nothing_can_be_compared(load_source, make_plan, told_deviation):
    asked = told_deviation(1.0)
    report = take(fresh(make_plan()), load_source(probe=PROBE), make_plan(), load="decoder")
    assert asked == []
    assert report.proof is not None
    assert set(report.proof.left_out.values()) == {"encoder.0 begins at random"}


@pytest.mark.parametrize(
    "fields",
    [
        {"strides": ((2, 2, 2),)},
        {"width": 3},
        {"channels": ("a", "b"), "normalisation": ("zscore",) * 2},
        {"patch": (1, 8, 8)},
        {"strides": ((1, 2, 2), (1, 2, 2))},
    ],
)
def test_another_network_is_not_compared(load_source, make_plan, told_deviation, fields):
    asked, plan = told_deviation(1.0), make_plan(**fields)
    report = take(fresh(plan), load_source(probe=PROBE), plan)
    assert asked == []
    assert report.proof is not None
    assert set(report.proof.left_out.values()) == {"levels, features, kernels, strides or channels differ"}


def test_weights_of_another_place_are_not_compared(load_source, make_plan, told_deviation):
    """The same network, but its first channel is the second there."""
    asked = told_deviation(1.0)
    two = {"normalisation": ("zscore",) * 2}
    source = load_source(plan=make_plan(channels=("a", "b"), **two), probe=PROBE)
    plan = make_plan(channels=("b", "a"), **two)
    report = take(fresh(plan), source, plan)
    assert report.proof is not None
    assert set(report.proof.left_out.values()) == {"encoder.0 was adapted"}
    assert details(report, "adapted") == {("encoder.0", "image channels by name: b, a")}
    assert asked == []


def test_weights_of_another_level_are_not_compared(load_source, make_plan, told_deviation):
    """The same network, of as many features everywhere, for volumes of twice the spacing."""
    asked = told_deviation(1.0)
    plan = make_plan(max_width=2, strides=(CUBE, CUBE), spacing=(4.0, 2.0, 2.0))
    source = load_source(plan=make_plan(max_width=2, strides=(CUBE, CUBE)), probe=PROBE)
    report = take(fresh(plan), source, plan)
    assert source.architecture == architecture_for(plan)
    assert ("encoder.1.0.0.weight", "encoder.2.0.0.weight") in {(t.name, t.source) for t in report.tensors}
    assert report.proof is not None
    assert (asked, {*report.proof.left_out.values()}) == ([], {"encoder.0 begins at random"})


@pytest.mark.parametrize(
    ("channels", "note"),
    [
        (("a", "b"), "image channels by name: a, b"),
        (("channel0", "b"), "image channels in their order: not all"),
    ],
)
def test_why_several_channels_stay_as_they_are_is_told(load_source, make_plan, channels, note):
    two = {"normalisation": ("zscore",) * 2}
    plan = make_plan(channels=channels, **two)
    report = take(fresh(plan), load_source(plan=make_plan(channels=("a", "b"), **two)), plan)
    assert report.notes[-1].startswith(note)
    assert shares(report) == [1, 1, 1]


def test_without_a_probe_nothing_is_proven_and_it_is_told(load_source, make_plan):
    report = take(fresh(make_plan()), load_source(), make_plan())
    assert report.proof is not None
    assert report.proof.deviations == {}
    assert report.lines()[-1] == (
        "  not compared on the probe: encoder.0-1, decoder.0, output (the checkpoint holds no probe)"
    )


SHAPES = st.integers(2, 4)
_STRIDES = st.lists(st.tuples(*(st.sampled_from((1, 2)) for _ in range(3))), min_size=1, max_size=3)


@given(
    theirs=_STRIDES,
    ours=_STRIDES,
    widths=st.tuples(SHAPES, SHAPES),
    slices=st.tuples(st.booleans(), st.booleans()),
    spacing=st.sampled_from((0.5, 1.0, 2.0, 7.0)),
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_between_any_two_networks_each_tensor_is_accounted_for_once(
    any_source, make_plan, theirs, ours, widths, slices, spacing
):
    def plan_of(strides, width, flat, size):
        patch = (1 if flat else 8, 8, 8)
        strides = tuple((1, *s[1:]) if flat else s for s in strides)
        return make_plan(strides=strides, width=width, patch=patch, spacing=(size,) * 3)

    source = any_source(plan_of(theirs, widths[0], slices[0], 1.0))
    plan = plan_of(ours, widths[1], slices[1], spacing)
    network = fresh(plan)
    report = take(network, source, plan, load="encoder")
    assert [t.name for t in report.tensors] == list(network.state_dict())
    taken = [t.source for t in report.tensors if t.source]
    assert len(set(taken)) == len(taken)
    before = fresh(plan).state_dict()
    for told in report.tensors:
        now = network.state_dict()[told.name]
        assert (
            (told.source is None) == (told.state == "re-initialised") == torch.equal(now, before[told.name])
        )
        assert bool(told.detail) == (told.state != "loaded")
        if told.state == "loaded":
            assert torch.equal(now, source.tensors[told.source])
    assert len(report.lines()) <= 25


@pytest.fixture
def any_source(load_source):
    """Sources of any plan, of one file."""
    found = load_source()

    def make(plan):
        architecture = architecture_for(plan)
        draws = torch.Generator().manual_seed(3)
        tensors = {
            n: torch.randn(t.shape, generator=draws) for n, t in build(architecture).state_dict().items()
        }
        contract = replace(found.contract, preprocessing=plan.preprocessing)
        return replace(found, tensors=tensors, architecture=architecture, contract=contract)

    return make
