"""Sets of shingles of a batch of texts, their MinHash signatures and their similarity."""

from functools import cache
from unicodedata import category

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.corpus import characters
from jaxlm.corpus.characters import CODES, decode
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.tables import mix

type Ints = NDArray[np.int64]
type Hashes = NDArray[np.uint64]

_APART, _WORD, _ALONE = range(3)


def hashes(texts: Strings, ngram: int, characters_: int) -> tuple[Hashes, Ints]:
    """Hashes of all shingles, uint64 [S]; each document's first, int64 [D + 1].

    Words are runs of letters, digits and combining marks in lower case; a character of a script
    without spaces is a word by itself. A shingle is a run of `ngram` words, of `characters_` in a
    document where most words are such characters. A document with fewer words has one shingle of
    all of them; one without words has none.
    """
    words, first, alone = _words(
        np.ascontiguousarray(texts.buffer), texts.offsets, _classes(), characters.lower()
    )
    counts = np.diff(first)
    size = np.minimum(np.where(2 * alone > counts, characters_, ngram), counts)
    return _runs(words, first, size)


@cache
def _classes() -> NDArray[np.uint8]:
    classes: NDArray[np.uint8] = characters.table(
        lambda c: _WORD if c.isalnum() or category(c)[0] == "M" else _APART, np.uint8
    )
    classes[characters.spaceless() & (classes == _WORD)] = _ALONE
    return classes


@njit(cache=True)
def _words(
    buffer: NDArray[np.uint8],
    offsets: Ints,
    classes: NDArray[np.uint8],
    lower: NDArray[np.int32],
) -> tuple[Hashes, Ints, Ints]:
    documents = len(offsets) - 1
    # a word takes two bytes at least, but for the last one
    words = np.empty(len(buffer) // 2 + documents + 1, np.uint64)
    first = np.zeros(documents + 1, np.int64)
    alone = np.zeros(documents, np.int64)
    n = 0
    empty = np.uint64(0xCBF29CE484222325)
    prime = np.uint64(0x100000001B3)  # FNV-1a, over code points
    for d in range(documents):
        at = offsets[d]
        value = empty
        while at < offsets[d + 1]:
            code, width = decode(buffer, at)
            at += width
            kind = _WORD
            if code < CODES:
                kind = int(classes[code])
                code = int(lower[code])
            if kind == _WORD:
                value = (value ^ np.uint64(code)) * prime
                continue
            if value != empty:
                words[n] = mix(value)
                n += 1
                value = empty
            if kind == _ALONE:
                words[n] = mix((empty ^ np.uint64(code)) * prime)
                n += 1
                alone[d] += 1
        if value != empty:
            words[n] = mix(value)
            n += 1
        first[d + 1] = n
    return words[:n], first, alone


@njit(cache=True)
def _runs(words: Hashes, first: Ints, size: Ints) -> tuple[Hashes, Ints]:
    out = np.empty(len(words), np.uint64)
    ends = np.zeros(len(first), np.int64)
    n = 0
    for d in range(len(size)):
        if size[d] > 0:
            for i in range(first[d], first[d + 1] - size[d] + 1):
                value = np.uint64(0)
                for k in range(i, i + size[d]):
                    value = mix(value + words[k])
                out[n] = value
                n += 1
        ends[d + 1] = n
    return out[:n], ends


@njit(cache=True)
def signatures(
    values: Hashes,
    first: Ints,
    multiplier: NDArray[np.uint32],
    increment: NDArray[np.uint32],
) -> tuple[Hashes, Ints, NDArray[np.uint32]]:
    """Sorted distinct hashes of each document, uint64; the first of each, int64 [D + 1]; MinHash
    values, uint32 [D, permutations], 2^32 - 1 for an empty document.

    datasketch's scheme affine32: MurmurHash3's 32-bit finaliser (public domain, Austin Appleby) of
    the low half of a hash, times a multiplier, plus an increment, modulo 2^32; the minimum.
    """
    documents = len(first) - 1
    count = len(multiplier)
    sketch = np.full((documents, count), np.uint32(0xFFFFFFFF), np.uint32)
    distinct = np.empty(len(values), np.uint64)
    ends = np.zeros(documents + 1, np.int64)
    n = 0
    for d in range(documents):
        part = values[first[d] : first[d + 1]].copy()
        part.sort()
        row = sketch[d]
        for i in range(len(part)):
            if i and part[i] == part[i - 1]:
                continue
            distinct[n] = part[i]
            n += 1
            h = np.uint32(part[i] & np.uint64(0xFFFFFFFF))
            h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
            h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
            h = np.uint32(h ^ (h >> np.uint32(16)))
            for p in range(count):
                value = np.uint32(multiplier[p] * h + increment[p])
                row[p] = min(row[p], value)
        ends[d + 1] = n
    return distinct[:n].copy(), ends, sketch


@njit(cache=True)
def jaccard(a: Hashes, b: Hashes, least: float) -> float:
    """Size of the intersection over size of the union of two sorted arrays of distinct values; 0
    where the sizes alone say that it is below `least`."""
    smaller = min(len(a), len(b))
    larger = len(a) + len(b) - smaller
    if smaller == 0 or smaller / larger < least:
        return 0.0
    shared = i = j = 0
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            shared += 1
            i += 1
            j += 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    return shared / (len(a) + len(b) - shared)
