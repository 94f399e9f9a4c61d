"""Against forgetting: a fine-tuned network is held near the weights, or features, that it started from."""

# Shapes: B = batch, C = features.

import copy
from collections.abc import Collection
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ..data.errors import UserError
from ..data.settings import settings
from .engine.distributed import processes, summed
from .engine.schedules import ScheduleConfig
from .networks.network import Network
from .transfer_report import TransferReport, block_of, ranges


@settings
class KeepConfig:
    """How strongly a fine-tuned network is held to the pretrained one; 0 is not at all.

    - `l2sp`: half of it times the squared distance of the weights that came from the checkpoint to where they
      started is added to the loss ("L2-SP": Li, Grandvalet and Davoine 2018, arXiv:1802.01483, section 3.2,
      where 0.1 is a usual value; in 200 steps it was far too strong, see docs/results/schedules.md). We
      differ in that all else keeps the optimiser's own weight decay.
    - `distillation`: so many times the mean squared difference between the features of the two encoders is
      added, each level divided by the mean square of the pretrained features (hints: Romero et al. 2015,
      arXiv:1412.6550, with the pretrained network as the teacher, as in Li and Hoiem 2016, arXiv:1606.09282).
      The teacher costs a second pass through the encoder.
    """

    l2sp: Annotated[float, Field(ge=0)] = 0.0
    distillation: Annotated[float, Field(ge=0)] = 0.0

    @property
    def used(self) -> bool:
        """Whether anything is held."""
        return self.l2sp > 0 or self.distillation > 0


def check_encoder(report: TransferReport, keep: KeepConfig, schedule: ScheduleConfig) -> TransferReport:
    """The report, with a warning where an encoder that is frozen or a teacher is in part random.

    Raises UserError where any tensor of such an encoder begins at random: noise would be kept.
    """
    does = [
        *(["schedule.name=frozen"] if schedule.name == "frozen" else []),
        *(["keep.distillation"] if keep.distillation else []),
    ]
    encoder = [t for t in report.tensors if t.part == "encoder"]
    random = dict.fromkeys(block_of(t.name) for t in encoder if t.state == "re-initialised")
    if does and random:
        raise UserError(
            " and ".join(does),
            found=f"{ranges(random)} did not arrive whole from the weights and begin at random",
            rule="An encoder that is frozen, or whose features are kept, comes from the weights",
            remedy="Load the whole encoder (load=both or encoder), on volumes prepared with its plan "
            f"(`fewvox prepare --from-checkpoint`), or leave {' and '.join(does)} out",
        )
    partly = dict.fromkeys(block_of(t.name) for t in encoder if t.fresh)
    if not does or not partly:
        return report
    warning = f"{' and '.join(does)} keeps features of {ranges(partly)} that begin at random"
    return replace(report, warnings=(*report.warnings, warning))


class Keeper:
    """What a network was when this was made, and how far it has gone since.

    It is no module: what it holds belongs to no checkpoint, as the checkpoint that was started from has it.
    """

    def __init__(self, network: Network, transferred: Collection[str], config: KeepConfig) -> None:
        self.config = config
        named = network.named_parameters()
        self.start = {name: p.detach().clone() for name, p in named if name in transferred}
        self.teacher = copy.deepcopy(network).eval().requires_grad_(False) if config.distillation else None

    def loss(self, network: Network, images: Tensor, encoded: list[Tensor]) -> dict[str, Tensor]:
        """The terms that are added to the loss, each of shape (), by name.

        Args:
            network: as it is now.
            images: (B, channels, Z, Y, X).
            encoded: what the network's encoder makes of them, (B, C, z, y, x) for each level.
        """
        terms = {}
        if self.config.l2sp:
            parameters = dict(network.named_parameters())
            far = torch.stack([(parameters[name] - at).square().sum() for name, at in self.start.items()])
            terms["loss/l2sp"] = self.config.l2sp / 2 * far.sum()
        if self.teacher is not None:
            with torch.no_grad():
                taught = self.teacher.encode(images)
            # of the batches of all processes
            squares = [summed(then.square().mean()) / processes() for then in taught]
            apart = [
                (now - then).square().mean() / square.clamp_min(1e-8)
                for now, then, square in zip(encoded, taught, squares, strict=True)
            ]
            terms["loss/distillation"] = self.config.distillation * torch.stack(apart).mean()
        return terms
