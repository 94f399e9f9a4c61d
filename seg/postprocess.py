"""What is done to a mask after the network: components and holes of each class, and objects numbered."""

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from ..data.errors import UserError
from ..data.labels import LabelTable
from ..data.plan import Plan
from ..data.settings import read_yaml, settings
from ..data.volume import OpenVolume, Triple
from .components import Keep, at_least, filled, kept
from .instances import InstancesConfig, check_instances, numbered, numbered_class
from .predict import Finish

# beside the checkpoints of a run, where its validation cases chose something
POSTPROCESS = "postprocess.yaml"


@settings
class ClassRules:
    """What is done to the mask of a class, in this order.

    `keep` leaves "all" components, the "largest", or by "otsu" those that are no noise. Components smaller
    than `smallest`, in the cubed unit of the plan's spacing, or than `smallest_voxels` go. With `fill_holes`
    background that the class encloses becomes of the class; other classes within it stay.
    """

    keep: Keep = "all"
    smallest: Annotated[float, Field(ge=0)] = 0.0
    smallest_voxels: Annotated[int, Field(ge=0)] = 0
    fill_holes: bool = False


@settings
class PostprocessConfig:
    """What is done to a mask: to all that is no background as one, to each class, and to its objects.

    The keys of `classes` are label values; numbers from 1 where classes overlap, 1 where labels are numbered
    objects. A class that is not named stays as it is. Components are those of `components.py`.
    """

    foreground: Keep = "all"
    classes: dict[int, ClassRules] = field(default_factory=dict)
    instances: InstancesConfig = InstancesConfig()

    @property
    def changes(self) -> bool:
        """Whether any mask can come out other than it went in."""
        ruled = any(rules != ClassRules() for rules in self.classes.values())
        return self.foreground != "all" or ruled or self.instances.method != "none"


def read_postprocess(path: Path, table: LabelTable) -> PostprocessConfig:
    """The settings in a file; raises UserError where they do not fit the classes of a model."""
    if not path.is_file():
        raise UserError(
            path,
            found="no such file",
            rule="Post-processing is told in a YAML file",
            remedy=f"Give a {POSTPROCESS}, or none",
        )
    config = read_yaml(path, PostprocessConfig)
    check_fits(config, table, path)
    return config


def chosen_postprocess(
    models: Sequence[Path], asked: str | Path | None, table: LabelTable
) -> tuple[PostprocessConfig, str]:
    """What is done to masks, and a line that says so.

    Args:
        models: paths of runs, or of single checkpoints, which have chosen nothing.
        asked: a file, or "none"; None is what all of the runs chose alike.
        table: of the models' labels.
    """
    if asked is not None and str(asked) != "none":
        return read_postprocess(Path(asked), table), f"post-processing: {asked}"
    files = [model / POSTPROCESS for model in models if (model / POSTPROCESS).is_file()]
    if str(asked) == "none" or not files:
        return PostprocessConfig(), ""
    of_runs = [read_postprocess(file, table) for file in files]
    if len(files) < len(models) or any(config != of_runs[0] for config in of_runs):
        return PostprocessConfig(), (
            "no post-processing: the runs chose differently on validation cases; --postprocess FILE decides"
        )
    if not of_runs[0].changes:
        return of_runs[0], ""
    return of_runs[0], f"post-processing as chosen on validation cases: {files[0]}"


def check_fits(config: PostprocessConfig, table: LabelTable, where: object) -> None:
    """Raises UserError where settings name classes that a model does not have."""
    known = class_values(table)
    unknown = sorted(config.classes.keys() - set(known))
    if unknown:
        raise UserError(
            where,
            found=f"the class {unknown[0]}",
            rule=f"The model's classes are {', '.join(map(str, known))}",
            remedy="Name the classes as the model's labels do",
        )
    if config.instances.method != "none":
        check_instances(config.instances, table, where)


def class_values(table: LabelTable) -> tuple[int, ...]:
    """What classes are called, class 1 first: label values, or numbers where a class has no value."""
    return table.values[1:] if table.kind == "classes" else tuple(range(1, table.classes))


def labels_of_masks(config: PostprocessConfig, table: LabelTable) -> LabelTable:
    """What the values of masks mean: those of the model's labels, or numbered objects.

    Masks hold 0 where there is no object, labels the `background`. Classes whose objects are not numbered
    are aliases of it.
    """
    if config.instances.method == "none":
        return table
    background = table.background if table.kind == "instances" else table.values[0]
    aliases = dict(table.aliases)
    if table.classes > 2:
        chosen = numbered_class(config.instances, table)
        aliases |= {value: background for n, value in enumerate(table.values[1:], start=1) if n != chosen}
    return LabelTable(kind="instances", background=background, ignore=table.ignore, aliases=aliases)


def finishing(config: PostprocessConfig, plan: Plan) -> Finish:
    """A function that makes the values of a volume's mask of its class numbers, as `config` tells.

    These are label values, or the numbers of objects in as wide a type as they need. Lengths are those of
    the plan's unit; the voxel of a volume that tells no spacing has edges of 1.
    """
    table = plan.labels or LabelTable()

    def finish(numbers: np.ndarray, volume: OpenVolume) -> np.ndarray:
        spacing = volume.in_unit(plan.preprocessing.unit).spacing or (1.0, 1.0, 1.0)
        cleaned = clean(numbers, config, table, spacing)
        if config.instances.method == "none":
            return table.decode(cleaned)
        objects = numbered(cleaned, config.instances, table, spacing)
        return objects.astype(np.min_scalar_type(objects.max(initial=0)))

    return finish


def clean(numbers: np.ndarray, config: PostprocessConfig, table: LabelTable, spacing: Triple) -> np.ndarray:
    """Class numbers after foreground and classes were seen to; a new array of the same shape.

    Args:
        numbers: (Z, Y, X), or (K, Z, Y, X) of 0 and 1 where classes overlap.
        config, table: what is to be done, and what the classes are called.
        spacing: (z, y, x) in the unit of `smallest`.
    """
    result = only_foreground(numbers, config.foreground, table)
    for of_class, value in enumerate(class_values(table), start=1):
        rules = config.classes.get(value, ClassRules())
        if rules != ClassRules():
            before = table.members(result, of_class)
            _put(result, of_class, before, ruled(before, rules, spacing), table)
    return result


def only_foreground(numbers: np.ndarray, keep: Keep, table: LabelTable) -> np.ndarray:
    """A copy of class numbers, of whose foreground, all classes as one, only some components are left."""
    if keep == "all":
        return numbers.copy()
    foreground = np.any(numbers, axis=0) if table.kind == "overlapping" else numbers > 0
    return np.where(kept(np.asarray(foreground), keep), numbers, 0).astype(numbers.dtype)


def ruled(mask: np.ndarray, rules: ClassRules, spacing: Triple) -> np.ndarray:
    """The mask (Z, Y, X) of a class after its rules, bool."""
    voxels = max(rules.smallest / float(np.prod(spacing)), rules.smallest_voxels)
    mask = at_least(kept(mask, rules.keep), voxels)
    return filled(mask) if rules.fill_holes else mask


def _put(
    numbers: np.ndarray, of_class: int, before: np.ndarray, after: np.ndarray, table: LabelTable
) -> None:
    if table.kind == "overlapping":
        numbers[of_class - 1] = after
        return
    numbers[before & ~after] = 0
    numbers[after & (numbers == 0)] = of_class
