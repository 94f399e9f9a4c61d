"""The pictures of a report: what the masks look like, and what the embeddings tell apart."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...data.dataset import find_labels
from ...data.reading import read_image
from ...seg.checkpoint import Checkpoint, load
from ...seg.label_files import read_label
from ...seg.networks.registry import build
from ...seg.outlines import Segmented, outline_grid
from ...ssl.embeddings import embed
from ..comparison import Cell
from ..paired_tests import case_means
from ..pictures import embedding_map
from ..results import Results
from .report import Picture

if TYPE_CHECKING:
    from ..compare import Bench

VOLUMES, VIEWS = 10, 6


def sights(bench: "Bench", results: Results) -> list[Picture]:
    """Slices with outlines for each number of labels, then maps of embeddings, all of the first seed."""
    return [*_slices(bench, results), *_maps(bench)]


def _slices(bench: "Bench", results: Results) -> Iterator[Picture]:
    seed = bench.config.seeds[0]
    for labels in bench.config.label_counts:
        dice = {arm: case_means(results.scores, arm, labels).get(seed, {}) for arm in results.arms}
        cases = _chosen(dice.get(results.baseline) or next(iter(dice.values())), bench.config.pictures)
        rows = []
        for case in cases:
            scored = [(arm, dice[arm][case]) for arm in results.arms if case in dice[arm]]
            rows.append(
                [_segmented(bench, Cell(arm=a, labels=labels, seed=seed), case, d) for a, d in scored]
            )
        if rows:
            yield Picture(
                title=f"{labels} {'label' if labels == 1 else 'labels'}, seed {seed}",
                caption=f"Test volumes, a row each: {', '.join(cases)}, evenly spread from the worst to the "
                f"best case of {results.baseline}. The slice is the one with most of the true label.",
                group="slices",
                png=outline_grid(rows),
            )


def _chosen(dice: dict[str, float], count: int) -> list[str]:
    """Cases evenly spread from the worst to the best: a picture of the best alone would flatter."""
    ranked = sorted(dice, key=lambda case: (dice[case], case))
    count = min(count, len(ranked))
    if count == 1:
        return [ranked[len(ranked) // 2]]
    return [ranked[round(i * (len(ranked) - 1) / (count - 1))] for i in range(count)]


def _segmented(bench: "Bench", cell: Cell, case: str, dice: float) -> Segmented:
    image = read_image(bench.test_images[case], bench.options)
    table = bench.table
    true = read_label(bench.truths[case], table.kind, table.ignore, table=table)
    predicted = read_label(find_labels(bench.masks(cell))[case], table.kind)
    return Segmented(
        title=f"{cell.arm}, Dice {dice:.2f}",
        image=image.array[0],
        true=true.values,
        predicted=predicted.values,
        spacing=image.spacing or (1.0, 1.0, 1.0),
    )


def _maps(bench: "Bench") -> Iterator[Picture]:
    seed = bench.config.seeds[0]
    made: dict[str, Path] = {}
    for arm, chosen in bench.config.arms.items():
        cell = Cell(arm=arm, labels=None, seed=seed)
        if chosen.pretrain is not None and bench.is_done(cell):
            made[arm] = bench.folder("pretraining", cell)
    checkpoints = {arm: load(run, "last") for arm, run in made.items()}
    if checkpoints:
        checkpoints = {"no training": _untrained(next(iter(checkpoints.values()))), **checkpoints}
    for name, checkpoint in checkpoints.items():
        found = embed(checkpoint, bench.store, bench.unannotated, volumes=VOLUMES, views=VIEWS, seed=seed)
        measures = found.measures
        yield Picture(
            title=name,
            caption=f"{VIEWS} views each of {min(VOLUMES, len(bench.unannotated))} volumes, a colour each: "
            "pooled decoder features, first two principal components. The nearest other view is of the same "
            f"volume for {measures.retrieval or 0:.0%} of the views (chance {measures.chance or 0:.0%}); "
            f"effective rank {measures.effective_rank:.1f}.",
            group="embeddings",
            png=embedding_map(found, name),
        )


def _untrained(like: Checkpoint) -> Checkpoint:
    """The network of a checkpoint as it was before its first step."""
    network = build(like.info.architecture, like.info.seed)
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    return replace(like, tensors=tensors)
