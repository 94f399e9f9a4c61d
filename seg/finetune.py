"""Training a segmentation network on labelled patches: from scratch (the baseline) or from a checkpoint."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field
from torch import nn

from ..data.errors import UserError
from ..data.hashing import settings_hash
from ..data.loader import PatchConfig, PatchSampler
from ..data.plan import Plan
from ..data.settings import checked, settings
from ..data.splits import Split
from ..data.store import Store
from . import run
from .checkpoint import CheckpointInfo, check_version, load
from .deep_supervision import Heads
from .engine.allocator import kept_memory
from .engine.distributed import by_the_first, own_share, process_group
from .engine.loop import Observer, train, whole
from .engine.schedules import ScheduleName, resolved_schedule
from .engine.stopping import stoppable
from .few_labels import how_chosen, steps_for
from .guard import patches_of
from .handoff import hand_over
from .keeping import KeepConfig, Keeper, check_encoder
from .losses import LossConfig
from .model_card import write_card
from .networks.network import Network
from .networks.registry import architecture_for, build
from .postprocess import POSTPROCESS
from .postprocess_choice import write_choice
from .predict import kind_of
from .snapshots import Snapshots, seen_in_training, write_picture
from .source import Source
from .supervised import Supervised
from .training import (
    TrainingConfig,
    accelerated,
    check_validated,
    choose_device,
    described,
    estimate,
    extended,
    planned,
    resolved_training,
    said,
    with_flips,
    within_memory,
)
from .transfer import EXPECTED_SHARE
from .transfer_report import Choice, TransferReport
from .validation import PatchValidator, Validator

log = logging.getLogger(__name__)

# what "auto" is from a checkpoint: docs/results/schedules.md
PRETRAINED_SCHEDULE: ScheduleName = "valley"
# settings of how weights are taken
ABOUT_LOADING = ("load", "expected_share", "accept_mismatch")


@settings
class FinetuneConfig(TrainingConfig):
    """A training on labels.

    Steps and warm-up that are not set follow from the number of labelled volumes (`few_labels.py`); a
    schedule "auto" is "standard" from scratch, `PRETRAINED_SCHEDULE` from a checkpoint.

    `loss` is what is minimised. `deep_supervision` asks coarser levels of the decoder for the labels too
    (`deep_supervision.py`): with it 200 steps on four labels learned no less, in no more time. Between whole
    validations, patches of the validation cases are scored every `validate_patches_every` steps (None:
    never); no checkpoint is chosen by these. With `pictures` the run keeps slices of a case with outlines
    (`snapshots.py`).

    `load` chooses what is taken of pretrained weights: "encoder", "decoder", "both", or a list of parts and
    blocks such as "encoder.0". Less than `expected_share` of it that fits is an error. `accept_mismatch` goes
    on where the volumes of the pretraining were prepared otherwise. `keep` holds the network to what was
    loaded. `network` None is that of the weights.
    """

    patches: PatchConfig = PatchConfig()
    loss: LossConfig = LossConfig()
    deep_supervision: bool = True
    validate_patches_every: Annotated[int, Field(ge=1)] | None = None
    pictures: bool = True
    load: Choice = "both"
    expected_share: Annotated[float, Field(ge=0, le=1)] = EXPECTED_SHARE
    accept_mismatch: bool = False
    keep: KeepConfig = KeepConfig()


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """A finished training: its folder and its last validation scores (none without validation)."""

    path: Path
    scores: dict[str, float]


@stoppable
@process_group()
def finetune(
    store: Store,
    split: Split,
    out: str | Path,
    config: FinetuneConfig | None = None,
    *,
    pretrained: Source | None = None,
    resume: bool = False,
    extend: bool = False,
    observer: Observer | None = None,
    announce: Callable[[str], None] | None = None,
) -> Finetuned:
    """Trains a network on the split's training cases and writes a run.

    With validation cases, whole volumes are predicted every `validate_every` steps and the best
    checkpoint is kept; without, the last weights are the result. Processes that torchrun started train it
    together (`engine/distributed.py`).

    Args:
        store, split: the data, and which of its cases train and validate.
        out: the run folder; must be new, or hold this very run with `resume`.
        config: settings; the defaults when None.
        pretrained: weights to start from; None is the supervised baseline.
        resume: continue from the run's last checkpoint.
        extend: the same, with more steps than the run had.
        observer: is told of steps and validations.
        announce: is given what the user should read before training starts.
    """
    out, say, resume = Path(out), said(announce), resume or extend
    if resume:
        # before its settings are compared: an older version had others
        check_version(out)
    config = checked(config or FinetuneConfig(), "configuration")
    plan = planned(store.plan, config)
    _check_cases(store, split)
    if pretrained is not None and config.network is None:
        config = replace(config, network=pretrained.architecture.name)
    labels = len(split.train) + len(split.validation)
    resolve = partial(resolved_config, plan=plan, labels=labels, pretrained=pretrained is not None)
    config = run.continued(out, config, resolve) if resume else resolve(config)
    check_validated(
        {"early_stop": config.early_stop, "validate_patches_every": config.validate_patches_every},
        validated=bool(split.validation),
    )
    _check_unseen(store, split, pretrained)
    store.check([*split.train, *split.validation])
    ids = {"train": list(split.train), "validation": list(split.validation), "test": list(split.test)}
    info = _info(store, split, plan, config, pretrained)
    network = build(info.architecture, config.seed)
    # of a single training case they would tell of that case alone
    patches = patches_of(store, sorted(store.cases.keys() - set(split.test)), plan.training.patch)
    # before the run begins: weights that do not fit leave nothing behind
    report = None
    if pretrained is not None:
        report = hand_over(
            network,
            info.architecture,
            pretrained,
            plan,
            patches,
            load=config.load,
            expected_share=config.expected_share,
            accept_mismatch=config.accept_mismatch,
        )
        report = check_encoder(report, config.keep, config.schedule)
    if resume:
        by_the_first(run.check_continued, out, config, ids, info, report, extend=extend)
        if extend:
            say(by_the_first(extended, out, network, config))
    else:
        by_the_first(run.start, out, config, plan, ids, report, store.records)
    if report is not None:
        say("\n".join(report.lines()))
    device = choose_device(config.device)
    network.to(device)
    keeper = Keeper(network, _transferred(report), config.keep) if report and config.keep.used else None
    task = task_of(network, info.architecture.in_channels, plan, keeper, config)
    sampler = PatchSampler(
        store, split.train, plan.training.patch, plan.training.batch, config.patches, config.seed, own_share()
    )
    needs = estimate(task, network, sampler.batch(0), config)
    say(needs.line())
    averaged = config.average is not None
    say(how_chosen(len(split.train), len(split.validation), whole(config.steps), averaged=averaged))
    validator = glance = None
    if split.validation:
        validator = Validator(store, split.validation, plan, network)
        glance = PatchValidator(store, split.validation, plan, network, config.seed)
        observer = Snapshots(out, plan, validator, observer) if config.pictures else observer
    # what was chosen for weights that are not the last ones any more
    by_the_first((out / POSTPROCESS).unlink, missing_ok=True)
    with kept_memory(needs.keep_memory), within_memory(network, config):
        scores = train(
            task,
            network,
            partial(sampler.batches, workers=config.workers or 0, device=device),
            out,
            config,
            describe=partial(described, network, info, patches),
            validate=validator,
            glance=glance,
            glance_every=config.validate_patches_every,
            observer=observer,
            seed=config.seed,
        )
    by_the_first(_conclude, store, split, plan, network, out, config)
    return Finetuned(path=out, scores=scores)


def _conclude(
    store: Store, split: Split, plan: Plan, network: Network, out: Path, config: FinetuneConfig
) -> None:
    """Writes what a run has beside its checkpoints, once it is trained."""
    if split.validation:
        write_choice(out, store, split.validation, config.device)
    elif config.pictures:
        seen = seen_in_training(store, split.train, plan, _result(network, out), config.seed)
        write_picture(out, plan, seen, "training case", whole(config.steps))
    write_card(out)


def resolved_config(
    config: FinetuneConfig, plan: Plan, labels: int, *, pretrained: bool = False
) -> FinetuneConfig:
    """The configuration with every `auto` and None replaced by what will be used for so many labels."""
    idle = [] if pretrained else about_weights(config)
    if idle:
        raise UserError(
            ", ".join(idle),
            found="no pretrained weights",
            rule="It chooses what is taken of the weights that a network starts from, or holds it to them",
            remedy=f"Give --pretrained, or leave {', '.join(idle)} out to train from scratch",
        )
    steps = config.steps or steps_for(labels)
    schedule = resolved_schedule(config.schedule, steps, PRETRAINED_SCHEDULE if pretrained else "standard")
    return replace(
        resolved_training(replace(config, steps=steps, schedule=schedule), plan),
        patches=replace(config.patches, augment=with_flips(config.patches.augment, plan, steps)),
    )


def about_weights(config: FinetuneConfig) -> list[str]:
    """Settings that were chosen and mean nothing without pretrained weights."""
    usual = FinetuneConfig()
    chosen = [name for name in ABOUT_LOADING if getattr(config, name) != getattr(usual, name)]
    return [*chosen, *(["keep"] if config.keep.used else [])]


def _result(network: Network, run: Path) -> Network:
    """The network with the weights that the run is used with."""
    network.load_state_dict(load(run).tensors)
    return network


def _info(
    store: Store, split: Split, plan: Plan, config: FinetuneConfig, pretrained: Source | None
) -> CheckpointInfo:
    """What every checkpoint of the run says of it, but for steps and what is measured."""
    return CheckpointInfo(
        architecture=architecture_for(plan, config.network),
        plan=plan,
        method="supervised",
        trained=("encoder", "decoder", "output"),
        steps=0,
        seed=config.seed,
        trained_on=tuple(store.cases[case].content_hash for case in split.train),
        validated_on=tuple(store.cases[case].content_hash for case in split.validation),
        labels_hash=settings_hash(
            [store.cases[case].label_hash for case in (*split.train, *split.validation)]
        ),
        inherited=_seen(pretrained),
        inherited_all=pretrained is None or pretrained.seen_all,
        averaged=config.average is not None,
        environment=run.environment(),
    )


def task_of(
    network: Network, channels: int, plan: Plan, keeper: Keeper | None, config: FinetuneConfig
) -> nn.Module:
    """What a resolved configuration trains, on the device of the network."""
    heads = None
    if config.deep_supervision:
        device = next(network.parameters()).device
        heads = Heads(network, channels, plan.training.patch, config.seed).to(device)
    task = Supervised(network, kind_of(plan), keeper, loss=config.loss, heads=heads)
    return accelerated(task, network, config)


def _transferred(report: TransferReport) -> set[str]:
    return {tensor.name for tensor in report.tensors if tensor.state != "re-initialised"}


def _seen(pretrained: Source | None) -> tuple[str, ...]:
    """Content hashes of all that weights were trained or chosen on, as far as that is known."""
    return () if pretrained is None or pretrained.seen is None else pretrained.seen


def _check_unseen(store: Store, split: Split, pretrained: Source | None) -> None:
    seen = set(_seen(pretrained))
    leaked = [case for case in split.test if store.cases[case].content_hash in seen]
    if leaked:
        raise UserError(
            "the pretrained weights",
            found=f"they were trained on {len(leaked)} of the test cases ({', '.join(leaked[:5])})",
            rule="A test case is seen by neither pretraining nor fine-tuning",
            remedy="Pretrain again with the same --test and --split-seed, or fine-tune without test cases",
        )


def _check_cases(store: Store, split: Split) -> None:
    parts = [split.train, split.validation, split.test]
    listed = [case for part in parts for case in part]
    unknown = [case for case in listed if case not in store.cases]
    bare = [
        case
        for case in (*split.train, *split.validation)
        if not getattr(store.cases.get(case), "labelled", True)
    ]
    for cases, found in (
        (unknown, "no such case in the store"),
        (bare, "it has no label in the store"),
        ([case for case, times in Counter(listed).items() if times > 1], "it is listed twice"),
    ):
        if cases:
            raise UserError(
                cases[0],
                found=found,
                rule="Cases are in the store, listed once, and have a label to train or validate on",
                remedy=f"The store's cases are listed in {store.path / 'store.json'}",
            )
    train, validation, test = ({store.cases[case].subject for case in part} for part in parts)
    torn = sorted(train & validation | train & test | validation & test)
    if torn:
        raise UserError(
            f"subject {torn[0]}",
            found="it has cases on two sides of the split",
            rule="All volumes of a subject train, or validate, or test",
            remedy="Move its cases to one side",
        )
    if not any(store.cases[case].foreground_voxels for case in split.train):
        raise UserError(
            ", ".join(split.train[:5]),
            found="no training label has any foreground",
            rule="A network learns from labels with foreground",
            remedy="Choose other cases (--seed), or more of them (--labelled)",
        )
