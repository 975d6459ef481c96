"""The one exception that users are meant to see, and what is noted for those that nobody foresaw."""

from contextvars import ContextVar

# The file or folder that is being read: named when something fails that should not.
reading: ContextVar[object] = ContextVar("reading", default="")


class UserError(ValueError):
    """A mistake that the user can mend: the message names the file or setting, the problem and the remedy."""
