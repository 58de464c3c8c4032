"""The one exception for what a user can cause and mend."""


class UserError(Exception):
    """Bad input, bad config or a broken file, told in lines a user can act on.

    Each message says what is wrong, where, and what to do. The command line prints them on stderr
    without a traceback and exits with status 1.
    """

    def __init__(self, messages: str | list[str]) -> None:
        self.messages = [messages] if isinstance(messages, str) else list(messages)
        super().__init__("\n".join(self.messages))
