"""Sections of `prepare.quality` that count words, or read what comes with a document."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from jaxlm.config.rules import PROSE, Kind, Rules

type Word = Annotated[str, Field(min_length=1)]
type ListName = Annotated[str, Field(min_length=1)]


class Repeats(Rules):
    """Words and sentences that stand many times in a row.

    Dolma drops a document with a sequence of up to 13 tokens a hundred times or more in a row
    (Soldaini et al. 2024, arXiv:2402.00159); here a token is a word, or a character of a script
    without spaces, and the same goes for sentences.
    """

    longest: Annotated[int, Field(ge=1, le=100)] = 13
    """A sequence has at most so many words, or sentences."""
    max_repeated_words: NonNegativeInt | None = 99
    """How often in a row one sequence of words stands, at most."""
    max_repeated_sentences: NonNegativeInt | None = 99
    """How often in a row one sequence of sentences stands, at most."""


class StopWords(Rules):
    """Documents without the commonest words are lists, tables or in another language (Gopher's
    rule by itself)."""

    kinds: tuple[Kind, ...] = PROSE
    """Kinds of source that are judged."""
    languages: tuple[str, ...] = ("en",)
    """Languages that are judged; empty: all."""
    words: Annotated[tuple[Word, ...], Field(min_length=1)] = (
        "the", "be", "to", "of", "and", "that", "have", "with",
    )  # fmt: skip
    """The words, whatever their case."""
    min_stop_words: NonNegativeInt | None = 1
    """How many of them occur, at least."""


class Symbols(Rules):
    """Symbols for each word (Gopher has the same limit for # and for ellipses alone)."""

    kinds: tuple[Kind, ...] = PROSE
    """Kinds of source that are judged."""
    symbols: Annotated[tuple[Word, ...], Field(min_length=1)] = ("#", "...", "…")
    """What is counted."""
    max_symbol_ratio: NonNegativeFloat | None = 0.1
    """Symbols a word, at most; a character of a script without spaces is a word."""


class Forum(Rules):
    """Posts that readers did not like (Dolma's rule for Reddit)."""

    kinds: tuple[Kind, ...] = ("forum",)
    """Kinds of source that are judged."""
    likes_field: Annotated[str, Field(min_length=1)] = "likes"
    """One of the source's meta_fields, a number; a document without it is not judged."""
    min_likes: float | None = 3
    """Likes, at least."""


class Wiki(Rules):
    """Stubs (Dolma's rule for Wikipedia)."""

    kinds: tuple[Kind, ...] = ("wiki",)
    """Kinds of source that are judged."""
    min_words: NonNegativeInt | None = 25
    """Words, at least; a character of a script without spaces is a word."""


class Lists(Rules):
    """Words and addresses that are not wanted. A list is a file with an entry a line, # for
    comments: a path, or the bare name of a file data/lists/NAME.txt. Without lists nothing fails.
    """

    words: tuple[ListName, ...] = ()
    """Lists of words and phrases. They are found as whole words, in lower case, upper case and with
    a capital; in scripts without spaces anywhere."""
    urls: tuple[ListName, ...] = ()
    """Lists of domains, which cover their subdomains, and of addresses, which cover what is below
    them."""
    url_words: tuple[ListName, ...] = ()
    """Lists of words that an address should not have."""
    url_field: Annotated[str, Field(min_length=1)] = "url"
    """The meta field with the document's address; one without it is judged by its words alone."""
    max_listed_words: NonNegativeInt | None = 0
    """Occurrences of listed words in the text, at most (C4: none)."""
    max_listed_per_word: NonNegativeFloat | None = None
    """The same for each word of the text."""
    max_listed_per_line: NonNegativeFloat | None = None
    """The same for each non-blank line (ChineseWebText: 0.5)."""
    max_listed_url: Annotated[int, Field(ge=0, le=1)] | None = 0
    """1 where the address is listed, at most."""
    max_listed_url_words: NonNegativeInt | None = 0
    """Listed words in the address, at most."""
