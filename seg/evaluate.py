"""Scoring a folder of masks against a folder of labels."""

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from ..data.dataset import DatasetError, find_labels
from ..data.errors import UserError
from ..data.formats.files import read_volume
from ..data.labels import LabelKind, LabelTable, label_map
from ..data.problems import Problem
from ..data.settings import settings
from ..data.volume import Triple, Volume
from .batch_predict import Manifest, read_manifest
from .metrics import dice, hd95, iou

METRICS = ("dice", "iou", "hd95")
# more label values than this beyond the model's own are grey values
_MANY_UNKNOWN = 16


@settings
class CaseScore:
    """Scores of one class (by its label value) in one case; None where a score has no meaning.

    `role` is what the case was to the model: "unseen", "training", "validation" or "pretraining"; "unknown"
    for masks of another program, "unlisted" for a mask that a killed prediction left beside its manifest.
    """

    case: str
    role: str
    value: int
    dice: float | None
    iou: float | None
    hd95: float | None


@settings
class Mean:
    """Mean of a metric over the cases in which it is defined, and in how many it is not."""

    value: int
    metric: str
    mean: float | None
    cases: int
    undefined: int


@settings
class Evaluation:
    """Scores of all cases, and their means over those the model was not trained or validated on.

    `unit` is that of HD95: "voxel" where a spacing is unknown.
    """

    scores: tuple[CaseScore, ...]
    means: tuple[Mean, ...]
    unit: str
    excluded: tuple[str, ...]
    without_prediction: tuple[str, ...]
    without_label: tuple[str, ...]
    problems: tuple[Problem, ...]

    def mean(self, metric: str = "dice") -> float | None:
        """Mean over the classes of their means; None when no class has one."""
        defined = [m.mean for m in self.means if m.metric == metric and m.mean is not None]
        return float(np.mean(defined)) if defined else None


def evaluate(
    predictions: str | Path,
    labels: str | Path,
    *,
    label_kind: LabelKind | None = None,
    only: Collection[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Dice, IoU and HD95 of every class in every predicted case that has a label.

    Label values and kind come from what `fewvox predict` wrote beside the masks. For masks of another
    program the values are those of the labels, and the kind is `label_kind` ("classes" when None). With
    `only`, other cases are passed over.

    Raises DatasetError when no case has both a mask and a label.
    """
    masks = find_labels(predictions)
    truths = find_labels(labels, masks)
    if only is not None:
        masks = {case: path for case, path in masks.items() if case in only}
        truths = {case: path for case, path in truths.items() if case in only}
    both = sorted(masks.keys() & truths.keys())
    if not both:
        raise DatasetError(
            predictions,
            found=f"{len(masks)} masks, none named as one of the {len(truths)} labels in {labels}",
            rule="A mask has the name of its label, suffix apart",
            remedy="Check the two folders",
        )
    manifest = read_manifest(Path(predictions))
    kind = label_kind or (manifest.labels.kind if manifest else "classes")
    table = manifest.labels if manifest and manifest.labels.kind == kind else None
    scores: list[CaseScore] = []
    problems: list[Problem] = []
    units = set()
    for done, case in enumerate(both, start=1):
        try:
            found, unit = _score_case(case, masks[case], truths[case], table, kind, _role(manifest, case))
            scores += found
            units.add(unit)
        except UserError as error:
            problems.append(Problem.from_error(case, error))
        if progress is not None:
            progress(done, len(both))
    counted = [s for s in scores if s.role in ("unseen", "unknown")]
    return Evaluation(
        scores=tuple(scores),
        means=_means(counted),
        unit="mixed units" if len(units) > 1 else next(iter(units), "voxel"),
        excluded=tuple(sorted({s.case for s in scores} - {s.case for s in counted})),
        without_prediction=tuple(sorted(truths.keys() - masks.keys())),
        without_label=tuple(sorted(masks.keys() - truths.keys())),
        problems=tuple(problems),
    )


def _role(manifest: Manifest | None, case: str) -> str:
    if manifest is None:
        return "unknown"
    return manifest.cases[case].role if case in manifest.cases else "unlisted"


def _score_case(
    case: str, mask: Path, truth: Path, table: LabelTable | None, kind: LabelKind, role: str
) -> tuple[list[CaseScore], str]:
    of_mask, of_truth = read_volume(mask), read_volume(truth)
    if of_mask.shape != of_truth.shape:
        raise UserError(
            mask,
            found=f"shape {of_mask.shape}, but {of_truth.shape} in {truth}",
            rule="A mask has the shape (z, y, x) of its label",
            remedy="Predict on the image that the label was drawn on",
        )
    predicted, true = label_map(of_mask, mask), label_map(of_truth, truth)
    if kind == "instances":
        predicted, true = predicted > 0, true > 0
    # values that the model does not know count too: they are classes it misses
    known = table.values[1:] if table else ()
    unknown = np.setdiff1d(true, table.values) if table and kind == "classes" else np.array([])
    if len(unknown) > _MANY_UNKNOWN:
        raise UserError(
            truth,
            found=f"{len(unknown)} values that the model does not know",
            rule=f"A label has the values {table.values if table else ''}",
            remedy="Give the folder of the labels: these look like images",
        )
    values = sorted({*known, *(int(v) for v in np.union1d(predicted, true) if v > 0)})
    spacing, unit = _spacing(of_truth, of_mask)
    scores = []
    for value in values:
        a, b = predicted == value, true == value
        scores.append(
            CaseScore(
                case=case, role=role, value=value, dice=dice(a, b), iou=iou(a, b), hd95=hd95(a, b, spacing)
            )
        )
    return scores, unit


def _spacing(*volumes: Volume) -> tuple[Triple, str]:
    for volume in volumes:
        if volume.spacing is not None:
            return volume.spacing, volume.unit or "unknown unit"
    return (1.0, 1.0, 1.0), "voxel"


def _means(scores: list[CaseScore]) -> tuple[Mean, ...]:
    means = []
    for value in sorted({s.value for s in scores}):
        of_class = [s for s in scores if s.value == value]
        for metric in METRICS:
            defined = [x for s in of_class if (x := getattr(s, metric)) is not None]
            means.append(
                Mean(
                    value=value,
                    metric=metric,
                    mean=float(np.mean(defined)) if defined else None,
                    cases=len(defined),
                    undefined=len(of_class) - len(defined),
                )
            )
    return tuple(means)
