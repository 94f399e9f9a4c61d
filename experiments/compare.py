"""Comparisons: methods x label counts x seeds, on one fixed test set, each cell run once.

OUT/comparison.yaml                              what is compared, resolved
OUT/store/                                       the prepared data
OUT/pretraining/<arm>/seed_<s>/                  a run
OUT/finetuning/<arm>/labels_<n>/seed_<s>/        a run
OUT/masks/<arm>/labels_<n>/seed_<s>/             its masks of the test cases
OUT/scores/<arm>/labels_<n>/seed_<s>.json        their scores; with it the cell is done
OUT/masks/<arm>/, OUT/scores/<arm>/all.json      those of a threshold, the same in all its cells
OUT/times.jsonl                                  how long each sitting of each training took
OUT/results.csv, results.json, report.html       what came of it
"""

import json
import subprocess
import time
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from statistics import fmean

from rich.markup import escape

from ..data.atomic import write_text
from ..data.cases import Case
from ..data.claims import claimed
from ..data.dataset import find_images, find_labels
from ..data.errors import UserError
from ..data.hashing import content_hash, file_hash, settings_hash
from ..data.labels import LabelTable
from ..data.reading import read_image
from ..data.settings import plain, read_json, read_yaml, settings, write_yaml
from ..data.sources import source_hash
from ..data.splits import Split, split, without_subjects_of
from ..data.store import STORE_FILE, Store
from ..seg import batch_predict
from ..seg import evaluate as evaluating
from ..seg import finetune as finetuning
from ..seg import run as runs
from ..seg.checkpoint import load
from ..seg.engine.tracking import read_metrics
from ..seg.evaluate import CaseScore
from ..seg.metrics import METRICS
from ..seg.neighbours.sources import open_source
from ..seg.networks.registry import DEFAULT
from ..seg.otsu import check_one_class, write_otsu_masks
from ..seg.source import Source, source_of
from ..seg.transfer_report import PARTS, TransferReport, ranges
from ..ssl import pretrain as pretraining
from ..ssl.collapse import read_collapse
from . import api
from .comparison import (
    Cell,
    ComparisonConfig,
    cells,
    check_same,
    finetune_config,
    pretrain_config,
    weights_of,
)
from .display import TrainingDisplay, console, meter
from .paired_tests import case_means, compare_arms, summarise
from .reading import scan_options
from .report.report import write_report
from .report.sights import sights
from .results import Curve, Results, RunRecord, Score, Transferred, write_results


@settings
class CellScores:
    """What stands in a file of scores. `key` is a hash of all that the scores depend on."""

    key: str
    unit: str
    scores: tuple[CaseScore, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A finished comparison: its folder, its results and its report."""

    path: Path
    results: Results
    report: Path


def run_comparison(config: ComparisonConfig, out: Path, command: str) -> Comparison:
    """Runs every cell that is not done yet, and writes results and report.

    `command` is what the report says it was made with.
    """
    with claimed(out, "runs a comparison"):
        return _run(Bench.open(config, out), command)


def _run(bench: "Bench", command: str) -> Comparison:
    config, out = bench.config, bench.out
    todo = list(cells(config))
    failures: dict[Cell, str] = {}
    for number, cell in enumerate(todo, start=1):
        try:
            if bench.is_done(cell):
                console.print(f"{number} of {len(todo)}: {cell}: done before", highlight=False)
                continue
            left = [c for c in todo[number - 1 :] if c == cell or not bench.is_done(c)]
            console.rule(f"{number} of {len(todo)}: {cell}{bench.time_left(left)}")
            bench.run(cell)
        except (UserError, RuntimeError, MemoryError) as error:
            told = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            failures[cell] = told
            console.print(f"[red]failed[/] {escape(told)}", highlight=False, soft_wrap=True)
    results = bench.results(todo, failures, command)
    write_results(results, out)
    console.print("drawing the report", highlight=False)
    report = out / "report.html"
    write_report(results, sights(bench, results), report)
    return Comparison(path=out, results=results, report=report)


class Bench:
    """The folder of a comparison, and how one cell of it is run."""

    def __init__(self, config: ComparisonConfig, out: Path, store: Store) -> None:
        self.config, self.out, self.store = config, out, store
        self.options = scan_options(
            {"spacing": config.spacing, "unit": config.unit, "label_kind": config.label_kind}
        )

    @classmethod
    def open(cls, config: ComparisonConfig, out: Path) -> "Bench":
        """Prepares the data where that is not done; raises UserError where `out` holds something else."""
        file, kept = out / "comparison.yaml", config
        if file.is_file():
            before = _as_run(read_yaml(file, ComparisonConfig), out)
            begun = any((out / stage).exists() for stage in ("pretraining", "finetuning", "scores"))
            if begun or (out / "store").exists():
                check_same(before, config, out, begun=begun)
            # an arm that is left out now is remembered, as its runs are
            kept = replace(config, arms={**(before.arms if begun else {}), **config.arms})
        elif out.exists() and any(out.iterdir()):
            raise UserError(
                out,
                found="the folder is not empty, and has no comparison in it",
                rule="A comparison has a folder of its own",
                remedy="Choose another --out",
            )
        out.mkdir(parents=True, exist_ok=True)
        write_yaml(file, kept, "What is compared in this folder; see docs/comparisons.md.")
        if not (out / "store" / STORE_FILE).is_file():
            api.prepare(
                config.data,
                out / "store",
                config.labels,
                subjects=config.subjects,
                budget=config.budget,
                spacing=config.spacing,
                unit=config.unit,
                label_kind=config.label_kind,
                accept_geometry=config.accept_geometry,
            )
        bench = cls(config, out, Store.open(out / "store"))
        bench.check_test_cases()
        bench.check_networks()
        if any(arm.otsu is not None for arm in config.arms.values()):
            check_one_class(bench.table, config.data)
        for cell in cells(config):  # before hours are spent: can every cell be run at all?
            if cell.labels is not None:
                bench.split(cell)
        return bench

    @property
    def test_source(self) -> str:
        """The data set that the test volumes are read from."""
        return self.config.test_data or self.config.data

    @property
    def table(self) -> LabelTable:
        """What the label values mean."""
        return self.store.plan.labels or LabelTable()

    @cached_property
    def truths(self) -> dict[str, Path]:
        """The label file of every test case."""
        labels = self.config.labels if self.config.test_data is None else None
        files = find_labels(labels or self.test_source)
        _refuse_missing(self.test_images, files, labels or self.test_source)
        return {case: files[case] for case in self.test_images}

    @cached_property
    def test_images(self) -> dict[str, Case]:
        """The image of every test case."""
        images = {case.id: case for case in find_images(self.test_source)}
        if self.config.test_data is None:
            _refuse_missing(self.held_out, images, self.test_source)
            return {case: images[case] for case in self.held_out}
        labelled = find_labels(self.test_source)
        return {case: image for case, image in images.items() if case in labelled}

    @cached_property
    def held_out(self) -> tuple[str, ...]:
        """The test cases that are in the store."""
        chosen = split(
            self.store.annotated,
            test=self.config.test,
            labelled=None,
            seed=0,
            split_seed=self.config.split_seed,
        )
        return chosen.test

    @cached_property
    def test_hashes(self) -> dict[str, str]:
        """The content hash of every test volume, read anew from its file."""
        return {
            case.id: content_hash(read_image(case, self.options).array) for case in self.test_images.values()
        }

    @cached_property
    def truth_hashes(self) -> dict[str, str]:
        """The hash of every test label's file."""
        return {case: source_hash(path) for case, path in self.truths.items()}

    @cached_property
    def unannotated(self) -> tuple[str, ...]:
        """What is pretrained on: every case of the store but those of test subjects."""
        return without_subjects_of(tuple(self.store.cases.values()), self.held_out)

    @cached_property
    def given(self) -> dict[str, Source]:
        """The weights that were there before the comparison, by the arms that start from them."""
        paths = {arm: weights_of(self.config, arm) for arm in self.config.arms}
        return {arm: open_source(path) for arm, path in paths.items() if path is not None}

    def check_test_cases(self) -> None:
        """Raises UserError where a test volume is, by its voxels, among those that are trained on."""
        seen = {self.store.cases[case].content_hash: case for case in self.unannotated}
        for name, weights in self.given.items():
            seen |= dict.fromkeys(weights.seen or (), f"a volume that the weights of {name} have seen")
        leaked = [(case, seen[hashed]) for case, hashed in self.test_hashes.items() if hashed in seen]
        if leaked or not self.test_hashes:
            raise UserError(
                self.test_source,
                found=f"test case {leaked[0][0]} has the voxels of {leaked[0][1]}, which is trained on "
                f"({len(leaked)} such in all)"
                if leaked
                else "no labelled test case",
                rule="There are test cases, and none of them is seen by pretraining or fine-tuning",
                remedy="Take the copies away" if leaked else "Give labels of the test volumes",
            )

    def check_networks(self) -> None:
        """Raises UserError where an arm trains another network, and it is not networks that are compared."""
        if self.config.compare_networks:
            return
        base = self._network(self.config.baseline)
        for arm in self.config.arms:
            if self.config.arms[arm].trained and self._network(arm) != base:
                raise UserError(
                    f"arm {arm}",
                    found=f"its network is {self._network(arm)}, that of {self.config.baseline} is {base}",
                    rule="All arms fine-tune one network, or it is networks that are compared",
                    remedy=f"Set finetune.network={self._network(arm)} for all, pretrain {base}, or compare "
                    "networks: compare_networks=true",
                )

    def _network(self, arm: str) -> str:
        chosen = finetune_config(self.config, arm, self.config.seeds[0]).network
        if chosen is None and arm in self.given:
            return self.given[arm].architecture.name
        if chosen is None and self.config.arms[arm].pretrain is not None:
            chosen = pretrain_config(self.config, arm, self.config.seeds[0]).network
        return chosen or DEFAULT

    def split(self, cell: Cell) -> Split:
        """Training, validation and test cases of a fine-tuning: labels and test are those of all arms."""
        return split(
            self.store.annotated,
            test=self.config.test,
            labelled=cell.labels,
            seed=cell.seed,
            split_seed=self.config.split_seed,
        )

    def folder(self, stage: str, cell: Cell) -> Path:
        """Where a stage of a cell writes."""
        return self.out / stage / cell.path

    def score_file(self, cell: Cell) -> Path:
        """The scores of a cell."""
        if self.config.arms[cell.arm].otsu is not None:
            return self.out / "scores" / cell.arm / "all.json"
        return self.folder("scores", cell).with_suffix(".json")

    def pretrained(self, cell: Cell) -> Source | None:
        """The weights that a fine-tuning starts from; None from scratch."""
        weights = weights_of(self.config, cell.arm)
        if weights is not None:
            return open_source(weights)
        if self.config.arms[cell.arm].pretrain is None:
            return None
        before = Cell(arm=cell.arm, labels=None, seed=cell.seed)
        if not self.is_done(before):
            raise UserError(
                str(cell),
                found="its pretraining is not finished",
                rule="A fine-tuning starts from finished weights",
                remedy="See why the pretraining failed, and run the comparison again",
            )
        return source_of(load(self.folder("pretraining", before), "last"))

    def key(self, cell: Cell) -> str:
        """A hash of all that the scores of a cell depend on."""
        arm = self.config.arms[cell.arm]
        if arm.predictions is not None:
            masks = find_labels(self.masks(cell))
            made = sorted((case, file_hash(path)) for case, path in masks.items() if case in self.truths)
        elif arm.otsu is not None:
            made = [plain(arm.otsu), plain(self.table)]
        else:
            weights = self.pretrained(cell)
            made = [
                plain(finetune_config(self.config, cell.arm, cell.seed)),
                plain(self.store.plan),
                vars(self.split(cell)),
                file_hash(weights.path) if weights else None,
            ]
        # nothing is added for the default, so that what was scored before there was a tolerance stays done
        tolerance = [] if self.config.tolerance is None else [self.config.tolerance]
        return settings_hash([made, self.test_hashes, self.truth_hashes, *tolerance])

    def masks(self, cell: Cell) -> Path:
        """The folder of a cell's masks."""
        arm = self.config.arms[cell.arm]
        if arm.otsu is not None:
            return self.out / "masks" / cell.arm
        pattern = arm.predictions
        if pattern is None:
            return self.folder("masks", cell)
        known = {"{out}": self.out, "{labels}": cell.labels, "{seed}": cell.seed}
        for name, value in known.items():
            pattern = pattern.replace(name, str(value))
        return Path(pattern)

    def is_done(self, cell: Cell) -> bool:
        """Whether a cell needs no more work; a cell that cannot tell is not done, and `run` says why."""
        try:
            return self._is_done(cell)
        except UserError:
            return False

    def _is_done(self, cell: Cell) -> bool:
        if cell.labels is None:
            run = self.folder("pretraining", cell)
            steps = pretrain_config(self.config, cell.arm, cell.seed).steps or pretraining.STEPS
            return runs.is_finished(run, steps)
        file = self.score_file(cell)
        scored = file.is_file() and read_json(file, CellScores).key == self.key(cell)
        if not self.is_trained(cell) or not scored:
            return scored
        masks = self.masks(cell) / batch_predict.MANIFEST
        return masks.is_file() and runs.has_checkpoint(self.folder("finetuning", cell))

    def time_left(self, left: Sequence[Cell]) -> str:
        """In words, how long the given cells will take, as those before did; empty before the first."""
        told = 0.0
        for stage in (True, False):
            todo = [c for c in left if (c.labels is None) == stage and self.is_trained(c)]
            before = [s for c, s in self.times().items() if (c.labels is None) == stage]
            if todo and not before:
                return ""
            told += len(todo) * fmean(sum(s) for s in before) if todo else 0.0
        return f" (about {told / 60:.0f} min left)" if told else ""

    def is_trained(self, cell: Cell) -> bool:
        """Whether a cell is a training: neither another tool's masks nor a threshold's."""
        return self.config.arms[cell.arm].trained

    def run(self, cell: Cell) -> None:
        """Trains, predicts and scores a cell, from where it was left."""
        if cell.labels is None:
            self._pretrain(cell)
            return
        masks, otsu = self.masks(cell), self.config.arms[cell.arm].otsu
        if otsu is not None:
            with meter("thresholding") as shown:
                cases = self.test_images.values()
                write_otsu_masks(cases, masks, self.table, otsu, self.options, shown.update)
        elif self.is_trained(cell):
            self._finetune(cell)
            self._predict(cell, masks)
        self._score(cell, masks)

    def _pretrain(self, cell: Cell) -> None:
        config = pretrain_config(self.config, cell.arm, cell.seed)
        out = self.folder("pretraining", cell)
        with self._timed(cell), meter("pretraining") as shown:
            pretraining.pretrain(
                self.store,
                self.unannotated,
                out,
                config,
                held_out=self.held_out,
                resume=(out / runs.CONFIG).is_file(),
                observer=TrainingDisplay(shown, "embeddings"),
                announce=_say,
            )

    def _finetune(self, cell: Cell) -> None:
        config = finetune_config(self.config, cell.arm, cell.seed)
        out, weights = self.folder("finetuning", cell), self.pretrained(cell)
        with self._timed(cell), meter("fine-tuning") as shown:
            finetuning.finetune(
                self.store,
                self.split(cell),
                out,
                config,
                pretrained=weights,
                resume=(out / runs.CONFIG).is_file(),
                observer=TrainingDisplay(shown),
                announce=_say,
            )

    def _predict(self, cell: Cell, masks: Path) -> None:
        with meter("predicting") as shown:
            made = batch_predict.predict(
                self.folder("finetuning", cell),
                self.test_source,
                masks,
                only=tuple(self.truths),
                options=self.options,
                progress=shown.update,
            )
        if made.problems:
            raise UserError(
                masks,
                found=f"{len(made.problems)} test cases without a mask: {made.problems[0]}",
                rule="Every arm is scored on every test case",
                remedy="Solve this, and run the comparison again",
            )

    def _score(self, cell: Cell, masks: Path) -> None:
        labels = self.config.labels if self.config.test_data is None else None
        with meter("scoring") as shown:
            found = evaluating.evaluate(
                masks,
                labels or self.test_source,
                # what the labels turned out to be: masks of other tools do not tell
                label_kind=self.table.kind,
                ignore=self.table.ignore,
                tolerance=self.config.tolerance,
                only=tuple(self.truths),
                progress=shown.update,
            )
        missing = {*found.without_prediction, *(problem.case for problem in found.problems)}
        seen = sorted({s.case for s in found.scores if s.role not in ("unseen", "unknown")})
        if missing or seen:
            what = (
                f"test case {seen[0]} was seen in training, or is none that its manifest lists"
                if seen
                else f"no score for {len(missing)} test cases, such as {min(missing, default='')}"
            )
            raise UserError(
                masks,
                found=f"{what} {found.problems[0] if found.problems else ''}".strip(),
                rule="Every arm is scored on every test case, and has seen none of them",
                remedy="Mend the masks of this arm, and run the comparison again",
            )
        scores = CellScores(key=self.key(cell), unit=found.unit, scores=found.scores)
        self.score_file(cell).parent.mkdir(parents=True, exist_ok=True)
        write_text(self.score_file(cell), json.dumps(plain(scores), indent=1))
        console.print(f"mean Dice {found.mean() or 0.0:.3f}", highlight=False)

    def _timed(self, cell: Cell) -> "Sitting":
        return Sitting(self.out / "times.jsonl", cell)

    def times(self) -> dict[Cell, list[float]]:
        """Seconds of every sitting of every training."""
        file = self.out / "times.jsonl"
        found: dict[Cell, list[float]] = {}
        for line in file.read_text(encoding="utf-8").split("\n")[:-1] if file.is_file() else ():
            if not line.endswith("}"):
                continue  # a killed process left it incomplete
            entry = json.loads(line)
            seconds = entry.pop("seconds")
            found.setdefault(Cell(**entry), []).append(seconds)
        return found

    def results(self, todo: Sequence[Cell], failures: dict[Cell, str], command: str) -> Results:
        """All that is known now."""
        times = self.times()
        records = tuple(self._record(cell, times.get(cell, []), failures.get(cell)) for cell in todo)
        scores = tuple(score for cell in todo if cell not in failures for score in self._scores(cell))
        config, arms = self.config, tuple(self.config.arms)
        silent = [name for name, weights in self.given.items() if not weights.seen_all]
        silence = (
            f" The weights of {', '.join(silent)} do not tell what they were trained on." if silent else ""
        )
        units = {read_json(f, CellScores).unit for f in map(self.score_file, todo) if f.is_file()}
        return Results(
            name=config.name,
            command=command,
            created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            commit=_commit(),
            confidence=config.confidence,
            baseline=config.baseline,
            arms=arms,
            label_counts=config.label_counts,
            seeds=config.seeds,
            test_cases=tuple(sorted(self.truths)),
            hd95_unit=", ".join(sorted(units)) or "voxel",
            leak_check=(
                f"The voxels of the {len(self.truths)} test volumes were compared, by SHA-256, with those of "
                f"the {len(self.unannotated)} volumes that may be trained on: none is among them. Every "
                "prediction was also checked against what its model's checkpoint says it has seen. What "
                f"another tool was trained on is not known here.{silence}"
            ),
            environment=runs.environment(),
            config=plain(config),
            runs=records,
            accepted=tuple(r for r in self.store.records if r.startswith("accepted")),
            scores=scores,
            summaries=summarise(scores, records, arms, config.label_counts, config.confidence),
            differences=compare_arms(
                scores, records, arms, config.baseline, config.label_counts, config.confidence
            ),
        )

    def _scores(self, cell: Cell) -> list[Score]:
        if cell.labels is None or not self.score_file(cell).is_file():
            return []
        found = read_json(self.score_file(cell), CellScores).scores
        return [
            Score(
                arm=cell.arm,
                labels=cell.labels,
                seed=cell.seed,
                case=s.case,
                value=s.value,
                **{metric: getattr(s, metric) for metric in METRICS},
            )
            for s in found
        ]

    def _record(self, cell: Cell, seconds: list[float], failure: str | None) -> RunRecord:
        training = "pretraining" if cell.labels is None else "fine-tuning"
        masks_alone = "foreign" if self.config.arms[cell.arm].otsu is None else "untrained"
        common = RunRecord(
            stage=training if self.is_trained(cell) else masks_alone,
            arm=cell.arm,
            labels=cell.labels,
            seed=cell.seed,
            status="failed" if failure is not None else "done",
            error=failure or "",
            seconds=sum(seconds) if seconds else None,
            sittings=max(1, len(seconds)),
        )
        if failure is not None:
            return common
        scores = self._scores(cell)
        values = sorted({s.value for s in scores})
        of_value = {v: [s.dice for s in scores if s.value == v and s.dice is not None] for v in values}
        told = {
            "zero_classes": tuple(v for v, dice in of_value.items() if dice and not any(dice)),
            "mean_dice": _mean_dice(scores, cell),
        }
        if self.is_trained(cell):
            told |= self._training(cell)
        return RunRecord(**{**vars(common), **told})

    def _training(self, cell: Cell) -> dict[str, object]:
        run = self.folder("pretraining" if cell.labels is None else "finetuning", cell)
        info = load(run, "last").info
        return {
            "method": info.method,
            "steps": info.steps,
            "volumes": len(info.trained_on) + len(info.validated_on),
            "collapse": self._collapse(cell),
            **_taken(run),
            "curves": _curves(run, whole=cell.labels is None),
        }

    def _collapse(self, cell: Cell) -> str:
        """How the pretraining of a cell collapsed; empty where it did not, or there was none."""
        if self.config.arms[cell.arm].pretrain is None:
            return ""
        before = Cell(arm=cell.arm, labels=None, seed=cell.seed)
        found = read_collapse(self.folder("pretraining", before))
        return f"{found.kind} at step {found.step}, {found.found}" if found else ""


def _refuse_missing(cases: Iterable[str], files: Container[str], where: str) -> None:
    missing = [case for case in cases if case not in files]
    if missing:
        raise UserError(
            where,
            found=f"test case {missing[0]} is no longer there ({len(missing)} such in all)",
            rule="The volumes and labels of the test cases stay where they were when the store was prepared",
            remedy="Put them back",
        )


def _as_run(config: ComparisonConfig, out: Path) -> ComparisonConfig:
    """The same without the arms of which nothing was made, which may still be mended."""
    stages = ("pretraining", "finetuning", "scores")
    arms = {name: arm for name, arm in config.arms.items() if any((out / s / name).exists() for s in stages)}
    return replace(config, arms=arms)


class Sitting:
    """Adds a line with the seconds that a block took, however it ended."""

    def __init__(self, file: Path, cell: Cell) -> None:
        self.file, self.cell = file, cell

    def __enter__(self) -> None:
        self.begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        with self.file.open("a", encoding="utf-8") as lines:
            seconds = round(time.perf_counter() - self.begun, 1)
            # on a line of its own, even where a killed process left one without an end
            torn = lines.tell() > 0 and not self.file.read_text(encoding="utf-8").endswith("\n")
            text = json.dumps({**vars(self.cell), "seconds": seconds})
            lines.write("\n" * torn + text + "\n")


def _say(text: str) -> None:
    console.print(escape(text), highlight=False)


def _mean_dice(scores: list[Score], cell: Cell) -> float | None:
    means = case_means(scores, cell.arm, cell.labels).get(cell.seed) if cell.labels is not None else None
    return fmean(means.values()) if means else None


def _taken(run: Path) -> dict[str, object]:
    """What a run took of pretrained weights, as fields of its record; nothing from scratch."""
    file = run / runs.TRANSFER
    if not file.is_file():
        return {}
    report = read_json(file, TransferReport)
    blocks = report.blocks()
    deviations = report.proof.deviations.values() if report.proof else ()
    return {
        "parameters_loaded": {part: report.share(part) for part in PARTS},
        "transferred": Transferred(
            adapted=ranges(b.name for b in blocks if b.state in ("adapted", "mixed")),
            reinitialised=ranges(b.name for b in blocks if b.state == "re-initialised"),
            deviation=max(deviations, default=None),
            accepted=tuple(f"{m.what}: {m.theirs} there, {m.ours} here" for m in report.mismatches),
            warnings=(*report.warnings, *(report.guard.warnings if report.guard else ())),
        ),
    }


def _curves(run: Path, *, whole: bool) -> tuple[Curve, ...]:
    """The loss of a run; with `whole` everything else that it recorded but for the optimiser's numbers."""
    points: dict[str, list[tuple[int, float]]] = {}
    for line in read_metrics(run):
        for name, value in line.items():
            if name == "loss" or (whole and name not in ("step", "lr", "gradient_norm", "skipped")):
                points.setdefault(name, []).append((line["step"], value))
    return tuple(
        Curve(name=name, steps=tuple(s for s, _ in found), values=tuple(v for _, v in found))
        for name, found in points.items()
    )


def _commit() -> str | None:
    """The commit of this very file where it stands in a git working tree; None where it was installed."""
    here = Path(__file__)
    for command in (["ls-files", "--error-unmatch", here.name], ["rev-parse", "HEAD"]):
        try:
            done = subprocess.run(
                ["git", "-C", str(here.parent), *command], capture_output=True, text=True, check=False
            )
        except OSError:
            return None
        if done.returncode != 0:
            return None
    changed = subprocess.run(
        ["git", "-C", str(here.parent), "status", "--porcelain"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() + (" with changes" if changed.stdout.strip() else "")
