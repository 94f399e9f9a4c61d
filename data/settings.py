"""Typed settings: frozen dataclasses read from YAML, every mistake in them reported together.

A class marked `@settings` is a frozen, keyword-only dataclass whose fields carry their limits
(`Annotated[float, Field(gt=0)]`). `parse` checks a mapping against it; unknown keys are mistakes.
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from .atomic import write_text
from .errors import UserError

T = TypeVar("T")
Probability = Annotated[float, Field(ge=0, le=1)]


class SettingsError(UserError):
    """Settings that do not fit their class."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def settings(cls: type[T]) -> type[T]:
    """Makes a class a frozen, keyword-only dataclass that `parse` checks strictly for unknown keys."""
    cls.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(cls)


def parse(kind: type[T], values: Mapping[str, Any], where: object) -> T:
    """`values` as an instance of `kind`; raises SettingsError with all mistakes, naming `where`."""
    try:
        return _adapter(kind).validate_python(values)
    except ValidationError as error:
        mistakes = "; ".join(_told(error.errors()))
        known = ", ".join(f.name for f in kind.__dataclass_fields__.values())  # type: ignore[attr-defined]
        raise SettingsError(
            where,
            found=mistakes,
            rule=f"The keys at the top are: {known}",
            remedy="Correct these values and run the command again",
        ) from error


def checked(value: T, where: object) -> T:
    """`value` as if a file had said it: checked, and filled (for settings built in Python)."""
    # pydantic would warn of what is told as a mistake here
    said = _adapter(type(value)).dump_json(value, warnings=False)
    return parse(type(value), json.loads(said), where)


def plain(value: Any) -> Any:
    """`value` as dictionaries, lists, numbers and texts, as JSON and YAML write them."""
    return json.loads(_adapter(type(value)).dump_json(value))


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """Made once for each class: for a large one it takes longer than all that is done with it."""
    return TypeAdapter(kind)


def merged(base: Mapping[str, Any], said: Mapping[str, Any], tag: str | None = None) -> dict[str, Any]:
    """`base` with what is said over it, group by group; one whose `tag` differs has nothing of the base."""
    result = dict(base)
    for key, value in said.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            same = tag is None or value.get(tag, below.get(tag)) == below.get(tag)
            value = merged(below if same else {}, value, tag)
        result[key] = value
    return result


def over(default: Any) -> Callable[[Any], Any]:
    """A function that fills what a file says of a group of settings from `default`, its value otherwise."""
    return lambda said: merged(plain(default), said) if isinstance(said, Mapping) else said


def read_yaml(path: Path, kind: type[T]) -> T:
    """The settings in a YAML file; raises SettingsError naming the file."""
    return parse(kind, load_mapping(path), path)


def read_json(path: Path, kind: type[T]) -> T:
    """The settings in a JSON file; raises SettingsError naming the file."""
    return parse(kind, read_json_mapping(path), path)


def read_json_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; raises SettingsError naming the file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise SettingsError(
            path,
            found=f"not readable as JSON ({error})",
            rule="It is JSON as fewvox writes it",
            remedy="Correct or restore it, or make its folder anew",
        ) from error
    return values


def load_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, read without executing anything (`yaml.safe_load`)."""
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_repeated_keys(yaml.compose(text, Loader=yaml.SafeLoader))
        values = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(
            path,
            found=f"not readable as YAML ({' '.join(str(error).split())})",
            rule="Settings are plain YAML: keys and values, no tags",
            remedy="Correct the file",
        ) from error
    if not isinstance(values, dict):
        raise SettingsError(
            path,
            found=f"holds {type(values).__name__}",
            rule="Settings are a mapping of keys to values",
            remedy="Correct the file",
        )
    return values


def _refuse_repeated_keys(node: yaml.Node | None) -> None:
    """YAML would take the last of two equal keys in silence."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        twice = next((key for key, _ in node.value if keys.count(key.value) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"'{twice.value}' stands twice", twice.start_mark
            )
    for child in [] if node is None or isinstance(node, yaml.ScalarNode) else node.value:
        for part in child if isinstance(child, tuple) else (child,):
            _refuse_repeated_keys(part)


def write_yaml(path: Path, value: Any, comment: str = "") -> None:
    """Writes settings as YAML in the order of their class, under a comment."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    text = yaml.dump(plain(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    write_text(path, head + text)


class _Dumper(yaml.SafeDumper):
    """Writes lists of numbers on one line: [40, 56, 40]."""

    def represent_list(self, data: Any) -> yaml.SequenceNode:
        flat = not any(isinstance(item, dict) for item in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


_Dumper.add_representer(list, _Dumper.represent_list)


def override(values: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """`values` with `key.inner=value` texts applied, the values read as YAML; the input stays as it is."""
    result = copy.deepcopy(values)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise SettingsError(
                f"--set {assignment}",
                found="no key=value",
                rule="An override is written key=value, with dots for inner keys",
                remedy="For example --set optimizer.lr=0.001",
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SettingsError(
                f"--set {assignment}",
                found=f"a value that is not YAML ({' '.join(str(error).split())})",
                rule="Values are numbers, words, or lists such as [40, 56, 40]",
                remedy="Correct it, and quote it for the shell",
            ) from error
        _assign(result, key.strip().split("."), value, assignment)
    return result


def _assign(values: dict[str, Any], keys: list[str], value: Any, assignment: str) -> None:
    *parents, last = keys
    inner: Any = values
    for depth, parent in enumerate(parents, start=1):
        inner = inner.setdefault(parent, {})
        if not isinstance(inner, dict):
            key = ".".join(parents[:depth])
            preset = f"; if {inner} is a preset, write {key}.preset={inner}" if isinstance(inner, str) else ""
            raise SettingsError(
                f"--set {assignment}",
                found=f"'{key}' is a single value, {inner!r}",
                rule="Only groups of settings have inner keys",
                remedy=f"Set {key} itself{preset}",
            )
    inner[last] = value


def _told(errors: Sequence[Any]) -> list[str]:
    """A line for each key: where a value may be of several kinds, why it is of none of them."""
    told: dict[str, list[str]] = {}
    for error in errors:
        key = ".".join(str(part) for part in error["loc"] if not _is_branch(part))
        what, why = _tell(key, error)
        told.setdefault(what, []).append(why)
    return [what + ", or ".join(dict.fromkeys(filter(None, whys))) for what, whys in told.items()]


def _is_branch(part: int | str) -> bool:
    """Whether a part of a place names a kind that a value may be of, and no key: "tuple[int, ...]"."""
    return isinstance(part, str) and ("[" in part or part in ("str", "int", "float", "bool"))


def _tell(key: str, error: Any) -> tuple[str, str]:
    if error["type"] == "unexpected_keyword_argument":
        return f"unknown key '{key}'", ""
    if error["type"] == "missing":
        return f"'{key}' is missing", ""
    ours = error["type"] == "value_error"
    why = str(error["ctx"]["error"]) if ours else error["msg"][0].lower() + error["msg"][1:]
    return f"'{key}' is {error['input']!r}: ", why
