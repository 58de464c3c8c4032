"""The tokens of spaCy's English tokenizer, as datatrove has them, without calling it for each word.

spaCy cuts each word between white space by itself, so each different one is cut once and looked up
from then on. Two things are left out. spaCy looks for its exceptions in the tokens of neighbouring
words too, where they can hide one inside a word, which changes nothing in text that people write.
And its time grows with the square of the marks in a row (20,000 brackets: half a minute), so that
words of more than LONGEST_WORD bytes are cut by the rules of `unicode`.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.corpus import classes as c
from jaxlm.corpus.characters import decode
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.words import POWER, Hashes, Ints, TokenSpans, Words, in_memory, kind_of
from jaxlm.errors import UserError

MOST_WORDS = 1 << 20
"""Different words that are kept; then all are forgotten."""
LONGEST_WORD = 4096


def spacy_words(texts: Strings) -> Words:
    """The tokens of the exact dialect. Raises UserError where spaCy is not installed."""
    texts = in_memory(texts)
    starts, ends, first, hashes = _chunks(texts.buffer, texts.offsets, c.classes())
    known = _known()
    return Words.of(texts, known.cut(texts.buffer, starts, ends, first, hashes))


class Known:
    """Words that were cut before: hash -> where their tokens end, in bytes from the beginning."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.forget()

    def forget(self) -> None:
        """Begin again with an empty table."""
        self.hashes = np.zeros(0, np.uint64)  # rising
        self.first = np.zeros(0, np.int64)
        self.count = np.zeros(0, np.int64)
        self.cuts = np.zeros(0, np.int32)

    def cut(
        self,
        buffer: NDArray[np.uint8],
        starts: NDArray[np.int32],
        ends: NDArray[np.int32],
        first: Ints,
        hashes: Hashes,
    ) -> TokenSpans:
        """The tokens of words: starts, ends, and the first of each document."""
        if len(self.hashes) > MOST_WORDS:
            self.forget()
        different, where = np.unique(hashes, return_index=True)
        new = ~np.isin(different, self.hashes, assume_unique=True)
        raw = buffer.tobytes()
        self._learn(different[new], [raw[starts[i] : ends[i]] for i in where[new].tolist()])
        return _cut(starts, first, np.searchsorted(self.hashes, hashes), self.first, self.count,
                    self.cuts)  # fmt: skip

    def _learn(self, hashes: Hashes, words: list[bytes]) -> None:
        if not words:
            return
        texts = [word.decode() for word in words]
        counts, cuts = [], []
        # a newline keeps them apart
        joined = "\n".join(
            text for text, word in zip(texts, words, strict=True) if len(word) <= LONGEST_WORD
        )
        with self.tokenizer.vocab.memory_zone():
            lengths = iter(self.tokenizer(joined).to_array("LENGTH").tolist())
        for text, word in zip(texts, words, strict=True):
            ends = []  # of its tokens, in characters
            if len(word) > LONGEST_WORD:
                ends = [end for _, end in Words.of_text(text, "unicode")]
            else:
                while not ends or ends[-1] < len(text):
                    ends.append((ends[-1] if ends else 0) + next(lengths))
                next(lengths, None)
            if len(word) > len(text):
                ends = [len(text[:end].encode()) for end in ends]
            cuts += ends
            counts.append(len(ends))
        first = len(self.cuts) + np.cumsum(counts) - counts
        order = np.argsort(np.concatenate([self.hashes, hashes]))
        self.cuts = np.concatenate([self.cuts, np.array(cuts, np.int32)])
        self.hashes = np.concatenate([self.hashes, hashes])[order]
        self.first = np.concatenate([self.first, first])[order]
        self.count = np.concatenate([self.count, counts])[order]


@cache
def _known() -> Known:
    try:
        import spacy
    except ImportError:
        raise UserError(
            "words: spacy needs the package spacy: pip install 'jaxlm[spacy]', or take words: "
            "unicode"
        ) from None
    return Known(spacy.blank("en").tokenizer)


@njit(cache=True)
def _chunks(
    buffer: NDArray[np.uint8], offsets: Ints, kinds: NDArray[np.uint32]
) -> tuple[NDArray[np.int32], NDArray[np.int32], Ints, Hashes]:
    """What white space separates: starts, ends, first of each document, hashes."""
    most = len(buffer) // 2 + len(offsets)
    starts = np.empty(most, np.int32)
    ends = np.empty(most, np.int32)
    hashes = np.empty(most, np.uint64)
    first = np.zeros(len(offsets), np.int64)
    n = 0
    for d in range(len(offsets) - 1):
        at, stop = offsets[d], offsets[d + 1]
        begin = at
        key = np.uint64(0)
        while at <= stop:
            space, width = True, 1
            if at < stop:
                code, width = decode(buffer, at)
                space = kind_of(kinds, code) & c.SPACE != 0
            if not space:
                for k in range(width):
                    key = key * POWER + np.uint64(buffer[at + k]) + np.uint64(1)
            else:
                if at > begin:
                    starts[n], ends[n] = begin, at
                    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                    hashes[n] = key ^ (key >> np.uint64(31))
                    n += 1
                    key = np.uint64(0)
                begin = at + width
            at += width
        first[d + 1] = n
    return starts[:n], ends[:n], first, hashes[:n]


@njit(cache=True)
def _cut(
    starts: NDArray[np.int32], first: Ints, word: Ints, begin: Ints, count: Ints,
    cuts: NDArray[np.int32],
) -> TokenSpans:  # fmt: skip
    total = 0
    for w in word:
        total += count[w]
    token_starts = np.empty(total, np.int32)
    token_ends = np.empty(total, np.int32)
    token_first = np.zeros(len(first), np.int64)
    n = 0
    for d in range(len(first) - 1):
        for i in range(first[d], first[d + 1]):
            at = np.int32(0)
            w = word[i]
            for k in range(begin[w], begin[w] + count[w]):
                token_starts[n], token_ends[n] = starts[i] + at, starts[i] + cuts[k]
                at = cuts[k]
                n += 1
        token_first[d + 1] = n
    return token_starts, token_ends, token_first
