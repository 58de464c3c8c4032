"""Tokens of prose: words, and punctuation marks by themselves.

`unicode_words.py` cuts texts by rules, `spacy_words.py` by asking spaCy; this describes the tokens.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.config.prose import WordKind
from jaxlm.corpus import classes as c
from jaxlm.corpus.characters import CODES, decode
from jaxlm.corpus.documents import Strings

type Ints = NDArray[np.int64]
type Hashes = NDArray[np.uint64]
type TokenSpans = tuple[NDArray[np.int32], NDArray[np.int32], Ints]
"""starts, ends and first of `Words`."""

POWER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2^64
POWER_INVERSE = np.uint64(pow(int(POWER), -1, 1 << 64))
# flags of a token
HAS_LETTER, NOT_MARKS, PUNCTUATION, SENTENCE_END = 1, 2, 4, 8


@dataclass(frozen=True)
class Words:
    """T tokens: bytes starts[i]:ends[i] of the buffer; those of document d are
    first[d]:first[d+1]. characters: their lengths, int32 [T]; flags: HAS_LETTER, NOT_MARKS (a
    character that is none of datatrove's punctuation marks), PUNCTUATION (all characters are
    Unicode's), SENTENCE_END, uint8 [T]; hashes: sum((byte[i] + 1) * POWER^i), uint64 [T]."""

    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    first: Ints
    characters: NDArray[np.int32]
    flags: NDArray[np.uint8]
    hashes: Hashes

    @classmethod
    def of(cls, texts: Strings, spans: TokenSpans) -> "Words":
        """Describe tokens given as starts, ends and first."""
        return cls(*spans, *_describe(in_memory(texts).buffer, spans[0], spans[1], c.classes()))

    @classmethod
    def of_text(cls, text: str, kind: WordKind) -> list[tuple[int, int]]:
        """The tokens of one text, start and end in characters."""
        words = split_words(Strings.of([text.encode()]), kind)
        raw = text.encode()
        if len(raw) == len(text):
            return list(zip(words.starts.tolist(), words.ends.tolist(), strict=True))
        place = np.cumsum((np.frombuffer(raw + b" ", np.uint8) & 0xC0) != 0x80) - 1
        return list(zip(place[words.starts].tolist(), place[words.ends].tolist(), strict=True))


def in_memory(texts: Strings) -> Strings:
    """The texts in the one kind of array that the kernels are compiled for: in memory, writable."""
    return Strings(
        np.require(texts.buffer, np.uint8, ("C", "W", "E")),
        np.require(texts.offsets, np.int64, ("C", "W", "E")),
    )


def split_words(texts: Strings, kind: WordKind) -> Words:
    """The tokens of all texts. Raises UserError where `spacy` is asked for and not installed."""
    if kind == "unicode":
        from jaxlm.corpus.unicode_words import unicode_words as split
    else:
        from jaxlm.corpus.spacy_words import spacy_words as split
    return split(texts)


def hash_of(word: str) -> np.uint64:
    """The hash of a token of these characters."""
    value, power = 0, 1
    for byte in word.encode():
        value += (byte + 1) * power
        power = power * int(POWER) % (1 << 64)
    return np.uint64(value % (1 << 64))


def count_characters(texts: Strings) -> Ints:
    """Characters and newlines of each text, int64 [2, D]."""
    texts = in_memory(texts)
    return _count_characters(texts.buffer, texts.offsets)


def trim(texts: Strings) -> Ints:
    """Where each text begins and ends (str.strip), int64 [2, D]."""
    texts = in_memory(texts)
    return _trim(texts.buffer, texts.offsets, c.classes())


@njit(cache=True)
def _count_characters(buffer: NDArray[np.uint8], offsets: Ints) -> Ints:
    out = np.zeros((2, len(offsets) - 1), np.int64)
    for d in range(len(offsets) - 1):
        characters = newlines = 0
        for at in range(offsets[d], offsets[d + 1]):
            characters += (buffer[at] & 0xC0) != 0x80
            newlines += buffer[at] == 10
        out[0, d], out[1, d] = characters, newlines
    return out


@njit(cache=True)
def _trim(buffer: NDArray[np.uint8], offsets: Ints, kinds: NDArray[np.uint32]) -> Ints:
    out = np.empty((2, len(offsets) - 1), np.int64)
    for d in range(len(offsets) - 1):
        low, high = offsets[d], offsets[d + 1]
        while low < high:
            code, width = decode(buffer, low)
            if not kind_of(kinds, code) & c.SPACE:
                break
            low += width
        while low < high:
            at = high - 1
            while buffer[at] & 0xC0 == 0x80:
                at -= 1
            code, width = decode(buffer, at)
            if not kind_of(kinds, code) & c.SPACE:
                break
            high = at
        out[0, d], out[1, d] = low, high
    return out


@njit(cache=True, inline="always")
def kind_of(kinds: NDArray[np.uint32], code: int) -> np.uint32:
    """The bits of a code point."""
    return kinds[code] if code < CODES else np.uint32(0)


@njit(cache=True)
def _describe(
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int32],
    ends: NDArray[np.int32],
    kinds: NDArray[np.uint32],
) -> tuple[NDArray[np.int32], NDArray[np.uint8], Hashes]:
    number = len(starts)
    characters = np.empty(number, np.int32)
    flags = np.empty(number, np.uint8)
    hashes = np.empty(number, np.uint64)
    for i in range(number):
        at: Any = np.int64(starts[i])
        end = np.int64(ends[i])
        some = np.uint32(0)
        every = np.uint32(0xFFFFFFFF)
        size = 0
        value = np.uint64(0)
        power = np.uint64(1)
        while at < end:
            code, width = decode(buffer, at)
            kind = kind_of(kinds, code)
            some |= kind
            every &= kind
            size += 1
            for _ in range(width):
                value += (np.uint64(buffer[at]) + np.uint64(1)) * power
                power *= POWER
                at += 1
        flag = 0
        if some & c.ALPHA:
            flag |= HAS_LETTER
        if not every & c.MARK:
            flag |= NOT_MARKS
        if every & c.PUNCTUATION:
            flag |= PUNCTUATION
        if size == 1 and some & c.SENTENCE_END:
            flag |= SENTENCE_END
        characters[i], flags[i], hashes[i] = size, flag, value
    return characters, flags, hashes
