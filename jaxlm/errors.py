"""Exceptions for what a user can cause and mend."""


class UserError(Exception):
    """Bad input, a broken file or a full disk, told in lines a user can act on.

    Each message says what is wrong, where, and what to do. The command line prints them on stderr
    without a traceback and exits with `status`.
    """

    status = 1

    def __init__(self, messages: str | list[str]) -> None:
        self.messages = [messages] if isinstance(messages, str) else list(messages)
        super().__init__("\n".join(self.messages))


class UsageError(UserError):
    """What was asked for cannot be: a config with a wrong key, an option out of range."""

    status = 2
