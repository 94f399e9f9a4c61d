"""nnU-Net's masks for the arms of a comparison that are nnU-Net's, each made once.

python -m fewvox.experiments.bench.nnunet_runs CONFIG --set data=DIR --out OUT

OUT is the folder of the comparison, which `fewvox compare` fills with the rest. Every arm gets the labelled
cases, test cases and seeds of the comparison, its plan, network, patch, batch and steps.

OUT/<predictions of the arm>                      masks of the test cases; with them the cell is done
OUT/development/<arm>/labels_<n>/seed_<s>.json    Dice on cases that are neither tested nor trained on
OUT/times.jsonl                                   how long each training took
"""

import importlib.metadata
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ...data.atomic import replaced_folder, write_text
from ...data.cases import Case
from ...data.claims import claimed
from ...data.dataset import find_images, find_labels
from ...data.errors import UserError
from ...data.formats.files import mask_suffix, write_like
from ...data.hashing import settings_hash
from ...data.plan import Plan
from ...data.reading import class_numbers, read_image
from ...data.settings import read_json_mapping
from ...data.splits import ranked_subjects, whole_subjects, without_subjects_of
from ...seg import evaluate as evaluating
from ...seg.few_labels import steps_for
from ...seg.training import planned
from ..cli import answered
from ..compare import Bench, Sitting
from ..comparison import Cell, ComparisonConfig, cells, finetune_config, read_config
from ..display import console
from .nnunet_training import Predict, Task, dataset_for, plans_for, train

# by arm; Adam's are nnU-Net's own variants (AdamW with amsgrad), with their learning rates
TRAINERS = {
    "nnunet-sgd": "nnUNetTrainer",
    "nnunet-adamw": "nnUNetTrainerAdam3en4",
    "nnunet-adamw-1e-3": "nnUNetTrainerAdam1en3",
}
# at least so many cases choose the optimiser
DEVELOPMENT_CASES = 4
MADE = "nnunet.json"
# task, cases, folder for its files, what measures the training
Train = Callable[[Task, Any, Path, AbstractContextManager], Predict]


def run_all(config: ComparisonConfig, out: Path, trained: Train = train) -> None:
    """Makes what is missing, seed by seed; stopped at any time, the same call goes on."""
    with claimed(out, "runs nnU-Net"):
        runs = Runs(Bench.open(config, out), trained)
        todo = [cell for cell in cells(config) if cell.arm in TRAINERS and cell.labels is not None]
        for number, cell in enumerate(todo, start=1):
            state = "done before" if runs.is_done(cell) else "runs"
            console.print(f"{number} of {len(todo)}: {cell}: {state}", highlight=False)
            if state == "runs":
                runs.run(cell)


@dataclass(frozen=True)
class Runs:
    """The runs of nnU-Net in the folder of a comparison."""

    bench: Bench
    trained: Train

    def plan(self, cell: Cell) -> Plan:
        """The plan that the comparison's own baseline trains by."""
        config, plan = self.bench.config, self.bench.store.plan
        _refuse_labels(plan, config.data)
        return planned(plan, finetune_config(config, config.baseline, cell.seed))

    def task(self, cell: Cell) -> Task:
        """What nnU-Net is given."""
        config, plan = self.bench.config, self.plan(cell)
        labels = cell.labels or 0
        return Task(
            trainer=TRAINERS[cell.arm],
            plans=plans_for(plan),
            dataset=dataset_for(plan, labels),
            unit=plan.preprocessing.unit,
            steps=finetune_config(config, config.baseline, cell.seed).steps or steps_for(labels),
            seed=cell.seed,
        )

    def training(self, cell: Cell) -> tuple[str, ...]:
        """The labelled cases of a cell, those among them by which fewvox chooses a checkpoint."""
        chosen = self.bench.split(cell)
        return tuple(sorted({*chosen.train, *chosen.validation}))

    def development(self, cell: Cell) -> tuple[str, ...]:
        """Labelled cases of subjects that are neither tested nor trained on."""
        cases = self.bench.store.annotated
        left = set(without_subjects_of(cases, [*self.bench.split(cell).test, *self.training(cell)]))
        rest = [case for case in cases if case.id in left]
        return whole_subjects(rest, ranked_subjects(rest, 0, "development"), DEVELOPMENT_CASES)

    def key(self, cell: Cell) -> str:
        """A hash of all that the masks of a cell depend on."""
        made = [vars(self.task(cell)), self.training(cell), self._develops(cell), self.bench.test_hashes]
        return settings_hash([*made, sorted(self.bench.truths)])

    def is_done(self, cell: Cell) -> bool:
        """Whether the masks of a cell are there, made as they would be made now."""
        file = self.bench.masks(cell) / MADE
        return file.is_file() and read_json_mapping(file).get("key") == self.key(cell)

    def run(self, cell: Cell) -> None:
        """Trains and predicts; the masks of the test cases appear last, all at once."""
        work = self.bench.out / "nnunet-work"
        # of a run that was killed
        shutil.rmtree(work, ignore_errors=True)
        timed = Sitting(self.bench.out / "times.jsonl", cell)
        predict = self.trained(self.task(cell), map(self._case, self.training(cell)), work, timed)
        if self._develops(cell):
            self._develop(cell, predict, work / "development")
        self._write_test_masks(cell, predict)
        shutil.rmtree(work, ignore_errors=True)

    def _develops(self, cell: Cell) -> tuple[str, ...]:
        """The development cases that are predicted: those of the first seed."""
        return self.development(cell) if cell.seed == self.bench.config.seeds[0] else ()

    def _case(self, case: str) -> tuple[str, Any, np.ndarray]:
        known, options = self._cases[case], self.bench.options
        volume = read_image(known, options)
        numbers = class_numbers(known, volume, self.bench.table, options)
        return case, volume, numbers[(slice(None),) * 4]

    @cached_property
    def _cases(self) -> dict[str, Case]:
        config = self.bench.config
        labels = find_labels(config.labels or config.data)
        return {c.id: replace(c, label=labels.get(c.id)) for c in find_images(config.data)}

    def _develop(self, cell: Cell, predict: Predict, folder: Path) -> None:
        config, ids = self.bench.config, self._develops(cell)
        self._write_masks([self._cases[case] for case in ids], predict, folder)
        found = evaluating.evaluate(
            folder, config.labels or config.data, label_kind=self.bench.table.kind, only=ids
        )
        file = development_file(self.bench.out, cell)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps({"dice": found.mean(), "cases": ids}))

    def _write_test_masks(self, cell: Cell, predict: Predict) -> None:
        masks = self.bench.masks(cell)
        masks.parent.mkdir(parents=True, exist_ok=True)
        with replaced_folder(masks) as partial:
            self._write_masks(list(self.bench.test_images.values()), predict, partial)
            made = {
                "key": self.key(cell),
                "nnunetv2": _version("nnunetv2"),
                "trained_on": self.training(cell),
                "task": vars(self.task(cell)),
            }
            write_text(partial / MADE, json.dumps(made, indent=1))

    def _write_masks(self, cases: Sequence[Case], predict: Predict, folder: Path) -> None:
        for case in cases:
            volume = read_image(case, self.bench.options)
            file = folder / f"{case.id}{mask_suffix(volume.source)}"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_like(file, self.bench.table.decode(predict(volume)), volume.source)


def development_file(out: Path, cell: Cell) -> Path:
    """The Dice of a cell on development cases."""
    return (out / "development" / cell.path).with_suffix(".json")


def _refuse_labels(plan: Plan, where: str) -> None:
    table = plan.labels
    if table is not None and (table.kind == "overlapping" or table.ignore is not None):
        raise UserError(
            where,
            found=f"labels of kind {table.kind}, {table.ignore} where nobody annotated",
            rule="nnU-Net is compared on classes that exclude each other, annotated everywhere",
            remedy="Compare on other labels",
        )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def main(
    config: str,
    out: Annotated[Path, typer.Option()],
    assignments: Annotated[list[str] | None, typer.Option("--set")] = None,
) -> None:
    """Trains nnU-Net for the arms of CONFIG that are nnU-Net's, and predicts the test cases."""
    run_all(read_config(config, assignments or []), out)


if __name__ == "__main__":
    answered(lambda: typer.run(main))
