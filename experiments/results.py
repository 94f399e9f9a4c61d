"""What a comparison found: scores, runs and statistics, as results.json and results.csv hold them."""

import csv
import io
import json
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ..data.atomic import write_text
from ..data.errors import UserError
from ..data.settings import plain, read_json, settings
from ..seg.metrics import METRICS, MaskScores

Count = Annotated[int, Field(ge=0)]
_COLUMNS = ("arm", "labels", "seed", "case", "value", *METRICS)


@settings
class Score(MaskScores):
    """Scores of one class in one test case by one run; None where a score has no meaning.

    Distances are in `Results.hd95_unit`.
    """

    arm: str
    labels: Count
    seed: int
    case: str
    value: int


@settings
class Curve:
    """One recorded number over training: `values[i]` at `steps[i]`."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


@settings
class Transferred:
    """What a fine-tuning took of pretrained weights beside shares of parameters, from its transfer report.

    Blocks are told as "encoder.0-2, decoder.1". `deviation` is the largest of the proof, in standard
    deviations; None where nothing could be compared.
    """

    adapted: str = ""
    reinitialised: str = ""
    deviation: float | None = None
    accepted: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@settings
class RunRecord:
    """One pretraining, fine-tuning, or set of masks that were not trained for here, and how it went.

    Such masks are another tool's ("foreign") or a threshold's ("untrained", the same at every number of
    labels and seed).

    `labels` is None for a pretraining. `seconds` is training wall-clock time over all sittings, `sittings`
    how many there were. `parameters_loaded` tells for each part of the network the share of its parameters
    that came from the pretraining, `transferred` the rest of the transfer report. `zero_classes` are the
    label values whose Dice is 0 in every test case: such a run measures optimisation rather than
    pretraining. `error` says why a run failed. `collapse` tells how the embeddings of a pretraining
    collapsed, and stands with the fine-tunings from it too; it is empty where they did not.
    """

    stage: Literal["pretraining", "fine-tuning", "foreign", "untrained"]
    arm: str
    labels: Count | None
    seed: int
    status: Literal["done", "failed"] = "done"
    error: str = ""
    method: str = ""
    steps: int | None = None
    volumes: Count = 0
    seconds: float | None = None
    sittings: Count = 1
    mean_dice: float | None = None
    zero_classes: tuple[int, ...] = ()
    collapse: str = ""
    parameters_loaded: dict[str, float] = field(default_factory=dict)
    transferred: Transferred | None = None
    curves: tuple[Curve, ...] = ()


@settings
class Interval:
    """An estimate with its bootstrap interval."""

    mean: float
    low: float
    high: float


@settings
class ArmSummary:
    """Dice of an arm at a number of labels: mean over classes, test cases and seeds."""

    arm: str
    labels: Count
    dice: Interval
    per_class: dict[int, float]
    runs: Count
    runs_with_zero_class: Count
    failed_runs: Count


@settings
class Difference:
    """Paired difference of an arm to the baseline at a number of labels: same cases, same seeds.

    `per_case` is the mean over seeds of the difference in each test case; `share_better` the share of
    cases in which that is above 0, a tie counting half. `without_zero_runs` is the difference over the seeds
    in which neither side has a class at Dice 0; None where no such seed is left, or where all seeds are
    such. `with_collapsed` is the difference over all seeds, those in which the pretraining of a side
    collapsed among them, which `dice` and all else leave out; None where none did.
    """

    arm: str
    baseline: str
    labels: Count
    dice: Interval
    cases: Count
    seeds: Count
    share_better: float
    per_case: dict[str, float]
    without_zero_runs: Interval | None = None
    seeds_without_zero_runs: Count = 0
    with_collapsed: Interval | None = None


@settings
class Results:
    """All that a comparison found; `version` is raised when a field changes its meaning.

    `leak_check` says in words what was checked and found. `environment` holds versions and machine.
    `accepted` tells what of the data was taken as it is though it was found wrong.
    """

    version: Literal[1] = 1
    name: str
    command: str
    created: str
    commit: str | None
    confidence: float
    baseline: str
    arms: tuple[str, ...]
    label_counts: tuple[int, ...]
    seeds: tuple[int, ...]
    test_cases: tuple[str, ...]
    hd95_unit: str
    leak_check: str
    environment: dict[str, str]
    config: dict[str, Any]
    runs: tuple[RunRecord, ...]
    scores: tuple[Score, ...]
    summaries: tuple[ArmSummary, ...]
    differences: tuple[Difference, ...]
    accepted: tuple[str, ...] = ()


def write_results(results: Results, folder: Path) -> None:
    """Writes results.json (everything) and results.csv (a row for each score)."""
    write_text(folder / "results.json", json.dumps(plain(results), indent=1))
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in vars(s).items()} for s in results.scores)
    write_text(folder / "results.csv", table.getvalue())


def read_results(folder: Path) -> Results:
    """What `write_results` wrote; raises UserError where there is nothing, or it is not whole."""
    file = folder / "results.json"
    if not file.exists():
        raise UserError(
            folder,
            found="no results.json",
            rule="A comparison writes its results when all of its cells were run",
            remedy="Check the folder, or run `fewvox compare` with it as --out, which goes on from there",
        )
    return read_json(file, Results)
