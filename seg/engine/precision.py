"""In which numbers a training computes: float32, or 16 bits where float32 does not matter.

Weights, optimiser and losses stay in float32; the forward pass runs under torch's autocast (Micikevicius et
al. 2018, arXiv:1710.03740). float16 needs its loss scaled against underflow; bfloat16 has float32's range.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

PrecisionName = Literal["auto", "float32", "bfloat16", "float16"]


def resolved_precision(name: PrecisionName, device: torch.device) -> PrecisionName:
    """The same without "auto": float32 on a CPU; on a GPU bfloat16 where it has that, float16 otherwise."""
    if name != "auto":
        return name
    if device.type == "cpu":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


class Precision:
    """How the forward pass computes, and the scale of the loss (which only float16 has).

    Differs from torch's GradScaler, which it uses, in that an overflow counts as a mistake of the training
    once the scale is below 1: the gradient itself is beyond float16 then.
    """

    def __init__(self, name: PrecisionName, device: torch.device) -> None:
        resolved = resolved_precision(name, device)
        self.dtype: torch.dtype = getattr(torch, resolved)
        self.device_type = device.type
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    def forward(self) -> AbstractContextManager[object]:
        """The block in which a loss is computed."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device_type, self.dtype)

    @property
    def scale(self) -> float:
        """What a loss is multiplied by; 1 where nothing is scaled."""
        return float(self.scaler.get_scale())

    @property
    def may_overflow(self) -> bool:
        """Whether a gradient that is not finite may be the scale's fault, which falls then."""
        return self.scaler.is_enabled() and self.scale >= 1
