"""The section `prepare.quality`: rule sets that judge a document by its own text."""

from pydantic import NonNegativeInt

from jaxlm.config.base import Section
from jaxlm.config.chinese import Chinese
from jaxlm.config.classifiers import Perplexity
from jaxlm.config.code import Code
from jaxlm.config.dolma import DolmaC4, DolmaGopher
from jaxlm.config.prose import C4, FineWeb, Gopher, Repetition
from jaxlm.config.rules import Rules
from jaxlm.config.words import Forum, Lists, Repeats, StopWords, Symbols, Wiki


class Length(Rules):
    """Size of a document."""

    min_bytes: NonNegativeInt | None = 50
    """UTF-8 bytes, at least."""
    max_bytes: NonNegativeInt | None = None
    """UTF-8 bytes, at most."""


class Quality(Section):
    """Rule sets that judge a document by its own text."""

    length: Length = Length()
    """Size of a document."""
    gopher: Gopher = Gopher()
    """Words, symbols and lines of prose."""
    repetition: Repetition = Repetition()
    """Lines, paragraphs and runs of words that occur more than once in a document."""
    c4: C4 = C4()
    """Lines that are no sentences, and documents with few of them."""
    fineweb: FineWeb = FineWeb()
    """Lines of web pages that are no prose."""
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
    perplexity: Perplexity = Perplexity()
    """Perplexity under a small language model."""
