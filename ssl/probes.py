"""What frozen features are worth: a dense linear probe, one layer on what a network computes.

Source: linear classifiers as probes: Alain and Bengio 2017 (arXiv:1610.01644); hypercolumns, the features of
all levels above a voxel: Hariharan et al. 2015 (arXiv:1411.5752). A probe measures what is easily read from
features. It is no product: a network that is fine-tuned as a whole is better by far.
"""

# Shapes: B = batch, K = outputs, F = all features above a voxel, N = voxels, C = channels.

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Annotated, cast

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
from ..seg.sliding_window import held
from ..seg.tiles import Tiles
from ..seg.training import choose_device
from ..seg.validation import Validator
from .heads import chosen_blocks, feature_widths, read_features

# parts of a network whose features are probed
PARTS = ("encoder", "network")
# the logit of a class that no labelled voxel has
_NEVER = -1e4


@settings
class ProbeConfig:
    """How a probe is fitted: by logistic regression, on so many `voxels` of each class and labelled volume.

    Voxels are weighted so that they stand for all. `strength` is the inverse of the regularisation (C of
    scikit-learn, on features of unit variance).
    """

    voxels: Annotated[int, Field(ge=1)] = 1000
    strength: Annotated[float, Field(gt=0)] = 1.0
    iterations: Annotated[int, Field(ge=1)] = 200


@dataclass(frozen=True, kw_only=True)
class ProbeScores:
    """Dice of a probe on volumes that it was not fitted on, where it is defined.

    `dice` is the mean over cases, of each the mean over classes; `per_class` is of each class over the cases,
    `per_case` of each case over the classes.
    """

    dice: float
    per_class: dict[int, float]
    per_case: dict[str, float]


class DenseProbe(nn.Module):
    """A frozen network and one 1x1x1 layer on the features of some of its blocks: logits (B, K, Z, Y, X).

    Features of coarse levels are brought to the voxels of the image by trilinear interpolation; as the layer
    is linear, it is applied before that.
    """

    def __init__(
        self, network: Network, blocks: Sequence[str], architecture: Architecture, outputs: int
    ) -> None:
        super().__init__()
        widths = feature_widths(architecture)
        self.network, self.blocks = network.requires_grad_(False), tuple(blocks)
        self.widths = [widths[name] for name in blocks]
        self.layers = nn.ModuleList(nn.Conv3d(widths[name], outputs, 1, bias=False) for name in blocks)
        self.bias = nn.Parameter(torch.zeros(outputs), requires_grad=False)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, Z, Y, X) of images (B, C, Z, Y, X)."""
        parts = [
            _upsampled(layer(features), images)
            for layer, features in zip(self.layers, self.features(images), strict=True)
        ]
        return torch.stack(parts).sum(dim=0) + self.bias.view(1, -1, 1, 1, 1)

    def features(self, images: Tensor) -> list[Tensor]:
        """Features (B, C, z, y, x) of the probed blocks."""
        self.network.eval()
        return read_features(self.network, images, self.blocks)

    def set(self, weight_KF: Tensor, bias_K: Tensor) -> None:
        """Takes a layer over all features together."""
        for layer, part in zip(self.layers, weight_KF.split(self.widths, dim=1), strict=True):
            cast(nn.Conv3d, layer).weight.copy_(part[..., None, None, None])
        self.bias.copy_(bias_K)


def part_blocks(architecture: Architecture, part: str) -> tuple[str, ...]:
    """The blocks of "encoder", all of its levels, or of the whole "network"."""
    names = list(feature_widths(architecture))
    return chosen_blocks(architecture, [n for n in names if part != "encoder" or n.startswith("encoder.")])


def probe(
    network: Network,
    architecture: Architecture,
    plan: Plan,
    store: Store,
    labelled: Sequence[str],
    test: Sequence[str],
    *,
    part: str = "network",
    config: ProbeConfig | None = None,
    seed: int = 0,
) -> ProbeScores:
    """Dice on the `test` cases of a probe that is fitted on the `labelled` ones.

    Args:
        network: its weights are frozen; those of running means as well.
        architecture: of the network.
        plan: by which volumes are cut into windows, and which tells of the labels.
        store: the data, prepared by the same plan.
        labelled: cases whose labels are read for the fit.
        test: cases that are scored; none of the others.
        part: whose features are read, one of `PARTS`.
        config: how it is fitted.
        seed: decides the voxels.

    Raises UserError where the two share cases, or the labelled cases have a single class.
    """
    both = set(labelled) & set(test)
    if both or not labelled or not test:
        raise UserError(
            f"{len(labelled)} labelled and {len(test)} test cases",
            found=f"{min(both)} is among both" if both else "there are none of one kind",
            rule="A probe is scored on cases that it was not fitted on",
            remedy="Choose other numbers with --labelled and --test",
        )
    config, table = config or ProbeConfig(), plan.labels or LabelTable()
    frozen = DenseProbe(network, part_blocks(architecture, part), architecture, table.outputs)
    _fit(frozen.eval(), store, labelled, plan, config, seed)
    return _scored(frozen, store, test, plan)


def _scored(frozen: DenseProbe, store: Store, test: Sequence[str], plan: Plan) -> ProbeScores:
    per_case: dict[str, float] = {}
    per_class: dict[int, list[float]] = {}
    for case in test:
        # the predictor asks a network for nothing but logits
        found = Validator(store, (case,), plan, cast(Network, frozen))()
        if "score" in found:
            per_case[case] = found.pop("score")
        for name, value in found.items():
            per_class.setdefault(int(name.removeprefix("dice/")), []).append(value)
    return ProbeScores(
        dice=fmean(per_case.values()) if per_case else math.nan,
        per_class={c: fmean(values) for c, values in sorted(per_class.items())},
        per_case=per_case,
    )


@torch.inference_mode()
def _fit(
    frozen: DenseProbe, store: Store, cases: Sequence[str], plan: Plan, config: ProbeConfig, seed: int
) -> None:
    table = plan.labels or LabelTable()
    rows, truths, weights = [], [], []
    for number, case in enumerate(cases):
        rng = np.random.default_rng([seed, 5, number])
        labels = store.label(case)[:]
        places, weight = _voxels(labels, table, config.voxels, rng)
        rows.append(_features_at(frozen, torch.from_numpy(store.image(case)[:]).float(), places, plan))
        truths.append(labels[(..., *places.T)].T)
        weights.append(weight)
    weight_KF, bias_K = _regression(
        np.concatenate(rows), np.concatenate(truths), np.concatenate(weights), table, config
    )
    frozen.set(torch.from_numpy(weight_KF).float(), torch.from_numpy(bias_K).float())


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


def _features_at(frozen: DenseProbe, image: Tensor, places: np.ndarray, plan: Plan) -> np.ndarray:
    """Features (N, F) above some voxels of an image (C, Z, Y, X), from the window each is most central in."""
    z, y, x = image.shape[1:]
    tiles = Tiles(shape=(z, y, x), patch=plan.training.patch)
    slices_at, places = held(image, tiles), places + np.array(tiles.before)
    window = np.stack(
        [
            np.abs(places[:, axis, None] - np.array(starts) - (tiles.patch[axis] - 1) / 2).argmin(axis=1)
            for axis, starts in enumerate(tiles.starts)
        ],
        axis=1,
    )
    device = next(frozen.parameters()).device
    found = np.empty((len(places), sum(frozen.widths)), np.float32)
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
    """Dice of a probe on a part of a network: of its "trained" weights, or of "random" ones."""

    weights: str
    part: str
    dice: float
    per_class: dict[int, float]
    per_case: dict[str, float]


def probe_checkpoint(
    checkpoint: Checkpoint,
    store: Store,
    split: Split,
    *,
    parts: Sequence[str] = PARTS,
    config: ProbeConfig | None = None,
    seed: int = 0,
    device: str = "auto",
) -> tuple[Probed, ...]:
    """Probes of a checkpoint's network, and of one of the same architecture with random weights.

    `split` tells the labelled cases (those that train and those that validate) and the test cases.

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
    info = checkpoint.info
    seen = {*info.trained_on, *info.validated_on, *info.inherited}
    subjects = {case.subject for case in store.cases.values() if case.content_hash in seen}
    leaked = [case for case in split.test if store.cases[case].subject in subjects]
    if leaked:
        raise UserError(
            leaked[0],
            found=f"the network was trained on it or its subject ({len(leaked)} such in all)",
            rule="A test case is seen by neither pretraining nor probe",
            remedy="Give --test and --split-seed as for the pretraining",
        )
    # its windows are those that the network was trained with; its labels are the store's
    plan = replace(info.plan, labels=store.plan.labels)
    networks = {"trained": checkpoint.network(), "random": build(info.architecture, seed)}
    found = []
    for part in parts:
        for weights, network in networks.items():
            scores = probe(
                network.to(choose_device(device)),
                info.architecture,
                plan,
                store,
                sorted({*split.train, *split.validation}),
                split.test,
                part=part,
                config=config,
                seed=seed,
            )
            found.append(Probed(weights=weights, part=part, **vars(scores)))
    return tuple(found)
