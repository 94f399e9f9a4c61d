"""The demo: synthetic nuclei, two pretrainings on the unannotated ones, and what they are worth."""

import json
from dataclasses import dataclass
from pathlib import Path

from ..data.errors import UserError
from ..data.synthetic import NucleiConfig, StainConfig, write_nuclei
from .compare import Comparison, run_comparison
from .comparison import read_config
from .display import console

SEED = 7
# dimmer nuclei in brighter, more uneven cytoplasm than the generator's own: with its bright ones two labels
# do nearly as well as twenty
NUCLEI = NucleiConfig(
    shape=(24, 48, 48),
    nuclei=(2, 4),
    stain=StainConfig(nucleus_photons=(6.0, 16.0), haze_photons=3.0, haze_variation=0.5),
)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much the demo does; `settings` override configs/demo.yaml."""

    unannotated: int
    annotated: int
    test: int
    settings: tuple[str, ...] = ()


FULL = Size(unannotated=150, annotated=4, test=16)
FAST = Size(
    unannotated=6,
    annotated=2,
    test=2,
    settings=(
        "label_counts=[1, 2]",
        "width=4",
        "finetune.steps=20",
        "arms.triplet.pretrain.steps=4",
        "arms.mae.pretrain.steps=4",
    ),
)


def demo(out: str | Path | None = None, *, fast: bool = False) -> Comparison:
    """Makes data, pretrains, fine-tunes, predicts, scores and reports, all below one new folder.

    Args:
        out: the folder; "fewvox-demo", or with a number when that exists, when None.
        fast: a minute's version whose scores mean nothing.
    """
    folder = Path(out) if out is not None else _free_name(Path("fewvox-demo"))
    if folder.exists():
        raise UserError(
            folder,
            found="it exists already",
            rule="The demo makes a new folder",
            remedy="Choose another --out, or delete this one",
        )
    size = FAST if fast else FULL
    folder.mkdir(parents=True)
    console.rule("synthetic confocal nuclei")
    data = write_nuclei(
        folder / "data",
        unannotated=size.unannotated,
        annotated=size.annotated,
        test=size.test,
        seed=SEED,
        config=NUCLEI,
    )
    console.print(
        f"{size.unannotated} volumes without labels, {size.annotated} with, {size.test} to test on: {data}",
        highlight=False,
    )
    places = {"data": data / "train", "test_data": data / "test"}
    given = [f"{key}={json.dumps(str(path))}" for key, path in places.items()]  # JSON is quoted YAML
    given += size.settings
    return run_comparison(read_config("demo", given), folder / "comparison", "fewvox demo")


def _free_name(base: Path) -> Path:
    number, path = 1, base
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path
