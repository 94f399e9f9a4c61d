"""The hand-over in its order: is it refused, what arrives, are the images alike; all in one report."""

from dataclasses import replace

import pytest
import torch
from fewvox.seg import checkpoint
from fewvox.seg.handoff import hand_over
from fewvox.seg.inputs import input_statistics
from fewvox.seg.networks.registry import architecture_for, build
from fewvox.seg.source import source_of
from fewvox.seg.transfer import TransferError

IMAGES = torch.randn(4, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def source(make_run):
    """A checkpoint of seed 1, that was shown the images."""
    found = checkpoint.load(make_run(seed=1))
    return replace(source_of(found), inputs=input_statistics(found.network(), IMAGES))


def handed(source, plan, images=IMAGES, *, load="both", accept_mismatch=False):
    network = build(architecture_for(plan), seed=2)
    report = hand_over(
        network,
        architecture_for(plan),
        source,
        plan,
        images,
        load=load,
        expected_share=0.99,
        accept_mismatch=accept_mismatch,
    )
    return report, network


def test_volumes_alike_give_a_report_with_nothing_to_warn_of(source, make_plan):
    report, network = handed(source, make_plan())
    assert (report.mismatches, report.accepted, report.warnings) == ((), False, ())
    assert report.guard is not None
    assert report.guard.warnings == ()
    assert report.guard.figures["answers of the first convolution"] == pytest.approx(0, abs=1e-5)
    assert all(torch.equal(value, source.tensors[name]) for name, value in network.state_dict().items())


def test_a_mismatch_is_refused_before_a_weight_moves(source, make_plan):
    plan = make_plan(spacing=(2.0, 1.0, 3.0))
    network = build(architecture_for(plan), seed=2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(TransferError, match=r"(?s)prepared otherwise.*--accept-mismatch"):
        hand_over(
            network,
            architecture_for(plan),
            source,
            plan,
            IMAGES,
            load="both",
            expected_share=0.99,
            accept_mismatch=False,
        )
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_what_was_accepted_stands_in_the_report_and_on_screen(source, make_plan):
    report, _ = handed(source, make_plan(normalisation=("percentile",)), accept_mismatch=True)
    assert report.accepted
    assert [(m.what, m.theirs, m.ours) for m in report.mismatches] == [
        ("normalisation", "zscore", "percentile")
    ]
    assert any("accepted: normalisation zscore there, percentile here" in line for line in report.lines())


def test_accepting_where_nothing_differs_is_not_written_down(source, make_plan):
    report, _ = handed(source, make_plan(), accept_mismatch=True)
    assert not report.accepted


def test_other_images_and_another_patch_are_warned_of(source, make_plan):
    report, _ = handed(source, make_plan(patch=(4, 24, 8)), IMAGES * 3 + 2)
    assert report.warnings[-1].startswith("patch: 8 x 8 x 8 mm there, 8 x 24 x 8 mm here")
    assert report.guard is not None
    assert report.guard.warnings[0].startswith("grey values of channel 0")
    assert any("grey values of channel 0" in line for line in report.lines())


def test_answers_are_compared_where_the_first_convolution_arrived(source, make_plan):
    report, _ = handed(source, make_plan(), load="decoder")
    assert report.guard is not None
    assert "answers of the first convolution" not in report.guard.figures
    assert "channel 0: contrast" in report.guard.figures


def test_channels_in_another_order_are_compared_by_name(make_run, make_plan):
    def plan_of(*names):
        return make_plan(channels=names, normalisation=("zscore",) * 2)

    found = checkpoint.load(make_run(plan=plan_of("T1", "T2"), seed=1))
    images = torch.cat([IMAGES, IMAGES * 2 + 1], dim=1)
    source = replace(source_of(found), inputs=input_statistics(found.network(), images))
    report, _ = handed(source, plan_of("T2", "T1"), images.flip(1))
    assert report.mismatches == ()
    assert report.guard is not None
    assert report.guard.warnings == ()
    report, _ = handed(source, plan_of("T2", "T1"), images)
    assert report.guard is not None
    assert len(report.guard.warnings) >= 2


@pytest.mark.parametrize("changes", [{"seen": None, "seen_all": False}, {"seen_all": False}])
def test_weights_that_do_not_tell_what_they_saw_are_warned_of_in_the_report(source, make_plan, changes):
    report, _ = handed(replace(source, **changes), make_plan())
    (warning,) = report.warnings
    assert "do not tell all that they were trained on" in warning
    assert sum(warning in line for line in report.lines()) == 1
