"""The one error that keyassay raises on purpose: wrong use, told with what to do next.

Bad certificates never raise: they are values (see ``certificates.item.Unreadable``). The command line turns
this error into exit code 2; its text is one sentence, its hint says what to do.
"""


class KeyassayError(Exception):
    """Wrong use or an environment that cannot work.

    Args:
        message: one sentence without a full stop.
        hint: what the user can do about it, or the empty string.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep message and hint apart, so that each interface can lay them out."""
        super().__init__(message)
        self.message = message
        self.hint = hint
