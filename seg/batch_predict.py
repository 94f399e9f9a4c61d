"""Predicting a whole data set: one bad volume neither stops the others nor is passed over."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
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
from ..data.reading import ScanOptions, open_image, refuse_unknown
from ..data.settings import checked, parse, plain, read_json_mapping, settings
from ..data.sources import source_hash
from .checkpoint import Checkpoint, CheckpointInfo, load
from .postprocess import PostprocessConfig, chosen_postprocess, finishing, labels_of_masks
from .predict import Finish, Model, PredictConfig, Predictor
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
class MaskOptions:
    """What decides a mask beside models and image; see `PredictConfig`."""

    overlap: float = 0.5
    mirror: bool = False
    threshold: float | None = None
    postprocess: PostprocessConfig = PostprocessConfig()


@settings
class Manifest:
    """What stands in predictions.json beside the masks: which models made them and how, of which images.

    `model_hashes` are those of the weights files of all models, sorted. `labels` tells what the values of
    the masks mean.
    """

    version: Literal[2] = 2
    model_hashes: tuple[str, ...]
    labels: LabelTable
    options: MaskOptions = MaskOptions()
    cases: dict[str, PredictedCase]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a prediction made, and what it could not."""

    path: Path
    written: tuple[str, ...]
    kept: tuple[str, ...]
    problems: tuple[Problem, ...]


def predict(
    model: str | Path | Sequence[str | Path],
    data: str | Path,
    out: str | Path,
    *,
    only: Collection[str] | None = None,
    options: ScanOptions | None = None,
    config: PredictConfig | None = None,
    postprocess: str | Path | None = None,
    device: str = "auto",
    probabilities: bool = False,
    progress: Callable[[int, int], None] | None = None,
    announce: Callable[[str], None] | None = None,
) -> Predictions:
    """Writes a mask for every volume of `data`, in the volume's own geometry and format.

    A folder that holds masks of the same models, made in the same way, is completed: what is there for the
    same image is kept.

    Args:
        model: a run, a checkpoint folder or a weights file; the probabilities of several are averaged.
        data: a folder or glob of volumes, or one with `images/`.
        out: the folder of masks.
        only: ids of the cases to predict; all when None.
        options: spacing for files that tell none.
        config: windows, mirroring, threshold and memory; the defaults when None.
        postprocess: a file that tells what is done to the masks, or "none". When None it is what the run
            chose on its validation cases; of several runs, what all of them chose alike.
        device: "auto", "cpu" or "cuda".
        probabilities: also write what the masks were chosen from, a channel a class (with the background,
            unless classes may overlap), as `<case>_probabilities` beside each.
        progress: called with (cases done, cases in all).
        announce: is given what the user should read before the first case.

    Raises:
        UserError: a model or the data cannot be read, models differ in classes or channels, or `out` holds
            something else.
    """
    paths = [model] if isinstance(model, str | Path) else list(model)
    checkpoints, out, options = [load(path) for path in paths], Path(out), options or ScanOptions()
    config = checked(config or PredictConfig(), "configuration")
    table = _table(checkpoints)
    models = tuple(
        Model(network=c.network().to(choose_device(device)), plan=c.info.plan) for c in checkpoints
    )
    predictor = Predictor(models=models, config=config)
    cleaning, told = chosen_postprocess([Path(path) for path in paths], postprocess, table)
    cases = _chosen(find_images(data, models[0].plan.preprocessing.channels), only, data)
    refuse_unknown(options, cases)
    refuse_among_images(out, data)
    if probabilities:
        _refuse_names_of_maps(cases, out)
    manifest = _manifest(
        out,
        Manifest(
            model_hashes=tuple(sorted(file_hash(c.path) for c in checkpoints)),
            labels=labels_of_masks(cleaning, table),
            options=MaskOptions(
                overlap=config.overlap,
                mirror=config.mirror,
                threshold=config.threshold,
                postprocess=cleaning,
            ),
            cases={},
        ),
    )
    if announce is not None and told:
        announce(told)
    task = _Task(predictor=predictor, infos=tuple(c.info for c in checkpoints), manifest=manifest)
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
                done[case.id] = _predict_case(task, case, out, options, maps=maps)
                written.append(case.id)
                _write_manifest(out, replace(manifest, cases=done))
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
    """What `predict` wrote beside the masks in a folder; None where it did not. Older versions are read."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    values = read_json_mapping(path)
    if values.get("version") == 1 and "model_hash" in values:
        # of one model, by what are the defaults of today
        values = {**values, "version": 2, "model_hashes": [values["model_hash"]]}
        del values["model_hash"]
    return parse(Manifest, values, path)


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


def _table(checkpoints: Sequence[Checkpoint]) -> LabelTable:
    """The label table of the models."""
    for checkpoint in checkpoints:
        if checkpoint.info.plan.labels is None or "output" not in checkpoint.info.trained:
            raise UserError(
                checkpoint.path,
                found="a model whose output was never trained",
                rule="Only a fine-tuned model predicts masks",
                remedy="Fine-tune it with `fewvox finetune --pretrained RUN`",
            )
    return checkpoints[0].info.plan.labels or LabelTable()


def _manifest(out: Path, fresh: Manifest) -> Manifest:
    """The manifest of the masks in `out`; `fresh`, which is written, where there are none yet."""
    before = read_manifest(out)
    other = _other(before, fresh) if before is not None else "the folder is not empty"
    if before is not None and not other:
        return before
    if out.exists() and any(out.iterdir()):
        raise UserError(
            out,
            found=other,
            rule="A folder holds the masks of the same models, made in the same way",
            remedy="Choose another --out",
        )
    out.mkdir(parents=True, exist_ok=True)
    _write_manifest(out, fresh)  # before any mask, so that a killed prediction can be completed
    return fresh


def _other(before: Manifest, now: Manifest) -> str:
    """In what masks that are there differ from those that are asked for; "" where in nothing."""
    if before.model_hashes != now.model_hashes:
        return "masks of another model"
    was, asked = plain(before.options), plain(now.options)
    changed = [f"{key} {was[key]}, not {asked[key]}" for key in was if was[key] != asked[key]]
    return f"masks made with {'; '.join(changed)}" if changed else ""


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


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What every case is predicted with."""

    predictor: Predictor
    infos: tuple[CheckpointInfo, ...]
    manifest: Manifest

    @property
    def finish(self) -> Finish | None:
        """What is done to the class numbers of each mask."""
        cleaning = self.manifest.options.postprocess
        return finishing(cleaning, self.infos[0].plan) if cleaning.changes else None


def _predict_case(task: _Task, case: Case, out: Path, options: ScanOptions, *, maps: bool) -> PredictedCase:
    volume = open_image(case, options)
    suffix = mask_suffix(volume.source)
    mask, probabilities = f"{case.id}{suffix}", f"{case.id}{PROBABILITIES}{suffix}" if maps else None
    task.predictor.write_mask(
        volume, case.image, out / mask, out / probabilities if probabilities else None, task.finish
    )
    return PredictedCase(
        file=mask,
        image_hash=source_hash(case.images),
        reading=_reading(case, options),
        role=_role(task.infos, content_hash(volume.array)),
        probabilities=probabilities,
    )


def _role(infos: Sequence[CheckpointInfo], hashed: str) -> Role:
    """What a volume was to any of the models; it is unseen only by all of them."""
    if any(hashed in info.trained_on for info in infos):
        return "training"
    if any(hashed in info.validated_on for info in infos):
        return "validation"
    if any(hashed in info.inherited for info in infos):
        return "pretraining"
    return "unseen" if all(info.inherited_all for info in infos) else "unknown"


def _write_manifest(out: Path, manifest: Manifest) -> None:
    write_text(out / MANIFEST, json.dumps(plain(manifest), indent=1))
