"""Scoring a folder of masks against a folder of labels."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..data.dataset import DatasetError, find_labels
from ..data.errors import UserError
from ..data.geometry import differences
from ..data.labels import LabelKind, LabelTable
from ..data.problems import Problem
from ..data.settings import settings
from ..data.volume import Triple, Volume
from .batch_predict import Manifest, masks_in, read_manifest
from .components import components
from .label_files import LabelFile, read_label
from .metrics import METRICS, MaskScores, score_mask
from .object_metrics import ObjectScores, score_objects, together

# more label values than this beyond the model's own are grey values
_MANY_UNKNOWN = 16
# the roles of cases that are part of means
_COUNTED = ("unseen", "unknown")


@settings
class CaseScore(MaskScores):
    """Scores of one class (by its label value) in one case; None where a score has no meaning.

    Where classes overlap, `value` is the number of the class from 1: channel 0 is class 1.
    `role` is what the case was to the model: "unseen", "training", "validation" or "pretraining"; "unknown"
    for masks of another program and of weights that do not tell what they saw, "unlisted" for a mask that a
    killed prediction left beside its manifest.
    """

    case: str
    role: str
    value: int


@settings
class CaseObjects(ObjectScores):
    """Scores of the objects in one case, whose `role` is told as in its other scores."""

    case: str
    role: str


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

    `unit` is that of distances: "voxel" where a spacing is unknown. `tolerance` is that of NSD; None stands
    for the coarsest spacing of each case. `all_objects` are those of the same cases together, None where
    objects were not scored.
    """

    scores: tuple[CaseScore, ...]
    means: tuple[Mean, ...]
    unit: str
    excluded: tuple[str, ...]
    without_prediction: tuple[str, ...]
    without_label: tuple[str, ...]
    problems: tuple[Problem, ...]
    tolerance: float | None = None
    objects: tuple[CaseObjects, ...] = ()
    all_objects: ObjectScores | None = None

    def mean(self, metric: str = "dice") -> float | None:
        """Mean over the classes of their means; None when no class has one."""
        defined = [m.mean for m in self.means if m.metric == metric and m.mean is not None]
        return float(np.mean(defined)) if defined else None


@dataclass(frozen=True, kw_only=True)
class LabelMeaning:
    """What the values of masks and labels mean, and how they are compared.

    `table` is the model's own, None for another program's.
    """

    kind: LabelKind
    ignore: int | None
    table: LabelTable | None
    accept_geometry: bool = False
    tolerance: float | None = None
    objects: bool = False

    @property
    def known(self) -> set[int]:
        """The values of the model's classes: those of the files, or numbers where files have no such."""
        if self.table is None:
            return set()
        return set(self.table.values[1:] if self.kind == "classes" else range(1, self.table.classes))

    @property
    def no_class(self) -> set[int]:
        """The values that stand for no class, where files tell classes by values."""
        if self.kind != "classes":
            return set()
        background = set() if self.table is None else {self.table.values[0]}
        return background if self.ignore is None else {*background, self.ignore}


def evaluate(
    predictions: str | Path,
    labels: str | Path,
    *,
    label_kind: LabelKind | None = None,
    ignore: int | None = None,
    regions: str | Path | None = None,
    accept_geometry: bool = False,
    tolerance: float | None = None,
    objects: bool = False,
    only: Collection[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """All scores of every class in every predicted case that has a label.

    Label values and kind come from what `fewvox predict` wrote beside the masks. For masks of another
    program the values are those of the labels, and the kind is `label_kind` ("classes" when None). With
    `only`, other cases are passed over.

    Voxels whose label is `ignore` (when None, the value that the masks' own manifest tells) were annotated by
    nobody: they are left out of both masks, and a class that neither then has is scored None. Surfaces
    are those of what is left: at the border of what is annotated both masks end alike. The same holds
    for voxels outside of the masks in the folder `regions`. A label that lies elsewhere in space than its
    mask is a problem, unless `accept_geometry` says to compare them voxel by voxel.

    `tolerance` is that of NSD, in the unit of the files; when None, the coarsest spacing of each case.

    With `objects` instances are scored too, and labels of unknown kind are taken for such. A mask that has
    but one number above the background is no map of instances: its objects are its connected
    components.

    Raises DatasetError when no case has both a mask and a label, UserError for a tolerance that is none and
    for objects of labels that have none.
    """
    _check_tolerance(tolerance)
    masks = masks_in(Path(predictions))
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
    if objects and manifest is None:
        label_kind = label_kind or "instances"
    meaning = replace(
        _meaning(manifest, label_kind, ignore),
        accept_geometry=accept_geometry,
        tolerance=tolerance,
        objects=objects,
    )
    if objects:
        _refuse_no_objects(meaning.kind, labels)
    annotated = find_labels(regions, truths) if regions is not None else {}
    found: list[Scored] = []
    problems: list[Problem] = []
    for done, case in enumerate(both, start=1):
        try:
            role = _role(manifest, case)
            found.append(_score_case(case, role, masks[case], truths[case], annotated.get(case), meaning))
        except UserError as error:
            problems.append(Problem.from_error(case, error))
        if progress is not None:
            progress(done, len(both))
    scores = [score for scored in found for score in scored.scores]
    counted = [s for s in scores if s.role in _COUNTED]
    units = {scored.unit for scored in found}
    of_objects = [scored.objects for scored in found if scored.objects is not None]
    counted_objects = [o for o in of_objects if o.role in _COUNTED]
    return Evaluation(
        scores=tuple(scores),
        means=_means(counted),
        unit="mixed units" if len(units) > 1 else next(iter(units), "voxel"),
        tolerance=tolerance,
        objects=tuple(of_objects),
        all_objects=together(counted_objects) if counted_objects else None,
        excluded=tuple(sorted({s.case for s in scores} - {s.case for s in counted})),
        without_prediction=tuple(sorted(truths.keys() - masks.keys())),
        without_label=tuple(sorted(masks.keys() - truths.keys())),
        problems=tuple(problems),
    )


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What was found in one case, and the unit of its distances."""

    scores: tuple[CaseScore, ...]
    objects: CaseObjects | None
    unit: str


def _check_tolerance(tolerance: float | None) -> None:
    if tolerance is not None and not 0 <= tolerance < float("inf"):
        raise UserError(
            f"the tolerance {tolerance}",
            found="not a length",
            rule="It is how far a surface may be off, 0 or more, in the unit of the files",
            remedy="Give such a number, or leave it out for the coarsest spacing",
        )


def _refuse_no_objects(kind: LabelKind, labels: str | Path) -> None:
    if kind != "instances":
        raise UserError(
            labels,
            found=f"labels of kind {kind}",
            rule="Objects are scored where each has a number of its own",
            remedy="Say --label-kind instances if they have, or leave --objects out",
        )


def _role(manifest: Manifest | None, case: str) -> str:
    if manifest is None:
        return "unknown"
    return manifest.cases[case].role if case in manifest.cases else "unlisted"


def _meaning(manifest: Manifest | None, kind: LabelKind | None, ignore: int | None) -> LabelMeaning:
    """What the values of masks and labels mean: as told, else as the masks' manifest says."""
    table = manifest.labels if manifest else LabelTable()
    # told to be numbers of objects, values are no classes of the model
    known = replace(table, aliases={}) if kind == "instances" else table
    kind = kind or table.kind
    return LabelMeaning(
        kind=kind,
        ignore=table.ignore if ignore is None else ignore,
        table=known if manifest and table.kind == kind else None,
    )


def _score_case(
    case: str, role: str, mask: Path, truth: Path, region: Path | None, meaning: LabelMeaning
) -> Scored:
    predicted = read_label(mask, meaning.kind)
    like = predicted.volume if meaning.accept_geometry else None
    true = read_label(truth, meaning.kind, meaning.ignore, table=meaning.table, like=like, region=region)
    _check_shapes(predicted, true, mask, truth)
    if not meaning.accept_geometry:
        _check_places(predicted, true, mask, truth)
    _refuse_images(true, meaning.table, truth)
    _refuse_other_classes(true, meaning.table, truth)
    spacing, unit = _spacing(true.volume, predicted.volume)
    # values that the model does not know count too: they are classes it misses
    values = sorted((meaning.known | predicted.classes | true.classes) - meaning.no_class)
    cut = predicted.within(true.annotated)
    scores = (_score(case, role, value, cut, true, spacing, meaning.tolerance) for value in values)
    objects = _score_objects(case, role, predicted, true) if meaning.objects else None
    return Scored(scores=tuple(scores), objects=objects, unit=unit)


def _check_places(predicted: LabelFile, true: LabelFile, mask: Path, truth: Path) -> None:
    for field, of_label, of_mask in differences(true.volume, predicted.volume):
        raise UserError(
            truth,
            found=f"{field} {of_label}, but {of_mask} in {mask}",
            rule=f"A label has the {field} of the mask that it is compared with",
            remedy="Export it again from its image, or say --accept-geometry to compare voxel by voxel",
        )


def _check_shapes(predicted: LabelFile, true: LabelFile, mask: Path, truth: Path) -> None:
    if predicted.volume.shape != true.volume.shape:
        raise UserError(
            mask,
            found=f"shape {predicted.volume.shape}, but {true.volume.shape} in {truth}",
            rule="A mask has the shape (z, y, x) of its label",
            remedy="Predict on the image that the label was drawn on",
        )
    if predicted.values.shape != true.values.shape:
        raise UserError(
            mask,
            found=f"{len(predicted.values)} channels, but {len(true.values)} in {truth}",
            rule="Where classes overlap, mask and label have a channel for each, in the same order",
            remedy="Save both with a channel for each class",
        )


def _refuse_images(true: LabelFile, table: LabelTable | None, truth: Path) -> None:
    if table is None or table.kind != "classes":
        return
    unknown = true.classes - set(table.values)
    if len(unknown) > _MANY_UNKNOWN:
        raise UserError(
            truth,
            found=f"{len(unknown)} values that the model does not know",
            rule=f"A label has the values {table.values}",
            remedy="Give the folder of the labels: these look like images",
        )


def _refuse_other_classes(true: LabelFile, table: LabelTable | None, truth: Path) -> None:
    """Of a label of several classes, whose masks hold the objects of one, the others are no objects."""
    if table is None or true.ids is None:
        return
    others = sorted(value for value, of in table.aliases.items() if of == table.background)
    found = np.intersect1d(true.ids[true.annotated], others)
    if found.size:
        raise UserError(
            truth,
            found=f"the value {found[0]}, another class of the model than the one whose objects are numbered",
            rule="Numbered objects are scored against labels that hold no other class",
            remedy="Say --label-kind instances if the values are numbers of objects; else take the class out "
            "of the labels, or predict with --postprocess none",
        )


def _score(
    case: str,
    role: str,
    value: int,
    predicted: LabelFile,
    true: LabelFile,
    spacing: Triple,
    tolerance: float | None,
) -> CaseScore:
    found = score_mask(predicted.voxels_of(value), true.voxels_of(value), spacing, tolerance)
    return CaseScore(case=case, role=role, value=value, **vars(found))


def _score_objects(case: str, role: str, predicted: LabelFile, true: LabelFile) -> CaseObjects:
    ours = predicted.objects
    if ours.max(initial=0) == 1:
        ours = components(predicted.values == 1)[0]
    found = score_objects(ours, true.objects, true.annotated)
    return CaseObjects(case=case, role=role, **vars(found))


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
