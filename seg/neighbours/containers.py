"""What a file is by its first bytes, and the values in it, whatever its name says."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .errors import SourceError
from .pickles import RULE, read_torch

_KINDS = {
    b"version https://git-lfs": "a pointer of Git LFS: the file itself was never fetched",
    b"\x89HDF\r\n\x1a\n": "HDF5, as Keras writes",
    b"\x93NUMPY": "a numpy array (.npy)",
    b"\x80": "a bare pickle, which can run code when it is read",
    b"\x1f\x8b": "a gzip archive",
    b"\x08": "a protocol buffer, such as ONNX",
    b"<": "a web page or XML, perhaps what a server sent instead of the file",
}


def read_container(path: Path) -> tuple[dict[Any, Any], dict[str, str]]:
    """The mapping in a torch or safetensors file, and the metadata of the latter; nothing in it is executed.

    Raises SourceError for every other file, telling what it is.
    """
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"PK\x03\x04"):
        return _mapping(path, read_torch(path)), {}
    if head[8:9] == b"{":
        return _read_safetensors(path)
    raise SourceError(
        path, found=_kind(head), rule=RULE, remedy="Give a run, or a file of weights that torch has written"
    )


def _kind(head: bytes) -> str:
    if not head:
        return "the file is empty"
    for start, kind in _KINDS.items():
        if head.startswith(start):
            return kind
    if (head.isascii() and head.decode().isprintable()) or (
        b"\n" in head and head.replace(b"\n", b"").isascii()
    ):
        return f"text ({head.split(maxsplit=1)[0][:20].decode('ascii', 'replace')} ...)"
    return f"an unknown format that begins with the bytes {head[:8].hex(' ')}"


def _mapping(path: Path, content: object) -> dict[Any, Any]:
    if not isinstance(content, dict):
        raise SourceError(
            path,
            found=f"a torch file with {type(content).__name__}",
            rule="Weights are a mapping of names to tensors (a state dict)",
            remedy="Save `network.state_dict()`",
        )
    return content


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        with safe_open(str(path), framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
            return tensors, opened.metadata() or {}
    except (OSError, SafetensorError, ValueError) as error:
        raise SourceError(
            path, found=f"not readable as safetensors ({error})", rule=RULE, remedy="Get it again"
        ) from error
