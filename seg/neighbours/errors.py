"""The error of a file that weights cannot be taken from."""

from ...data.errors import UserError


class SourceError(UserError):
    """A file or folder that holds no weights for a network of this program, or none that can be trusted."""
