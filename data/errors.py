"""Errors that a user can act on."""


class UserError(Exception):
    """What went wrong, told so that the reader knows what to do next.

    Every message has four parts, in this order: `where` (the file, key or option), `found` (the value
    met there), `rule` (what is allowed) and `remedy` (what to do).
    """

    def __init__(self, where: object, *, found: str, rule: str, remedy: str) -> None:
        self.where, self.found, self.rule, self.remedy = str(where), found, rule, remedy
        super().__init__(sentences(where, found, rule, remedy))

    def __reduce__(self) -> tuple[object, ...]:
        """Lets the error cross a process boundary whole (exceptions with keywords otherwise do not)."""
        return _rebuild, (type(self), self.where, self.found, self.rule, self.remedy), self.__dict__


def sentences(where: object, found: str, rule: str, remedy: str) -> str:
    """The four parts as a text: "file: found. Rule. Remedy."."""
    return f"{where}: {found}. {rule[:1].upper()}{rule[1:]}. {remedy[:1].upper()}{remedy[1:]}."


def _rebuild(kind: type[UserError], where: str, found: str, rule: str, remedy: str) -> UserError:
    return kind(where, found=found, rule=rule, remedy=remedy)


class VolumeError(UserError):
    """A file is not a volume that can be read whole and right."""


class DatasetError(UserError):
    """A data set that cannot be found or told apart."""
