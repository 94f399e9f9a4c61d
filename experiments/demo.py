"""The demo: synthetic nuclei, a network trained on a few labels, masks, scores and a picture."""

import json
from dataclasses import dataclass
from pathlib import Path

from ..data.errors import UserError
from ..data.formats.files import read_volume
from ..data.synthetic import write_nuclei
from ..seg.evaluate import Evaluation
from . import api
from .display import console
from .pictures import Segmented, outlines

SEED = 7


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much the demo does."""

    annotated: int
    test: int
    steps: int


FULL = Size(annotated=8, test=8, steps=250)
FAST = Size(annotated=2, test=2, steps=20)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What the demo made."""

    path: Path
    evaluation: Evaluation
    picture: Path
    test_cases: int


def demo(out: str | Path | None = None, *, fast: bool = False) -> Demo:
    """Makes data, trains, predicts, scores and draws, all below one new folder.

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
    console.rule("1. synthetic confocal nuclei")
    data = write_nuclei(folder / "data", unannotated=0, annotated=size.annotated, test=size.test, seed=SEED)
    console.print(
        f"{size.annotated} labelled volumes to learn from, {size.test} to test on: {data}", highlight=False
    )
    console.rule("2. scan, plan, prepare")
    store = api.prepare(data / "train", folder / "store", budget="cpu")
    console.print(f"patch {store.plan.training.patch}, width {store.plan.training.width}", highlight=False)
    console.rule("3. train on the labels")
    split = folder / "split.json"
    split.write_text(json.dumps({"train": sorted(store.cases)}), encoding="utf-8")
    run = api.finetune(store.path, folder / "run", cases=split, set=[f"steps={size.steps}"])
    console.rule("4. predict volumes that the network has not seen, and score")
    masks = api.predict(run.path, data / "test", folder / "masks")
    evaluation = api.evaluate(masks.path, data / "test", json=folder / "scores.json")
    picture = folder / "outlines.png"
    _draw(data / "test", masks.path, evaluation, picture)
    return Demo(path=folder, evaluation=evaluation, picture=picture, test_cases=size.test)


def _free_name(base: Path) -> Path:
    number, path = 1, base
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path


def _draw(data: Path, masks: Path, evaluation: Evaluation, picture: Path) -> None:
    """The worst, the middle and the best case: a picture of the best alone would flatter."""
    ranked = sorted(evaluation.scores, key=lambda s: s.dice if s.dice is not None else -1.0)
    chosen = {s.case: s for s in (ranked[0], ranked[len(ranked) // 2], ranked[-1])}
    cases = []
    for case, score in chosen.items():
        image = read_volume(data / "images" / f"{case}.tif")
        cases.append(
            Segmented(
                title=f"{case}, Dice {'n/a' if score.dice is None else f'{score.dice:.3f}'}",
                image=image.array[0],
                true=read_volume(data / "labels" / f"{case}.tif").array[0],
                predicted=read_volume(masks / f"{case}.tif").array[0],
                spacing=image.spacing or (1.0, 1.0, 1.0),
            )
        )
    outlines(cases, picture)
