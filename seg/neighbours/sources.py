"""Weights to start from, of this program and of others; what a file is, its content tells.

Taken are runs and checkpoints of fewvox, models and checkpoints of nnU-Net v2, checkpoints of nnssl, and
plain state dicts. Nothing in a file is executed.
"""

from pathlib import Path
from typing import Literal

from ..checkpoint import WEIGHTS, load
from ..source import Source, source_of
from .containers import read_container
from .errors import SourceError
from .mapping import NameMapping, read_mapping
from .nnssl import is_nnssl, of_nnssl
from .nnunet import is_nnunet, model_file, of_nnunet
from .state_dict import of_state_dict

_TAKEN = (
    "Weights come from a run of fewvox, a model folder of nnU-Net, or a file: weights.safetensors, a "
    "checkpoint of nnU-Net or nnssl, a state dict"
)


def open_source(
    path: str | Path, mapping: str | Path | None = None, prefer: Literal["best", "last"] = "best"
) -> Source:
    """The weights in a file or folder by our names, with what is known of them.

    Args:
        path: a run, a checkpoint, a model folder of nnU-Net, or a file of weights.
        mapping: a YAML file that tells how the names of a state dict become ours, for names that are neither
            ours nor nnU-Net's: patterns of their names and what takes their place.
        prefer: of a run, the best checkpoint by validation or the last; of nnU-Net the final one is taken.

    Raises UserError for what it cannot be taken from, with the reason.
    """
    path = Path(path)
    rules = None if mapping is None else read_mapping(Path(mapping))
    file = _file(path)
    if file is None:
        return _own(path, rules, prefer)
    content, metadata = read_container(file)
    if "fewvox" in metadata:
        return _own(path, rules, prefer)
    if rules is None and is_nnssl(content):
        return of_nnssl(file, content)
    if rules is None and is_nnunet(content):
        return of_nnunet(file, content)
    return of_state_dict(file, content, rules)


def _file(path: Path) -> Path | None:
    """The file that tells what lies at a path; None for a run of ours.

    Raises SourceError where there is nothing to read.
    """
    if path.is_file():
        return path
    if (path / "checkpoints").is_dir():
        return None
    file = path / WEIGHTS if (path / WEIGHTS).is_file() else model_file(path)
    if file is not None:
        return file
    inside = sorted(child.name for child in path.iterdir())[:5] if path.is_dir() else []
    holds = f"a folder with {', '.join(inside)}" if inside else "an empty folder"
    raise SourceError(
        path,
        found=holds if path.is_dir() else "no such file or folder",
        rule=_TAKEN,
        remedy="Check the path",
    )


def _own(path: Path, rules: NameMapping | None, prefer: Literal["best", "last"]) -> Source:
    if rules is not None:
        raise SourceError(
            path,
            found="a checkpoint of fewvox and a mapping of names",
            rule="A mapping is for the names of other programs",
            remedy="Leave --mapping out",
        )
    return source_of(load(path, prefer))
