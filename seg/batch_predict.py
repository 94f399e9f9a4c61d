"""Predicting a whole data set: one bad volume neither stops the others nor is passed over."""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..data.atomic import write_text
from ..data.dataset import Case, DatasetError, find_images, find_labels
from ..data.errors import UserError
from ..data.formats.files import mask_suffix
from ..data.hashing import content_hash, file_hash, settings_hash
from ..data.labels import LabelTable
from ..data.layouts import refuse_among_images
from ..data.problems import Problem
from ..data.reading import ScanOptions, read_image, refuse_unknown
from ..data.settings import plain, read_json, settings
from ..data.sources import source_hash
from .checkpoint import Checkpoint, CheckpointInfo, load
from .predict import Model, Predictor
from .training import choose_device

MANIFEST = "predictions.json"
# what the name of a probability map has behind that of its case
PROBABILITIES = "_probabilities"
# "unknown": other than what is known to be seen, of a model whose first weights do not tell what they saw
Role = Literal["unseen", "training", "validation", "pretraining", "unknown"]


@settings
class PredictedCase:
    """One mask: its file, the hash of the image's bytes, and what the case was to the model.

    `reading` is the hash of how the image was read, `probabilities` the file of its probability maps, where
    they were asked for.
    """

    file: str
    image_hash: str
    reading: str = ""
    role: Role
    probabilities: str | None = None


@settings
class Manifest:
    """What stands in predictions.json beside the masks: which model made them, and of which images."""

    version: Literal[1] = 1
    model_hash: str
    labels: LabelTable
    cases: dict[str, PredictedCase]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a prediction made, and what it could not."""

    path: Path
    written: tuple[str, ...]
    kept: tuple[str, ...]
    problems: tuple[Problem, ...]


def predict(
    model: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    only: Collection[str] | None = None,
    options: ScanOptions | None = None,
    device: str = "auto",
    probabilities: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Writes a mask for every volume of `data`, in the volume's own geometry and format.

    A folder that holds masks of the same model is completed: what is there for the same image is kept.

    Args:
        model: a run, a checkpoint folder or a weights file.
        data: a folder or glob of volumes, or one with `images/`.
        out: the folder of masks.
        only: ids of the cases to predict; all when None.
        options: spacing for files that tell none.
        device: "auto", "cpu" or "cuda".
        probabilities: also write what the masks were chosen from, a channel a class (with the background,
            unless classes may overlap), as `<case>_probabilities` beside each.
        progress: called with (cases done, cases in all).

    Raises:
        UserError: the model or data cannot be read, or `out` holds something else.
    """
    checkpoint, out, options = load(model), Path(out), options or ScanOptions()
    network = checkpoint.network().to(choose_device(device))
    predictor = Predictor(models=(Model(network=network, plan=checkpoint.info.plan),))
    cases = _chosen(find_images(data, checkpoint.info.plan.preprocessing.channels), only, data)
    refuse_unknown(options, cases)
    refuse_among_images(out, data)
    if probabilities:
        _refuse_names_of_maps(cases, out)
    manifest = _manifest(out, checkpoint)
    done = dict(manifest.cases)
    written, kept, problems = [], [], []
    for count, case in enumerate(cases, start=1):
        try:
            before = done.get(case.id)
            if _is_done(before, case, out, options, probabilities=probabilities):
                kept.append(case.id)
            else:
                # where maps lie already they follow the mask, or they would be of another image
                maps = probabilities or (before is not None and before.probabilities is not None)
                done[case.id] = _predict_case(predictor, checkpoint, case, out, options, maps=maps)
                written.append(case.id)
                _write_manifest(out, manifest, done)
        except UserError as error:
            problems.append(Problem.from_error(case.id, error))
        except (OSError, RuntimeError, ValueError, MemoryError) as error:
            problems.append(_failure(case, error))
        if progress is not None:
            progress(count, len(cases))
    return Predictions(path=out, written=tuple(written), kept=tuple(kept), problems=tuple(problems))


def _failure(case: Case, error: Exception) -> Problem:
    return Problem(
        severity="error",
        case=case.id,
        where=str(case.image),
        found=f"no mask could be made ({type(error).__name__}: {error})",
        rule="A mask is written whole or not at all; the other cases are not affected",
        remedy="Free disk or memory if that was short, and run the same command again for what is missing",
    )


def read_manifest(folder: Path) -> Manifest | None:
    """What `predict` wrote beside the masks in a folder; None where it did not."""
    path = folder / MANIFEST
    return read_json(path, Manifest) if path.is_file() else None


def _refuse_names_of_maps(cases: list[Case], out: Path) -> None:
    made = read_manifest(out)
    names = {case.id for case in cases} | (made.cases.keys() if made else set())
    for case in cases:
        if case.id + PROBABILITIES in names:
            raise DatasetError(
                case.image,
                found=f"another volume is called '{case.id}{PROBABILITIES}'",
                rule="So is the file of its probabilities",
                remedy="Rename one of the volumes, or predict without probabilities",
            )


def masks_in(folder: Path) -> dict[str, Path]:
    """Masks by case id in a folder; probability maps beside them are none. Raises DatasetError."""
    found, manifest = find_labels(folder), read_manifest(folder)
    if manifest is None:
        return found
    # by name, as a prediction killed within a case leaves maps that its manifest lacks
    maps = {case + PROBABILITIES for case in found} - manifest.cases.keys()
    return {case: path for case, path in found.items() if case not in maps}


def _chosen(cases: list[Case], only: Collection[str] | None, data: object) -> list[Case]:
    if only is None:
        return cases
    missing = sorted(set(only) - {case.id for case in cases})
    if missing:
        raise DatasetError(
            data,
            found=f"{len(missing)} of the listed cases are not there: {', '.join(missing[:5])}",
            rule="Every listed case is a volume of the data",
            remedy="Check the list against the names of the volumes, suffix apart",
        )
    return [case for case in cases if case.id in set(only)]


def _manifest(out: Path, checkpoint: Checkpoint) -> Manifest:
    """The manifest of the masks in `out`, empty where there are none yet."""
    model_hash, labels = file_hash(checkpoint.path), checkpoint.info.plan.labels
    if labels is None or "output" not in checkpoint.info.trained:
        raise UserError(
            checkpoint.path,
            found="a model whose output was never trained",
            rule="Only a fine-tuned model predicts masks",
            remedy="Fine-tune it with `fewvox finetune --pretrained RUN`",
        )
    before = read_manifest(out)
    if before is not None and before.model_hash == model_hash:
        return before
    if out.exists() and any(out.iterdir()):
        raise UserError(
            out,
            found="masks of another model" if before else "the folder is not empty",
            rule="A folder holds the masks of one model",
            remedy="Choose another --out",
        )
    fresh = Manifest(model_hash=model_hash, labels=labels, cases={})
    out.mkdir(parents=True, exist_ok=True)
    _write_manifest(out, fresh, {})  # before any mask, so that a killed prediction can be completed
    return fresh


def _is_done(
    before: PredictedCase | None, case: Case, out: Path, options: ScanOptions, *, probabilities: bool
) -> bool:
    if before is None or not (out / before.file).is_file():
        return False
    if probabilities and (before.probabilities is None or not (out / before.probabilities).is_file()):
        return False
    return before.image_hash == source_hash(case.images) and before.reading == _reading(case, options)


def _reading(case: Case, options: ScanOptions) -> str:
    """The hash of all that decides how the image of a case is read, beside its files."""
    beside = None if case.sidecar is None else source_hash(case.sidecar)
    told = [plain(options.image), options.spacing, options.unit, options.spacings.get(case.id), beside]
    return settings_hash([*told, options.replace_nonfinite, case.axes])


def _predict_case(
    predictor: Predictor,
    checkpoint: Checkpoint,
    case: Case,
    out: Path,
    options: ScanOptions,
    *,
    maps: bool,
) -> PredictedCase:
    volume = read_image(case, options)
    suffix = mask_suffix(volume.source)
    mask, probabilities = f"{case.id}{suffix}", f"{case.id}{PROBABILITIES}{suffix}" if maps else None
    predictor.write_mask(volume, case.image, out / mask, out / probabilities if probabilities else None)
    return PredictedCase(
        file=mask,
        image_hash=source_hash(case.images),
        reading=_reading(case, options),
        role=_role(checkpoint.info, content_hash(volume.array)),
        probabilities=probabilities,
    )


def _role(info: CheckpointInfo, hashed: str) -> Role:
    if hashed in info.trained_on:
        return "training"
    if hashed in info.validated_on:
        return "validation"
    if hashed in info.inherited:
        return "pretraining"
    return "unseen" if info.inherited_all else "unknown"


def _write_manifest(out: Path, manifest: Manifest, cases: dict[str, PredictedCase]) -> None:
    whole = Manifest(model_hash=manifest.model_hash, labels=manifest.labels, cases=cases)
    write_text(out / MANIFEST, json.dumps(plain(whole), indent=1))
