"""Training a network on unannotated volumes by a pretext method."""

import copy
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from ..data.errors import UserError
from ..data.plan import Plan
from ..data.settings import checked, parse, plain, read_yaml, settings
from ..data.store import Store
from ..seg import run
from ..seg.checkpoint import CheckpointInfo, check_version, load
from ..seg.engine.allocator import kept_memory
from ..seg.engine.distributed import by_the_first, own_share, process_group
from ..seg.engine.loop import Observer, TrainingError, train, whole
from ..seg.engine.optimisers import resolved
from ..seg.engine.state import load_task
from ..seg.engine.stopping import stoppable
from ..seg.guard import patches_of
from ..seg.model_card import write_card
from ..seg.networks.registry import architecture_for, build
from ..seg.training import (
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
from .collapse import Collapse, CollapseWatch, read_collapse
from .method import Method, Scope, Views, ViewSpec
from .methods.registry import Registered, find_method
from .monitors import measure
from .smartpatch import SmartPatchConfig
from .views import ViewConfig, ViewSampler, evenly

log = logging.getLogger(__name__)

# the seed of the views that are watched: the same at every look, other than those trained on
_MONITOR_SEED = 2**32
# of a pretraining for which no number of steps is told
STEPS = 1000


@settings
class PretrainConfig(TrainingConfig):
    """A training by a pretext method, whose own settings are `options`.

    Every `validate_every` steps (a fifth of the training when None) the embeddings of `monitor_volumes` of
    the volumes are measured, each seen in two views.
    """

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    views: ViewConfig = ViewConfig()
    monitor_volumes: Annotated[int, Field(ge=2)] = 12


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A finished pretraining: its folder, the last measures of its embeddings, and whether they collapsed."""

    path: Path
    scores: dict[str, float]
    collapse: Collapse | None = None


@stoppable
@process_group()
def pretrain(
    store: Store,
    cases: Sequence[str],
    out: str | Path,
    config: PretrainConfig,
    *,
    held_out: Sequence[str] = (),
    resume: bool = False,
    extend: bool = False,
    observer: Observer | None = None,
    announce: Callable[[str], None] | None = None,
) -> Pretrained:
    """Trains a network on the given cases of a store, none of whose labels are read, and writes a run.

    Processes that torchrun started train it together (`engine/distributed.py`).

    Args:
        store: the data.
        cases: what to train on.
        out: the run folder; must be new, or hold this very run with `resume`.
        config: settings.
        held_out: cases that will test what comes of it: a copy of one among `cases` is an error.
        resume: continue from the run's last checkpoint.
        extend: the same, with more steps than the run had.
        observer: is told of steps and measures.
        announce: is given what the user should read before training starts.
    """
    out, say, resume = Path(out), said(announce), resume or extend
    if resume:
        # before its settings are compared: an older version had others
        check_version(out)
    config = checked(config, "configuration")
    registered = find_method(config.method)
    plan = planned(store.plan, config)
    resolve = partial(resolved_config, plan=plan, registered=registered)
    config = run.continued(out, config, resolve) if resume else resolve(config)
    check_validated({"early_stop": config.early_stop}, validated=False)
    _check_cases(store, cases, held_out)
    store.check(cases, labels=False)
    sampler = sampler_for(store, cases, plan, registered, config)
    method = assemble(registered, config, scope_of(sampler, plan, config))
    info = CheckpointInfo(
        architecture=architecture_for(plan, config.network),
        plan=plan,
        method=config.method,
        trained=(),
        steps=0,
        seed=config.seed,
        trained_on=tuple(store.cases[case].content_hash for case in cases),
        validated_on=(),
        averaged=config.average is not None,
        environment=run.environment(),
    )
    ids = {"train": list(cases), "validation": [], "test": list(held_out)}
    first = sampler.batch(0)
    # before the run begins: a method that cannot do with such views leaves nothing behind
    info = replace(info, trained=reached_blocks(method, first))
    if resume:
        by_the_first(run.check_continued, out, config, ids, info, extend=extend)
        if extend:
            say(by_the_first(extended, out, method.exported_network(), config))
    else:
        by_the_first(run.start, out, config, plan, ids, records=store.records)
    task = accelerated(method.to(choose_device(config.device)), method.network, config)
    say(f"{config.method} on {len(cases)} volumes; its loss reaches {', '.join(info.trained)}")
    for line in sampler.fit().lines():
        say(line)
    views, least = sampler.spec.times * sampler.patches, sampler.spec.volumes
    needs = estimate(task, method.network, first, config, views=views)
    say(needs.line())
    with kept_memory(needs.keep_memory), within_memory(method.network, config, views=views, least=least):
        scores = train(
            task,
            method.exported_network(),
            partial(sampler.batches, workers=config.workers or 0, device=choose_device(config.device)),
            out,
            config,
            describe=partial(
                described, method.exported_network(), info, patches_of(store, cases, plan.training.patch)
            ),
            after_step=method.after_step,
            validate=Monitor(
                method, sampler, config.monitor_volumes, CollapseWatch(out, method.resting_loss())
            ),
            validation="monitor",
            observer=observer,
            seed=config.seed,
            trained=method.network,
        )
    by_the_first(write_card, out)
    collapse = read_collapse(out)
    if collapse is not None:
        say(f"warning: {collapse.line()}")
    return Pretrained(path=out, scores=scores, collapse=collapse)


def view_spec(registered: Registered, config: PretrainConfig) -> ViewSpec:
    """The views that the method asks for with its options."""
    return registered.method.views(parse(registered.config, config.options, "options"))


def sampler_for(
    store: Store, cases: Sequence[str], plan: Plan, registered: Registered, config: PretrainConfig
) -> ViewSampler:
    """What gives the method the views that it asks for; `config` is resolved."""
    return ViewSampler(
        store,
        cases,
        plan.training.patch,
        plan.training.batch,
        view_spec(registered, config),
        config.views,
        config.seed,
        whole(config.steps) * config.accumulate,
        own_share(),
    )


def scope_of(sampler: ViewSampler, plan: Plan, config: PretrainConfig) -> Scope:
    """What the method is built for."""
    return Scope(
        architecture=architecture_for(plan, config.network),
        shapes=sampler.shapes,
        cases=sampler.cases,
        subjects=tuple(sampler.store.cases[case].subject for case in sampler.cases),
        steps=whole(config.steps),
        batch=plan.training.batch,
        spacing=plan.preprocessing.spacing,
    )


def assemble(registered: Registered, config: PretrainConfig, scope: Scope) -> Method:
    """The method with its network and heads, their first weights decided by the seed.

    The network begins as a fine-tuning from scratch with this seed does.
    """
    options = parse(registered.config, config.options, "options")
    network = build(scope.architecture, config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return registered.method(network, registered.method.heads(scope, options), options, scope)


def trained_method(path: Path, store: Store, seed: int = 0) -> tuple[Method, Method]:
    """The method of a run with its heads, as the last step left it, and with random weights drawn by `seed`.

    Raises UserError where the run is none of `pretrain`, or the store lacks what it was trained on.
    """
    check_version(path)
    info = load(path, "last").info
    registered = find_method(info.method)
    config = read_yaml(path / run.CONFIG, PretrainConfig)
    ids = {case.content_hash: case.id for case in store.cases.values()}
    missing = sum(volume not in ids for volume in info.trained_on)
    if missing:
        raise UserError(
            store.path,
            found=f"{missing} of the {len(info.trained_on)} volumes that {path} was trained on are not in it",
            rule="A method is built for the volumes that it was trained on",
            remedy="Give the store of the pretraining, as it was",
        )
    cases = [ids[volume] for volume in info.trained_on]
    scope = scope_of(sampler_for(store, cases, info.plan, registered, config), info.plan, config)
    trained = assemble(registered, config, scope)
    load_task(trained, trained.exported_network(), path)
    return trained, assemble(registered, replace(config, seed=seed), scope)


def resolved_config(config: PretrainConfig, plan: Plan, registered: Registered) -> PretrainConfig:
    """The configuration with every `auto` and None replaced by what will be used."""
    spec = view_spec(registered, config)
    least = spec.volumes
    if plan.training.batch < least:
        raise UserError(
            f"batch {plan.training.batch}",
            found=f"too few volumes at a time for {config.method}",
            rule=f"It compares at least {least} volumes",
            remedy=f"Set batch={least} or more",
        )
    steps = config.steps or STEPS
    every = config.validate_every or max(1, steps // 5)
    augment = spec.changes(with_flips(config.views.augment, plan, steps))
    optimizer = resolved(config.optimizer, steps)
    if optimizer.name == "adamw" and config.optimizer.lr is None and registered.method.adamw_lr is not None:
        optimizer = replace(optimizer, lr=registered.method.adamw_lr)
    return replace(
        resolved_training(replace(config, steps=steps, optimizer=optimizer), plan),
        validate_every=every,
        options=plain(parse(registered.config, config.options, "options")),
        views=replace(config.views, augment=augment, boxes=with_outputs(config.views.boxes, plan)),
    )


def with_outputs(boxes: SmartPatchConfig, plan: Plan) -> SmartPatchConfig:
    """The same with the patch as the extent of views where none was said."""
    patch = plan.training.patch
    return replace(
        boxes,
        global_boxes=replace(boxes.global_boxes, output=boxes.global_boxes.output or patch),
        local_boxes=replace(boxes.local_boxes, output=boxes.local_boxes.output or patch),
    )


def reached_blocks(method: Method, batch: Views) -> tuple[str, ...]:
    """What of the network receives gradient from the loss: whole parts, or single blocks of a part.

    Found by trying: one backward pass on a copy.
    """
    tried: Any = copy.deepcopy(method)
    device = next(tried.parameters()).device
    tried.train()(batch.to(device), 0).loss.backward()
    blocks: dict[str, bool] = {}
    for name, parameter in tried.network.named_parameters():
        block = ".".join(name.split(".")[:2]) if not name.startswith("output.") else "output"
        blocks[block] = blocks.get(block, True) and parameter.grad is not None
    found: list[str] = []
    for part in ("encoder", "decoder", "output"):
        of_part = {block: reached for block, reached in blocks.items() if block.split(".")[0] == part}
        whole = bool(of_part) and all(of_part.values())
        found += [part] if whole else [block for block, reached in of_part.items() if reached]
    return tuple(found)


class Monitor:
    """Measures of the method's embeddings of some volumes, the same views at every look."""

    def __init__(self, method: Method, of_training: ViewSampler, volumes: int, watch: CollapseWatch) -> None:
        self.method, self.cases, self.watch = method, evenly(of_training.cases, volumes), watch
        patch, views = of_training.patch, of_training.config
        # one view at a time, wherever it lies: how two lie in training must not help to tell them
        self.sampler = ViewSampler(of_training.store, self.cases, patch, 1, ViewSpec(), views, 0, 1)

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """Spread, effective rank and retrieval (see `EmbeddingMeasures`); "collapsed" where they have."""
        task: Any = self.method
        device = next(task.parameters()).device
        task.eval()
        embeddings, volumes = [], []
        for look in range(2):
            for i, case in enumerate(self.cases):
                drawn = self.sampler.views([case], _MONITOR_SEED + 2 * i + look, 1.0)
                embeddings.append(self.method.embed(drawn.to(device).views[0]).cpu())
                volumes.append(case)
        found = torch.cat(embeddings)
        if not torch.isfinite(found).all():
            raise TrainingError(
                "the embeddings",
                found="some are not finite",
                rule="A training learns from finite numbers",
                remedy="Lower optimizer.lr; the last checkpoint is from before",
            )
        measures = measure(found, volumes)
        told = {k: v for k, v in plain(measures).items() if v is not None and k != "chance"}
        directions = min(found.shape[1], len(self.cases) - 1) if self.method.embeds else None
        return told | ({"collapsed": 1.0} if self.watch.look(measures, directions) else {})


def _check_cases(store: Store, cases: Sequence[str], held_out: Sequence[str]) -> None:
    twice = [case for case, times in Counter(cases).items() if times > 1]
    if twice:
        raise UserError(
            twice[0],
            found="it is listed twice",
            rule="Every volume is listed once",
            remedy="List it once",
        )
    unknown = [case for case in (*cases, *held_out) if case not in store.cases]
    if unknown:
        raise UserError(
            unknown[0],
            found="no such case in the store",
            rule="Cases are in the store",
            remedy=f"The store's cases are listed in {store.path / 'store.json'}",
        )
    for what, of_case in (("voxels", lambda c: c.content_hash), ("a subject", lambda c: c.subject)):
        kept = {of_case(store.cases[case]) for case in held_out}
        leaked = [case for case in cases if of_case(store.cases[case]) in kept]
        if leaked:
            raise UserError(
                leaked[0],
                found=f"it shares {what} with a case that is held out (so do {len(leaked) - 1} more)",
                rule="A test case is seen by neither pretraining nor fine-tuning",
                remedy="Take the copy out of the data, or give both one subject, and prepare again",
            )
