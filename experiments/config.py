"""Configuration of a command: a YAML file, overridden by `--set key=value`, checked as a whole."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..data.errors import UserError
from ..data.formats.files import strip_suffix
from ..data.settings import load_mapping, override, parse, read_json, settings
from ..data.splits import Split

T = TypeVar("T")


def configuration(kind: type[T], file: str | Path | None, assignments: Sequence[str], **given: Any) -> T:
    """Settings of `kind` from a file (or its defaults), the assignments, and `given` values over both."""
    values = load_mapping(Path(file)) if file is not None else {}
    values = override(values, list(assignments)) | given
    return parse(
        kind, values, " ".join([str(file or ""), *(f"--set {a}" for a in assignments)]).strip() or "settings"
    )


@settings
class CaseLists:
    """A file of cases, as split.json in a run is one."""

    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()


def read_split(file: str | Path) -> Split:
    """The training, validation and test cases in a JSON file with these three lists."""
    lists = read_json(Path(file), CaseLists)
    both = set(lists.train) & {*lists.validation, *lists.test} | set(lists.validation) & set(lists.test)
    if both or not lists.train:
        raise UserError(
            file,
            found=f"'{sorted(both)[0]}' stands in two lists" if both else "no training case",
            rule="train, validation and test share no case, and train is not empty",
            remedy="Correct the file",
        )
    return Split(train=lists.train, validation=lists.validation, test=lists.test)


def read_cases(file: str | Path) -> tuple[str, ...]:
    """Case ids to predict: the test cases of a split.json, or a text file with one id a line."""
    path = Path(file)
    if path.suffix == ".json":
        ids = read_json(path, CaseLists).test
    else:
        ids = tuple(strip_suffix(line.strip()) for line in _text(path).splitlines() if line.strip())
    if not ids:
        raise UserError(
            path,
            found="no case in it",
            rule="The file lists at least one case",
            remedy="Give a split.json with test cases, or a text file with one case a line",
        )
    return ids


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            path,
            found=f"not readable ({error})",
            rule="A list of cases is a text file",
            remedy="Check the path",
        ) from error
