"""Pictures of what each augmentation does, to a nucleus and to an MRI."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..data.augment.chain import AnyOperation
from ..data.augment.draws import Draws
from ..data.augment.operations import Operation
from ..data.augment.spatial import SpatialConfig, displacement, draw_elastic, draw_turn, patch_map
from ..data.formats.files import open_volume
from ..data.synthetic import NucleiConfig, StainConfig, nuclei_volume
from ..data.volume import Shape, Triple
from ..data.warp import warp

Change = Callable[["Subject"], Tensor]
SEED = 2
NUCLEUS = NucleiConfig(
    shape=(40, 80, 80),
    spacing_um=(0.2, 0.1, 0.1),
    nuclei=(2, 3),
    stain=StainConfig(nucleus_photons=(150.0, 200.0)),
)
# few, so that a picture is small
GREYS = 24
# stronger than by default, to be seen in a small picture
SHOWN: Mapping[str, Mapping[str, Any]] = {
    "blur": {"sigma": (1.2, 1.2)},
    "brightness": {"factor": (1.5, 1.5)},
    "contrast": {"factor": (0.5, 0.5)},
    "curve": {"inversion_probability": 0.0},
    "cutout": {"blocks": (5, 5), "edge": (0.3, 0.4)},
    "gamma": {"gamma": (2.0, 2.0)},
    "in_painting": {"windows": (8, 8), "edge": (0.2, 0.4)},
    "low_resolution": {"channel_probability": 1.0, "scale": (0.3, 0.3)},
    "noise": {"deviation": (0.55, 0.55)},
    "swap": {"times": (60, 60), "edge": 0.15},
    "torchio": {"transform": "RandomMotion", "arguments": {"degrees": 5, "translation": 4}},
}
# each alone; one probability at a time
TURNS: Mapping[str, Mapping[str, Any]] = {
    "rotation": {"rotation_probability": 1.0},
    "scale": {"scale_probability": 1.0, "scale": (1.4, 1.4)},
    "shear": {"shear_probability": 1.0, "shear_degrees": 25.0},
    "elastic": {"elastic_probability": 1.0, "elastic_share": (0.25, 0.25)},
    "flip": {"flip_probability": 1.0},
}
_NEVER = {f"{name}_probability": 0.0 for name in TURNS}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is changed: a z-scored image (1, Z, Y, X), and the size of its voxels."""

    name: str
    image: Tensor
    spacing: Triple


def write_gallery(folder: str | Path, mri: str | Path) -> list[Path]:
    """A PNG for each augmentation, written into the folder: middle slices before and after.

    Args:
        folder: where they go; what is there under their names is overwritten.
        mri: the file of a volume to show beside a nucleus of our own.
    """
    subjects = (_nucleus(), _volume("MRI", Path(mri)))
    written = []
    for name, change in changes().items():
        written.append(Path(folder) / f"{name}.png")
        written[-1].write_bytes(picture(name, change, subjects))
    return written


def changes() -> dict[str, Change]:
    """Every augmentation there is, by its name: the spatial ones, then the operations."""
    operations = [kind(**SHOWN.get(kind.op, {})) for kind in get_args(get_args(AnyOperation)[0])]
    turns = {name: SpatialConfig(**{**_NEVER, **values}) for name, values in TURNS.items()}
    return {name: _turn(config) for name, config in turns.items()} | {o.op: _apply(o) for o in operations}


def picture(name: str, change: Change, subjects: tuple[Subject, ...]) -> bytes:
    """A PNG with the middle slice of each subject before and after, in the same range of grey."""
    with matplotlib.rc_context({"font.size": 8}):
        figure = Figure(figsize=(2 * 1.45 * len(subjects), 1.7), layout="constrained")
        panels = iter(figure.subplots(1, 2 * len(subjects)))
        for subject in subjects:
            limits = np.percentile(_middle(subject.image), (0.5, 99.7))
            for title, image in ((subject.name, subject.image), (name.replace("_", " "), change(subject))):
                ax = next(panels)
                greys = np.interp(_middle(image), limits, (0, GREYS - 1)).round()
                aspect = subject.spacing[1] / subject.spacing[2]
                ax.imshow(greys, cmap="gray", vmin=0, vmax=GREYS - 1, aspect=aspect)
                ax.set_title(title)
                ax.set_axis_off()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=80)
        return buffer.getvalue()


def _nucleus() -> Subject:
    image, _ = nuclei_volume(NUCLEUS, SEED, 0)
    return _subject("nucleus", image[None], NUCLEUS.spacing_um)


def _volume(name: str, path: Path) -> Subject:
    volume = open_volume(path).load()
    return _subject(name, volume.array[:1], volume.spacing or (1.0, 1.0, 1.0))


def _subject(name: str, voxels: np.ndarray, spacing: Triple) -> Subject:
    image = torch.from_numpy(voxels.astype(np.float32))
    return Subject(name=name, image=(image - image.mean()) / image.std(), spacing=spacing)


def _apply(operation: Operation) -> Change:
    return lambda subject: operation(subject.image.clone(), Draws((SEED,)))


def _turn(config: SpatialConfig) -> Change:
    def turned(subject: Subject) -> Tensor:
        shape = _shape(subject.image)
        draws, middle = Draws((SEED,)), (np.array(shape) - 1) / 2
        turn = draw_turn(shape, subject.spacing, config, draws)
        moved = draw_elastic(shape, subject.spacing, config, draws)
        field = None if moved is None else displacement(moved, shape, subject.image.device)
        affine, outside = patch_map(turn, middle, middle), float(subject.image.min())
        return warp(subject.image, affine, shape, outside=outside, displacement=field)

    return turned


def _shape(image: Tensor) -> Shape:
    _, z, y, x = image.shape
    return z, y, x


def _middle(image: Tensor) -> np.ndarray:
    return image[0, image.shape[1] // 2].numpy()
