"""A linear classifier over hashed n-grams of words, in the manner of fastText (Joulin et al. 2016,
arXiv:1607.01759): logistic regression instead of its hidden layer, which two classes do not need.

The features of a text are its words and runs of words, and for scripts without spaces runs of
characters; each is hashed to a bucket, and the text's value is the sum of its buckets' weights over
the square root of their number.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.corpus.classify.tokens import Words, words
from jaxlm.corpus.documents import Strings, load_arrays
from jaxlm.corpus.statistics import Ints, Spans
from jaxlm.corpus.tables import mix
from jaxlm.errors import UserError
from jaxlm.workdir import write_json

FORMAT = 1
MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class LinearModel:
    """Weights and how their sums become probabilities."""

    FILES: ClassVar = ("model.json", "weights.npz")

    weights: NDArray[np.float32]
    """One a bucket, [2^bits]."""
    bias: float
    ngrams: int
    character_ngrams: int
    knots: NDArray[np.float64]
    """Calibration: values of the sum, rising, [K]."""
    probabilities: NDArray[np.float64]
    """Their probabilities, rising, [K]; linear between them, constant beyond. K = 0: a sigmoid."""
    slope: float = 1.0
    offset: float = 0.0
    """The sigmoid is that of slope * sum + offset (Platt; 1 and 0: not calibrated)."""
    threshold: float | None = None
    """The probability that training chose for the wanted precision."""

    def words(self, texts: Strings) -> Words:
        """The words that `score` counts."""
        return words(texts)

    def sums(self, found: Words, spans: Spans) -> NDArray[np.float64]:
        """The value of each span before calibration, float64 [spans]; the bias for one without
        words."""
        first, last = found.inside(spans)
        return _sums(found.hashes, first, last, self.weights, self.ngrams,
                     self.character_ngrams) + self.bias  # fmt: skip

    def score(self, found: Words, spans: Spans) -> NDArray[np.float64]:
        """Probability that each span is of the positive class, float64 [spans]."""
        return self.calibrated(self.sums(found, spans))

    def calibrated(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums to probabilities."""
        if len(self.knots):
            return np.interp(sums, self.knots, self.probabilities)
        return sigmoid(self.slope * sums + self.offset)

    def save(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Write model.json, with what else there is to say, and weights.npz."""
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            folder / "weights.npz",
            weights=self.weights, knots=self.knots, probabilities=self.probabilities,
        )  # fmt: skip
        own = {
            "format": FORMAT,
            "bias": self.bias,
            "ngrams": self.ngrams,
            "character_ngrams": self.character_ngrams,
            "slope": self.slope,
            "offset": self.offset,
            "threshold": self.threshold,
        }
        write_json(folder / "model.json", own | dict(about))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises UserError when it is missing or broken."""
        try:
            about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']}, not {FORMAT}")
            found = load_arrays(folder / "weights.npz", MOST_BYTES)
            weights = found["weights"]
            if weights.dtype != np.float32 or weights.ndim != 1 or len(weights).bit_count() != 1:
                raise ValueError("weights are not 2^bits float32")
            names = ("bias", "ngrams", "character_ngrams", "slope", "offset", "threshold")
            return cls(
                weights=weights,
                knots=found["knots"],
                probabilities=found["probabilities"],
                **{name: about[name] for name in names},
            )
        except FileNotFoundError as error:
            raise UserError(
                f"{folder}: no classifier there ({Path(error.filename).name} is missing); train "
                "it with jaxlm prepare CONFIG --train-classifier NAME"
            ) from None
        except Exception as error:
            raise UserError(
                f"{folder}: the classifier is broken ({error}); train it again"
            ) from None


def sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * values)), np.float64)


def fit(
    found: Words,
    spans: Spans,
    labels: NDArray[np.bool_],
    *,
    bits: int,
    ngrams: int,
    character_ngrams: int,
    epochs: int,
    learning_rate: float,
    l2: float,
    seed: int,
) -> LinearModel:
    """Logistic regression by AdaGrad (Duchi et al. 2011), a text at a time in an order that `seed`
    gives; classes of unequal size count the same. labels: bool [spans]."""
    first, last = found.inside(spans)
    weights = np.zeros(1 << bits, np.float32)
    squares = np.full(1 << bits, 1e-6, np.float32)
    bias = np.zeros(2)
    share = float(labels.mean())
    cost = np.where(labels, 0.5 / share, 0.5 / (1 - share))
    draw = np.random.default_rng(seed)
    for _ in range(epochs):
        order = draw.permutation(len(labels))
        _epoch(found.hashes, first, last, labels, cost, order, weights, squares, bias, ngrams,
               character_ngrams, learning_rate, l2)  # fmt: skip
    none = np.empty(0)
    return LinearModel(weights, float(bias[0]), ngrams, character_ngrams, none, none)


@njit(cache=True)
def _buckets(
    hashes: NDArray[np.uint64],
    first: int,
    last: int,
    shift: np.uint64,
    ngrams: int,
    character_ngrams: int,
    out: NDArray[np.int64],
) -> int:
    """Write the bucket of every n-gram of words first:last; returns how many there are."""
    n = 0
    for i in range(first, last):
        wide = hashes[i] & np.uint64(1)
        longest = character_ngrams if wide else ngrams
        value = np.uint64(0)
        for k in range(longest):
            if i + k >= last or (hashes[i + k] & np.uint64(1)) != wide:
                break
            value = mix(value + hashes[i + k])
            out[n] = np.int64(value >> shift)
            n += 1
    return n


@njit(cache=True)
def _sums(
    hashes: NDArray[np.uint64],
    first: Ints,
    last: Ints,
    weights: NDArray[np.float32],
    ngrams: int,
    character_ngrams: int,
) -> NDArray[np.float64]:
    shift = np.uint64(65 - _bit_length(len(weights)))
    longest = 0
    for s in range(len(first)):
        longest = max(longest, last[s] - first[s])
    buckets = np.empty(longest * max(ngrams, character_ngrams) + 1, np.int64)
    out = np.zeros(len(first), np.float64)
    for s in range(len(first)):
        n = _buckets(hashes, first[s], last[s], shift, ngrams, character_ngrams, buckets)
        total = 0.0
        for i in range(n):
            total += weights[buckets[i]]
        if n:
            out[s] = total / np.sqrt(n)
    return out


@njit(cache=True)
def _epoch(
    hashes: NDArray[np.uint64],
    first: Ints,
    last: Ints,
    labels: NDArray[np.bool_],
    cost: NDArray[np.float64],
    order: Ints,
    weights: NDArray[np.float32],
    squares: NDArray[np.float32],
    bias: NDArray[np.float64],
    ngrams: int,
    character_ngrams: int,
    learning_rate: float,
    l2: float,
) -> None:
    """One pass over the texts. bias: the bias and its sum of squares."""
    shift = np.uint64(65 - _bit_length(len(weights)))
    longest = 0
    for s in range(len(first)):
        longest = max(longest, last[s] - first[s])
    buckets = np.empty(longest * max(ngrams, character_ngrams) + 1, np.int64)
    for s in order:
        n = _buckets(hashes, first[s], last[s], shift, ngrams, character_ngrams, buckets)
        if n == 0:
            continue
        scale = 1 / np.sqrt(n)
        total = bias[0]
        for i in range(n):
            total += weights[buckets[i]] * scale
        wrong = cost[s] * (1 / (1 + np.exp(-total)) - labels[s])
        for i in range(n):
            b = buckets[i]
            slope = wrong * scale + l2 * weights[b]
            squares[b] += slope * slope
            weights[b] -= learning_rate * slope / np.sqrt(squares[b])
        bias[1] += wrong * wrong
        bias[0] -= learning_rate * wrong / np.sqrt(bias[1] + 1e-6)


@njit(cache=True)
def _bit_length(value: int) -> int:
    bits = 0
    while value:
        value >>= 1
        bits += 1
    return bits
