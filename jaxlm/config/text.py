"""The sections `prepare.unicode` and `prepare.language`."""

from jaxlm.config.rules import Rules


class Unicode(Rules):
    """Mends what is the same text written in another way."""
