"""Where the images and labels of a data set lie: one folder, a pair of folders, or those of dataset.json."""

from dataclasses import dataclass
from pathlib import Path

from .dataset_json import Description, Listed, read_description
from .errors import DatasetError, UserError
from .folders import Folder, look, walk
from .formats.files import is_volume
from .problems import Problem

_LABEL_FOLDERS = {"labels", "label", "masks", "mask", "labelstr", "segmentations", "annotations", "gt"}
_TRAINING, _TEST = "imagesTr", "imagesTs"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The volumes of a data set by their use.

    `labels` are those in a folder beside the images. `unused` are in folders that nobody reads, `left_out`
    are test images. `description` is what dataset.json tells; of a `part` (imagesTs/ alone) it lists no
    cases. `numbered` says that files may be channels, with a number at the end of their names.
    """

    images: Folder
    labels: Folder | None = None
    unused: Folder | None = None
    left_out: Folder | None = None
    description: Description | None = None
    part: bool = False
    numbered: bool = False

    @property
    def listed(self) -> tuple[Listed, ...] | None:
        """The cases where dataset.json lists them."""
        return None if self.description is None or self.part else self.description.listed


def layout_of(data: str | Path) -> Layout:
    """The layout of a folder, a glob or a single volume; raises DatasetError when no image is there."""
    path = Path(data)
    if not path.is_dir() or is_volume(path):
        return Layout(images=look(data))
    if (path / "images").is_dir():
        return _pair_of_folders(path)
    description = read_description(path)
    if description is not None or (path / _TRAINING).is_dir():
        return _training(path, description)
    if path.absolute().name in (_TRAINING, _TEST):
        told = read_description(path.absolute().parent)
        return Layout(images=look(path), description=told, part=True, numbered=True)
    return Layout(images=look(path))


def labels_in(labels: str | Path) -> Folder:
    """The label maps of a folder, a glob, or a whole data set; raises DatasetError when there are none."""
    path = Path(labels)
    inner = next((path / name for name in ("labels", "labelsTr") if (path / name).is_dir()), None)
    return look(inner or labels)


def _pair_of_folders(path: Path) -> Layout:
    labels = walk(path / "labels") if (path / "labels").is_dir() else None
    return Layout(
        images=look(path / "images"), labels=labels, unused=walk(path, without=("images", "labels"))
    )


def _training(path: Path, description: Description | None) -> Layout:
    labels, test = (path / "labelsTr", path / _TEST)
    return Layout(
        images=look(path / _TRAINING),
        labels=walk(labels) if labels.is_dir() else None,
        left_out=walk(test) if test.is_dir() else None,
        description=description,
        numbered=True,
    )


def refuse_label_folders(images: Folder) -> None:
    """Without this, label maps in a folder of their own would become unannotated images."""
    for path in images.volumes:
        for part in path.relative_to(images.root).parts[:-1]:
            if part.casefold() in _LABEL_FOLDERS:
                raise DatasetError(
                    path.parent,
                    found=f"a folder called '{part}' among the images, and no --labels",
                    rule="Labels are in labels/ beside images/, or in the folder that --labels names",
                    remedy="Give it with --labels, or rename it if it holds images",
                )


def refuse_among_images(out: Path, data: str | Path) -> None:
    """Raises UserError where results would lie among the images of a data set."""
    path = Path(data)
    images = path / "images" if (path / "images").is_dir() else path
    if images.is_dir() and images.resolve() in [out.resolve(), *out.resolve().parents]:
        raise UserError(
            out,
            found=f"a folder among the images in {images}",
            rule="Results lie elsewhere, or the next scan would take them for images",
            remedy="Choose another --out",
        )


def unread(layout: Layout, images: Folder, apart: list[Folder]) -> list[Problem]:
    """Warnings of all files in the data set that are not used: no volumes, elsewhere, or to test with."""
    elsewhere = [folder for folder in apart if images.root not in folder.root.parents]
    problems = [problem for folder in (images, *elsewhere) for problem in folder.unread()]
    unused = layout.unused.without(*apart) if layout.unused else None
    if unused and unused.volumes:
        problems.append(
            Problem(
                severity="warning",
                case="",
                where=str(unused.volumes[0].parent),
                found=f"volumes outside images/ and labels/ that are not used: {len(unused.volumes)}",
                rule="Beside images/ and labels/ no other folder is read",
                remedy="Move them into images/ to use them as unannotated volumes",
            )
        )
    if layout.left_out and layout.left_out.volumes:
        problems.append(
            Problem(
                severity="warning",
                case="",
                where=str(layout.left_out.root),
                found=f"test images that are left out: {len(layout.left_out.volumes)}",
                rule="What tests a model is not trained on, not even without labels",
                remedy=f"Nothing to do; to predict them, give {layout.left_out.root} itself",
            )
        )
    return problems
