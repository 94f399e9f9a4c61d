"""The README.md of a run: what the model is and how to use it, in words, without any file name."""

import json
from pathlib import Path

from ..data.atomic import write_text
from ..data.labels import LabelTable
from .checkpoint import CheckpointInfo, load
from .few_labels import how_chosen

_TRANSFER = "transfer.json"


def write_card(run: Path, info: CheckpointInfo | None = None) -> None:
    """Writes RUN/README.md of a checkpoint; of the one that predictions will use when `info` is None."""
    last = info or load(run, "last").info
    info = info or load(run).info
    sections = {
        f"A {info.architecture.name} trained by fewvox ({info.method})": _what_it_is(info),
        "Training": _training(run, info, last),
        "Scores": _scores(info),
        "Use": _use(info),
        "Made with": [f"- {name}: {value}" for name, value in info.environment.items()] or ["Not recorded."],
    }
    lines = []
    for title, content in sections.items():
        lines += [f"{'##' if lines else '#'} {title}", "", *content, ""]
    write_text(run / "README.md", "\n".join(lines))


def _what_it_is(info: CheckpointInfo) -> list[str]:
    preprocessing, topology = info.plan.preprocessing, info.architecture.topology
    spacing = f"resampled to {preprocessing.spacing} {preprocessing.unit} (z, y, x)"
    channels = [
        f"{c} ({n})" for c, n in zip(preprocessing.channels, preprocessing.normalisation, strict=True)
    ]
    return [
        f"- Input: {len(channels)} channel(s): {', '.join(channels)}; "
        f"{spacing if preprocessing.spacing else 'not resampled'}, orientation {preprocessing.orientation}.",
        f"- Output: {_output(info)}.",
        f"- Network: {len(topology.features)} levels with {topology.features} features, poolings "
        f"{topology.strides}, patch {info.plan.training.patch}.",
    ]


def _output(info: CheckpointInfo) -> str:
    labels: LabelTable | None = info.plan.labels
    if labels is None or not _predicts(info):
        return "none"
    if labels.kind == "overlapping":
        return f"{labels.outputs} classes that may overlap, a channel each"
    return f"label values {labels.values}"


def _training(run: Path, info: CheckpointInfo, last: CheckpointInfo) -> list[str]:
    chosen = how_chosen(len(info.trained_on), len(info.validated_on), info.steps, averaged=info.averaged)
    early = [f"- It was stopped early, after {last.steps} steps: the score got no better."]
    return [
        f"- This card is of the checkpoint after {info.steps} steps (seed {info.seed}).",
        *([f"- {chosen[0].upper()}{chosen[1:]}."] if _predicts(info) else []),
        *(early if last.stopped_early else []),
        f"- The loss reached: {', '.join(info.trained)}.",
        f"- Data: {len(info.trained_on)} training and {len(info.validated_on)} validation volumes, known by "
        "hash only.",
        f"- Began from: {_start(run)}."
        + (f" That had seen {len(info.inherited)} volumes." if info.inherited else "")
        + ("" if info.inherited_all else " What else it had seen is not known."),
    ]


def _start(run: Path) -> str:
    path = run / _TRANSFER
    if not path.is_file():
        return "random weights"
    report = json.loads(path.read_text(encoding="utf-8"))
    return f"pretrained weights ({report['source']}; SHA-256 of their file {report['source_hash'][:12]}...)"


def _scores(info: CheckpointInfo) -> list[str]:
    if not info.scores:
        return ["None were measured at this checkpoint."]
    rows = [f"| {name} | {value:.4f} |" for name, value in info.scores.items()]
    return ["| measure | value |", "|---|---|", *rows]


def _use(info: CheckpointInfo) -> list[str]:
    commands = ["fewvox predict --model THIS_FOLDER DATA --out DIR"] if _predicts(info) else []
    commands += [
        "fewvox finetune --pretrained THIS_FOLDER --store STORE --out DIR",
        "fewvox export THIS_FOLDER --to nnunet --out DIR",
    ]
    why = [] if _predicts(info) else ["It predicts no masks: fine-tune it first.", ""]
    return [*why, "```", *commands, "```"]


def _predicts(info: CheckpointInfo) -> bool:
    return "output" in info.trained
