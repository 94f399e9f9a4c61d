"""Whether a pretraining has collapsed: in which way, how that shows, and what to change.

What is looked at, and what each kind of collapse leaves behind:

- complete: all embeddings are the same. The spread of unit vectors falls from 1 (in units of 1/sqrt(D)) to 0
  (Chen and He 2021, SimSiam, arXiv:2011.10566, section 4.1).
- dimensional: they differ along one or two directions alone; the effective rank falls (Jing et al. 2022,
  arXiv:2110.09348).
- resting: the loss has stayed at the value that it has when all outputs are the same, such as the margin of a
  triplet loss or the logarithm of the number of answers. A task that is too hard looks alike.
- centring, sharpening: a teacher that says the same of every view, so that its outputs hold no information
  about which one it is: they are spread over prototypes (their entropy stays above zero, at ln K where it is
  over all), or on one of them (their entropy is zero). Caron et al. 2021, DINO, arXiv:2104.14294, section
  5.3, where a KL divergence of zero tells of it; so does that of a teacher which is rightly sure of all.

A loss that diverges without any of these is a failure of its own, which the loop stops.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal

from ..data.atomic import write_text
from ..data.settings import plain, read_json, settings
from ..seg.engine.tracking import read_metrics
from .monitors import EmbeddingMeasures

log = logging.getLogger(__name__)

COLLAPSE_FILE = "collapse.json"
Kind = Literal["complete", "dimensional", "resting", "centring", "sharpening"]
# unit vectors of a healthy training have a spread of 0.5 to 1 and a rank near the number of volumes; three
# volumes that are told apart perfectly have a rank of 2
_LEAST_SPREAD, _LEAST_RANK, _ENOUGH_DIRECTIONS = 0.2, 2.0, 4
# a loss that rests is within a hundredth of its resting value, on average and in every step
_NEAR = 0.01
# what a teacher's outputs are recorded as, in nats
_INFORMATION, _ENTROPY = "teacher_information", "teacher_entropy"
_NO_INFORMATION, _NO_ENTROPY = 0.01, 0.05
# the last steps that are judged, and how many there have to be
_LAST, _ENOUGH = 50, 10


@settings
class Collapse:
    """A collapse that was found after `step` steps: what was `found`, and what to change."""

    kind: Kind
    step: int
    found: str
    remedy: str

    def line(self) -> str:
        """It in words."""
        return f"collapsed ({self.kind}) at step {self.step}: {self.found}. {self.remedy}"


def diagnose(
    step: int,
    measures: EmbeddingMeasures,
    recent: Sequence[Mapping[str, float]],
    resting_loss: float | None,
    directions: int | None,
) -> Collapse | None:
    """What is wrong after `step` steps; None where nothing is.

    Args:
        step: how many steps were made.
        measures: of the method's embeddings.
        recent: what was recorded of the last steps: "loss", and of a teacher "teacher_entropy" and
            "teacher_information", in nats, which may follow the name of its method and a "/".
        resting_loss: the loss of outputs that are all the same; of a teacher with K prototypes ln K.
        directions: along how many the embeddings could vary: the smaller of their dimensions and of the
            number of volumes less one; None where they are features pooled to be watched, of which a low rank
            is nothing unusual.
    """
    for kind, (found, remedy) in (
        *_of_teachers(recent, resting_loss),
        *(_of_embeddings(measures, directions) if step >= _ENOUGH else []),
        *_of_loss(recent, resting_loss),
    ):
        return Collapse(kind=kind, step=step, found=found, remedy=remedy)
    return None


Finding = tuple[Kind, tuple[str, str]]


def _of_teachers(recent: Sequence[Mapping[str, float]], most: float | None) -> list[Finding]:
    # of a sum of methods each part's numbers bear its name: "dino/teacher_information"
    names = sorted({name for line in recent for name in line if name.endswith(_INFORMATION)})
    return [found for name in names for found in _of_teacher(recent, name.removesuffix(_INFORMATION), most)]


def _of_teacher(recent: Sequence[Mapping[str, float]], part: str, most: float | None) -> list[Finding]:
    told = [line for line in recent if part + _INFORMATION in line]
    if len(told) < _ENOUGH:
        return []
    information, entropy = (fmean(line[part + name] for line in told) for name in (_INFORMATION, _ENTROPY))
    if information > _NO_INFORMATION:
        return []
    teacher = f"teacher of {part.removesuffix('/')}" if part else "teacher"
    found = f"the {teacher} says the same of every view ({information:.2g} nats)"
    found += f", with an entropy of {entropy:.3g}"
    if entropy < _NO_ENTROPY:
        remedy = "Raise the teacher's temperature, or lower the momentum of its centre"
        return [("sharpening", (found, remedy))]
    # the resting loss of a sum is that of all of its parts
    of_most = "" if most is None or part else f" where ln K is {most:.3g}"
    remedy = "Lower the teacher's temperature, or the learning rate (optimizer.lr)"
    return [("centring", (found + of_most, remedy))]


def _of_embeddings(measures: EmbeddingMeasures, directions: int | None) -> list[Finding]:
    # two views of a single volume are to be alike
    if not directions:
        return []
    if measures.spread is not None and measures.spread < _LEAST_SPREAD:
        found = f"the spread of the embeddings is {measures.spread:.2g}, where 1 is even and 0 all the same"
        return [("complete", (found, "Lower optimizer.lr, or give it more volumes at a time (batch)"))]
    if directions >= _ENOUGH_DIRECTIONS and measures.effective_rank < _LEAST_RANK:
        found = f"the embeddings vary along {measures.effective_rank:.2g} directions (effective rank)"
        return [("dimensional", (found, "Lower optimizer.lr, or give it more volumes at a time (batch)"))]
    return []


def _of_loss(recent: Sequence[Mapping[str, float]], resting: float | None) -> list[Finding]:
    losses = [line["loss"] for line in recent if "loss" in line]
    # a teacher's cross-entropy may be near ln K in a training that goes well
    by_teacher = any(name.endswith(_INFORMATION) for line in recent for name in line)
    if not resting or by_teacher or len(losses) < _ENOUGH:
        return []
    if max(abs(loss - resting) for loss in losses) > _NEAR * abs(resting):
        return []
    found = f"the loss rests at {fmean(losses):.4g}; of outputs that are all the same it is {resting:.4g}"
    return [("resting", (found, "Lower optimizer.lr, train for more steps, or make the task easier"))]


class CollapseWatch:
    """Judges a run at every look at its embeddings, and keeps what it last found in RUN/collapse.json.

    The steps that are judged are the last half of those that were made, 50 at most: at first every network is
    as good as collapsed.
    """

    def __init__(self, run: Path, resting_loss: float | None) -> None:
        self.run, self.resting_loss = run, resting_loss

    def look(self, measures: EmbeddingMeasures, directions: int | None) -> Collapse | None:
        """What is wrong now (see `diagnose`); warned of, and written."""
        # some lines tell of looks, and of steps that were skipped
        steps = [line for line in read_metrics(self.run, last=4 * _LAST) if "loss" in line]
        recent = steps[-min(_LAST, len(steps) // 2) :] if len(steps) > 1 else []
        done = steps[-1]["step"] + 1 if steps else 0
        found = diagnose(done, measures, recent, self.resting_loss, directions)
        write_text(self.run / COLLAPSE_FILE, json.dumps(plain(found) if found else None))
        if found is not None:
            log.warning("%s", found.line())
        return found


def read_collapse(run: Path) -> Collapse | None:
    """What a run's last look found; None where nothing was wrong, or nobody looked."""
    file = run / COLLAPSE_FILE
    if not file.is_file() or file.read_text(encoding="utf-8").strip() == "null":
        return None
    return read_json(file, Collapse)
