"""Every pretext method for the same time on one data set, and what its frozen features are worth.

python -m fewvox.experiments.methods_study CONFIG --set data=DIR --out OUT

CONFIG is a YAML file of `MethodsStudy`, or the name of one of fewvox's own. What is done is not done again:
the same line goes on with a study that was stopped, and tries again what failed.

OUT/study.yaml                  what is studied
OUT/store/                      the prepared data
OUT/steps.json                  how many steps each method makes in its time on this machine
OUT/pretraining/<method>/       a run
OUT/probes/<method>.json        Dice of linear probes on its features
OUT/probes/random-<hash>.json   the same with random weights of a network of its kind
OUT/methods.md                  the table, of what is done so far
"""

import json
import time
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import field, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from pydantic import Field
from rich.markup import escape

from ..data.atomic import write_text
from ..data.claims import claimed
from ..data.errors import UserError
from ..data.hashing import settings_hash
from ..data.labels import LabelKind
from ..data.plan import BudgetName
from ..data.settings import (
    load_mapping,
    override,
    parse,
    plain,
    read_json_mapping,
    read_yaml,
    settings,
    write_yaml,
)
from ..data.splits import split, without_subjects_of
from ..data.store import STORE_FILE, Store
from ..data.subjects import is_table
from ..seg import run as runs
from ..seg.checkpoint import CheckpointInfo, load
from ..seg.training import choose_device, planned
from ..ssl import pretrain as pretraining
from ..ssl.collapse import read_collapse
from ..ssl.methods.registry import METHODS, find_method
from ..ssl.pretrain import PretrainConfig
from ..ssl.probes import PARTS, WEIGHTS, ProbeConfig, Probed, probe_checkpoint
from . import api
from .bench.methods import stepper
from .cli import answered
from .comparison import config_file
from .display import TrainingDisplay, console, meter
from .markdown import in_brackets, markdown_table
from .paired_tests import bootstrap_interval

STUDIES = Path(__file__).parent / "configs" / "methods"
# steps by which the time of one is measured, after one to warm up
_TIMED = 8
_LEAST_STEPS = 20


@settings
class MethodsStudy:
    """What is studied: `minutes` of pretraining with each of the `methods` (None: all).

    `test` labelled volumes are held out from everything but the scores; probes are fitted on `labelled` of
    the others, once for each seed. `pretrain` holds settings of PretrainConfig for all methods, `of_method`
    those of some.
    """

    name: str
    data: str
    subjects: str | None = None
    label_kind: LabelKind | None = None
    budget: BudgetName = "cpu"
    test: Annotated[int, Field(ge=1)]
    labelled: Annotated[int, Field(ge=1)]
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    minutes: Annotated[float, Field(gt=0)]
    methods: tuple[str, ...] | None = None
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    pretrain: dict[str, Any] = field(default_factory=dict)
    of_method: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_study(config: str, set: Sequence[str]) -> MethodsStudy:
    """A study by the path of its file, or the name of one of fewvox's own; overrides are as "data=DIR"."""
    path = config_file(config, STUDIES, "study")
    values = load_mapping(path)
    if isinstance(values.get("subjects"), str) and is_table(path.parent / values["subjects"]):
        values["subjects"] = str((path.parent / values["subjects"]).resolve())
    return parse(MethodsStudy, override(values, list(set)), path)


def run_study(study: MethodsStudy, out: Path) -> Path:
    """Runs what is not done yet; gives the file of the table. One method that fails hinders no other.

    Raises UserError at the end where some failed.
    """
    with claimed(out, "studies methods"):
        bench, failed = Study(study, out), dict[str, UserError]()
        for number, name in enumerate(bench.methods, start=1):
            console.rule(f"{number} of {len(bench.methods)}: {name}")
            try:
                bench.pretrain(name)
                bench.probe(name)
            except UserError as error:
                console.print(f"{name} failed: {error}", highlight=False, markup=False)
                failed[name] = error
            write_text(out / "methods.md", bench.table(failed))
    if failed:
        raise UserError(
            out,
            found=f"{', '.join(failed)} failed; the others are in {out / 'methods.md'}",
            rule="A method is pretrained for its time and probed",
            remedy="See above why; the same line tries these again",
        )
    return out / "methods.md"


class Study:
    """The folder of a study, and what is done in it for one method."""

    def __init__(self, study: MethodsStudy, out: Path) -> None:
        self.study, self.out = study, out
        self.methods = tuple(study.methods or sorted(METHODS))
        for name in self.methods:
            find_method(name)
        if (out / "study.yaml").is_file():
            _check_same(read_yaml(out / "study.yaml", MethodsStudy), study, out)
        out.mkdir(parents=True, exist_ok=True)
        write_yaml(out / "study.yaml", study, "What is studied in this folder.")
        if not (out / "store" / STORE_FILE).is_file():
            api.prepare(
                study.data,
                out / "store",
                subjects=study.subjects,
                budget=study.budget,
                label_kind=study.label_kind,
            )
        self.store = Store.open(out / "store")
        self.test = split(self.store.annotated, test=study.test, labelled=None, seed=0, split_seed=0).test
        self.cases = without_subjects_of(tuple(self.store.cases.values()), self.test)

    def config(self, name: str, steps: int | None = None) -> PretrainConfig:
        """The settings of a method's pretraining."""
        values = {**self.study.pretrain, **self.study.of_method.get(name, {}), "method": name}
        return replace(parse(PretrainConfig, values, f"pretraining with {name}"), steps=steps)

    def steps(self, name: str) -> int:
        """How many steps a method makes in its time, measured once."""
        file = self.out / "steps.json"
        known = read_json_mapping(file) if file.is_file() else {}
        if name not in known:
            seconds = self._seconds_per_step(name)
            known[name] = max(_LEAST_STEPS, round(60 * self.study.minutes / seconds))
            write_text(file, json.dumps(known, indent=1))
        return known[name]

    def pretrain(self, name: str) -> None:
        """Pretrains with a method, from where it was left."""
        steps, run = self.steps(name), self.out / "pretraining" / name
        if runs.is_finished(run, steps):
            console.print("done before", highlight=False)
            return
        with meter("pretraining") as shown:
            pretraining.pretrain(
                self.store,
                self.cases,
                run,
                self.config(name, steps),
                held_out=self.test,
                resume=(run / runs.CONFIG).is_file(),
                observer=TrainingDisplay(shown, "embeddings"),
                announce=lambda text: console.print(escape(text), highlight=False),
            )

    def probe(self, name: str) -> None:
        """Measures the features of a method's network, and once those of random weights of its kind."""
        checkpoint = load(self.out / "pretraining" / name, "last")
        splits = {
            seed: split(
                self.store.annotated,
                test=self.study.test,
                labelled=self.study.labelled,
                seed=seed,
                split_seed=0,
            )
            for seed in self.study.seeds
        }
        for weights, file in (
            ("trained", self._probes_of(name)),
            ("random", self._probes_of_random(checkpoint.info)),
        ):
            if file.is_file():
                continue
            with meter(f"probing {weights} weights"):
                found = probe_checkpoint(
                    checkpoint, self.store, splits, weights=(weights,), config=self.study.probe
                )
            file.parent.mkdir(exist_ok=True)
            write_text(file, json.dumps(plain(found)))

    def _probes_of(self, name: str) -> Path:
        return self.out / "probes" / f"{name}.json"

    def _probes_of_random(self, info: CheckpointInfo) -> Path:
        kind = settings_hash({"architecture": plain(info.architecture), "patch": info.plan.training.patch})
        return self.out / "probes" / f"random-{kind[:8]}.json"

    def table(self, failed: Collection[str] = ()) -> str:
        """A row for each method: its steps, its state, and Dice of its features minus that of random ones."""
        head = (
            "method",
            "steps",
            "state",
            *(f"{part}: {what}" for part in PARTS for what in ("Dice", "minus random")),
        )
        rows = []
        for name in self.methods:
            run = self.out / "pretraining" / name
            files = [self._probes_of(name)]
            if files[0].is_file():
                files.append(self._probes_of_random(load(run, "last").info))
            if not all(file.is_file() for file in files):
                state = "failed" if name in failed else "not done"
                rows.append((name, "", state, *[""] * (len(head) - 3)))
                continue
            probes = [probed for file in files for probed in _probed(file)]
            collapse = read_collapse(run)
            cells = [cell for part in PARTS for cell in _cells(probes, part)]
            rows.append((name, f"{self.steps(name):,}", collapse.kind if collapse else "sound", *cells))
        return markdown_table(head, rows) + "\n"

    def _seconds_per_step(self, name: str) -> float:
        """Of a training as the loop makes it, with its views; without looks at embeddings and checkpoints."""
        config, registered = self.config(name, _TIMED + 1), find_method(name)
        plan = planned(self.store.plan, config)
        config = pretraining.resolved_config(config, plan, registered)
        sampler = pretraining.sampler_for(self.store, self.cases, plan, registered, config)
        method = pretraining.assemble(registered, config, pretraining.scope_of(sampler, plan, config))
        device = choose_device(config.device)
        step = stepper(method.to(device), method.network, config, method.after_step)
        each = config.accumulate
        batches = sampler.batches(0, each * (_TIMED + 1), workers=config.workers or 0, device=device)
        with closing(batches):
            step(0, islice(batches, each))
            start = time.perf_counter()
            for number in range(1, _TIMED + 1):
                step(number, islice(batches, each))
        return (time.perf_counter() - start) / _TIMED


def _check_same(before: MethodsStudy, study: MethodsStudy, out: Path) -> None:
    """Raises UserError where a folder holds another study; of methods there may be others."""
    was, now = (plain(replace(each, methods=None)) for each in (before, study))
    other = [name for name in was if was[name] != now[name]]
    if other:
        raise UserError(
            out,
            found=", ".join(f"{name} {was[name]} before and {now[name]} now" for name in other),
            rule="A folder holds one study, which may be continued with other methods alone",
            remedy="Choose another --out, or the settings in its study.yaml",
        )


def _probed(file: Path) -> list[Probed]:
    return [parse(Probed, each, file) for each in json.loads(file.read_text(encoding="utf-8"))]


def _cells(probes: Sequence[Probed], part: str) -> tuple[str, str]:
    """Mean Dice over seeds and cases, and the paired difference to random weights with its interval."""
    scores = {
        weights: [p.per_case for p in probes if (p.part, p.weights) == (part, weights)] for weights in WEIGHTS
    }
    cases = sorted(set().union(*scores["trained"]))
    trained, random = (
        np.array([[of_seed.get(case, np.nan) for case in cases] for of_seed in scores[weights]])
        for weights in WEIGHTS
    )
    return f"{np.nanmean(trained):.3f}", in_brackets(bootstrap_interval(trained - random), "+")


def main(
    config: str,
    out: Annotated[Path, typer.Option()],
    assignments: Annotated[list[str] | None, typer.Option("--set")] = None,
) -> None:
    """Studies the methods as CONFIG says, and prints the table."""
    table = run_study(read_study(config, assignments or []), out)
    console.print(table.read_text(encoding="utf-8"), highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    answered(lambda: typer.run(main))
