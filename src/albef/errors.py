"""The exception for mistakes of the user, the warning about their results, and what unexpected errors report."""

from contextvars import ContextVar

# The file or folder that is being read. The message of an unexpected error names it.
reading: ContextVar[object] = ContextVar("reading", default="")


class UserError(ValueError):
    """A mistake that the user can correct: the message names the file or setting, the problem and the remedy."""


class Caution(UserWarning):
    """Advice about a result, as a warning. The command line prints it as a sentence."""


def printable(text: str) -> str:
    """The text on one line. New lines and other invisible characters become escapes such as \\n."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
