"""What a transfer report counts, and how it reads."""

import json
from dataclasses import replace

import pytest
from fewvox.data.settings import plain, read_json
from fewvox.seg.transfer_report import (
    NOT_REACHED,
    Guard,
    Mismatch,
    Proof,
    TransferredTensor,
    TransferReport,
    block_of,
    part_of,
    ranges,
)


def tensor(name, state="loaded", parameters=10, detail="", fresh=0):
    source = None if state == "re-initialised" else name
    return TransferredTensor(
        name=name,
        part=part_of(name),
        parameters=parameters,
        state=state,
        detail=detail,
        source=source,
        fresh=fresh,
    )


REPORT = TransferReport(
    source="mae, 400 steps",
    source_hash="a" * 64,
    kind="fewvox",
    choice=("encoder", "decoder.0"),
    tensors=(
        tensor("encoder.0.0.weight", "adapted", 30, "image channels by name: b, a"),
        tensor("encoder.0.0.bias"),
        tensor(
            "encoder.1.0.weight", "adapted", 50, "4 of 8 features, the rest fresh; kernel summed", fresh=40
        ),
        tensor("encoder.1.0.bias", "re-initialised", 10, "not in the checkpoint"),
        tensor("encoder.2.0.weight"),
        tensor("decoder.0.up.weight"),
        tensor("decoder.1.up.weight", "re-initialised", 30, NOT_REACHED),
        tensor("decoder.2.up.weight", "re-initialised", 30, NOT_REACHED),
        tensor("output.weight", "re-initialised", 2, NOT_REACHED),
    ),
    unused=("head.weight", "head.bias", "queue"),
    notes=("levels aligned",),
    warnings=("more features",),
    proof=Proof(
        deviations={"encoder.0": 2e-12, "encoder.1": 1e-13},
        left_out={"encoder.2": "it is random", "decoder.0": "it is random", "output": "so is it"},
    ),
)


def test_shares_count_the_parameters_that_arrived():
    assert REPORT.share("encoder") == pytest.approx((30 + 10 + 10 + 10) / 110)
    assert REPORT.share("decoder") == pytest.approx(10 / 70)
    assert REPORT.share("output") == 0
    assert replace(REPORT, tensors=()).share("encoder") == 1


def test_blocks_are_summed_up_in_order():
    blocks = {b.name: (b.state, b.arrived, b.parameters) for b in REPORT.blocks()}
    assert list(blocks.items()) == [
        ("encoder.0", ("adapted", 40, 40)),
        ("encoder.1", ("mixed", 10, 60)),
        ("encoder.2", ("loaded", 10, 10)),
        ("decoder.0", ("loaded", 10, 10)),
        ("decoder.1", ("re-initialised", 0, 30)),
        ("decoder.2", ("re-initialised", 0, 30)),
        ("output", ("re-initialised", 0, 2)),
    ]


def test_it_reads_as_a_person_needs_it():
    assert REPORT.lines() == [
        "weights from mae, 400 steps",
        "  encoder  2 loaded, 2 adapted, 1 re-initialised; 60 of 110 parameters arrive (54.5%)",
        "  decoder  1 loaded, 2 re-initialised; 10 of 70 parameters arrive (14.3%)",
        "  output   1 re-initialised; 0 of 2 parameters arrive (0.0%)",
        "    encoder.0            adapted         100.0%  image channels by name: b, a",
        "    encoder.1            mixed            16.7%  1 of 2 re-initialised: not in the checkpoint; "
        "4 of 8 features, the rest fresh; kernel summed",
        f"    decoder.1-2, output  re-initialised    0.0%  {NOT_REACHED}",
        "  3 tensors of the checkpoint have no place here: head.weight, head.bias, queue",
        "  levels aligned",
        "  warning: more features",
        "  the network gives what the checkpoint stored: 2 of 5 blocks, largest deviation 2e-12",
        "  not compared on the probe: encoder.2, decoder.0 (it is random)",
        "  not compared on the probe: output (so is it)",
    ]


def test_mismatches_and_what_the_guard_found_are_told():
    found = replace(
        REPORT,
        mismatches=(Mismatch(what="spacing", theirs="1 mm", ours="2 mm"),),
        accepted=True,
        guard=Guard(figures={"distance": 3.0}, warnings=("inputs are far apart",)),
    ).lines()
    assert "  accepted: spacing 1 mm there, 2 mm here" in found
    assert "  warning: inputs are far apart" in found


def test_long_details_are_cut_on_screen_alone():
    long = tensor("encoder.0.weight", "adapted", 10, "; ".join(f"detail {i}" for i in range(40)))
    report = replace(REPORT, tensors=(long,))
    assert max(map(len, report.lines())) < 160
    assert report.lines()[2].endswith("...")
    assert report.blocks()[0].detail == long.detail


def test_a_report_comes_back_from_its_file(tmp_path):
    (tmp_path / "transfer.json").write_text(json.dumps(plain(REPORT)))
    assert read_json(tmp_path / "transfer.json", TransferReport) == REPORT


@pytest.mark.parametrize(
    ("blocks", "told"),
    [
        ([], ""),
        (["encoder.0"], "encoder.0"),
        (["encoder.0", "encoder.1", "encoder.2"], "encoder.0-2"),
        (["encoder.0", "encoder.2", "encoder.3", "decoder.1"], "encoder.0, encoder.2-3, decoder.1"),
        (["decoder.0", "decoder.1", "output"], "decoder.0-1, output"),
    ],
)
def test_blocks_are_told_briefly(blocks, told):
    assert ranges(blocks) == told


def test_blocks_and_parts_are_read_from_names():
    assert [block_of(n) for n in ("encoder.10.0.weight", "decoder.1.up.bias", "output.weight")] == [
        "encoder.10", "decoder.1", "output"
    ]  # fmt: skip
