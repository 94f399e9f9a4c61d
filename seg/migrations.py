"""Checkpoints of older format versions, brought to today's step by step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..data.errors import UserError
from ..data.settings import parse
from .networks.registry import Architecture, build

VERSION = 2
_Content = tuple[dict[str, Any], dict[str, Tensor]]


def migrated(described: dict[str, Any], tensors: dict[str, Tensor], where: object) -> _Content:
    """Description and tensors as a checkpoint of today has them; the input stays as it is.

    Raises UserError for a version that is not known.
    """
    while (version := described.get("version", VERSION)) != VERSION:
        if not isinstance(version, int) or version not in _NEXT:
            raise UserError(
                where,
                found=f"it has format version {version!r}",
                rule=f"This release reads the versions {', '.join(map(str, [*_NEXT, VERSION]))}",
                remedy="Use the release of fewvox that wrote it, or a later one",
            )
        described, tensors = _NEXT[version](described, tensors, where)
        described = {**described, "version": version + 1}
    return described, tensors


def _with_biases(described: dict[str, Any], tensors: dict[str, Tensor], where: object) -> _Content:
    """Version 1 had no biases in the convolutions of encoder and decoder: zeros compute the same."""
    architecture = parse(Architecture, described.get("architecture", {}), where)
    with torch.device("meta"):
        network = build(architecture)
    biases = {
        f"{name}.bias": torch.zeros(module.bias.shape)
        for part in ("encoder", "decoder")
        for name, module in network.get_submodule(part).named_modules(prefix=part)
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d) and module.bias is not None
    }
    return described, {**biases, **tensors}


# from each older version to the next
_NEXT: dict[Any, Callable[[dict[str, Any], dict[str, Tensor], object], _Content]] = {1: _with_biases}
