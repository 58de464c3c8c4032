"""Stages that compare documents with all that came before them; the first copy stays.

Workers compute a signature (a few arrays) of each batch; `resolve` then sees the batches in the
order of the corpus and names the documents that are copies.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.dedup import Dedup, MinHash
from jaxlm.corpus import statistics as st
from jaxlm.corpus.documents import Documents, Strings
from jaxlm.corpus.stages.base import Tags

type Signature = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Batch:
    """What `resolve` knows of a batch: who is still there (bool [D]) and the signature."""

    keep: NDArray[np.bool_]
    signature: Callable[[str], NDArray[Any]]
    """Name -> array, read from disk when it is called."""
    documents: Callable[[], Documents]
    """The whole batch, mapped from disk."""
    folder: Path
    """Where the batch lies."""


@dataclass(frozen=True)
class Duplicate:
    """Document `index` of batch `batch` repeats an earlier one."""

    batch: int
    index: int
    rule: str
    value: float
    threshold: float
    partner: tuple[int, int] | str
    """Batch and index of the document that stays, or its id in another corpus."""


@dataclass(frozen=True)
class Cut:
    """Bytes start:end of document `index` of batch `batch` occurred before."""

    batch: int
    index: int
    start: int
    end: int
    rule: str
    value: float
    partner: tuple[int, int] | str | None


type Map = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterator[Any]]
"""Runs a function on argument tuples, wherever the executor has room; results in order."""


class Ids:
    """Documents of one source with the same id."""

    cuts = False

    def __init__(self, config: Dedup) -> None:
        pass

    def signature(self, documents: Documents, tags: Tags) -> Signature:
        """keys: 128-bit hashes of source and id, uint64 [D, 2]."""
        prefix = documents.source.name.encode() + b"\0"
        return {"keys": _keys(prefix + documents.ids[i] for i in range(len(documents)))}

    def resolve(self, batches: Sequence[Batch], work: Path, run: Map) -> Iterator[Duplicate]:
        """Every later document with an id that was there before."""
        return _later_copies(batches, "duplicate")


class Exact:
    """Documents with the same text but for case and white space."""

    cuts = False

    def __init__(self, config: Dedup) -> None:
        pass

    def signature(self, documents: Documents, tags: Tags) -> Signature:
        """keys: 128-bit hashes of the normalised texts, uint64 [D, 2]."""
        texts = documents.texts
        return {
            "keys": _keys(
                " ".join(texts[i].decode().lower().split()).encode() for i in range(len(texts))
            )
        }

    def resolve(self, batches: Sequence[Batch], work: Path, run: Map) -> Iterator[Duplicate]:
        """Every later document with a text that was there before."""
        return _later_copies(batches, "same_text")


class NearDuplicates:
    """Documents whose sets of shingles are alike: LSH proposes, true Jaccard similarity decides.

    A document is compared with documents that stay, never with ones that were dropped, so that
    chains of merely linked documents cannot form.
    """

    cuts = False

    def __init__(self, config: Dedup) -> None:
        from datasketch import MinHash as Sketch

        self.config: MinHash = config.minhash
        self.scheme = "affine32"
        blank = Sketch(self.config.permutations, scheme=self.scheme)
        self.multiplier, self.increment = blank.permutations

    def signature(self, documents: Documents, tags: Tags) -> Signature:
        """sketch: MinHash values, uint32 [D, permutations]; shingles: each document's sorted
        distinct 64-bit hashes, uint64, one after another; first: int64 [D + 1] into them."""
        hashes, first = shingles(documents.texts, self.config.ngram)
        sketch = np.full((len(documents), self.config.permutations), 2**32 - 1, np.uint32)
        sets = []
        for d in range(len(documents)):
            unique = np.unique(hashes[first[d] : first[d + 1]])
            sets.append(unique)
            # datasketch's affine32 scheme: a * fmix32(h) + b modulo 2^32, and the minimum
            mixed = _fmix32(unique.astype(np.uint32))
            for start in range(0, len(mixed), 4096):
                values = mixed[start : start + 4096, None] * self.multiplier + self.increment
                np.minimum(sketch[d], values.min(axis=0), out=sketch[d])
        ends = np.cumsum([0, *map(len, sets)], dtype=np.int64)
        joined = np.concatenate([np.empty(0, np.uint64), *sets])
        return {"sketch": sketch, "shingles": joined, "first": ends}

    def resolve(self, batches: Sequence[Batch], work: Path, run: Map) -> Iterator[Duplicate]:
        """Every document that is at least `threshold` similar to one that stays; its partner is
        the most similar, the earliest of equals."""
        from datasketch import MinHash as Sketch
        from datasketch import MinHashLSH

        threshold = self.config.threshold
        # recall matters more than false candidates: those cost one comparison each
        index = MinHashLSH(threshold, self.config.permutations, weights=(0.1, 0.9))

        @lru_cache(maxsize=64)
        def columns(b: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
            return batches[b].signature("shingles"), np.array(batches[b].signature("first"))

        def shingle_set(b: int, i: int) -> NDArray[np.uint64]:
            values, first = columns(b)
            return values[first[i] : first[i + 1]]

        for b, batch in enumerate(batches):
            sketches, (_, first) = np.array(batch.signature("sketch")), columns(b)
            for i in map(int, np.flatnonzero(batch.keep & (np.diff(first) > 0))):
                sketch = Sketch(hashvalues=sketches[i], scheme=self.scheme,
                                permutations=(self.multiplier, self.increment))  # fmt: skip
                best: tuple[float, tuple[int, int]] | None = None
                for place in sorted(index.query(sketch)):
                    score = jaccard(shingle_set(b, i), shingle_set(*place))
                    if score >= threshold and (best is None or score > best[0]):
                        best = score, place
                if best is None:
                    index.insert((b, i), sketch, check_duplication=False)
                else:
                    yield Duplicate(b, i, "jaccard", best[0], threshold, best[1])


DUPLICATES: dict[str, type[Ids] | type[Exact] | type[NearDuplicates]] = {
    "ids": Ids,
    "dedup.exact": Exact,
    "dedup.minhash": NearDuplicates,
}


def shingles(texts: Strings, ngram: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of all runs of `ngram` words, uint64 [S]; each document's first, int64 [D + 1].

    Words are runs of ASCII letters, digits and characters outside ASCII, in lower case for ASCII;
    a Chinese, Japanese or Korean character is a word by itself. A document with fewer words has
    one shingle of all of them; one without words has none.
    """
    lower = _LOWER[texts.buffer]
    spans = _shingle_words(lower, texts.offsets)
    word = st.span_hashes(lower, spans)
    counts = spans.counts
    size = np.minimum(ngram, counts)
    number = np.where(counts > 0, counts - size + 1, 0)
    first = np.concatenate([np.zeros(1, np.int64), np.cumsum(number)])
    document = np.repeat(np.arange(len(texts)), number)
    start = spans.first[:-1][document] + np.arange(first[-1]) - first[:-1][document]
    value = np.zeros(len(start), np.uint64)
    for k in range(ngram):
        inside = k < size[document]
        term = word[np.where(inside, start + k, 0)] if len(word) else value
        value = np.where(inside, st.mix(value + term), value)
    return value, first


def jaccard(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> float:
    """Size of the intersection over size of the union of two sorted arrays of distinct values."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / max(1, len(a) + len(b) - shared)


# ASCII letters in lower case; ASCII punctuation and controls become a space.
_LOWER = np.full(256, 32, np.uint8)
_LOWER[48:58] = np.arange(48, 58)
_LOWER[97:123] = np.arange(97, 123)
_LOWER[65:91] = np.arange(97, 123)
_LOWER[128:] = np.arange(128, 256)


def _shingle_words(lower: NDArray[np.uint8], offsets: NDArray[np.int64]) -> st.Spans:
    """Runs of bytes that are not a space, cut before and after each CJK character."""
    inside = lower != 32
    # U+3040-D7FF: kana, ideographs, Hangul, Yi, all of three bytes; U+20000 up: rare ideographs
    wide = ((lower >= 0xE3) & (lower <= 0xED)).astype(np.int8) * 3
    wide[(lower == 0xF0)] = 4
    at = np.flatnonzero(wide)
    if not len(at):
        return st.runs(inside, offsets)
    edge = np.zeros(len(lower) + 1, np.bool_)
    edge[at] = True
    edge[at + wide[at]] = True
    cuts = np.union1d(offsets, np.flatnonzero(edge))
    pieces = st.runs(inside, cuts)
    return st.Spans(pieces.starts, pieces.ends, np.searchsorted(pieces.starts, offsets))


def _fmix32(h: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """MurmurHash3's 32-bit finaliser (public domain, Austin Appleby)."""
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))


def _keys(items: Iterator[bytes]) -> NDArray[np.uint64]:
    raw = b"".join(hashlib.blake2b(item, digest_size=16).digest() for item in items)
    return np.frombuffer(raw, np.uint64).reshape(-1, 2)


def _later_copies(batches: Sequence[Batch], rule: str) -> Iterator[Duplicate]:
    """Documents that stay so far and whose key occurred before among those."""
    places = [
        np.stack([np.full(int(batch.keep.sum()), b), np.flatnonzero(batch.keep)], 1)
        for b, batch in enumerate(batches)
    ]
    if not places:
        return
    place = np.concatenate(places)
    keys = np.concatenate([batch.signature("keys")[batch.keep] for batch in batches])
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: the earliest of equals comes first
    opens = np.ones(len(order), np.bool_)
    opens[1:] = (np.diff(keys[order].astype(np.int64), axis=0) != 0).any(axis=1)
    kept = order[np.flatnonzero(opens)[np.cumsum(opens) - 1]]
    copies, stays = order[~opens], kept[~opens]
    for position in np.argsort(copies):
        copy, first = place[copies[position]], place[stays[position]]
        yield Duplicate(int(copy[0]), int(copy[1]), rule, 1.0, 1.0, (int(first[0]), int(first[1])))
