"""The one exception that users are meant to see."""


class UserError(ValueError):
    """A mistake that the user can mend: the message names the file or setting, the problem and the remedy."""
