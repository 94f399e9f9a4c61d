"""A data set before any voxel is read: its cases, and what it tells of itself."""

from dataclasses import dataclass, field
from pathlib import Path

from .problems import Problem


@dataclass(frozen=True, kw_only=True)
class Case:
    """One volume of a data set.

    `id` is its path below the image folder without suffix, with forward slashes (and without channel number
    where each channel is a file). Cases of one `subject` stay on one side of every split; unless subjects are
    given every case is its own.

    `images` is one file, or one a channel in the order of the channels. `label` is None for an unannotated
    case. `channels` are names that the data set tells, `axes` the stored axes that it tells (as in
    `ReadChoices`); empty and None where it is silent. `sidecar` is a JSON file with the spacing, `region` a
    mask of what was annotated.
    """

    id: str
    images: tuple[Path, ...]
    label: Path | None = None
    subject: str
    channels: tuple[str, ...] = ()
    axes: str | None = None
    sidecar: Path | None = None
    region: Path | None = None

    @property
    def image(self) -> Path:
        """Its only file, or that of the first channel."""
        return self.images[0]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The cases of a data set sorted by id, what is wrong with their names, and what dataset.json tells.

    `label_names` gives the value of each name; `class_regions` those of a class that is the union of several
    values; `ignore` is the value of voxels that nobody annotated.
    """

    cases: tuple[Case, ...]
    problems: tuple[Problem, ...] = ()
    channels: tuple[str, ...] = ()
    label_names: dict[str, int] = field(default_factory=dict)
    class_regions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    ignore: int | None = None
    description: str = ""

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects there are, sorted."""
        return tuple(sorted({case.subject for case in self.cases}))
