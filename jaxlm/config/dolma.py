"""The sections `prepare.quality.dolma_gopher` and `dolma_c4`: other people's exact decisions."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from jaxlm.config.rules import PROSE, Kind, Rules, Share


class DolmaGopher(Rules):
    """Gopher's rules as Dolma 1.2.1 computes them (tagger gopher_v1), with the thresholds of the
    configuration of its release 1.6 for Common Crawl.

    Words are separated by white space and include punctuation; lines include blank ones, so a text
    with blank lines between its paragraphs has many duplicate lines. The thresholds of top_2gram to
    top_4gram are published (0.20, 0.18, 0.16) but were never applied, because the configuration
    misspells the attributes; null keeps to what was done.
    """

    kinds: tuple[Kind, ...] = PROSE
    """Kinds of source that are judged."""
    languages: tuple[str, ...] = ("en",)
    """Languages that are judged; empty: all."""
    min_words: NonNegativeInt | None = 50
    """Words, at least."""
    max_words: NonNegativeInt | None = 100_000
    """Words, at most."""
    min_median_word_length: NonNegativeFloat | None = 3.0
    """Median characters a word, at least."""
    max_median_word_length: NonNegativeFloat | None = 10.0
    """Median characters a word, at most."""
    max_symbol_ratio: Share | None = 0.1
    """Share of words that contain # or …, at most."""
    min_alphabetic_words: Share | None = 0.8
    """Share of words with a letter, at least."""
    min_required_words: NonNegativeInt | None = 2
    """How often the, be, to, of, and, that, have, with occur, in lower case, at least."""
    max_bullet_lines: Share | None = 0.9
    """Share of lines that begin with * or -, at most."""
    max_ellipsis_lines: Share | None = 0.3
    """Share of lines that end in …, at most."""
    max_duplicate_lines: Share | None = 0.3
    """Share of lines that occur more than once, all copies counted, at most."""
    max_duplicate_line_characters: NonNegativeFloat | None = 0.3
    """Characters in such lines, relative to the characters in words, at most."""
    max_top_2gram: NonNegativeFloat | None = None
    """Characters in all copies of the most frequent pair of words, relative to those in words, at
    most."""
    max_top_3gram: NonNegativeFloat | None = None
    """The same for three words."""
    max_top_4gram: NonNegativeFloat | None = None
    """The same for four words."""
    max_duplicate_5grams: Share | None = 0.15
    """Share of the characters of all runs of five words that are in runs that occur more than once,
    at most."""
    max_duplicate_6grams: Share | None = 0.14
    """The same for six words."""
    max_duplicate_7grams: Share | None = 0.13
    """The same for seven words."""
    max_duplicate_8grams: Share | None = 0.12
    """The same for eight words."""
    max_duplicate_9grams: Share | None = 0.11
    """The same for nine words."""
    max_duplicate_10grams: Share | None = 0.10
    """The same for ten words."""


class DolmaC4(Rules):
    """C4's rules as Dolma 1.2.1 computes them (taggers c4_v2 and c4_v1), with the thresholds of its
    configuration that makes C4 again.

    Cuts lines that do not end in . ? ! or " and lines with fewer than three words; the rules below
    are about the text before. Dolma has no rule for the number of sentences that are left.
    """

    kinds: tuple[Kind, ...] = PROSE
    """Kinds of source that are judged."""
    languages: tuple[str, ...] = ("en",)
    """Languages that are judged; empty: all."""
    max_curly_brace: NonNegativeInt | None = 0
    """1 where the text has a {, at most."""
    max_lorem_ipsum: NonNegativeInt | None = 0
    """1 where it says lorem ipsum, at most."""
    max_javascript: NonNegativeInt | None = 0
    """1 where it says javascript, also inside a word, at most."""
    max_javascript_words: NonNegativeInt | None = None
    """1 where javascript is a word (as c4_v1 has it), at most."""
    max_naughty_word: NonNegativeInt | None = 0
    """1 where it has one of naughty_words, at most."""
    naughty_words: str | None = Field(default="naughty-en", min_length=1)
    """A list, as in quality.lists, in lower case; null: none."""
