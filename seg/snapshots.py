"""Pictures of what a network makes of a case while it learns: RUN/pictures/step_N.png."""

from pathlib import Path

import torch

from ..data.atomic import new_file
from ..data.augment.chain import preset
from ..data.labels import IGNORED, LabelTable
from ..data.loader import PatchConfig, PatchSampler
from ..data.plan import Plan
from ..data.store import Store
from .engine.loop import Observer
from .networks.network import Network
from .validation import Slice, Validator, classes_of, fullest_slice

FOLDER = "pictures"
# letters that a line of the title has room for
_LETTERS = 28


class Snapshots:
    """An observer that draws what was seen in each validation, and tells another one of all it is told."""

    def __init__(self, run: Path, plan: Plan, validator: Validator, observer: Observer | None) -> None:
        self.run, self.plan, self.validator, self.observer = run, plan, validator, observer

    def step(self, done: int, steps: int, loss: float) -> None:
        """A step of so many is done."""
        if self.observer is not None:
            self.observer.step(done, steps, loss)

    def validated(self, done: int, scores: dict[str, float]) -> None:
        """A validation is done."""
        if self.validator.seen is not None:
            write_picture(self.run, self.plan, self.validator.seen, "validation case", done)
        if self.observer is not None:
            self.observer.validated(done, scores)


def seen_in_training(store: Store, cases: tuple[str, ...], plan: Plan, network: Network, seed: int) -> Slice:
    """A slice of a patch of a training case, unchanged and around its foreground, as the network has it.

    For trainings in which no case validates. It shows what was learned, not how good that is elsewhere.
    """
    sure = PatchConfig(foreground_share=1.0, augment=preset("none"))
    batch = PatchSampler(store, cases, plan.training.patch, 1, sure, seed).batch(0)
    with torch.inference_mode():
        logits = network.eval()(batch.images.to(next(network.parameters()).device))[0]
    true = batch.labels[0].numpy()
    predicted = classes_of(logits, plan.labels or LabelTable())
    predicted[true == IGNORED] = 0
    return fullest_slice(batch.cases[0], batch.images[0, 0].numpy(), true, predicted)


def write_picture(run: Path, plan: Plan, seen: Slice, what: str, step: int) -> None:
    """Writes RUN/pictures/step_N.png: the slice with outlines of truth and prediction."""
    from .outlines import Segmented, outline_grid  # slow to import, needed here alone

    segmented = Segmented(
        title=f"{what}, step {step}\n{seen.case[-_LETTERS:]}",
        image=seen.image,
        true=seen.true,
        predicted=seen.predicted,
        spacing=plan.preprocessing.spacing or (1.0, 1.0, 1.0),
    )
    (run / FOLDER).mkdir(exist_ok=True)
    with new_file(run / FOLDER / f"step_{step}.png") as file:
        file.write_bytes(outline_grid([[segmented]]))
