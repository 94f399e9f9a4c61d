"""Which plan a data set is prepared by: a given one, that of a checkpoint, or one made within a budget."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from ..data.errors import UserError
from ..data.plan import BUDGETS, BudgetName, Plan, Preprocessing, Scheme, Training, make_plan
from ..data.scan import Scan
from ..data.settings import checked, plain, read_yaml
from ..seg.checkpoint import load
from ..seg.contract import channels_of, is_adoptable
from ..seg.engine.estimate import training_bytes
from ..seg.neighbours.sources import open_source
from ..seg.networks.registry import architecture_for, build

# edges of the cubes of voxels that a budget in GiB is tried with, largest first
_EDGES = range(128, 15, -8)
# of the memory that is free; the rest is for what else a training holds
_USED = 0.8


def planned(
    scanned: Scan,
    *,
    file: str | Path | None,
    checkpoint: str | Path | None,
    budget: BudgetName | str | float | None,
    normalisation: Sequence[Scheme] | None,
    say: Callable[[str], None],
) -> Plan:
    """The plan for what was scanned; `say` is told what it changes where another data set decided it."""
    made = make_within(scanned, "default" if budget is None else budget, normalisation)
    if file is not None:
        chosen = read_yaml(Path(file), Plan)
    elif checkpoint is not None:
        chosen = adopted(plan_of(checkpoint, made), made, checkpoint, say)
    else:
        return made
    if chosen.labels is None and made.labels is not None:
        # a plan made for unannotated volumes knows no classes yet
        say("the plan has no label values; those of this data set are taken")
        return replace(chosen, labels=made.labels)
    return chosen


def check_one_source(
    file: str | Path | None,
    checkpoint: str | Path | None,
    budget: BudgetName | str | float | None,
    normalisation: Sequence[Scheme] | None,
) -> None:
    """Raises UserError where more than one of file, checkpoint and options would decide the plan."""
    given = {
        "--plan": file,
        "--from-checkpoint": checkpoint,
        "--budget": budget,
        "--normalisation": normalisation,
    }
    named = [option for option, value in given.items() if value is not None]
    if len(named) > 1 and named[0] in ("--plan", "--from-checkpoint"):
        raise UserError(
            named[0],
            found=f"{' and '.join(named[1:])} beside it",
            rule="Either a file or a checkpoint tells the whole plan, or it is made from the data",
            remedy="Leave one of them out, or edit the file",
        )


def plan_of(where: str | Path, own: Plan) -> Plan:
    """The plan that weights were trained with; UserError where they do not tell it all."""
    source = open_source(where)
    if source.kind == "fewvox":
        return load(where).info.plan
    told, topology = source.contract, source.architecture.topology
    if told.preprocessing is None or told.patch is None or told.unknown:
        raise UserError(
            where,
            found=f"it does not tell {', '.join(told.unknown) or 'how its volumes were prepared'}",
            rule="What is adopted is how the volumes of the pretraining were prepared",
            remedy="Prepare the data without --from-checkpoint, and fine-tune with --accept-mismatch",
        )
    training = Training(
        patch=told.patch,
        strides=topology.strides,  # type: ignore[arg-type]  # checked below
        width=topology.features[0],
        max_width=max(topology.features),
        batch=own.training.batch,
    )
    return checked(Plan(preprocessing=told.preprocessing, labels=None, training=training), where)


def adopted(theirs: Plan, own: Plan, where: str | Path, say: Callable[[str], None]) -> Plan:
    """The plan of a pretrained network for this data set, which keeps its channels, orientation and labels.

    Raises UserError where its volumes are too unlike those of the pretraining to be prepared as they were.
    """
    if not is_adoptable(theirs.preprocessing, own.preprocessing):
        sides = (theirs.preprocessing, own.preprocessing)
        there, here = (f"{how.spacing} {how.unit or '(no unit)'}" for how in sides)
        raise UserError(
            where,
            found=f"its voxels were {there}",
            rule=f"Those here are {here}: resampled so far, little is left of volumes, or most is invented",
            remedy="Take weights from a pretraining on volumes more like these, or prepare the data without "
            "--from-checkpoint and fine-tune with --accept-mismatch",
        )
    preprocessing = _adopted_preprocessing(theirs.preprocessing, own.preprocessing)
    for part, chosen, made in (
        ("preprocessing", plain(preprocessing), plain(own.preprocessing)),
        ("training", plain(theirs.training), plain(own.training)),
    ):
        for key in sorted(chosen):
            if chosen[key] != made.get(key):
                say(f"{part}.{key}: {chosen[key]} as it was pretrained, {made.get(key)} from this data set")
    if theirs.preprocessing.orientation != own.preprocessing.orientation:
        say(
            f"preprocessing.orientation: {own.preprocessing.orientation} from the files, which cannot be "
            f"turned to {theirs.preprocessing.orientation} as it was pretrained: "
            "fine-tune with --accept-mismatch"
        )
    reasons = {key: f"adopted from a checkpoint; {why}" for key, why in theirs.reasons.items()}
    reasons["labels"] = own.reasons.get("labels", "")
    return replace(theirs, preprocessing=preprocessing, labels=own.labels, reasons=reasons)


def _adopted_preprocessing(theirs: Preprocessing, own: Preprocessing) -> Preprocessing:
    """Their spacing, and for each of our channels what is done to grey values of its first counterpart."""
    places = [of_theirs[0] for of_theirs in channels_of(theirs, own)]
    return replace(
        theirs,
        orientation=own.orientation,
        channels=own.channels,
        normalisation=tuple(theirs.normalisation[c] for c in places),
        windows=tuple(theirs.windows[c] for c in places) if theirs.windows else (),
    )


def make_within(
    scanned: Scan, budget: BudgetName | str | float, normalisation: Sequence[Scheme] | None
) -> Plan:
    """The plan made from the fingerprint: "default", "cpu", "device" (the memory that is free), or GiB.

    The size is never above the default's. Raises UserError for a budget in which nothing fits.
    """

    def plan(voxels: int) -> Plan:
        return make_plan(
            scanned.fingerprint,
            voxels=voxels,
            label_kind=scanned.label_kind,
            ignore=scanned.ignore,
            normalisation=normalisation,
        )

    if budget in BUDGETS:
        return plan(BUDGETS[budget])
    limit = _device_bytes() if budget == "device" else _gib(budget) * 2**30
    needed = 0
    for edge in _EDGES:
        made = plan(edge**3)
        needed = bytes_for(made)
        if needed <= limit:
            told = f"{limit / 2**30:.1f} GiB hold {edge}^3 voxels: a step takes {needed / 2**30:.1f} GiB"
            return replace(made, reasons={**made.reasons, "budget": told})
    raise UserError(
        f"budget {budget}",
        found=f"{limit / 2**30:.2f} GiB",
        rule=f"The smallest network takes {needed / 2**30:.2f} GiB for a step",
        remedy="Give more GiB, or say --budget cpu",
    )


def bytes_for(plan: Plan) -> int:
    """Bytes that a training step of the plan's network holds."""
    training = plan.training
    with torch.device("meta"):
        network = build(architecture_for(plan), seed=0)
    return training_bytes(network, training.batch, len(plan.preprocessing.channels), training.patch)


def _gib(budget: str | float) -> float:
    try:
        value = float(budget)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UserError(
            f"budget {budget}",
            found="no number above 0",
            rule=f"A budget is {', '.join(BUDGETS)}, device, or a number of GiB",
            remedy="Give one of these, such as --budget 8",
        )
    return value


def _device_bytes() -> float:
    if torch.cuda.is_available():
        return _USED * torch.cuda.mem_get_info()[0]
    return _USED * psutil.virtual_memory().available


def label_kind_of(
    file: str | Path | None, told: str | None, ignore: int | None = None
) -> tuple[str | None, int | None]:
    """Kind and ignored value of labels that a plan file tells; UserError where the user says otherwise."""
    table = read_yaml(Path(file), Plan).labels if file is not None else None
    if table is None:
        return told, ignore
    for option, given, planned in (("label-kind", told, table.kind), ("ignore-value", ignore, table.ignore)):
        if given not in (None, planned):
            raise UserError(
                f"--{option} {given}",
                found=f"the plan says {planned}",
                rule="A plan tells what labels mean",
                remedy=f"Leave --{option} out, or edit the plan",
            )
    return table.kind, table.ignore
