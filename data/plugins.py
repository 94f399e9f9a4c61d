"""What other packages add to a table of ours, by Python entry points.

A package names them in its pyproject.toml, such as:

    [project.entry-points."fewvox.methods"]
    mine = "its_package.mine:registered"

An entry point is loaded when its name is asked for, or when all of its kind are listed. A file of settings
names what an installed package offers; it cannot bring anything itself.
"""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from .errors import UserError

T = TypeVar("T")


class PluginError(UserError):
    """What a package offers cannot be used."""


class Plugins(Generic[T]):
    """A table of ours, and what packages offer beside it under the group "fewvox.<kind>s".

    Args:
        kind: what is in the table: "method", "network" or "augmentation".
        table: by name; what was loaded is entered into it.
        accept: given a name and what its entry point led to, gives what is entered; raises TypeError or
            ValueError where that is not as it must be.
        rule: what an entry point leads to.
    """

    def __init__(self, kind: str, table: dict[str, T], accept: Callable[[str, Any], T], rule: str) -> None:
        self.kind, self.table, self._accept, self._rule = kind, table, accept, rule
        self._packages: dict[str, str] = {}

    @property
    def group(self) -> str:
        """The group that entry points stand in."""
        return f"fewvox.{self.kind}s"

    def names(self) -> list[str]:
        """All that can be asked for; nothing is loaded."""
        return sorted({*self.table, *self._offers()})

    def has(self, name: str) -> bool:
        """Whether `name` can be asked for; nothing is loaded."""
        return name in self.table or name in self._offers()

    def package(self, name: str) -> str | None:
        """The package that a name in the table was loaded from; None for one of ours."""
        return self._packages.get(name)

    def find(self, name: str) -> T:
        """What has that name, loaded now where a package offers it.

        Raises UserError for an unknown name, PluginError for one that cannot be loaded.
        """
        if name not in self.table:
            offers = self._offers().get(name)
            if not offers:
                raise UserError(
                    f"{self.kind} {name}",
                    found=f"no such {self.kind}",
                    rule=f"There are: {', '.join(self.names())}",
                    remedy="Choose one of them, or install the package that offers it",
                )
            self._enter(name, offers)
        return self.table[name]

    def known(self, name: str) -> str:
        """The name itself, for a validator; raises ValueError where `find` finds nothing."""
        try:
            self.find(name)
        except UserError as error:
            raise ValueError(f"{error.found}; {error.rule[:1].lower()}{error.rule[1:]}") from None
        return name

    def load_all(self) -> list[PluginError]:
        """Loads all that packages offer; gives what is wrong with those that cannot be used."""
        return [error for name in self._offers() if (error := self.problem(name)) is not None]

    def problem(self, name: str) -> PluginError | None:
        """Why what packages offer under a name cannot be used; None where it can, or where none does."""
        offers = self._offers().get(name, [])
        try:
            if offers and name in self.table and name not in self._packages:
                raise self._taken(name, offers, "fewvox's own")
            if offers:
                self.find(name)
        except PluginError as error:
            return error
        return None

    def _offers(self) -> dict[str, list[EntryPoint]]:
        """The entry points of each name."""
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            found.setdefault(point.name, []).append(point)
        return found

    def _enter(self, name: str, offers: list[EntryPoint]) -> None:
        point, *others = offers
        if others:
            raise self._taken(name, [point], "also " + " and ".join(map(_package, others)) + "'s")
        before = set(self.table)
        try:
            led_to = point.load()
            # a module may have entered it itself, by a decorator of ours, and others of its own with it
            entered = self._accept(name, self.table.get(name, led_to))
        # whatever the code of others does when it is imported
        except (Exception, SystemExit) as error:
            for own in self.table.keys() - before:
                del self.table[own]
            raise PluginError(
                f"{self.kind} {name}",
                found=f"{_package(point)} offers it ({point.value}), which fails with "
                f"{type(error).__name__}: {error}",
                rule=f"An entry point of {self.group} leads to {self._rule}",
                remedy=f"Update {_package(point)} or uninstall it",
            ) from error
        self.table[name] = entered
        self._packages |= dict.fromkeys(self.table.keys() - before, _package(point))

    def _taken(self, name: str, offers: list[EntryPoint], whose: str) -> PluginError:
        packages = " and ".join(map(_package, offers))
        return PluginError(
            f"{self.kind} {name}",
            found=f"{packages} offers it, a name that is {whose}",
            rule=f"A name stands for one {self.kind}",
            remedy=f"Ask the authors of {packages} for another name, or uninstall it",
        )


def _package(point: EntryPoint) -> str:
    """The distribution that an entry point is of, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "a package without a name"
