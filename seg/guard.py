"""How unlike the images on both sides of a hand-off are, measured before time is spent on a training.

Two figures are warned of: how far apart the grey values lie, and how unlike the first convolution answers to
them. Thresholds lie above what two halves of one data set give (docs/handoff.md has what was measured).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..data.boxes import random_start, read_box
from ..data.store import Store
from ..data.volume import Shape
from .inputs import QUANTILES, ChannelStatistics, InputStatistics, input_statistics
from .networks.network import Network
from .transfer_report import Guard

# standard deviations between grey values of one rank
MAX_DISTANCE = 0.15
# doublings of a filter's answer beyond those of the contrast
MAX_ANSWERS = 0.09
# below it a filter answers to nothing, or a channel shows nothing
_NOTHING = 1e-6
# doublings beyond which only that there are many is told
_MANY = 4
_UNMEASURED = "the checkpoint does not tell what its images looked like, so they were not compared with yours"
_THEN = (
    ". If your images are what they should be, train from scratch as well and compare before you rely on the "
    "transfer"
)
_OTHER_ANSWERS = (
    "fine structures are others than in pretraining: at equal contrast the first filters answer {} more "
    "or less strongly (within one data set: less than {}). A wrong voxel spacing does this, and images "
    "that are sharper, smoother or noisier"
)


def patches_of(store: Store, cases: Sequence[str], patch: Shape, count: int = 16, seed: int = 0) -> Tensor:
    """Unaugmented patches (count, C, Z, Y, X) of the finest level, each of another case while there are more.

    No label is read. `patch` is (z, y, x) in voxels.
    """
    rng = np.random.default_rng([seed, 4])
    chosen = [cases[i] for i in np.resize(rng.permutation(len(cases)), count).tolist()]
    boxes = [
        read_box(store.image(case), random_start(store.cases[case].shape, patch, rng), patch)
        for case in chosen
    ]
    return torch.from_numpy(np.stack(boxes)).float()


def guard(
    source: InputStatistics | None,
    network: Network,
    images: Tensor,
    counterparts: Sequence[tuple[int, ...]] | None = None,
    *,
    answers: bool = True,
) -> Guard:
    """How unlike `images` (B, C, Z, Y, X) are to what a network was trained on, with warnings in words.

    Args:
        source: what was measured at the pretraining; None where the source does not tell.
        network: the network after the transfer.
        images: patches as the network will see them.
        counterparts: for each channel those of the source that it is compared with, of which the most alike
            counts. When None that in its place, or all where there are more or fewer.
        answers: whether the first convolution has the source's weights.
    """
    if source is None:
        return Guard(figures={}, warnings=(_UNMEASURED,))
    ours = input_statistics(network, images)
    alike = [_most_alike(source, ours, c, counterparts) for c in range(len(ours.channels))]
    figures, warnings = {}, []
    for c, (theirs, channel) in enumerate(zip(alike, ours.channels, strict=True)):
        far = distance(theirs, channel)
        figures[f"channel {c}: distance of grey values"] = far
        figures[f"channel {c}: contrast"] = contrast(theirs, channel)
        if far > MAX_DISTANCE:
            warnings.append(_other_values(c, far, theirs, channel))
    if answers and len(source.responses) == len(ours.responses):
        gains = [np.log2(contrast(*pair)) for pair in zip(alike, ours.channels, strict=True)]
        figures["answers of the first convolution"] = unlike = answers_apart(
            source, ours, float(np.mean(gains))
        )
        if unlike > MAX_ANSWERS:
            warnings.append(_OTHER_ANSWERS.format(_share(unlike), _share(MAX_ANSWERS)))
    if warnings:
        warnings[-1] += _THEN
    return Guard(figures=figures, warnings=tuple(warnings))


def distance(theirs: ChannelStatistics, ours: ChannelStatistics) -> float:
    """How far apart grey values of the same rank lie on average, in standard deviations of theirs.

    The Wasserstein-1 distance between the middle 98 % of both, from their quantiles.
    """
    apart = np.abs(np.subtract(theirs.quantiles, ours.quantiles))
    ranks = np.array(QUANTILES) / 100
    return float(np.trapezoid(apart, ranks) / (ranks[-1] - ranks[0]) / max(theirs.std, _NOTHING))


def contrast(theirs: ChannelStatistics, ours: ChannelStatistics) -> float:
    """Our standard deviation of grey values in multiples of theirs."""
    return max(ours.std, _NOTHING) / max(theirs.std, _NOTHING)


def answers_apart(theirs: InputStatistics, ours: InputStatistics, gain: float = 0.0) -> float:
    """Mean over the first filters of how many times the strength of their answers has doubled or halved.

    `gain` are the doublings of the contrast, which every filter follows.
    """
    there, here = (np.maximum(side.responses, _NOTHING) for side in (theirs, ours))
    return float(np.abs(np.log2(here / there) - gain).mean())


def _share(doublings: float) -> str:
    """0.5 as "41%"; an answer that is nearly none has no such number."""
    return f"{2**doublings - 1:.0%}" if doublings < _MANY else f"more than {2**_MANY} times"


def _most_alike(
    source: InputStatistics,
    ours: InputStatistics,
    channel: int,
    counterparts: Sequence[tuple[int, ...]] | None,
) -> ChannelStatistics:
    places = range(len(source.channels))
    if counterparts is None:
        compared = (channel,) if len(source.channels) == len(ours.channels) else places
    else:
        compared = counterparts[channel]
    return min((source.channels[t] for t in compared), key=lambda c: distance(c, ours.channels[channel]))


def _other_values(channel: int, far: float, theirs: ChannelStatistics, ours: ChannelStatistics) -> str:
    shift = (ours.mean - theirs.mean) / max(theirs.std, _NOTHING)
    return (
        f"grey values of channel {channel} are others than in pretraining: {far:.2f} standard deviations "
        f"apart (within one data set: less than {MAX_DISTANCE:g}), the mean {abs(shift):.2f} "
        f"{'higher' if shift > 0 else 'lower'}, the contrast {contrast(theirs, ours):.2f} times. Another "
        f"normalisation does this, an inverted scale, and more or less background"
    )
