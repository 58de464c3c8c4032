"""Words, lines and hashes of a batch of texts as NumPy passes over its bytes.

A word is a maximal run of characters that are not white space, as in Python's str.split(). Every
function takes a valid UTF-8 `Strings` and treats each string by itself. N bytes, D documents,
W words, L lines.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.prose import WordKind
from jaxlm.corpus.documents import Documents, Strings
from jaxlm.corpus.words import Words, count_characters, in_memory, split_words, trim

type Ints = NDArray[np.int64]
type Mask = NDArray[np.bool_]
type Hashes = NDArray[np.uint64]

_ASCII_SPACE = np.zeros(256, np.bool_)
_ASCII_SPACE[[9, 10, 11, 12, 13, 28, 29, 30, 31, 32]] = True
# First bytes of the characters outside ASCII that str.isspace() calls white space, with the
# second and third bytes that complete one (U+0085 U+00A0 U+1680 U+2000-200A U+2028-2029 U+202F
# U+205F U+3000).
_WIDE_SPACE = {
    0xC2: ((0x85,), (0xA0,)),
    0xE1: ((0x9A, 0x80),),
    0xE2: (
        *((0x80, last) for last in (*range(0x80, 0x8B), 0xA8, 0xA9, 0xAF)),
        (0x81, 0x9F),
    ),
    0xE3: ((0x80, 0x80),),
}
_POWER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2^64
_POWER_INVERSE = np.uint64(pow(int(_POWER), -1, 1 << 64))


@dataclass(frozen=True)
class Spans:
    """Pieces of the texts: bytes starts[i]:ends[i]; those of document d are first[d]:first[d+1]."""

    starts: Ints
    ends: Ints
    first: Ints

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def counts(self) -> Ints:
        """Spans a document, int64 [D]."""
        return np.diff(self.first)

    @property
    def documents(self) -> Ints:
        """The document of each span, int64 [spans]."""
        return np.repeat(np.arange(len(self.first) - 1), self.counts)


def spaces(texts: Strings) -> Mask:
    """True at every byte of a white-space character, bool [N]."""
    buffer = texts.buffer
    mask = _ASCII_SPACE[buffer]
    for lead, endings in _WIDE_SPACE.items():
        at = np.flatnonzero(buffer == lead)
        for ending in endings:
            found = at
            for distance, byte in enumerate(ending, start=1):
                found = found[buffer[found + distance] == byte]
            for distance in range(len(ending) + 1):
                mask[found + distance] = True
    return mask


def runs(mask: Mask, offsets: Ints) -> Spans:
    """Maximal runs of true bytes; none crosses from one document into the next."""
    before = np.empty_like(mask)
    before[:1] = False
    before[1:] = mask[:-1]
    before[offsets[:-1][offsets[:-1] < len(mask)]] = False
    starts = np.flatnonzero(mask & ~before)
    after = np.empty_like(mask)
    after[-1:] = False
    after[:-1] = mask[1:]
    after[offsets[1:][offsets[1:] > 0] - 1] = False
    ends = np.flatnonzero(mask & ~after) + 1
    return Spans(starts, ends, np.searchsorted(starts, offsets))


def words(texts: Strings) -> Spans:
    """The words of all documents."""
    return runs(~spaces(texts), texts.offsets)


def lines(texts: Strings, words: Spans) -> Spans:
    """The lines with a word in them, from their first word to the end of their last."""
    newlines = np.flatnonzero(texts.buffer == 10)
    # the line that a word is in: newlines before it, plus one line at each new document
    line = np.searchsorted(newlines, words.starts) + words.documents
    return _groups(words, line)


def _groups(words: Spans, label: Ints) -> Spans:
    """Join neighbouring words with equal, never falling labels."""
    opens = np.ones(len(words), np.bool_)
    opens[1:] = np.diff(label) != 0
    first = np.flatnonzero(opens)
    starts = words.starts[first]
    ends = words.ends[np.append(first[1:], len(words)) - 1] if len(words) else words.ends
    return Spans(starts, ends, np.searchsorted(first, words.first))


def count(mask: Mask, offsets: Ints) -> Ints:
    """True bytes a document, int64 [D]."""
    return np.diff(np.searchsorted(np.flatnonzero(mask), offsets)).astype(np.int64)


def characters(buffer: NDArray[np.uint8]) -> Mask:
    """True at the first byte of each character, bool [N]."""
    mask: Mask = (buffer & 0xC0) != 0x80
    return mask


def sums(values: NDArray[np.generic], first: Ints) -> Ints:
    """Sum of values[first[d]:first[d + 1]] for each d, int64 [D]."""
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])
    out: Ints = total[first[1:]] - total[first[:-1]]
    return out


def maxima(values: Ints, first: Ints) -> Ints:
    """Largest of values[first[d]:first[d + 1]] for each d, 0 for an empty one, int64 [D]."""
    out = np.zeros(len(first) - 1, np.int64)
    some = np.diff(first) > 0
    if some.any():
        out[some] = np.maximum.reduceat(values, first[:-1][some])
    return out


def span_hashes(buffer: NDArray[np.uint8], spans: Spans) -> Hashes:
    """A 64-bit hash of the bytes of each span, equal for equal bytes wherever they stand.

    The polynomial sum(byte[i] * p^i) modulo 2^64 by prefix sums, divided by p^start, mixed with
    the length (splitmix64's finaliser).
    """
    n = len(buffer)
    prefix = np.zeros(n + 1, np.uint64)
    np.cumsum((buffer.astype(np.uint64) + np.uint64(1)) * _powers(_POWER, n), out=prefix[1:])
    shift = _powers(_POWER_INVERSE, n)
    value = (prefix[spans.ends] - prefix[spans.starts]) * shift[spans.starts]
    return mix(value ^ (spans.ends - spans.starts).astype(np.uint64))


def _powers(base: np.uint64, n: int) -> Hashes:
    out = np.full(n, base, np.uint64)
    out[:1] = 1
    return np.cumprod(out, dtype=np.uint64)


def mix(value: Hashes) -> Hashes:
    """splitmix64's finaliser: every bit of the result depends on every bit of the input."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def repeats(hashes: Hashes, documents: Ints) -> Mask:
    """True where the same hash came earlier in the same document, bool [spans]."""
    again = np.ones(len(hashes), np.bool_)
    order = np.lexsort((hashes, documents))  # stable: equal ones stay in text order
    new = np.ones(len(hashes), np.bool_)
    new[1:] = (np.diff(hashes[order]) != 0) | (np.diff(documents[order]) != 0)
    again[order[new]] = False
    return again


class Analysis:
    """What several rule sets need of the same texts, computed once and when first asked for."""

    def __init__(self, documents: Documents) -> None:
        self.documents = documents
        self.texts = documents.texts
        self._tokens: dict[str, Words] = {}

    @cached_property
    def plain(self) -> Strings:
        """The texts for kernels."""
        return in_memory(self.texts)

    def tokens(self, kind: WordKind) -> Words:
        """Words and punctuation marks, as `unicode` or as spaCy cuts them."""
        if kind not in self._tokens:
            self._tokens[kind] = split_words(self.plain, kind)
        return self._tokens[kind]

    @cached_property
    def sizes(self) -> Ints:
        """Characters and newlines of each document, int64 [2, D]."""
        return count_characters(self.plain)

    @property
    def characters(self) -> Ints:
        """Characters of each document, int64 [D]."""
        return self.sizes[0]

    @property
    def newlines(self) -> Ints:
        """Newlines of each document, int64 [D]."""
        return self.sizes[1]

    @cached_property
    def trimmed(self) -> Ints:
        """Where each document begins and ends without white space around it, int64 [2, D]."""
        return trim(self.plain)

    @cached_property
    def space(self) -> Mask:
        """White space, bool [N]."""
        return spaces(self.texts)

    @cached_property
    def words(self) -> Spans:
        """Words."""
        return runs(~self.space, self.texts.offsets)

    @cached_property
    def lines(self) -> Spans:
        """Lines that are not blank."""
        return lines(self.texts, self.words)
