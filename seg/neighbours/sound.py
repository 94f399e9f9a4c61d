"""Tensors of a file as a network can use them: dense, finite, float32."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .errors import SourceError


def sound(tensors: Mapping[str, Tensor], where: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors as float32, and a note of those that were of another type.

    Raises SourceError naming the first that is sparse, quantised, of whole or complex numbers, larger than
    what the file holds of it, or not finite.
    """
    checked = {name: _sound(name, tensor, where) for name, tensor in tensors.items()}
    types = {str(t.dtype).removeprefix("torch.") for t in tensors.values()} - {"float32"}
    notes = (f"tensors of type {', '.join(sorted(types))} were turned into float32",) if types else ()
    return checked, notes


def check_values(name: str, tensor: Tensor, where: Path) -> None:
    """Raises SourceError for a tensor that is not dense, or larger than what the file holds of it.

    Nothing is computed with such a tensor: a few bytes can stand for any number of values.
    """
    if (unusable := _without_values(tensor)) is not None:
        raise _refused(name, unusable, where)


def _sound(name: str, tensor: Tensor, where: Path) -> Tensor:
    unusable = _unusable(tensor)
    if unusable is None:
        tensor = tensor.detach().to(torch.float32).contiguous()
        if bool(torch.isfinite(tensor).all()):
            return tensor
        unusable = "values that are NaN or infinite"
    raise _refused(name, unusable, where)


def _refused(name: str, unusable: str, where: Path) -> SourceError:
    return SourceError(
        where,
        found=f"{name}: {unusable}",
        rule="Weights are dense tensors of finite floating-point numbers",
        remedy="Take an earlier checkpoint of that training, or convert it where it was made",
    )


def _unusable(tensor: Tensor) -> str | None:
    if (without := _without_values(tensor)) is not None:
        return without
    return None if tensor.is_floating_point() else f"a tensor of type {tensor.dtype}"


def _without_values(tensor: Tensor) -> str | None:
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        return f"a {type(tensor).__name__}"
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        return "a sparse, quantised or nested tensor"
    if tensor.device.type != "cpu":
        return f"a tensor without values (device {tensor.device.type})"
    # a stride of 0 makes gigabytes of a few bytes
    if math.prod(tensor.shape) * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"a tensor of shape {tuple(tensor.shape)} over {tensor.untyped_storage().nbytes()} bytes"
    return None
