"""The sections `prepare.unicode` and `prepare.language`."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from jaxlm.config.rules import Rules, Share


class Unicode(Rules):
    """Mends what is the same text written in another way: NFC, \\n as the only end of a line, no
    control characters."""

    mojibake: bool = True
    """Mend UTF-8 that was read as another encoding ("schÃ¶n"), by ftfy, in lines that look so."""
    invisible: bool = False
    """Drop soft hyphens, zero-width spaces and marks of direction (not the joiners that Persian,
    Indic scripts and emoji need)."""


class Language(Rules):
    """Finds out the language of each document: CLD2 for all, py3langid for those it is not sure of.

    Later stages go by the language found. Where both are unsure, the source's language stays.
    """

    keep: tuple[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], ...] = ()
    """ISO 639 codes of the languages that are wanted; empty: all."""
    max_unwanted: Annotated[int, Field(ge=0, le=1)] | None = 0
    """1 where the language is not one of keep, at most."""
    min_score: Share | None = None
    """How sure the model that decided is, at least: the share of the text that CLD2 takes for the
    language, or py3langid's probability."""
    min_share: Share | None = None
    """Share of the text that CLD2 takes for the language, at least."""
    doubtful_bytes: NonNegativeInt = 200
    """A shorter text goes to py3langid too."""
    doubtful_share: Share = 0.7
    """So does one of which CLD2 takes less for one language, or is not sure."""
    second_bytes: PositiveInt = 4096
    """So much of the beginning of a text goes to py3langid."""
    second_score: Share = 0.5
    """Below this probability py3langid is not heard."""
