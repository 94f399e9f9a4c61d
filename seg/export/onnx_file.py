"""The network in ONNX, checked by running it beside torch."""

# Shapes: B = batch, C = channels, K = classes or features.

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...data.atomic import new_file
from ...data.errors import UserError
from ...data.settings import plain
from ..checkpoint import Checkpoint

# the newest that torch 2.13 translates to without a conversion
OPSET = 20
# largest deviation from torch, in standard deviations of its output
TOLERANCE = 1e-4
_METADATA = "fewvox"


def export_onnx(checkpoint: Checkpoint, out: Path) -> list[str]:
    """Writes the file `out`; gives what its reader should know, in lines.

    Input "image" (B, C, *patch), any B, preprocessed as the plan in its metadata says. Output "logits"
    (B, K, *patch), or "features" of the last decoder level where the output was not trained.

    Raises UserError without the packages, when `out` exists, or when onnxruntime computes something else;
    then nothing is written.
    """
    onnxruntime = _imported()
    if out.exists():
        raise UserError(
            out,
            found="it exists already",
            rule="Finished results are never written over",
            remedy="Choose another name, or delete it",
        )
    output = "logits" if "output" in checkpoint.info.trained else "features"
    network = checkpoint.network().eval()
    module = network if output == "logits" else _Features(network)
    example = _example(checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    with new_file(out) as partial:
        _write(checkpoint, module, example, output, partial)
        worst = _deviation(onnxruntime, partial, module, example)
        if not worst <= TOLERANCE:
            raise UserError(
                out,
                found=f"onnxruntime deviates by {worst:.2g} standard deviations from torch",
                rule=f"At most {TOLERANCE:g}",
                remedy="Install other versions of onnx, onnxscript and onnxruntime; nothing was written",
            )
    extent = tuple(checkpoint.info.plan.training.patch)
    return [
        f"opset {OPSET}; image (B, {example.shape[1]}, *{extent}) to {output}; "
        f"onnxruntime is within {worst:.1g} standard deviations of torch."
    ]


class _Features(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network.features(image)  # type: ignore[operator]


def _imported() -> Any:
    try:
        import_module("onnx")
        import_module("onnxscript")
        return import_module("onnxruntime")
    except ImportError as error:
        raise UserError(
            "--to onnx",
            found=f"{error.name} is not installed",
            rule="The ONNX export needs onnx, onnxscript and onnxruntime",
            remedy="Run `pip install fewvox[onnx]`",
        ) from error


def _example(checkpoint: Checkpoint) -> Tensor:
    info = checkpoint.info
    # two items: of one, the batch would become a constant
    shape = (2, info.architecture.in_channels, *info.plan.training.patch)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _write(checkpoint: Checkpoint, module: nn.Module, example: Tensor, output: str, path: Path) -> None:
    with _quietly():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=[output],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    if program is None:
        raise ValueError("torch.onnx.export gave no program")
    program.model.metadata_props[_METADATA] = json.dumps(plain(checkpoint.info))
    program.save(str(path))


def _deviation(onnxruntime: Any, path: Path, module: nn.Module, example: Tensor) -> float:
    """Largest deviation from torch in standard deviations of its output."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": example.numpy()})
    with torch.inference_mode():
        expected = module(example).numpy()
    return float(np.abs(found - expected).max() / max(float(expected.std()), 1e-12))


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's notes on its own inner workings."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
