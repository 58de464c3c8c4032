"""Taggers: attributes of documents that the rule sets of prepare.quality bound."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.rules import Rules
from jaxlm.corpus import statistics as st
from jaxlm.corpus.stages.base import Tags
from jaxlm.corpus.statistics import Analysis, Ints, Mask

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")

# Bytes that begin a letter or are one: ASCII letters and the first bytes of characters from
# U+00C0 on, without U+2000-2FFF (punctuation, symbols) and U+F000 up (emoji, private use).
_LETTER = np.zeros(256, np.bool_)
_LETTER[[*range(0x41, 0x5B), *range(0x61, 0x7B), *range(0xC3, 0xE2), *range(0xE3, 0xEF)]] = True


def length(texts: Analysis, rules: Rules) -> Tags:
    """Size: bytes."""
    return {"bytes": texts.texts.lengths.astype(np.float64)}


def gopher(texts: Analysis, rules: Rules) -> Tags:
    """Attributes of Gopher's quality rules; a ratio in an empty document is 0."""
    buffer, offsets = texts.texts.buffer, texts.texts.offsets
    words, lines = texts.words, texts.lines
    number = words.counts
    visible = st.count(st.characters(buffer) & ~texts.space, offsets)
    dots = _ellipses(buffer, offsets)
    first = _at(buffer, lines.starts)
    bullets = (first == ord("*")) | (first == ord("-")) | _bullet(buffer, lines.starts)
    has_letter = st.sums(_LETTER[buffer], np.stack([words.starts, words.ends], 1).ravel())[::2] > 0
    return {
        "words": number.astype(np.float64),
        "mean_word_length": _ratio(visible, number),
        "hash_ratio": _ratio(st.count(buffer == ord("#"), offsets), number),
        "ellipsis_ratio": _ratio(np.diff(np.searchsorted(dots, offsets)), number),
        "bullet_lines": _ratio(st.sums(bullets, lines.first), lines.counts),
        "ellipsis_lines": _ratio(
            st.sums(_ends_in_ellipsis(buffer, lines), lines.first), lines.counts
        ),
        "alphabetic_words": _ratio(st.sums(has_letter, words.first), number),
        "stop_words": _stop_words(texts),
    }


def repetition(texts: Analysis, rules: Rules) -> Tags:
    """Shares of lines and paragraphs that came before in the same document."""
    out: Tags = {}
    for name, spans in (("line", texts.lines), ("paragraph", texts.paragraphs)):
        again = st.repeats(st.span_hashes(texts.texts.buffer, spans), spans.documents)
        sizes = spans.ends - spans.starts
        out[f"duplicate_{name}s"] = _ratio(st.sums(again, spans.first), spans.counts)
        out[f"duplicate_{name}_bytes"] = _ratio(
            st.sums(again * sizes, spans.first), st.sums(sizes, spans.first)
        )
    return out


TAGGERS: dict[str, Callable[[Analysis, Rules], Tags]] = {
    "quality.length": length,
    "quality.gopher": gopher,
    "quality.repetition": repetition,
}


def _ratio(part: Ints, whole: Ints) -> NDArray[np.float64]:
    return np.divide(part, np.maximum(whole, 1), dtype=np.float64)


def _at(buffer: NDArray[np.uint8], index: Ints) -> NDArray[np.uint8]:
    """buffer[index], 0 before the beginning and beyond the end."""
    if not len(buffer):
        return np.zeros(len(index), np.uint8)
    inside = (index >= 0) & (index < len(buffer))
    return np.where(inside, buffer[np.where(inside, index, 0)], 0)


def _follows(buffer: NDArray[np.uint8], index: Ints, *values: int) -> Mask:
    """True where the bytes from index on are these. Bytes of one character never lie in two
    documents, but those of three dots may: the callers see to it."""
    out = np.ones(len(index), np.bool_)
    for distance, value in enumerate(values):
        out &= _at(buffer, index + distance) == value
    return out


def _bullet(buffer: NDArray[np.uint8], index: Ints) -> Mask:
    return _follows(buffer, index, 0xE2, 0x80, 0xA2)  # •


def _ellipses(buffer: NDArray[np.uint8], offsets: Ints) -> Ints:
    """Positions of … and of the first dot of each whole three dots in a document's run of them."""
    single = np.flatnonzero(buffer == 0xE2)
    single = single[_follows(buffer, single, 0xE2, 0x80, 0xA6)]
    dot = np.flatnonzero(buffer == ord("."))
    if not len(dot):
        return single
    opens = np.ones(len(dot), np.bool_)
    opens[1:] = (np.diff(dot) != 1) | np.isin(dot[1:], offsets)
    run = np.cumsum(opens) - 1
    place = np.arange(len(dot)) - np.flatnonzero(opens)[run]
    size = np.bincount(run)[run]
    triple = dot[(place % 3 == 0) & (place + 3 <= size)]
    return np.sort(np.concatenate([single, triple]))


def _ends_in_ellipsis(buffer: NDArray[np.uint8], lines: st.Spans) -> Mask:
    size = lines.ends - lines.starts
    start = lines.ends - 3
    return (size >= 3) & (
        _follows(buffer, start, 0x2E, 0x2E, 0x2E) | _follows(buffer, start, 0xE2, 0x80, 0xA6)
    )


def _stop_words(texts: Analysis) -> NDArray[np.float64]:
    """How many different stop words a document has, whatever their case."""
    buffer, words = texts.texts.buffer, texts.words
    size = words.ends - words.starts
    short = np.flatnonzero(size <= 4)
    starts, size = words.starts[short], size[short]
    packed = np.zeros(len(short), np.uint32)
    for distance in range(4):
        byte = np.where(distance < size, _at(buffer, starts + distance) | 0x20, 0)
        packed |= byte.astype(np.uint32) << np.uint32(8 * distance)
    found = np.zeros(len(texts.texts), np.float64)
    for word in STOP_WORDS:
        here = short[packed == int.from_bytes(word.encode(), "little")]
        found += np.diff(np.searchsorted(here, words.first)) > 0
    return found
