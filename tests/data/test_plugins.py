"""What installed packages offer joins a table when its name is asked for; a broken one hinders no other."""

import sys
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path

import pytest
from fewvox.data import plugins
from fewvox.data.augment.chain import PLUGINS as OPERATIONS
from fewvox.data.augment.chain import AugmentConfig, changed
from fewvox.data.errors import UserError
from fewvox.data.plugins import PluginError, Plugins
from fewvox.data.settings import SettingsError, parse, plain
from torch import Tensor, ones


class Package(Distribution):
    """A distribution that is nowhere but here."""

    def __init__(self, name: str) -> None:
        self.called = name

    def read_text(self, filename):
        return f"Metadata-Version: 2.1\nName: {self.called}\nVersion: 1.2\n"

    def locate_file(self, path):
        return Path(path)


def point(name: str, value: str, package: str = "theirs", group: str = "fewvox.things") -> EntryPoint:
    found = EntryPoint(name, value, group)
    # as importlib.metadata does it
    vars(found)["dist"] = Package(package)
    return found


@pytest.fixture
def offered(monkeypatch):
    """Lets the entry points be these; gives the names of those that were loaded."""
    loaded = []

    def offer(*points: EntryPoint) -> list[str]:
        monkeypatch.setattr(plugins, "entry_points", lambda group: [p for p in points if p.group == group])
        load = EntryPoint.load
        monkeypatch.setattr(EntryPoint, "load", lambda self: (loaded.append(self.name), load(self))[1])
        return loaded

    return offer


def number(name: str, offered: object) -> float:
    if not isinstance(offered, float):
        raise TypeError(f"it is {type(offered).__name__}")
    return offered


@pytest.fixture
def things() -> Plugins[float]:
    """A table of numbers."""
    return Plugins("thing", {"ours": 1.0}, number, "a number")


def test_ours_are_found_without_a_look_at_packages(things, monkeypatch):
    monkeypatch.setattr(plugins, "entry_points", None)
    assert things.find("ours") == 1
    assert things.has("ours")
    assert things.package("ours") is None


def test_what_a_package_offers_is_loaded_when_its_name_is_asked_for(things, offered):
    loaded = offered(point("pi", "math:pi"), point("e", "math:e"), point("tau", "math:tau", group="other"))
    assert things.names() == ["e", "ours", "pi"]
    assert things.has("pi")
    assert not things.has("tau")
    assert loaded == []
    assert things.find("pi") == pytest.approx(3.14159, abs=1e-5)
    assert loaded == ["pi"]
    assert things.package("pi") == "theirs 1.2"
    things.find("pi")
    assert loaded == ["pi"]
    assert list(things.table) == ["ours", "pi"]


def test_an_unknown_name_is_answered_with_all_names(things, offered):
    offered(point("pi", "math:pi"))
    with pytest.raises(UserError, match=r"thing e: no such thing. There are: ours, pi"):
        things.find("e")
    with pytest.raises(ValueError, match=r"no such thing; there are: ours, pi"):
        things.known("e")
    assert things.known("pi") == "pi"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("math:nosuch", "AttributeError"),
        ("no_such_module:thing", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("math:floor", "TypeError: it is builtin_function_or_method"),
        ("leaves:thing", "SystemExit: 3"),
    ],
)
def test_a_broken_one_is_told_with_its_package_and_hinders_no_other(
    things, offered, tmp_path, monkeypatch, value, found
):
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    offered(point("broken", value), point("pi", "math:pi", "others"))
    with pytest.raises(PluginError, match=found) as told:
        things.find("broken")
    assert "thing broken: theirs 1.2 offers it" in str(told.value)
    assert "An entry point of fewvox.things leads to a number" in str(told.value)
    (problem,) = things.load_all()
    assert found.split(":")[0] in str(problem)
    assert sorted(things.table) == ["ours", "pi"]


def test_a_module_may_enter_itself_when_it_is_imported(things, offered, tmp_path, monkeypatch):
    """As one does that uses our decorators; its entry points then lead to what it decorated."""
    (tmp_path / "enters.py").write_text(
        "import shared_table\nshared_table.table |= {'two': 2.0, 'three': 3.0}\nTwo = Three = object"
    )
    (tmp_path / "enters_and_fails.py").write_text(
        "import shared_table\nshared_table.table['bad'] = 3.0\n1 / 0"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "shared_table", things)
    offered(
        point("two", "enters:Two"),
        point("three", "enters:Three"),
        point("bad", "enters_and_fails:Bad", "others"),
    )
    assert things.find("two") == 2
    for name in ("two", "three"):
        assert things.package(name) == "theirs 1.2"
        assert things.problem(name) is None
    assert things.find("three") == 3
    for _ in range(2):
        with pytest.raises(PluginError, match=r"others 1\.2 offers it"):
            things.find("bad")
    assert "bad" not in things.table


def test_a_name_of_ours_stays_ours(things, offered):
    loaded = offered(point("ours", "math:pi"))
    assert things.find("ours") == 1
    (problem,) = things.load_all()
    assert "thing ours: theirs 1.2 offers it, a name that is fewvox's own" in str(problem)
    assert (things.table, loaded) == ({"ours": 1.0}, [])


def test_a_name_that_two_packages_offer_is_nobodys(things, offered):
    loaded = offered(point("pi", "math:pi"), point("pi", "math:e", "others"), point("e", "math:e"))
    with pytest.raises(PluginError, match=r"theirs 1.2 offers it, a name that is also others 1.2's"):
        things.find("pi")
    assert len(things.load_all()) == 1
    assert loaded == ["e"]


def test_what_was_loaded_is_no_name_that_is_taken(things, offered):
    offered(point("pi", "math:pi"))
    things.find("pi")
    assert things.load_all() == []
    assert things.problem("pi") is None
    assert things.problem("nosuch") is None


PLANTED = """
from typing import Literal

from fewvox.data.settings import Probability, settings


@settings
class Halving:
    op: Literal["halving"] = "halving"
    probability: Probability = 1.0
    by: float = 2.0

    def __call__(self, image, draws):
        return image.div_(self.by)


@settings
class Misnamed(Halving):
    op: Literal["another"] = "another"
"""


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """An installed package with two operations, of which one has another name than its entry point."""
    (tmp_path / "planted_operations.py").write_text(PLANTED)
    info = tmp_path / "planted-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text(
        "[fewvox.augmentations]\n"
        "halving = planted_operations:Halving\n"
        "misnamed = planted_operations:Misnamed\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    OPERATIONS.table.pop("halving", None)
    OPERATIONS._packages.pop("halving", None)
    sys.modules.pop("planted_operations", None)


def test_an_operation_of_an_installed_package_stands_in_a_chain(planted):
    assert "planted_operations" not in sys.modules
    config = parse(AugmentConfig, {"chain": {"mine": {"op": "halving", "by": 4}}}, "a file")
    # written and read as any other, without a warning
    assert plain(config)["chain"]["mine"] == {"op": "halving", "probability": 1, "by": 4}
    assert parse(AugmentConfig, plain(config), "a file") == config
    image: Tensor = changed(ones(1, 2, 2, 2), config.chain, seed=0)
    assert image.unique().tolist() == [0.25]


def test_its_mistakes_are_told_as_those_of_ours(planted):
    with pytest.raises(SettingsError, match=r"'chain\.mine\.by' is 'x'"):
        parse(AugmentConfig, {"chain": {"mine": {"op": "halving", "by": "x"}}}, "a file")
    with pytest.raises(
        SettingsError, match=r"'chain.mine' is .*planted 0.3 offers it .* is 'another', not 'misnam"
    ):
        parse(AugmentConfig, {"chain": {"mine": {"op": "misnamed"}}}, "a file")


def test_nothing_of_it_is_loaded_for_another_name(planted):
    with pytest.raises(SettingsError, match=r"one of: .*curve, cutout, gamma, halving, in_painting"):
        parse(AugmentConfig, {"chain": {"mine": {"op": "nosuch"}}}, "a file")
    assert "planted_operations" not in sys.modules
