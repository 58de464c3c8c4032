"""Texts -> hashes of their words, in one pass over the bytes."""

import re
from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.corpus.characters import CODES, decode, lower, spaceless, table
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.statistics import Hashes, Ints, Spans
from jaxlm.corpus.tables import mix

_BETWEEN, _WORD, _MARK, _CHARACTER = range(4)


class Words(NamedTuple):
    """W words: their hashes (uint64 [W]) and where they start (bytes, int64 [W], rising).

    The lowest bit of a hash is 1 for a character of a script without spaces, else 0.
    """

    hashes: Hashes
    starts: Ints

    def inside(self, spans: Spans) -> tuple[Ints, Ints]:
        """First word of each span and one past its last, int64 [spans]."""
        return np.searchsorted(self.starts, spans.starts), np.searchsorted(self.starts, spans.ends)


def words(texts: Strings) -> Words:
    """Words for models of language: runs of letters, digits, _ and the marks on letters, in lower
    case, each digit as 0. A punctuation mark or symbol is a word, and so is a character of a
    script without spaces."""
    return Words(*_words(np.ascontiguousarray(texts.buffer), texts.offsets, *_fine()))


def plain_words(texts: Strings) -> Words:
    r"""Words as Python's regular expression \w+ finds them in the lower-cased text (up to the few
    characters whose lower case is several)."""
    return Words(*_words(np.ascontiguousarray(texts.buffer), texts.offsets, *_plain()))


def hash_words(items: list[str]) -> Hashes:
    """The hashes that `plain_words` gives for texts of one word each."""
    return plain_words(Strings.of(item.encode() for item in items)).hashes


@cache
def _fine() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    import unicodedata

    def of(c: str) -> int:
        if c.isspace() or unicodedata.category(c) in ("Cc", "Cf"):
            return _BETWEEN
        return _WORD if c.isalnum() or c == "_" or unicodedata.category(c)[0] == "M" else _MARK

    classes: NDArray[np.uint8] = table(of, np.uint8)
    classes[spaceless() & (classes == _WORD)] = _CHARACTER
    fold = lower().copy()
    fold[table(lambda c: c.isdigit(), np.bool_)] = ord("0")
    return classes, fold


@cache
def _plain() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    word = re.compile(r"\w")
    return table(lambda c: _WORD if word.match(c) else _BETWEEN, np.uint8), lower()


@njit(cache=True)
def _words(
    buffer: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    classes: NDArray[np.uint8],
    fold: NDArray[np.int32],
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    # no more words than bytes; pages that are not touched cost nothing
    hashes = np.empty(len(buffer), np.uint64)
    starts = np.empty(len(buffer), np.int64)
    n = 0
    for d in range(len(offsets) - 1):
        at, stop = offsets[d], offsets[d + 1]
        begin = np.int64(-1)  # of the open word
        value = np.uint64(0)
        while at <= stop:
            code, width, kind = 0, 1, np.uint8(_BETWEEN)
            if at < stop:
                code, width = decode(buffer, at)
                kind = classes[code] if code < CODES else np.uint8(_MARK)
            if kind != _WORD and begin >= 0:
                hashes[n], starts[n] = mix(value) & ~np.uint64(1), begin
                n += 1
                begin = np.int64(-1)
            if kind == _WORD:
                if begin < 0:
                    begin, value = at, np.uint64(0xCBF29CE484222325)
                value = (value ^ np.uint64(fold[code])) * np.uint64(0x100000001B3)
            elif kind != _BETWEEN:
                wide = np.uint64(kind == _CHARACTER)
                hashes[n], starts[n] = (mix(np.uint64(code)) & ~np.uint64(1)) | wide, at
                n += 1
            at += width
    return hashes[:n].copy(), starts[:n].copy()
