"""What follows from the number of labelled volumes: length, warm-up and learning rate of a fine-tuning.

Those that validate count: somebody has labelled them.

The rule, the same from scratch as from a checkpoint:

- steps: 250 x the square root of the number of labelled volumes, to the next 50. Twice as long for four
  times the volumes: each is seen half as often, and a few labels are not learned by heart for ever.
- learning rate: that of 16 labels x (labels / 16) ** 1/4, at least half of it and at most all. With few
  labels the patches of a batch come from few volumes, and a step in their direction is worth less.
- warm-up: 25 steps, at least 5 % and at most 20 % of the training (`engine/schedules.py`): the shorter the
  training, the larger its share.

What is set in the configuration stands.
"""

import math

_STEPS, _ROUNDED = 250, 50
_ENOUGH, _LEAST = 16, 0.5


def steps_for(labels: int) -> int:
    """Steps of a training on so many labelled volumes."""
    return math.ceil(_STEPS * math.sqrt(labels) / _ROUNDED) * _ROUNDED


def lr_share(labels: int) -> float:
    """What the learning rate of a training on many labels is multiplied by for so many, in [0.5, 1]."""
    return min(1.0, max(_LEAST, (labels / _ENOUGH) ** 0.25))
