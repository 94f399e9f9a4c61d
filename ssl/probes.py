"""What frozen features are worth: a dense linear probe, one layer on what a network computes.

Source: linear classifiers as probes: Alain and Bengio 2017 (arXiv:1610.01644); hypercolumns, the features of
all levels above a voxel: Hariharan et al. 2015 (arXiv:1411.5752). A probe measures what is easily read from
features. It is no product: a network that is fine-tuned as a whole is better by far.
"""

# Shapes: B = batch, R = layers, K = outputs, F = all features above a voxel, N = voxels, C = channels.

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import fmean
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..data.errors import UserError
from ..data.labels import IGNORED, LabelTable
from ..data.plan import Plan
from ..data.settings import settings
from ..data.splits import Split
from ..data.store import Store
from ..seg.checkpoint import Checkpoint
from ..seg.contract import check_preprocessing
from ..seg.networks.network import Network
from ..seg.networks.registry import Architecture, build
from ..seg.sliding_window import held, swept
from ..seg.sums import HostSums
from ..seg.tiles import Tiles
from ..seg.training import choose_device
from ..seg.validation import shared_voxels
from .heads import chosen_blocks, feature_widths, read_features

# parts of a network whose features are probed
PARTS = ("encoder", "network")
WEIGHTS = ("trained", "random")
# the logit of a class that no labelled voxel has
_NEVER = -1e4


@settings
class ProbeConfig:
    """How a probe is fitted: by logistic regression, on so many `voxels` of each class and labelled volume.

    Voxels are weighted so that they stand for all. `strength` is the inverse of the regularisation (C of
    scikit-learn, on features of unit variance). `overlap` is that of the windows; predictions take 0.5, which
    are up to three times as many windows.
    """

    voxels: Annotated[int, Field(ge=1)] = 1000
    strength: Annotated[float, Field(gt=0)] = 1.0
    iterations: Annotated[int, Field(ge=1)] = 200
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.25


@dataclass(frozen=True, kw_only=True)
class ProbeScores:
    """Dice of a probe on volumes that it was not fitted on, where it is defined.

    `dice` is the mean over cases, of each the mean over classes; `per_class` is of each class over the cases,
    `per_case` of each case over the classes.
    """

    dice: float
    per_class: dict[int, float]
    per_case: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a layer is fitted on: features of a `part` (one of `PARTS`), at voxels of the `labelled` cases.

    `seed` decides which voxels.
    """

    labelled: tuple[str, ...]
    part: str = "network"
    seed: int = 0


class DenseProbe(nn.Module):
    """A frozen network and 1x1x1 layers on the features of its blocks, each of K outputs.

    Features of coarse levels are brought to the voxels of the image by trilinear interpolation; as a layer
    is linear, it is applied before that.
    """

    def __init__(self, network: Network, architecture: Architecture, outputs: int) -> None:
        super().__init__()
        self.network, self.widths = network.requires_grad_(False).eval(), feature_widths(architecture)
        self.weight_RKF = torch.empty(0, outputs, sum(self.widths.values()))
        self.bias_RK = torch.empty(0, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, R x K, Z, Y, X) of images (B, C, Z, Y, X), those of the first layer first."""
        layers = self.weight_RKF.flatten(0, 1).to(images).split(list(self.widths.values()), dim=1)
        parts = [
            _upsampled(F.conv3d(features, layer[..., None, None, None]), images)
            for layer, features in zip(layers, self.features(images), strict=True)
        ]
        return torch.stack(parts).sum(dim=0) + self.bias_RK.to(images).view(1, -1, 1, 1, 1)

    def features(self, images: Tensor) -> list[Tensor]:
        """Features (B, C, z, y, x) of every block, in the order of `widths`."""
        return read_features(self.network, images, tuple(self.widths))

    def columns(self, blocks: Sequence[str]) -> Tensor:
        """Which of the features above a voxel, (F,) of bool, are those of some blocks."""
        return torch.cat([torch.full((width,), name in blocks) for name, width in self.widths.items()])

    def add(self, weight_KF: Tensor, bias_K: Tensor) -> None:
        """Takes one layer more, over all features above a voxel."""
        self.weight_RKF = torch.cat([self.weight_RKF, weight_KF[None].float()])
        self.bias_RK = torch.cat([self.bias_RK, bias_K[None].float()])


def part_blocks(architecture: Architecture, part: str) -> tuple[str, ...]:
    """The blocks of "encoder", all of its levels, or of the whole "network"."""
    names = list(feature_widths(architecture))
    return chosen_blocks(architecture, [n for n in names if part != "encoder" or n.startswith("encoder.")])


def probe(
    network: Network,
    architecture: Architecture,
    plan: Plan,
    store: Store,
    fits: Sequence[Fit],
    test: Sequence[str],
    *,
    config: ProbeConfig | None = None,
) -> list[ProbeScores]:
    """Dice of probes on the `test` cases, one for each fit; the network sees these once for all.

    Args:
        network: its weights are frozen; those of running means as well.
        architecture: of the network.
        plan: by which volumes are cut into windows, and which tells of the labels.
        store: the data, prepared by the same plan.
        fits: what each layer is fitted on; of those that differ in the part alone, side by side, a labelled
            case is seen once, too.
        test: cases that are scored; labelled in no fit.
        config: how they are fitted.

    Raises UserError where a case is labelled and tested, or the labelled cases have a single class.
    """
    for fit in fits:
        both = set(fit.labelled) & set(test)
        if both or not fit.labelled or not test:
            raise UserError(
                f"{len(fit.labelled)} labelled and {len(test)} test cases",
                found=f"{min(both)} is among both" if both else "there are none of one kind",
                rule="A probe is scored on cases that it was not fitted on",
                remedy="Choose other numbers with --labelled and --test",
            )
    config, table = config or ProbeConfig(), plan.labels or LabelTable()
    frozen = DenseProbe(network, architecture, table.outputs)
    for _, group in groupby(fits, key=lambda fit: (fit.labelled, fit.seed)):
        # the same voxels, of which the layer of each part reads other features
        same = list(group)
        reads = [frozen.columns(part_blocks(architecture, fit.part)) for fit in same]
        for layer in _fitted(frozen, store, same[0], reads, plan, config):
            frozen.add(*layer)
    return _scored(frozen, store, test, plan, len(fits), config)


@torch.inference_mode()
def _scored(
    frozen: DenseProbe, store: Store, test: Sequence[str], plan: Plan, layers: int, config: ProbeConfig
) -> list[ProbeScores]:
    """Of each layer, over the annotated voxels."""
    table = plan.labels or LabelTable()
    # of each layer, case and class: voxels that labels and prediction share, and the sum of both
    counts = np.zeros((layers, len(test), table.classes - 1, 2), int)
    device = next(frozen.network.parameters()).device

    def predict(windows: Tensor) -> Tensor:
        return frozen(windows.to(device)).cpu()

    for n, case in enumerate(test):
        image, true = torch.from_numpy(store.image(case)[:]).float(), store.label(case)[:]
        z, y, x = image.shape[1:]
        tiles = Tiles(shape=(z, y, x), patch=plan.training.patch, overlap=config.overlap)
        # in ranges of slices: logits of all layers would be many times the volume
        for part, logits in swept(predict, held(image, tiles), tiles, HostSums, slice(0, y), 1):
            for r, of_layer in enumerate(logits.chunk(layers)):
                counts[r, n] += shared_voxels(of_layer, true[..., part, :, :], table)
    both, total = counts[..., 0], counts[..., 1]
    dice = np.divide(2 * both, total, out=np.full(both.shape, np.nan), where=total > 0)
    return [_summary(of_layer, test) for of_layer in dice]


def _summary(dice_NC: np.ndarray, test: Sequence[str]) -> ProbeScores:
    per_case = {case: _mean(row) for case, row in zip(test, dice_NC, strict=True) if np.isfinite(row).any()}
    per_class = {c: _mean(row) for c, row in enumerate(dice_NC.T, start=1) if np.isfinite(row).any()}
    return ProbeScores(
        dice=fmean(per_case.values()) if per_case else math.nan, per_class=per_class, per_case=per_case
    )


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values))


@torch.inference_mode()
def _fitted(
    frozen: DenseProbe, store: Store, fit: Fit, reads: Sequence[Tensor], plan: Plan, config: ProbeConfig
) -> list[tuple[Tensor, Tensor]]:
    """Layers on the same voxels: of each, weights (K, F) and bias (K,) over all features above a voxel.

    `reads` (F,) of bool tell which features each layer reads; weights of others are 0.
    """
    table = plan.labels or LabelTable()
    rows, truths, weights = [], [], []
    for number, case in enumerate(fit.labelled):
        rng = np.random.default_rng([fit.seed, 5, number])
        labels = store.label(case)[:]
        places, weight = _voxels(labels, table, config.voxels, rng)
        image = torch.from_numpy(store.image(case)[:]).float()
        rows.append(_features_at(frozen, image, places, plan, config))
        truths.append(labels[(..., *places.T)].T)
        weights.append(weight)
    features_NF, truths, weights_N = (np.concatenate(parts) for parts in (rows, truths, weights))
    layers = []
    for read_F in reads:
        weight_KF, bias_K = _regression(features_NF[:, read_F.numpy()], truths, weights_N, table, config)
        whole_KF = torch.zeros(len(weight_KF), len(read_F))
        whole_KF[:, read_F] = torch.from_numpy(weight_KF).float()
        layers.append((whole_KF, torch.from_numpy(bias_K).float()))
    return layers


def _voxels(
    labels: np.ndarray, table: LabelTable, number: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, 3) of up to `number` annotated voxels of each class, and how many voxels each stands for.

    Of classes that overlap, the voxels are those of each class and those of none.
    """
    known = (labels != IGNORED).reshape(-1, *labels.shape[-3:]).all(axis=0)
    members = [table.members(labels, c) & known for c in range(1, table.classes)]
    strata = [known & ~np.any(members, axis=0), *members]
    places, weights = [], []
    for stratum in strata:
        there = np.flatnonzero(stratum)
        chosen = rng.choice(there, min(number, len(there)), replace=False, shuffle=False)
        places.append(np.stack(np.unravel_index(chosen, stratum.shape), axis=1))
        weights.append(np.full(len(chosen), len(there) / max(1, len(chosen))))
    return np.concatenate(places), np.concatenate(weights)


def _features_at(
    frozen: DenseProbe, image: Tensor, places: np.ndarray, plan: Plan, config: ProbeConfig
) -> np.ndarray:
    """Features (N, F) above some voxels of an image (C, Z, Y, X), from the window each is most central in."""
    z, y, x = image.shape[1:]
    tiles = Tiles(shape=(z, y, x), patch=plan.training.patch, overlap=config.overlap)
    slices_at, places = held(image, tiles), places + np.array(tiles.before)
    window = np.stack(
        [
            np.abs(places[:, axis, None] - np.array(starts) - (tiles.patch[axis] - 1) / 2).argmin(axis=1)
            for axis, starts in enumerate(tiles.starts)
        ],
        axis=1,
    )
    device = next(frozen.network.parameters()).device
    found = np.empty((len(places), sum(frozen.widths.values())), np.float32)
    for index in np.unique(window, axis=0):
        start = [starts[i] for starts, i in zip(tiles.starts, index, strict=True)]
        here = (window == index).all(axis=1)
        dz, dy, dx = (places[here] - start).T
        piece = slices_at(start[0])[:, :, start[1] :, start[2] :][..., : tiles.patch[1], : tiles.patch[2]]
        features = frozen.features(piece[None].to(device))
        columns = [_upsampled(f, piece[None])[0, :, dz, dy, dx] for f in features]
        found[here] = torch.cat(columns).T.cpu().numpy()
    return found


def _upsampled(features: Tensor, images: Tensor) -> Tensor:
    if features.shape[2:] == images.shape[2:]:
        return features
    return F.interpolate(features, size=tuple(images.shape[2:]), mode="trilinear", align_corners=False)


def _regression(
    features_NF: np.ndarray, truths: np.ndarray, weights_N: np.ndarray, table: LabelTable, config: ProbeConfig
) -> tuple[np.ndarray, np.ndarray]:
    """The layer, weights (K, F) and bias (K,), on features as they are.

    `truths` are class numbers (N,), or 0 and 1 (N, K) where classes overlap.
    """
    mean, std = features_NF.mean(axis=0), features_NF.std(axis=0)
    std[std < 1e-6] = 1
    scaled, weights_N = (features_NF - mean) / std, weights_N / weights_N.mean()
    weight: np.ndarray = np.zeros((table.outputs, features_NF.shape[1]))
    bias: np.ndarray = np.full(table.outputs, _NEVER)
    if table.kind == "overlapping":
        for k, truth_N in enumerate(truths.T):
            if len(np.unique(truth_N)) == 2:
                weight[[k]], bias[[k]] = _logistic(scaled, truth_N, weights_N, config)
    else:
        there = np.unique(truths)
        if len(there) < 2:
            raise UserError(
                "the labelled cases",
                found=f"a single class ({there[0]}) in their annotated voxels"
                if len(there)
                else "no annotated voxel",
                rule="A probe tells classes apart",
                remedy="Take more labelled cases, or others (--seed)",
            )
        weight_KF, bias_K = _logistic(scaled, truths, weights_N, config)
        # of two classes scikit-learn gives the second against the first
        first = len(there) - len(weight_KF)
        weight[there[first:]], bias[there[:first]], bias[there[first:]] = weight_KF, 0.0, bias_K
    weight /= std
    return weight, bias - weight @ mean


def _logistic(
    scaled_NF: np.ndarray, truth_N: np.ndarray, weights_N: np.ndarray, config: ProbeConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (classes, F) and biases of logistic regression; of the second alone where there are two."""
    from sklearn.linear_model import LogisticRegression  # slow to import, needed here alone

    model = LogisticRegression(C=config.strength, max_iter=config.iterations)
    model.fit(scaled_NF, truth_N, sample_weight=weights_N)
    return np.asarray(model.coef_), np.asarray(model.intercept_)


@settings
class Probed:
    """Dice of a probe on a part of a network: of its "trained" weights, or of "random" ones.

    `seed` decided the labelled cases, their voxels and the random weights.
    """

    weights: str
    part: str
    seed: int
    dice: float
    per_class: dict[int, float]
    per_case: dict[str, float]


def probe_checkpoint(
    checkpoint: Checkpoint,
    store: Store,
    splits: Mapping[int, Split],
    *,
    weights: Sequence[str] = WEIGHTS,
    config: ProbeConfig | None = None,
    device: str = "auto",
) -> tuple[Probed, ...]:
    """Probes of both parts of a checkpoint's network, and of one like it with random weights.

    `splits` tells by seed the labelled cases (those that train and those that validate) and the test cases,
    which are the same in all; `weights` chooses among "trained" and "random".

    Raises:
        TransferError: the store is prepared otherwise than what the checkpoint was trained on.
        UserError: the network has seen a test case, or the store has no labels.
    """
    check_preprocessing(checkpoint, store.plan)
    if store.plan.labels is None:
        raise UserError(
            store.path,
            found="no labels in the store",
            rule="A probe is fitted and scored on labels",
            remedy="Prepare the data with the labels that there are",
        )
    test = next(iter(splits.values())).test
    if any(split.test != test for split in splits.values()):
        raise ValueError("splits of several test sets")
    _check_unseen(checkpoint, store, test)
    info = checkpoint.info
    # its windows are those that the network was trained with; its labels are the store's
    plan = replace(info.plan, labels=store.plan.labels)
    fits = [
        Fit(labelled=tuple(sorted({*split.train, *split.validation})), part=part, seed=seed)
        for seed, split in splits.items()
        for part in PARTS
    ]
    # random weights are others for every seed: one draw may be a lucky one
    networks = [("trained", checkpoint.network(), fits)] if "trained" in weights else []
    if "random" in weights:
        networks += [
            ("random", build(info.architecture, seed), [fit for fit in fits if fit.seed == seed])
            for seed in splits
        ]
    found = []
    for name, network, own in networks:
        network.to(choose_device(device))
        scores = probe(network, info.architecture, plan, store, own, test, config=config)
        found += [
            Probed(weights=name, part=fit.part, seed=fit.seed, **vars(score))
            for fit, score in zip(own, scores, strict=True)
        ]
    return tuple(found)


def _check_unseen(checkpoint: Checkpoint, store: Store, test: Sequence[str]) -> None:
    info = checkpoint.info
    seen = {*info.trained_on, *info.validated_on, *info.inherited}
    subjects = {case.subject for case in store.cases.values() if case.content_hash in seen}
    leaked = [case for case in test if store.cases[case].subject in subjects]
    if leaked:
        raise UserError(
            leaked[0],
            found=f"the network was trained on it or its subject ({len(leaked)} such in all)",
            rule="A test case is seen by neither pretraining nor probe",
            remedy="Give --test and --split-seed as for the pretraining",
        )
