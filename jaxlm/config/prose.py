"""The sections of `prepare.quality` for the published rules of prose: Gopher, C4, FineWeb.

Definitions, thresholds and the order of the rules are those of datatrove 0.10.1; with
`words: spacy` the decisions are its decisions.
"""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from jaxlm.config.rules import PROSE, Kind, Rules, Share

WordKind = Literal["unicode", "spacy"]
LineRule = Literal["long_word", "no_end", "few_words", "javascript", "policy"]


class Gopher(Rules):
    """Gopher's quality rules (Rae et al. 2021, arXiv:2112.11446, appendix A.1).

    Punctuation marks are words too, but for the number of words and their length. Lines include
    empty ones.
    """

    kinds: tuple[Kind, ...] = PROSE
    """Kinds of source that are judged."""
    languages: tuple[str, ...] = ("en",)
    """Languages that are judged; empty: all."""
    words: WordKind = "unicode"
    """What a word is: unicode (fast; a character of a script without spaces is one), or spacy
    (exactly the tokens of spaCy's English tokenizer; needs jaxlm[spacy])."""
    stop_words: tuple[Annotated[str, Field(min_length=1)], ...] = (
        "the", "be", "to", "of", "and", "that", "have", "with",
    )  # fmt: skip
    """The words that min_stop_words counts, in just this case."""
    min_words: NonNegativeInt | None = 50
    """Words other than punctuation marks, at least."""
    max_words: NonNegativeInt | None = 100_000
    """Words other than punctuation marks, at most."""
    min_mean_word_length: NonNegativeFloat | None = 3.0
    """Mean characters of these words, at least."""
    max_mean_word_length: NonNegativeFloat | None = 10.0
    """Mean characters of these words, at most."""
    max_hash_ratio: NonNegativeFloat | None = 0.1
    """Characters # a word, at most."""
    max_ellipsis_ratio: NonNegativeFloat | None = 0.1
    """Ellipses (... or …) a word, at most."""
    max_bullet_lines: Share | None = 0.9
    """Share of lines that begin with a bullet (• or -), at most."""
    max_ellipsis_lines: Share | None = 0.3
    """Share of lines that end in an ellipsis, at most."""
    min_alphabetic_words: Share | None = 0.8
    """Share of words, punctuation marks included, with at least one letter, at least."""
    min_stop_words: NonNegativeInt | None = 2
    """How many of stop_words occur, at least."""
    max_symbol_ratio: NonNegativeFloat | None = None
    """Signs # or ellipses a word, the more frequent of the two, at most: Gopher's own wording of
    what max_hash_ratio and max_ellipsis_ratio say apart."""


class Repetition(Rules):
    """Gopher's repetition rules (the same paper, table A1).

    Characters are relative to all of the document. A piece counts as a duplicate where it was there
    before.
    """

    kinds: tuple[Kind, ...] = PROSE
    """Kinds of source that are judged."""
    words: WordKind = "unicode"
    """What a word is, as for gopher; punctuation marks are words."""
    min_characters: NonNegativeInt | None = 1
    """Characters, at least."""
    max_duplicate_paragraphs: Share | None = 0.30
    """Share of paragraphs (blank lines separate them) that are duplicates, at most."""
    max_duplicate_paragraph_characters: Share | None = 0.20
    """Share of characters in such paragraphs, at most."""
    max_duplicate_lines: Share | None = 0.30
    """Share of lines that are duplicates, at most."""
    max_duplicate_line_characters: Share | None = 0.20
    """Share of characters in such lines, at most."""
    max_top_2gram: NonNegativeFloat | None = 0.20
    """Characters in all copies of the most frequent pair of words, at most."""
    max_top_3gram: NonNegativeFloat | None = 0.18
    """The same for three words."""
    max_top_4gram: NonNegativeFloat | None = 0.16
    """The same for four words."""
    max_duplicate_5grams: Share | None = 0.15
    """Share of characters in runs of five words that are duplicates, at most."""
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


class C4(Rules):
    """C4's rules (Raffel et al. 2020, arXiv:1910.10683, section 2.2): rewrites texts.

    Lines that fail `cut` go, those that stay lose the white space around them; what is below looks
    at the lines that stay.
    """

    kinds: tuple[Kind, ...] = PROSE
    """Kinds of source that are judged."""
    languages: tuple[str, ...] = ("en",)
    """Languages that are judged; empty: all."""
    words: WordKind = "unicode"
    """What a word is where sentences are counted, as for gopher."""
    citations: bool = False
    """Whether [1], [edit] and [citation needed] stay in the text."""
    cut: tuple[LineRule, ...] = ("long_word", "no_end", "few_words", "javascript", "policy")
    """Which lines go: with a long word; without . ? ! " ' at their end, or with ... there; with few
    words; that say javascript; that say terms of use, privacy policy, cookie policy, uses cookies,
    use of cookies or use cookies."""
    long_word: PositiveInt = 1000
    """Characters between white space of a word that is not yet too long."""
    few_words: PositiveInt = 3
    """Words between white space that are no longer too few."""
    max_lorem_ipsum: NonNegativeInt | None = 0
    """Lines that say lorem ipsum, at most."""
    max_curly_brackets: NonNegativeInt | None = 0
    """Lines with a {, at most."""
    min_sentences: NonNegativeInt | None = 5
    """Sentences, at least."""


class FineWeb(Rules):
    """FineWeb's rules (Penedo et al. 2024, arXiv:2406.17557, section 3.6).

    Lines are those that are not blank, with the white space around them.
    """

    kinds: tuple[Kind, ...] = PROSE
    """Kinds of source that are judged."""
    words: WordKind = "unicode"
    """What a word is, as for gopher; punctuation marks are words."""
    short_line: PositiveInt = 30
    """A line of at most so many characters is short."""
    min_lines: NonNegativeInt | None = 1
    """Lines, at least."""
    min_ended_lines: Share | None = 0.12
    """Share of lines that end in terminal punctuation (of any script; no quotation marks), at
    least."""
    max_short_lines: Share | None = 0.67
    """Share of short lines, at most."""
    max_duplicate_characters: Share | None = 0.01
    """Share of characters, newlines aside, in lines that were there before, at most."""
    max_newline_ratio: NonNegativeFloat | None = 0.3
    """Newlines a word, at most."""
