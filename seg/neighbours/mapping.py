"""A user's file that tells how the names of another program's tensors become ours."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ...data.settings import load_mapping, parse
from ..networks.topology import Triple
from .errors import SourceError
from .prefixes import listed

_EXAMPLE = "'stem\\.conv(\\d)\\.' : 'encoder.0.\\1.0.'"


@dataclass(frozen=True, kw_only=True)
class NameMapping:
    """Rules in the order of the file, each a pattern of their names and what takes its place.

    `strides` (z, y, x) lead from level to level; an encoder alone does not show them.
    """

    path: Path
    rules: dict[str, str]
    strides: tuple[Triple, ...] | None = None

    def renamed(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """The tensors that a rule matches, under their new names, and a note of the others.

        A rule matches at the beginning of a name; the first that does applies.

        Raises SourceError for a rule that matches nothing, and for two tensors under one name.
        """
        found: dict[str, Tensor] = {}
        used, left = set[str](), list[str]()
        for name, tensor in tensors.items():
            rule = next((rule for rule in self.rules if re.match(rule, name)), None)
            if rule is None:
                left.append(name)
                continue
            used.add(rule)
            new = re.sub(rf"\A(?:{rule})", self.rules[rule], name, count=1)
            if new in found:
                raise self._error(f"two tensors become {new}, one of them {name}", "Names differ")
            found[new] = tensor
        if idle := [rule for rule in self.rules if rule not in used]:
            raise self._error(
                f"rules that match nothing: {listed(idle)}; there are the names {listed([*tensors])}",
                "Every rule matches the beginning of a name",
            )
        return found, (f"named by no rule of {self.path.name}: {listed(left)}",) if left else ()

    def _error(self, found: str, rule: str) -> SourceError:
        return SourceError(self.path, found=found, rule=rule, remedy=f"Correct it, such as {_EXAMPLE}")


@dataclass(frozen=True, kw_only=True)
class _File:
    rules: dict[str, str]
    strides: tuple[Triple, ...] | None = field(default=None)


def read_mapping(path: Path) -> NameMapping:
    """The rules in a YAML file: patterns of their names to ours, and `strides` where they are needed.

    Raises UserError for what is no such file, or no pattern.
    """
    values = load_mapping(path)
    told = parse(_File, {"strides": values.pop("strides", None), "rules": values}, path)
    mapping = NameMapping(path=path, rules=told.rules, strides=told.strides)
    for rule, new in told.rules.items():
        try:
            re.compile(rule)
            re.sub(rf"(?:{rule})|", new, "")  # a group that the pattern does not have
        except (re.error, IndexError) as error:
            raise mapping._error(f"{rule!r}: {new!r} ({error})", "Rules are regular expressions") from error
    return mapping
