"""Embeddings of the volumes of a store by a trained network: what it tells apart, before any label."""

# Shapes: N = views in all, D = embedding size.

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from ..data.errors import UserError
from ..data.loader import step_seed
from ..data.store import Store
from ..seg.checkpoint import Checkpoint
from ..seg.contract import check_preprocessing
from ..seg.networks.network import Network
from ..seg.networks.registry import build
from ..seg.training import choose_device
from .heads import pool
from .method import ViewSpec
from .monitors import EmbeddingMeasures, measure
from .pretrain import trained_method
from .views import ViewConfig, ViewSampler, evenly

# how many volumes a silhouette is of, at most, and how many times they are drawn
SILHOUETTE_OF, _DRAWS = 5, 100


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Embeddings (N, D) of views, the case each view is of, their first two principal components (N, 2).

    `explained` is the share of the variance that each of the two components holds. `silhouette` tells how far
    the views of a volume lie together and apart from others, from -1 to 1 (Rousseeuw 1987,
    doi:10.1016/0377-0427(87)90125-7; of five volumes at a time, see `silhouette`); None where it
    has no meaning. `random` are those of the same views by the same network with random weights, where they
    were asked for.
    """

    cases: tuple[str, ...]
    values: Tensor
    components: Tensor
    explained: tuple[float, float]
    measures: EmbeddingMeasures
    silhouette: float | None = None
    random: "Embeddings | None" = None


def embed(
    checkpoint: Checkpoint,
    store: Store,
    cases: Sequence[str] | None = None,
    *,
    volumes: int = 50,
    views: int = 8,
    seed: int = 0,
    device: str = "auto",
    beside_random: bool = False,
    head_of: Path | None = None,
    moment: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> Embeddings:
    """Pooled decoder features of `views` augmented views of each volume, and their principal components.

    The features are those of the network itself, without any head, so that every method, a supervised
    network and an untrained one are embedded alike; with `head_of`, a run of `pretrain`, the embeddings are
    those of its method's head. Of more than `volumes` cases, so many are taken evenly. Views are those of a
    `moment` of a pretraining: nearly whole volumes at its beginning (0), parts at its end (1).

    `beside_random` embeds the same views by random weights, drawn by `seed`, too: volumes differ in grey
    values and contrast, and even such a network tells some of them apart.

    Raises:
        TransferError: the store is prepared otherwise than what the checkpoint was trained on.
        UserError: `head_of` is no pretraining, or not on this store.
    """
    check_preprocessing(checkpoint, store.plan)
    if head_of is not None:
        methods = trained_method(head_of, store, seed)
        networks, embedders = list(methods), [method.embed for method in methods]
    else:
        networks = [checkpoint.network(), build(checkpoint.info.architecture, seed)]
        embedders = [partial(_pooled, network) for network in networks]
    for network in networks:
        network.to(choose_device(device)).eval()
    embedders = embedders if beside_random else embedders[:1]
    chosen = evenly(tuple(sorted(store.cases)) if cases is None else tuple(cases), volumes)
    patch = checkpoint.info.plan.training.patch
    sampler = ViewSampler(store, chosen, patch, 1, ViewSpec(global_views=1), ViewConfig(), seed, 1)
    found: list[list[Tensor]] = [[] for _ in embedders]
    owners = []
    with torch.no_grad():
        for i, case in enumerate(chosen):
            for view in range(views):
                image = sampler.views([case], step_seed(seed, i * views + view), moment).views[0]
                for of_view, values in zip(embedders, found, strict=True):
                    values.append(of_view(image.to(choose_device(device))).cpu())
                owners.append(case)
            if progress is not None:
                progress(i + 1, len(chosen))
    trained, *random = (_described(torch.cat(values), owners) for values in found)
    return replace(trained, random=random[0] if random else None)


def _pooled(network: Network, image: Tensor) -> Tensor:
    return pool(network.decode(network.encode(image)))


def _described(values_ND: Tensor, owners: list[str]) -> Embeddings:
    components, explained = principal_components(values_ND)
    return Embeddings(
        cases=tuple(owners),
        values=values_ND,
        components=components,
        explained=explained,
        measures=measure(values_ND, owners),
        silhouette=silhouette(values_ND, owners),
    )


def silhouette(values_ND: Tensor, volumes: Sequence[str]) -> float | None:
    """Mean silhouette of the views, by volume, of five volumes at a time; None where it has no meaning.

    A view is compared with the nearest other volume, and of more volumes the nearest is nearer: so a
    silhouette of many says less of the embedding. This one is the mean over 100 draws of five of those that
    have two views or more.
    """
    owners, views = np.asarray(volumes), Counter(volumes)
    names = sorted(name for name, number in views.items() if number > 1)
    if len(names) < 2:
        return None
    from sklearn.metrics import silhouette_score  # slow to import, needed here alone

    values, rng, found = values_ND.double().numpy(), np.random.default_rng(0), []
    for _ in range(_DRAWS if len(names) > SILHOUETTE_OF else 1):
        drawn = np.isin(owners, rng.choice(names, min(SILHOUETTE_OF, len(names)), replace=False))
        found.append(float(silhouette_score(values[drawn], owners[drawn])))
    return fmean(found)


def principal_components(values_ND: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """The first two principal components (N, 2), and the share of the variance in each; 0 where none varies.

    Raises UserError for fewer than two embeddings.
    """
    if len(values_ND) < 2:
        raise UserError(
            "the embeddings",
            found=f"{len(values_ND)} view in all",
            rule="Principal components are of two views at least",
            remedy="Ask for more views, or add volumes",
        )
    if float(values_ND.double().var(dim=0).sum()) == 0:
        return torch.zeros(len(values_ND), 2, dtype=torch.float64), (0.0, 0.0)
    from sklearn.decomposition import PCA  # slow to import, needed here alone

    pca = PCA(n_components=2, svd_solver="full")
    components = torch.from_numpy(pca.fit_transform(values_ND.double().numpy()))
    first, second = pca.explained_variance_ratio_.tolist()
    return components, (first, second)
