"""What follows from the number of labelled volumes: the length of a fine-tuning, and with it the warm-up.

Those that validate count: somebody has labelled them. The rule, the same from scratch as from a checkpoint:

- steps: 250 x the square root of the number of labelled volumes, to the next 50. Twice as long for four
  times the volumes: each is seen half as often, and a few labels are not learned by heart for ever.
- warm-up: 25 steps, at least 5 % and at most 20 % of the training (`engine/schedules.py`): the shorter the
  training, the larger its share.
- learning rate: the same for any number. Half of it for one label was worse (docs/results/schedules.md), as
  so short a training ends before it has learned the task.

What is set in the configuration stands.
"""

import math

_STEPS, _ROUNDED = 250, 50


def steps_for(labels: int) -> int:
    """Steps of a training on so many labelled volumes."""
    return math.ceil(_STEPS * math.sqrt(labels) / _ROUNDED) * _ROUNDED
