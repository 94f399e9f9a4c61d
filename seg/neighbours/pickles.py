"""Torch files (.pt, .pth) read without running anything in them: tensors and plain values, or a reason.

A torch file is a zip with a pickle in it, and a pickle names functions that its reader calls. `weights_only`
calls few but torch's own that rebuild tensors, and `calls` tells before if these are all. nnU-Net's files
hold numpy numbers too (losses, Dice): what the pickle calls for them is replaced by `_NumberType` and
`_number`, so that no code of numpy sees its bytes.
"""

import pickle
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.serialization import safe_globals
from torch.torch_version import TorchVersion

from .calls import check_calls
from .errors import SourceError

# CVE-2025-32434 (fixed in 2.6) ran code, CVE-2026-24747 (fixed in 2.10) wrote to memory, both in spite of
# weights_only: https://github.com/pytorch/pytorch/security/advisories/GHSA-63cw-57p8-fm3p
FIXED_TORCH = "2.10"
RULE = "Weights are safetensors, or a torch file of tensors and plain values: what runs code is refused"
# a pickle can make what it calls fail in any of these ways
_UNREADABLE = (
    pickle.UnpicklingError,
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    struct.error,
)
_NUMBER_CODES = ("f2", "f4", "f8", "i4", "i8", "b1")


def read_torch(path: Path) -> Any:
    """The tensors and plain values in a torch file; numpy's numbers are Python's.

    Raises SourceError for anything else, and with a torch that is not safe to read with.
    """
    refuse_old_torch(path)
    _check_archive(path)
    try:
        # opened here, as torch would go by the name of the file
        with path.open("rb") as file, safe_globals(_NUMBERS), warnings.catch_warnings():
            # what it cannot read of another protocol is an error
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            # by torch's own reader: what was checked is what is loaded
            check_calls(torch._C.PyTorchFileReader(file).get_record("data.pkl"))
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise SourceError(
            path,
            found=_reason(error),
            rule=RULE,
            remedy="If you trust it, convert it to safetensors where it was made; if not, delete it",
        ) from error


def refuse_old_torch(path: Path) -> None:
    """Raises SourceError where a torch file could run code or write to memory in spite of `weights_only`."""
    if TorchVersion(torch.__version__) < FIXED_TORCH:
        raise SourceError(
            path,
            found=f"torch {torch.__version__}",
            rule=f"Torch files are read with torch {FIXED_TORCH} or later, the first no file can abuse "
            "(CVE-2026-24747)",
            remedy=f"Install torch>={FIXED_TORCH}, or give weights as safetensors",
        )


def _check_archive(path: Path) -> None:
    """Raises SourceError unless a file is a zip as torch writes it, which compresses nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise _no_torch_file(path, f"no torch file, or one that is cut short or damaged ({error})") from error
    names = [entry.filename for entry in entries]
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise _no_torch_file(path, "a TorchScript program, which is run when it is read")
    if sum(name.count("/") == 1 and name.endswith("/data.pkl") for name in names) != 1:
        raise _no_torch_file(path, f"a zip archive that is no torch file ({', '.join(names[:5]) or 'empty'})")
    declared, there = sum(entry.file_size for entry in entries), path.stat().st_size
    if declared > there or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise _no_torch_file(
            path, f"a torch file of {there:,} bytes that unpacks to {declared:,}: a zip bomb, or packed anew"
        )


def _no_torch_file(path: Path, found: str) -> SourceError:
    return SourceError(path, found=found, rule=RULE, remedy="Get it again from where it was made")


def _reason(error: BaseException) -> str:
    call = re.search(r"GLOBAL (\S+)", str(error))
    if call:
        return f"a pickle that calls {call[1]}; it was not run"
    return f"a torch file that is not readable ({' '.join(str(error).split())[:200] or type(error).__name__})"


class _NumberType:
    """Stands for `numpy.dtype` in a pickle; of the types of numbers alone."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:  # noqa: ARG002 (numpy's)
        if code not in _NUMBER_CODES:
            raise pickle.UnpicklingError(f"a numpy type {code!r}, which is no number")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"a byte order {state[1]!r}")
        self.order = state[1]


def _number(kind: _NumberType, raw: bytes) -> float:
    """Stands for numpy's `scalar`."""
    return np.frombuffer(raw, np.dtype(f"{kind.order}{kind.code}"), count=1)[0].item()


_NUMBERS = [
    (_NumberType, "numpy.dtype"),
    (_number, "numpy.core.multiarray.scalar"),  # written with numpy 1
    (_number, "numpy._core.multiarray.scalar"),
]
