"""What a comparison is: arms, label counts and seeds on one data set, read from YAML and checked."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ..data.errors import UserError
from ..data.labels import LabelKind
from ..data.plan import BudgetName
from ..data.settings import load_mapping, override, parse, settings
from ..data.subjects import is_table
from ..seg.few_labels import steps_for
from ..seg.finetune import ABOUT_LOADING, FinetuneConfig, about_weights
from ..seg.otsu import OtsuConfig
from ..ssl.methods.registry import find_method
from ..ssl.pretrain import PretrainConfig

CONFIGS = Path(__file__).parent / "configs"
# keys that name files or folders; in a YAML file they are relative to it
_PATHS = ("data", "labels", "subjects", "test_data", "pretrained")
# what the store of a comparison is made of
_DATA = {"data", "labels", "subjects", "spacing", "unit", "label_kind", "accept_geometry", "budget"}
# what may change between two calls for one folder
_MAY_CHANGE = {"label_counts", "seeds", "baseline", "arms", "confidence", "pictures", "tolerance"}


def _folder_name(name: str) -> str:
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ValueError("an arm is named by letters, digits, - and _")
    return name


ArmName = Annotated[str, AfterValidator(_folder_name)]


@settings
class Arm:
    """One of the ways that are compared.

    `pretrain` holds `method` and settings of PretrainConfig; None is training from scratch. `pretrained` is
    for weights that are there already instead, the same for every seed: a run, a file, or true for those of
    the comparison. `finetune` overrides settings of the comparison's own fine-tuning, for this arm.
    `predictions` is for masks of another tool instead: a folder for each number of labels and seed, written
    with {labels} and {seed}, and below the comparison's own folder where it begins with {out}. `otsu` is for
    masks by a threshold, which nothing is trained for.
    """

    pretrain: dict[str, Any] | None = None
    pretrained: str | Literal[True] | None = None
    finetune: dict[str, Any] = field(default_factory=dict)
    predictions: str | None = None
    otsu: OtsuConfig | None = None

    @property
    def trained(self) -> bool:
        """Whether a network is trained here."""
        return self.predictions is None and self.otsu is None


@settings
class ComparisonConfig:
    """What is compared, on which data.

    `data`, `labels`, `subjects`, `spacing`, `unit`, `label_kind`, `accept_geometry` and `budget` are as for
    `fewvox prepare`. Test cases are `test` of its labelled volumes (chosen by `split_seed`), or all of
    `test_data`, a data set of its own. Everything else is pretrained on, without labels. `finetune` holds
    settings of FinetuneConfig that all arms share. `width` is that of the network, in all trainings.
    `pretrained` are the weights of the arms that say `pretrained: true`. With `compare_networks` arms may
    train different networks, as it is these that are compared. `tolerance` is that of NSD, in the unit of the
    test volumes; None is the coarsest spacing of each.
    """

    name: str
    data: str
    labels: str | None = None
    subjects: str | None = None
    spacing: tuple[float, float, float] | None = None
    unit: str | None = None
    label_kind: LabelKind | None = None
    accept_geometry: bool = False
    budget: BudgetName = "default"
    test: Annotated[int, Field(ge=0)] = 0
    test_data: str | None = None
    split_seed: Annotated[int, Field(ge=0)] = 0
    label_counts: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    baseline: str = "scratch"
    arms: Annotated[dict[ArmName, Arm], Field(min_length=1)]
    width: Annotated[int, Field(ge=1, le=512)] | None = None
    pretrained: str | None = None
    compare_networks: bool = False
    finetune: dict[str, Any] = field(default_factory=dict)
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    pictures: Annotated[int, Field(ge=0)] = 3
    tolerance: Annotated[float, Field(ge=0)] | None = None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One arm at one number of labels (None: its pretraining) with one seed."""

    arm: str
    labels: int | None
    seed: int

    @property
    def path(self) -> Path:
        """Its folder below that of its stage."""
        labels = () if self.labels is None else (f"labels_{self.labels}",)
        return Path(self.arm, *labels, f"seed_{self.seed}")

    def __str__(self) -> str:
        what = "pretraining" if self.labels is None else f"{self.labels} labels"
        return f"{self.arm}, {what}, seed {self.seed}"


def config_file(config: str | Path, folder: Path, kind: str) -> Path:
    """A YAML file by its path, or the one of that name in a folder of ours; raises UserError for neither."""
    file, own = Path(config), folder / f"{config}.yaml"
    if file.is_file() or own.is_file():
        return file if file.is_file() else own
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    raise UserError(
        config,
        found="no such file",
        rule=f"A {kind} is a YAML file, or one of those that come with fewvox: {', '.join(known)}",
        remedy="Check the path",
    )


def read_config(config: str | Path, assignments: Sequence[str] = ()) -> ComparisonConfig:
    """A comparison from a YAML file, or the one of that name that comes with fewvox; all is checked.

    Relative paths in the file are relative to it, those in `assignments` to the working directory.
    """
    file = config_file(config, CONFIGS, "comparison")
    values = override(_absolute(load_mapping(file), file.parent), list(assignments))
    chosen = parse(ComparisonConfig, _absolute(values, Path()), file)
    _check_config(chosen, file)
    return chosen


def _absolute(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same with every relative path made one below `folder`, so that it means the same everywhere."""
    found = copy.deepcopy(values)
    arms = found.get("arms")
    own = list(arms.values()) if isinstance(arms, dict) else []
    for place, keys in (
        (found, _PATHS),
        *((arm, ("predictions", "pretrained")) for arm in own if isinstance(arm, dict)),
    ):
        for key in keys:
            if str(place.get(key)).startswith("{out}"):
                continue
            if isinstance(place.get(key), str) and (key != "subjects" or is_table(folder / place[key])):
                place[key] = str((folder / place[key]).resolve())
    return found


def _check_config(config: ComparisonConfig, file: Path) -> None:
    def refuse(found: str, rule: str, remedy: str) -> None:
        raise UserError(file, found=found, rule=rule, remedy=remedy)

    if (config.test > 0) == (config.test_data is not None):
        refuse(
            f"test {config.test} and test_data {config.test_data}",
            "The test cases are so many volumes of the data, or a data set of their own",
            "Give one of the two",
        )
    if config.baseline not in config.arms:
        refuse(f"baseline {config.baseline}", f"It is one of the arms: {', '.join(config.arms)}", "Name one")
    first = config.arms[config.baseline]
    if not first.trained or _has_weights(config, config.baseline):
        refuse(
            f"baseline {config.baseline} is pretrained, another tool's or a threshold",
            "The baseline is trained here, from scratch",
            "Name such an arm as the baseline",
        )
    trainings = [config.finetune, *(v for a in config.arms.values() for v in (a.pretrain, a.finetune))]
    if any("seed" in (training or {}) for training in trainings):
        refuse("a seed within an arm or finetune", "Seeds are those of the comparison", "Set seeds instead")
    for values in (config.label_counts, config.seeds):
        if len(set(values)) < len(values):
            refuse(f"{values}", "Every number of labels and every seed stands once", "Take the second away")
    for name, arm in config.arms.items():
        if arm.pretrain is not None and arm.pretrained is not None:
            refuse(
                f"arm {name} has pretrain and pretrained",
                "An arm is pretrained here, or starts from weights that are there",
                "Take one of the two away",
            )
        if arm.pretrained is True and config.pretrained is None:
            refuse(
                f"arm {name} starts from the weights of the comparison, which names none",
                "`pretrained` beside the arms is a run or a file of weights",
                "Give it, such as --set pretrained=RUN",
            )
        training = arm.pretrain or arm.pretrained or arm.finetune
        if sum(map(bool, (training, arm.predictions, arm.otsu))) > 1:
            refuse(
                f"arm {name} has two of predictions, otsu and a training",
                "An arm is trained here, predicted by another tool, or a threshold",
                "Take one of the two away",
            )
        scratch = arm.trained and not _has_weights(config, name)
        idle = about_weights(finetune_config(config, name, config.seeds[0])) if scratch else []
        if idle:
            refuse(
                f"finetune.{', finetune.'.join(idle)} for arm {name}, which is trained from scratch",
                "keep, load, expected_share and accept_mismatch are about pretrained weights",
                "Set it within the arms that have weights (arms.NAME.finetune)",
            )
        for labels in config.label_counts if _has_weights(config, name) else ():
            own, base = (
                finetune_config(config, n, config.seeds[0]).steps or steps_for(labels)
                for n in (name, config.baseline)
            )
            if own > base:
                refuse(
                    f"{own} steps with {labels} labels in arm {name}, {base} in {config.baseline}",
                    "The baseline is trained on labels as long as any pretrained arm",
                    "Give the baseline as many steps",
                )
        if arm.pretrain is not None:
            found = pretrain_config(config, name, config.seeds[0])
            parse(find_method(found.method).config, found.options, f"arms.{name}.pretrain.options")


def _has_weights(config: ComparisonConfig, arm: str) -> bool:
    """Whether an arm's fine-tuning starts from weights."""
    return config.arms[arm].pretrain is not None or config.arms[arm].pretrained is not None


def weights_of(config: ComparisonConfig, arm: str) -> str | None:
    """The weights that an arm starts from and that are there already; None for any other arm."""
    own = config.arms[arm].pretrained
    return config.pretrained if own is True else own


def finetune_config(config: ComparisonConfig, arm: str, seed: int) -> FinetuneConfig:
    """The fine-tuning of an arm: the comparison's settings, overridden by the arm's own.

    What the comparison says of loading weights is for the arms that have weights.
    """
    width = {} if config.width is None else {"width": config.width}
    meant = {k: v for k, v in config.finetune.items() if k not in ABOUT_LOADING or _has_weights(config, arm)}
    values = {**width, **_merged(meant, config.arms[arm].finetune), "seed": seed}
    return parse(FinetuneConfig, values, f"finetune of arm {arm}")


def pretrain_config(config: ComparisonConfig, arm: str, seed: int) -> PretrainConfig:
    """The pretraining of an arm."""
    width = {} if config.width is None else {"width": config.width}
    values = {**width, **(config.arms[arm].pretrain or {}), "seed": seed}
    return parse(PretrainConfig, values, f"arms.{arm}.pretrain")


def _merged(shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    result = dict(shared)
    for key, value in own.items():
        inner = result.get(key)
        result[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result


def cells(config: ComparisonConfig) -> Iterator[Cell]:
    """Every cell, seed by seed, so that what is done at any time is a comparison of whole seeds."""
    for seed in config.seeds:
        for arm, chosen in config.arms.items():
            if chosen.pretrain is not None:
                yield Cell(arm=arm, labels=None, seed=seed)
        for labels in config.label_counts:
            for arm in config.arms:
                yield Cell(arm=arm, labels=labels, seed=seed)


def check_same(before: ComparisonConfig, now: ComparisonConfig, where: Path, *, begun: bool = True) -> None:
    """Raises UserError unless what was made for `before` still stands for `now`.

    That is the store alone where no training has `begun`.
    """
    fixed = ComparisonConfig.__dataclass_fields__.keys() - _MAY_CHANGE if begun else _DATA
    changed = sorted(name for name in fixed if getattr(before, name) != getattr(now, name))
    both = before.arms.keys() & now.arms.keys() if begun else ()
    changed += [f"arms.{name}" for name in sorted(both) if before.arms[name] != now.arms[name]]
    if changed:
        raise UserError(
            where,
            found=f"another comparison: {', '.join(changed)} differ",
            rule="Arms, label counts and seeds can be added to a comparison; all else stays as it was",
            remedy="Give a changed arm another name, or choose another --out; comparison.yaml has what was",
        )
