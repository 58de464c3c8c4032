"""The section `prepare.quality`: rule sets that judge a document by its own text."""

from pydantic import NonNegativeFloat, NonNegativeInt

from jaxlm.config.base import Section
from jaxlm.config.chinese import Chinese
from jaxlm.config.code import Code
from jaxlm.config.dolma import DolmaC4, DolmaGopher
from jaxlm.config.rules import PROSE, Kind, Rules, Share
from jaxlm.config.words import Forum, Lists, Repeats, StopWords, Symbols, Wiki


class Length(Rules):
    """Size of a document."""

    min_bytes: NonNegativeInt | None = 50
    """UTF-8 bytes, at least."""
    max_bytes: NonNegativeInt | None = None
    """UTF-8 bytes, at most."""


class Gopher(Rules):
    """Gopher's quality rules (Rae et al. 2021, arXiv:2112.11446, appendix A.1).

    Words are separated by white space.
    """

    kinds: tuple[Kind, ...] = PROSE
    """Kinds of source that are judged."""
    languages: tuple[str, ...] = ("en",)
    """Languages that are judged; empty: all."""
    min_words: NonNegativeInt | None = 50
    """Words, at least."""
    max_words: NonNegativeInt | None = 100_000
    """Words, at most."""
    min_mean_word_length: NonNegativeFloat | None = 3.0
    """Mean characters a word, at least."""
    max_mean_word_length: NonNegativeFloat | None = 10.0
    """Mean characters a word, at most."""
    max_hash_ratio: NonNegativeFloat | None = 0.1
    """Characters # a word, at most."""
    max_ellipsis_ratio: NonNegativeFloat | None = 0.1
    """Ellipses (... or …) a word, at most."""
    max_bullet_lines: Share | None = 0.9
    """Share of non-blank lines that begin with a bullet (• - *), at most."""
    max_ellipsis_lines: Share | None = 0.3
    """Share of non-blank lines that end in an ellipsis, at most."""
    min_alphabetic_words: Share | None = 0.8
    """Share of words with at least one letter, at least."""
    min_stop_words: NonNegativeInt | None = 2
    """How many of the, be, to, of, and, that, have, with occur, at least."""


class Repetition(Rules):
    """Gopher's repetition rules for whole lines and paragraphs (the same paper, table A1)."""

    kinds: tuple[Kind, ...] = PROSE
    """Kinds of source that are judged."""
    max_duplicate_lines: Share | None = 0.30
    """Share of non-blank lines that occurred before in the document, at most."""
    max_duplicate_line_bytes: Share | None = 0.20
    """Share of the bytes of non-blank lines that are in such lines, at most."""
    max_duplicate_paragraphs: Share | None = 0.30
    """Share of paragraphs that occurred before in the document, at most."""
    max_duplicate_paragraph_bytes: Share | None = 0.20
    """Share of the bytes of paragraphs that are in such paragraphs, at most."""


class Quality(Section):
    """Rule sets that judge a document by its own text."""

    length: Length = Length()
    """Size of a document."""
    gopher: Gopher = Gopher()
    """Words, symbols and lines of prose."""
    repetition: Repetition = Repetition()
    """Lines and paragraphs that occur more than once in a document."""
    code: Code = Code()
    """Source files."""
    dolma_gopher: DolmaGopher = DolmaGopher()
    """Gopher's rules as Dolma computes them."""
    dolma_c4: DolmaC4 = DolmaC4()
    """C4's rules as Dolma computes them."""
    chinese: Chinese = Chinese()
    """Text of scripts that put no space between words."""
    repeats: Repeats = Repeats()
    """Words and sentences that stand many times in a row."""
    stop_words: StopWords = StopWords()
    """Documents without the commonest words."""
    symbols: Symbols = Symbols()
    """Symbols for each word."""
    forum: Forum = Forum()
    """Posts that readers did not like."""
    wiki: Wiki = Wiki()
    """Stubs of an encyclopedia."""
    lists: Lists = Lists()
    """Words and addresses that are not wanted."""
