"""Numbers that show a collapse of embeddings, and whether views of one volume are told from others."""

# Shapes: N = views in all, D = embedding size.

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.settings import settings


@settings
class EmbeddingMeasures:
    """What a set of embeddings is like.

    `spread`: standard deviation of unit vectors, mean over dimensions, times sqrt(D): 1 where they point
        everywhere alike, 0 when all have collapsed to one (Chen & He 2021, SimSiam, section 4.1). None where
        they are no unit vectors: pooled features have a large part in common that says nothing.
    `effective_rank`: how many directions carry the variation, from 1 to the smaller of D and the number of
        views less one (Roy & Vetterli 2007; as RankMe in Garrido et al. 2023, here of centred embeddings).
    `retrieval`: share of views whose nearest other view, by cosine after centring, is of the same volume;
        None where no volume has two views. `chance` is what random embeddings would give.
    """

    spread: float | None
    effective_rank: float
    retrieval: float | None
    chance: float | None


def measure(embeddings_ND: Tensor, volumes: list[str]) -> EmbeddingMeasures:
    """Measures of embeddings (N, D), one for each view; `volumes` tells which volume each view is of."""
    z = embeddings_ND.double()
    spread = None
    if bool((z.norm(dim=1) - 1).abs().max() < 1e-3):
        spread = float(z.std(dim=0, correction=0).mean() * z.shape[1] ** 0.5)
    centred = z - z.mean(dim=0)
    return EmbeddingMeasures(
        spread=spread, effective_rank=effective_rank(centred), **_retrieval(centred, volumes)
    )


def effective_rank(centred_ND: Tensor) -> float:
    """Exponential of the entropy of the normalised singular values; 0 where nothing varies."""
    values = torch.linalg.svdvals(centred_ND)
    total = float(values.sum())
    if total < 1e-9:
        return 0.0
    p = values / total
    return float(torch.exp(-(p * (p + 1e-12).log()).sum()))


def _retrieval(centred_ND: Tensor, volumes: list[str]) -> dict[str, float | None]:
    names = sorted(set(volumes))
    volume_N = torch.tensor([names.index(v) for v in volumes])
    same = volume_N[:, None] == volume_N[None, :]
    same.fill_diagonal_(False)
    asked = same.any(dim=1)
    if not asked.any():
        return {"retrieval": None, "chance": None}
    unit = F.normalize(centred_ND, dim=1)
    likeness = (unit @ unit.T).fill_diagonal_(-float("inf"))
    found = same[torch.arange(len(same)), likeness.argmax(dim=1)]
    chance = same[asked].double().mean(dim=1) * len(same) / (len(same) - 1)
    return {"retrieval": float(found[asked].double().mean()), "chance": float(chance.mean())}
