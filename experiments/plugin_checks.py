"""The contract that ours keep to, tried on whatever has a name: a method, a network or an augmentation."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..data.augment import chain, operation_checks
from ..data.errors import UserError
from ..data.plugins import Plugins
from ..seg.networks import network_checks
from ..seg.networks import registry as networks
from ..ssl import method as methods
from ..ssl import method_checks


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A check of a `kind` of thing: what was wrong in each situation where something was, and a note."""

    kind: str
    check: str
    faults: dict[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing was wrong."""
        return not self.faults


def check_plugin(name: str) -> tuple[Checked, ...]:
    """Every check of everything that has this name; raises UserError where nothing has."""
    found = [(plugins, rows) for plugins, rows in _KINDS if plugins.has(name)]
    if not found:
        told = "; ".join(f"{plugins.kind}s: {', '.join(plugins.names())}" for plugins, _ in _KINDS)
        raise UserError(
            f"check-plugin {name}",
            found="no method, network or augmentation of that name",
            rule=f"There are {told}",
            remedy="Choose one of them, or install the package that offers it",
        )
    return tuple(row for plugins, rows in found for row in _rows(plugins, rows, name))


Rows = Callable[[str], Iterator[Checked]]


def _rows(plugins: Plugins[Any], rows: Rows, name: str) -> Iterator[Checked]:
    problem = plugins.problem(name)
    if problem is not None:
        yield Checked(kind=plugins.kind, check="can be used", faults={"": str(problem)})
        return
    plugins.find(name)
    package = plugins.package(name)
    yield Checked(
        kind=plugins.kind, check="can be used", note=f"from {package}" if package else "fewvox's own"
    )
    yield from rows(name)


def _method(name: str) -> Iterator[Checked]:
    registered, situations = methods.find_method(name), method_checks.SITUATIONS
    for check in method_checks.CHECKS:
        yield _tried("method", check, (registered,), situations.items())
    # a training takes as long as all of the others together
    yield _tried("method", method_checks.loss_falls, (registered,), [next(iter(situations.items()))])


def _network(name: str) -> Iterator[Checked]:
    followed, refused = {}, {}
    for what, situation in network_checks.SITUATIONS.items():
        try:
            situation.architecture(name)
        except UserError as error:
            refused[what] = f"refused: {error}"
        # whatever the code of others does; a check tells of it
        except Exception:  # noqa: BLE001
            followed[what] = situation
        else:
            followed[what] = situation
    note = "; ".join(f"{what}: {why}" for what, why in refused.items())
    yield Checked(kind="network", check="follows a plan", faults={} if followed else refused, note=note)
    for check in network_checks.CHECKS:
        yield _tried("network", check, (name,), followed.items())


def _augmentation(name: str) -> Iterator[Checked]:
    kind: Any = chain.OPERATIONS[name]
    fault = _fault(kind)
    yield Checked(
        kind="augmentation", check="is built from its defaults", faults={"": fault} if fault else {}
    )
    if fault:
        return
    images = {what: operation_checks.image_of(shape) for what, shape in operation_checks.SHAPES.items()}
    for check in operation_checks.CHECKS:
        yield _tried("augmentation", check, (kind(),), images.items())


def _tried(
    kind: str, check: Callable[..., None], given: tuple[Any, ...], situations: Iterable[tuple[str, Any]]
) -> Checked:
    """A check in each of several situations."""
    tried = {what: _fault(check, *given, situation) for what, situation in situations}
    faults = {what: fault for what, fault in tried.items() if fault is not None}
    return Checked(kind=kind, check=check.__name__.replace("_", " "), faults=faults)


def _fault(check: Callable[..., object], *given: Any) -> str | None:
    """What is wrong; None where nothing is."""
    try:
        check(*given)
    except AssertionError as error:
        return str(error) or "an assertion failed"
    # whatever the code of others does
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    return None


_KINDS: tuple[tuple[Plugins[Any], Rows], ...] = (
    (methods.PLUGINS, _method),
    (networks.PLUGINS, _network),
    (chain.PLUGINS, _augmentation),
)
