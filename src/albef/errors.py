"""The one exception that users are meant to see, and what is noted for those that nobody foresaw."""

from contextvars import ContextVar

# The file or folder that is being read: named when something fails that should not.
reading: ContextVar[object] = ContextVar("reading", default="")


class UserError(ValueError):
    """A mistake that the user can mend: the message names the file or setting, the problem and the remedy."""


def printable(text: str) -> str:
    """The text on one line, with what can't be seen (new lines, control characters of a terminal) as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
