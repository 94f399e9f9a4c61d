"""One hash by which weights and what is said of them verify themselves, wherever they are copied to."""

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor


def digest(description: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a description and of names, dtypes, shapes and bytes of tensors, whatever their order."""
    names = sorted(tensors)
    head = [[name, str(tensors[name].dtype), list(tensors[name].shape)] for name in names]
    found = hashlib.sha256(json.dumps([description, head]).encode())
    for name in names:
        # flat: a single number has no axis to be seen as bytes along
        found.update(tensors[name].detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
