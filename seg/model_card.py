"""The README.md of a run: what the model is, in words, without any file name."""

import json
from pathlib import Path

from ..data.atomic import write_text
from ..data.labels import LabelTable
from .checkpoint import load

_USE = {
    True: "Predict with `fewvox predict --model THIS_FOLDER DATA --out DIR`.",
    False: "It predicts no masks: fine-tune it with `fewvox finetune --pretrained THIS_FOLDER ...`.",
}


def write_card(run: Path) -> None:
    """Writes RUN/README.md from the checkpoint that predictions will use."""
    info = load(run).info
    plan, architecture = info.plan, info.architecture
    scores = ", ".join(f"{name} {value:.4f}" for name, value in info.scores.items()) or "none"
    labels, predicts = plan.labels, "output" in info.trained
    write_text(
        run / "README.md",
        "\n".join(
            [
                f"# A {architecture.name} trained by fewvox ({info.method})",
                "",
                f"- Input: {len(plan.preprocessing.channels)} channel(s), resampled to "
                f"{plan.preprocessing.spacing} {plan.preprocessing.unit} (z, y, x), "
                f"{', '.join(plan.preprocessing.normalisation)}.",
                f"- Output: {_output(labels) if labels and predicts else 'none'}.",
                f"- Patch {plan.training.patch}, features {architecture.topology.features}.",
                f"- {info.steps} steps, seed {info.seed}, {len(info.trained_on)} training and "
                f"{len(info.validated_on)} validation volumes (known by hash only).",
                f"- The loss reached: {', '.join(info.trained)}.",
                f"- Last scores: {scores}.",
                f"- Made with {json.dumps(info.environment)}.",
                "",
                f"{_USE[predicts]}",
                "",
            ]
        ),
    )


def _output(labels: LabelTable) -> str:
    if labels.kind == "overlapping":
        return f"{labels.outputs} classes that may overlap, a channel each"
    return f"label values {labels.values}"
