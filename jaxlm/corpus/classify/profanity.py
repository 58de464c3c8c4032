"""The model of the package alt-profanity-check 1.9.1, evaluated from plain arrays.

data/toxicity/make.py wrote the arrays and says what they are.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.corpus.classify.tokens import Words, hash_words, plain_words
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.recipes import data_folder
from jaxlm.corpus.statistics import Spans
from jaxlm.errors import UserError

FOLDER = "toxicity"


class Profanity(NamedTuple):
    """Words in a hash table, and five linear models with a sigmoid each."""

    keys: NDArray[np.uint64]
    """Hashes of the words by open addressing, 0: free, uint64 [2^k]."""
    numbers: NDArray[np.int32]
    """The word at each place, int32 [2^k]."""
    idf: NDArray[np.float32]
    coefficients: NDArray[np.float32]
    intercepts: NDArray[np.float64]
    a: NDArray[np.float64]
    b: NDArray[np.float64]

    def words(self, texts: Strings) -> Words:
        """The words that `score` counts."""
        return plain_words(texts)

    def score(self, words: Words, spans: Spans) -> NDArray[np.float64]:
        """Probability that each span is profane or toxic, float64 [spans]."""
        first, last = words.inside(spans)
        found = _find(words.hashes, self.keys, self.numbers)
        margins = _margins(found, first, last, self.idf, self.coefficients)
        z = self.a * (margins + self.intercepts) + self.b
        return np.asarray((1 / (1 + np.exp(z))).mean(axis=1), np.float64)


@cache
def profanity() -> Profanity:
    """Read the shipped model. Raises UserError when its file is missing or broken."""
    path = data_folder() / FOLDER / "profanity.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            parts = {name: file[name] for name in file.files}
        vocabulary = parts.pop("vocabulary").tobytes().decode().split()
        keys, index = hash_table(hash_words(vocabulary))
        return Profanity(keys, index, **parts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: missing or broken ({error}); install jaxlm again") from None


def hash_table(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Open addressing, at most half full: the hashes at their places, and which one each is."""
    size = 1 << (2 * len(hashes)).bit_length()
    keys = np.zeros(size, np.uint64)
    index = np.full(size, -1, np.int32)
    _fill(hashes, keys, index)
    return keys, index


@njit(cache=True)
def _fill(hashes: NDArray[np.uint64], keys: NDArray[np.uint64], index: NDArray[np.int32]) -> None:
    mask = np.uint64(len(keys) - 1)
    for i in range(len(hashes)):
        place = hashes[i] >> np.uint64(1) & mask
        while keys[place] != 0:
            place = (place + np.uint64(1)) & mask
        keys[place], index[place] = hashes[i], i


@njit(cache=True)
def _find(
    hashes: NDArray[np.uint64], keys: NDArray[np.uint64], index: NDArray[np.int32]
) -> NDArray[np.int32]:
    """The number of each word, -1 for one that is not in the table."""
    mask = np.uint64(len(keys) - 1)
    out = np.full(len(hashes), -1, np.int32)
    for i in range(len(hashes)):
        place = hashes[i] >> np.uint64(1) & mask
        while keys[place] != 0:
            if keys[place] == hashes[i]:
                out[i] = index[place]
                break
            place = (place + np.uint64(1)) & mask
    return out


@njit(cache=True)
def _margins(
    found: NDArray[np.int32],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    idf: NDArray[np.float32],
    coefficients: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Products of the normalised tf-idf vector of each span with each model's coefficients."""
    models = coefficients.shape[1]
    out = np.zeros((len(first), models), np.float64)
    counts = np.zeros(len(idf), np.int32)
    for s in range(len(first)):
        for i in range(first[s], last[s]):
            if found[i] >= 0:
                counts[found[i]] += 1
        square = 0.0
        for i in range(first[s], last[s]):
            word = found[i]
            if word >= 0 and counts[word] > 0:
                weight = counts[word] * np.float64(idf[word])
                square += weight * weight
                for m in range(models):
                    out[s, m] += weight * coefficients[word, m]
                counts[word] = 0
        if square > 0:
            out[s] /= np.sqrt(square)
    return out
