"""The latest embeddings of every volume, and the nearest ones of other volumes, found by a FAISS index.

Source: Johnson et al. 2019, FAISS, https://arxiv.org/abs/1702.08734; embeddings of earlier steps stand for
volumes that are not in the batch as in Wang et al. 2020, "Cross-Batch Memory",
https://arxiv.org/abs/1912.06798, section 3.2: they drift slowly. We differ from that in that each volume has
a place of its own instead of one in a queue, so that all of a data set can be met, and in that an anchor is
compared with the nearest alone.
"""

# Shapes: N = volumes, V = views, B = batch, D = embedding size, M = anchors, K = neighbours, R = rows.

import torch
from torch import Tensor, nn


class Memory(nn.Module):
    """Embeddings of every volume: the `latest`, and the `indexed`, which are those of the last refresh.

    Both (N, V, D) are buffers, so that a training resumes with them. Zeros stand for what was not seen yet.
    """

    latest: Tensor
    indexed: Tensor

    def __init__(self, volumes: int, views: int, dimension: int) -> None:
        super().__init__()
        for name in ("latest", "indexed"):
            self.register_buffer(name, torch.zeros(volumes, views, dimension))

    @torch.no_grad()
    def keep(self, z_VBD: Tensor, volume_B: Tensor) -> None:
        """Puts the embeddings of a batch in the places of its volumes, for the next refresh."""
        self.latest[volume_B] = z_VBD.transpose(0, 1).to(self.latest.dtype)

    def refresh(self) -> None:
        """Makes the latest embeddings those that are searched."""
        self.indexed.copy_(self.latest)

    @property
    def volumes(self) -> int:
        """How many volumes can be found."""
        return int(self.indexed.flatten(1).any(dim=1).sum())

    @torch.no_grad()
    def nearest(self, z_MD: Tensor, volume_M: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The `count` nearest embeddings of other volumes (M, K, D), and which of them there are (M, K).

        The index is filled from the buffer each time. It is exact, and filling it is but a copy; so nothing
        beside the buffers has to be resumed, or undone with them after a useless step.
        """
        import faiss  # slow to import, needed here alone

        rows_RD = self.indexed.flatten(0, 1)
        there_R = rows_RD.any(dim=1).nonzero()[:, 0]
        rows_RD, owner_R = rows_RD[there_R], there_R // self.indexed.shape[1]
        index = faiss.IndexFlatL2(rows_RD.shape[1])
        index.add(rows_RD.cpu().numpy())
        # so many that enough are left without the anchor's own volume; where there are fewer, the rest is -1
        _, found = index.search(z_MD.float().cpu().numpy(), count + self.indexed.shape[1])
        found_MK = torch.from_numpy(found).to(z_MD.device)
        other_MK = (found_MK >= 0) & (owner_R[found_MK.clamp_min(0)] != volume_M[:, None])
        first_MK = (~other_MK).int().argsort(dim=1, stable=True)[:, :count]
        found_MK, other_MK = found_MK.gather(1, first_MK), other_MK.gather(1, first_MK)
        return rows_RD[found_MK.clamp_min(0)], other_MK
