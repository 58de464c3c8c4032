"""An n-gram language model: interpolated modified Kneser-Ney (Chen and Goodman 1998, TR-10-98,
section 3) in one hash table of all n-grams, with the probabilities of KenLM's lmplz.

A document is a sequence of the words of `tokens.words` between a mark for its beginning and one
for its end. Words that occur once in training are one unknown word. The n-grams are known by
64-bit hashes alone, so two may be taken for one, with a chance of 1e-4 among 60 million.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.config import Config
from jaxlm.config.classifiers import NgramTraining
from jaxlm.corpus.classify.tokens import words
from jaxlm.corpus.classify.training import texts_of
from jaxlm.corpus.documents import Strings, load_arrays
from jaxlm.corpus.statistics import Hashes, Ints
from jaxlm.corpus.statistics import mix as mixed
from jaxlm.corpus.tables import mix
from jaxlm.errors import UsageError, UserError
from jaxlm.workdir import Progress, Workdir, write_json

FORMAT = 1
NAME = "quality.perplexity"
MOST_BYTES = 8 << 30
HIGHEST_ORDER = 6
PERCENTILES = (30, 60)
"""Where head and middle end in CCNet's released code; the paper speaks of three equal parts."""
USUAL_DISCOUNTS = (0.0, 0.5, 1.0, 1.5)
"""Those of counts 0, 1, 2, 3 and more where a text gives none (KenLM's --discount_fallback)."""
_BEGIN, _END, _UNKNOWN = (np.uint64(value) for value in (3, 5, 7))
_NEVER = np.float32(-99.0)


@dataclass(frozen=True)
class NgramModel:
    """An open-addressing table of n-grams: keys (0: free), uint64 [2^k]; natural logarithms of
    their probabilities and of the weight of shorter contexts after them, float32 [2^k]."""

    FILES: ClassVar = ("model.json", "ngram.npz")

    order: int
    keys: Hashes
    probability: NDArray[np.float32]
    backoff: NDArray[np.float32]
    head_below: float | None = None
    tail_above: float | None = None

    def nats(self, texts: Strings) -> tuple[NDArray[np.float64], Ints]:
        """Nats of each text, and its words with the end, float64 and int64 [D]."""
        hashes, first = _sequence(texts)
        hashes = np.where(self._holds(hashes), hashes, _UNKNOWN)
        nats = _nats(hashes, first, self.order, self.keys, self.probability, self.backoff)
        return nats, np.diff(first) - 1

    def _holds(self, words: Hashes) -> NDArray[np.bool_]:
        return _contains(self.keys, mixed(words))

    def perplexity(self, texts: Strings) -> NDArray[np.float64]:
        """exp of the mean nats a word; NaN for a text without words."""
        nats, number = self.nats(texts)
        out = np.exp(np.minimum(nats / number, 700))
        out[number < 2] = np.nan
        return np.asarray(out, np.float64)

    def save(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Write ngram.npz and model.json."""
        folder.mkdir(parents=True, exist_ok=True)
        used = self.keys != 0
        np.savez(
            folder / "ngram.npz",
            keys=self.keys[used],
            probability=self.probability[used],
            backoff=self.backoff[used],
        )
        own = {
            "format": FORMAT,
            "order": self.order,
            "head_below": self.head_below,
            "tail_above": self.tail_above,
        }
        write_json(folder / "model.json", own | dict(about))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises UserError when it is missing or broken."""
        try:
            about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']}, not {FORMAT}")
            found = load_arrays(folder / "ngram.npz", MOST_BYTES)
            keys = np.asarray(found["keys"], np.uint64)
            probability = np.asarray(found["probability"], np.float32)
            backoff = np.asarray(found["backoff"], np.float32)
            if not (keys.ndim == 1 and keys.shape == probability.shape == backoff.shape):
                raise ValueError("its arrays differ in length")
            if not (np.isfinite(backoff).all() and (probability <= 0).all()):
                raise ValueError("what it holds is no probability")
            if about["order"] not in range(1, HIGHEST_ORDER + 1):
                raise ValueError(f"order {about['order']}")
            model = cls(about["order"], *_table(keys, probability, backoff))
            if not model._holds(np.array([_UNKNOWN])).all():
                raise ValueError("it does not know the unknown word")
            head, tail = about["head_below"], about["tail_above"]
            if head is not None and not 0 < head <= tail:
                raise ValueError(f"its head ends at {head} and its tail begins at {tail}")
            return replace(model, head_below=head, tail_above=tail)
        except FileNotFoundError as error:
            raise UserError(
                f"{folder}: no n-gram model there ({Path(error.filename).name} is missing); train "
                f"it with: jaxlm prepare CONFIG --train-classifier {NAME}"
            ) from None
        except Exception as error:
            raise UserError(
                f"{folder}: the n-gram model is broken ({error}); train it again"
            ) from None


def train(config: Config, workdir: Workdir, progress: Progress) -> Path:
    """Train the model that prepare.quality.perplexity.train describes; returns its folder.

    Raises UsageError when the config does not say how, UserError when there is too little text.
    """
    training = config.prepare.quality.perplexity.train
    if training is None:
        raise UsageError(
            f"--train-classifier {NAME}: nothing says how it is trained; set "
            "prepare.quality.perplexity.train.sources"
        )
    texts = _read(training.sources, training, config, progress)
    if training.reference:
        reference = _read(training.reference, training, config, progress)
    else:
        digests = (hashlib.blake2b(texts[i], digest_size=1).digest()[0] for i in range(len(texts)))
        apart = np.fromiter(digests, np.int64, len(texts)) < 26  # a tenth
        if apart.any() and not apart.all():
            texts, reference = texts.take(~apart), texts.take(apart)
        else:
            reference = texts
    model = fit(texts, training.order, training.min_count, progress)
    found = model.perplexity(reference)
    found = found[~np.isnan(found)]
    if not len(found):
        raise UserError(f"{NAME}: no text with words to measure head, middle and tail on")
    head, tail = (float(value) for value in np.percentile(found, PERCENTILES))
    nats, number = model.nats(reference)
    folder = workdir.path / "classifiers" / NAME
    replace(model, head_below=head, tail_above=tail).save(folder, {
        "ngrams": int((model.keys != 0).sum()),
        "training": training.model_dump(mode="json"),
        "inputs": hashlib.sha256(texts.buffer).hexdigest(),
        "texts": len(texts),
        "bytes": int(texts.offsets[-1]),
        "reference": {
            "texts": len(reference),
            "held_out": not training.reference and reference is not texts,
            "perplexity": float(np.exp(nats.sum() / number.sum())),
        },
    })  # fmt: skip
    return folder


def _read(
    names: tuple[str, ...], training: NgramTraining, config: Config, progress: Progress
) -> Strings:
    def some() -> Iterator[bytes]:
        size = 0
        for text in texts_of(names, config):
            size += len(text)
            if training.max_bytes is not None and size > training.max_bytes:
                return
            progress("read", size, None, "B")
            yield text

    texts = Strings.of(some())
    if not len(texts):
        raise UserError(f"{NAME}: {', '.join(names)}: no text within train.max_bytes")
    return texts


def fit(texts: Strings, order: int, min_count: int, progress: Progress) -> NgramModel:
    """Count and smooth. With counts c of n-grams of the highest order and of those that begin a
    document, and numbers of different words before them for the others,

    p(w | h) = (c(h w) - D(c(h w))) / c(h) + b(h) p(w | h without its first word)

    where c(h) is the sum over all words after h, D are `discounts`, and b(h) is what makes the sum
    one: all that was taken away, over c(h). The remainder of the empty context is shared by all
    words equally. N-grams of three words or more with fewer than `min_count` occurrences are left
    out after counting; b(h) takes all of theirs.
    """
    hashes, first = _sequence(texts)
    number, where, count = np.unique(hashes, return_inverse=True, return_counts=True)
    rare = (count < 2) & (number != _BEGIN) & (number != _END)
    hashes = np.where(rare[where], _UNKNOWN, hashes)
    place = np.arange(len(hashes)) - np.repeat(first[:-1], np.diff(first))
    keys = [mixed(hashes)]
    for n in range(1, order):
        longer = np.zeros(len(hashes), np.uint64)
        longer[n:] = mixed(keys[-1][n:] + hashes[:-n])
        keys.append(longer)
    counted = []
    for n in range(order):
        at = np.flatnonzero(place >= n)
        unique, index, count = np.unique(keys[n][at], return_index=True, return_counts=True)
        counted.append((unique, at[index], count))
        progress("count", n + 1, 2 * order, "orders")
    parts: list[tuple[Hashes, NDArray[np.float64], NDArray[np.float64]]] = []
    for n in range(order):
        unique, at, count = counted[n]
        adjusted = count
        if n + 1 < order:
            suffix, before = np.unique(keys[n][counted[n + 1][1]], return_counts=True)
            adjusted = np.where(place[at] == n, count, 0)
            adjusted[np.searchsorted(unique, suffix)] = before
        if n == 0:
            begin = hashes[at] == _BEGIN
            adjusted = np.where(begin, 0, adjusted)  # nothing is followed by a beginning
        taken = discounts(adjusted)[np.minimum(adjusted, 3)]
        if n == 0:
            kept = (adjusted - taken) / adjusted.sum()
            size = len(unique) - 1 + (mixed(np.array([_UNKNOWN]))[0] not in unique)
            share = (1 - kept.sum()) / size
            p = np.where(begin, 0.0, kept + share)
            if size == len(unique):
                unique = np.append(unique, mixed(np.array([_UNKNOWN])))
                p = np.append(p, share)
                sort = np.argsort(unique)
                unique, p = unique[sort], p[sort]
        else:
            shorter, below, backoff = parts[-1]
            rare = count < (min_count if n >= 2 else 1)
            taken = np.where(rare, adjusted, taken)
            # all n-grams whose context was not left out; then those that are not left out
            rows = np.flatnonzero(np.isin(keys[n - 1][at - 1], shorter))
            context, group = np.unique(keys[n - 1][at[rows] - 1], return_inverse=True)
            total = np.bincount(group, adjusted[rows], len(context))
            weight = np.bincount(group, taken[rows], len(context)) / total
            backoff[np.searchsorted(shorter, context)] = np.log(weight)
            rows, group = rows[~rare[rows]], group[~rare[rows]]
            unique, at = unique[rows], at[rows]
            lower = below[np.searchsorted(shorter, keys[n - 1][at])]
            p = (adjusted - taken)[rows] / total[group] + weight[group] * lower
        parts.append((unique, p, np.zeros(len(unique))))
        progress("count", order + n + 1, 2 * order, "orders")
    with np.errstate(divide="ignore"):
        logs = np.log(np.concatenate([p for _, p, _ in parts]))
    table = _table(
        np.concatenate([unique for unique, _, _ in parts]),
        np.maximum(logs, _NEVER).astype(np.float32),
        np.concatenate([backoff for _, _, backoff in parts]).astype(np.float32),
    )
    return NgramModel(order, *table)


def discounts(counts: Ints) -> NDArray[np.float64]:
    """What is taken from counts 0, 1, 2, and 3 and more, float64 [4] (equation 26 of Chen and
    Goodman); the usual ones where too few n-grams have such counts for it to be in range."""
    n = np.bincount(np.minimum(counts, 5), minlength=6)
    if n[1:4].all():
        k = np.arange(1, 4)
        out = k - (k + 1) * (n[1] / (n[1] + 2 * n[2])) * n[2:5] / n[1:4]
        if ((out > 0) & (out <= k)).all():
            return np.append(0.0, out)
    return np.array(USUAL_DISCOUNTS)


def _sequence(texts: Strings) -> tuple[Hashes, Ints]:
    """Hashes of the words of all texts with the marks around each text, and each one's first."""
    found = words(texts)
    number = np.diff(np.searchsorted(found.starts, texts.offsets))
    first = np.concatenate([np.zeros(1, np.int64), np.cumsum(number + 2)])
    out = np.empty(first[-1], np.uint64)
    out[first[:-1]] = _BEGIN
    out[first[1:] - 1] = _END
    inside = np.ones(len(out), np.bool_)
    inside[first[:-1]] = inside[first[1:] - 1] = False
    out[inside] = found.hashes
    return out, first


def _table(
    keys: Hashes, probability: NDArray[np.float32], backoff: NDArray[np.float32]
) -> tuple[Hashes, NDArray[np.float32], NDArray[np.float32]]:
    """Put n-grams at their places, a table at most two thirds full."""
    size = 1 << (len(keys) * 3 // 2).bit_length()
    out = (np.zeros(size, np.uint64), np.zeros(size, np.float32), np.zeros(size, np.float32))
    _put(keys, probability, backoff, *out)
    return out


@njit(cache=True)
def _put(
    keys: NDArray[np.uint64],
    probability: NDArray[np.float32],
    backoff: NDArray[np.float32],
    to_keys: NDArray[np.uint64],
    to_probability: NDArray[np.float32],
    to_backoff: NDArray[np.float32],
) -> None:
    mask = np.uint64(len(to_keys) - 1)
    for i in range(len(keys)):
        place = keys[i] & mask
        while to_keys[place] != 0:
            place = (place + np.uint64(1)) & mask
        to_keys[place] = keys[i]
        to_probability[place] = probability[i]
        to_backoff[place] = backoff[i]


@njit(cache=True, inline="always")
def _place(keys: NDArray[np.uint64], key: np.uint64) -> np.int64:
    """Where a key stands, -1 if nowhere."""
    mask = np.uint64(len(keys) - 1)
    place = key & mask
    while keys[place] != 0:
        if keys[place] == key:
            return np.int64(place)
        place = (place + np.uint64(1)) & mask
    return np.int64(-1)


@njit(cache=True)
def _contains(keys: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.bool_]:
    out = np.empty(len(wanted), np.bool_)
    for i in range(len(wanted)):
        out[i] = _place(keys, wanted[i]) >= 0
    return out


@njit(cache=True)
def _nats(
    hashes: NDArray[np.uint64],
    first: Ints,
    order: int,
    keys: NDArray[np.uint64],
    probability: NDArray[np.float32],
    backoff: NDArray[np.float32],
) -> NDArray[np.float64]:
    out = np.zeros(len(first) - 1, np.float64)
    before = np.empty(order + 1, np.int64)  # places of the n-grams that end at the word before
    here = np.empty(order + 1, np.int64)
    for d in range(len(first) - 1):
        known = 0  # how many of `before` there are
        for i in range(first[d], first[d + 1]):
            longest = min(order, i - first[d] + 1)
            found = 0
            key = np.uint64(0)
            for n in range(1, longest + 1):
                key = mix(key + hashes[i - n + 1])
                place = _place(keys, key)
                if place < 0:
                    break
                found = n
                here[n] = place
            if i > first[d]:
                out[d] -= probability[here[found]]
                for n in range(found, min(longest - 1, known) + 1):
                    out[d] -= backoff[before[n]]
            for n in range(1, found + 1):
                before[n] = here[n]
            known = found
    return out
