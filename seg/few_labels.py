"""What follows from the number of labelled volumes: steps, with them the warm-up, and which weights are kept.

Those that validate count: somebody has labelled them. The rule, the same from scratch as from a checkpoint:

- steps: 250 x the square root of the number of labelled volumes, to the next 50. Twice as long for four
  times the volumes: each is seen half as often, and a few labels are not learned by heart for ever.
- warm-up: 25 steps, at least 5 % and at most 20 % of the training (`engine/schedules.py`): the shorter the
  training, the larger its share.
- learning rate: the same for any number. Half of it for one label was worse (docs/results/schedules.md), as
  so short a training ends before it has learned the task.

- the weights that are kept: below `MIN_LABELS_TO_VALIDATE` every label trains, none validates, and the last
  weights are the result, after steps that were fixed beforehand; with as many, the best in validation. Folds
  (`--fold`) set cases aside whatever the number.

What is set in the configuration stands.
"""

import math

from ..data.splits import MIN_LABELS_TO_VALIDATE

_STEPS, _ROUNDED = 250, 50


def steps_for(labels: int) -> int:
    """Steps of a training on so many labelled volumes."""
    return math.ceil(_STEPS * math.sqrt(labels) / _ROUNDED) * _ROUNDED


def how_chosen(training: int, validation: int, steps: int, *, averaged: bool = False) -> str:
    """Which weights of a training on so many volumes are its result, and why, as a person reads it."""
    weights = "averaged weights" if averaged else "weights"
    if validation:
        of = f"best {weights}" if averaged else "best"
        return f"chosen: {of} of validation on {validation} {'case' if validation == 1 else 'cases'}"
    why = "no case was set aside"
    if training < MIN_LABELS_TO_VALIDATE:
        why = (
            f"{training} {'label is' if training == 1 else 'labels are'} fewer than {MIN_LABELS_TO_VALIDATE}"
        )
    return f"chosen: last {weights} after {steps} steps, no validation: {why}"
