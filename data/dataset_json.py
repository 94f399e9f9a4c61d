"""What dataset.json tells of a data set: of the Medical Segmentation Decathlon, and of nnU-Net.

Sources: http://medicaldecathlon.com, and nnU-Net's documentation/dataset_format.md (version 2); version 1 is
the decathlon's file with channels in files of their own.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from .errors import DatasetError
from .formats.files import SUFFIXES, is_volume, strip_suffix
from .settings import parse

_KEYS = {"training", "channel_names", "modality"}


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One training case of a list: its files as they are named there, none of them looked for."""

    id: str
    images: tuple[Path, ...]
    label: Path


@dataclass(frozen=True, kw_only=True)
class Description:
    """What dataset.json tells.

    `listed` are the training cases where the file lists them (the decathlon does), None where the names of
    the files tell (nnU-Net: a file a channel, ending in `ending`). `count` is the stated number of cases.
    """

    path: Path
    channels: tuple[str, ...]
    label_names: dict[str, int]
    class_regions: dict[str, tuple[int, ...]]
    ignore: int | None
    text: str
    count: int | None
    ending: str | None
    listed: tuple[Listed, ...] | None


@dataclass(frozen=True, kw_only=True)
class _Pair:
    image: str
    label: str


@dataclass(frozen=True, kw_only=True)
class _Images:
    images: list[str]
    label: str


@dataclass(frozen=True, kw_only=True)
class _File:
    """The keys that are used; others may stand there."""

    labels: dict[str, int | list[int] | str] = field(default_factory=dict)
    modality: dict[int, str] | None = None
    channel_names: dict[int, str] | None = None
    file_ending: str | None = None
    numTraining: int | None = None
    training: list[_Pair] | None = None
    dataset: dict[str, _Images] | None = None
    name: str | None = None
    description: str | None = None


def read_description(folder: Path) -> Description | None:
    """What `folder`/dataset.json tells; None where there is none, or one of something else.

    Raises UserError when it is not readable, or tells of files outside the folder.
    """
    path = folder / "dataset.json"
    if not path.is_file():
        return None
    values = _mapping(path)
    if not _KEYS & values.keys():
        return None
    told = parse(_File, values, path)
    listed = _listed(path, told)
    if listed is None and (told.file_ending is None or not is_volume(Path(f"x{told.file_ending}"))):
        raise DatasetError(
            path,
            found=f'the "file_ending" {told.file_ending!r}',
            rule=f"Volumes are {', '.join(SUFFIXES)}",
            remedy="Convert the volumes to one of these, and name it",
        )
    names, regions = _labels(path, told.labels)
    return Description(
        path=path,
        channels=_channels(path, told.channel_names or told.modality or {}),
        ignore=names.pop("ignore", None),
        label_names=names,
        class_regions=regions,
        text=": ".join(text for text in (told.name, told.description) if text),
        count=told.numTraining,
        ending=told.file_ending,
        listed=listed,
    )


def _listed(path: Path, told: _File) -> tuple[Listed, ...] | None:
    if told.dataset is not None:
        return tuple(
            Listed(
                id=case,
                images=tuple(_inside(path, image) for image in files.images),
                label=_inside(path, files.label),
            )
            for case, files in told.dataset.items()
        )
    if told.channel_names is not None or told.training is None:
        return None
    pairs = [(_inside(path, pair.image), _inside(path, pair.label)) for pair in told.training]
    return tuple(Listed(id=_id(path, image), images=(image,), label=label) for image, label in pairs)


def _id(path: Path, image: Path) -> str:
    """The path below the folder of the images, without suffix."""
    parts = image.relative_to(path.parent).parts
    return strip_suffix("/".join(parts[1:] or parts))


def _mapping(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise _refusal(path, f"not readable as JSON ({error})") from error
    if not isinstance(values, dict):
        raise _refusal(path, f"holds {type(values).__name__}")
    return values


def _refusal(path: Path, found: str) -> DatasetError:
    return DatasetError(
        path,
        found=found,
        rule="dataset.json is as the Medical Segmentation Decathlon and nnU-Net write it",
        remedy="Correct it, or take it away and lay the volumes out as images/ and labels/",
    )


def _inside(path: Path, text: str) -> Path:
    """A path of the file; one that leads elsewhere could read, or train on, anything."""
    named = PurePosixPath(text.replace("\\", "/"))
    if named.is_absolute() or PureWindowsPath(text).drive or ".." in named.parts or not named.name:
        raise _refusal(path, f"the path '{text}', which is not below {path.parent}")
    return path.parent / named


def _channels(path: Path, names: dict[int, str]) -> tuple[str, ...]:
    if sorted(names) != list(range(len(names))) or not names:
        raise _refusal(path, f"the channels {', '.join(map(str, names)) or '(none)'} instead of 0, 1, ...")
    return tuple(names[n] for n in range(len(names)))


def _labels(
    path: Path, told: dict[str, int | list[int] | str]
) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """Values by name, and those of the classes that are unions; the decathlon writes {"1": "name"}."""
    names: dict[str, int] = {}
    regions: dict[str, tuple[int, ...]] = {}
    for key, value in told.items():
        if isinstance(value, list):
            regions[key] = tuple(value)
        elif isinstance(value, int):
            names[key] = value
        elif key.isdecimal():
            names[value] = int(key)
        else:
            raise _refusal(path, f"the label {key!r}: {value!r}, neither of them a value")
    if len(set(names.values())) < len(names) or len(names) + len(regions) < len(told):
        raise _refusal(path, f"labels of one name or one value: {told}")
    return names, regions
