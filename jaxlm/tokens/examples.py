"""Of which source each example of a run is, and how many of it came before: arithmetic alone.

A run is stages, a stage is segments, each with a mixture of its own: one as a rule, one for each
skill where `order` lists them, one more for each decision of a dynamic mixture.
"""

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.steps import Span
from jaxlm.tokens.mixture import Mixture, cycle_counts


class Segment(NamedTuple):
    """Examples of a stage with one mixture."""

    first: int
    """Number of the first in the stage."""
    sources: NDArray[np.int64]
    """The streams that take part, by number."""
    counts: tuple[int, ...]
    """Examples of each of them in a cycle."""
    before: NDArray[np.int64]
    """Examples of each stream in the stage before it, int64 [S]."""

    @property
    def mixture(self) -> Mixture:
        return _mixture(self.counts)

    def up_to(self, example: int) -> NDArray[np.int64]:
        """Examples of each stream in the stage before this example, int64 [S]."""
        found = self.before.copy()
        found[self.sources] += self.mixture.before(example - self.first)
        return found


@lru_cache(maxsize=64)
def _mixture(counts: tuple[int, ...]) -> Mixture:
    return Mixture(list(counts))


def segment(weights: Sequence[Fraction], first: int, before: NDArray[np.int64]) -> Segment:
    """The segment of these weights, one a stream, from this example of the stage on."""
    sources = np.flatnonzero([weight > 0 for weight in weights])
    counts = cycle_counts([weights[s] for s in sources.tolist()])
    return Segment(first, sources, tuple(counts.tolist()), before)


class Examples:
    """The examples of a stage, by step and by number."""

    def __init__(self, spans: Sequence[Span], segments: list[Segment]) -> None:
        self._first = [span.first for span in spans]
        self._sizes = [span.batch_size for span in spans]
        sizes = [span.batch_size * (span.last - span.first) for span in spans]
        self._begin = np.cumsum([0, *sizes]).tolist()
        self.segments = segments
        self.count: int = self._begin[-1]
        """Of the whole stage."""

    def before(self, step: int) -> int:
        """Examples of the stage before a step of the run (from 0)."""
        k = bisect_right(self._first, step) - 1
        return self._begin[k] + (step - self._first[k]) * self._sizes[k]

    def of(self, step: int) -> NDArray[np.int64]:
        """The numbers of the examples of a step, int64 [B]; the last span has no end."""
        k = bisect_right(self._first, step) - 1
        return self.before(step) + np.arange(self._sizes[k], dtype=np.int64)

    def sources(self, example: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The stream of each example, and how many of it came before in the stage; int64 [B]."""
        source, place = np.empty_like(example), np.empty_like(example)
        firsts = [part.first for part in self.segments]
        part_of = np.searchsorted(firsts, example, side="right") - 1
        for number in np.unique(part_of):
            part, rows = self.segments[number], part_of == number
            member, rank = part.mixture(example[rows] - part.first)
            source[rows] = part.sources[member]
            place[rows] = part.before[source[rows]] + rank
        return source, place

    def shares(self, example: int) -> dict[int, float]:
        """Share of each stream that takes part in the mixture of an example."""
        firsts = [part.first for part in self.segments]
        part = self.segments[bisect_right(firsts, example) - 1]
        total = sum(part.counts)
        return {s: n / total for s, n in zip(part.sources.tolist(), part.counts, strict=True)}

    def totals(self) -> NDArray[np.int64]:
        """Examples of each stream in the stage, int64 [S]."""
        return self.segments[-1].up_to(self.count)


def fixed(weights: Sequence[Fraction]) -> list[Segment]:
    """One mixture for a whole stage."""
    return [segment(weights, 0, np.zeros(len(weights), np.int64))]


def by_skills(
    weights: Sequence[Fraction], skills: Sequence[Sequence[int]], examples: int
) -> list[Segment]:
    """The streams of each skill after those of the one before, each with its share of a stage."""
    whole = fixed(weights)[0].up_to(examples)
    segments: list[Segment] = []
    first, before = 0, np.zeros(len(weights), np.int64)
    for members in skills:
        counts = np.zeros_like(before)
        counts[list(members)] = whole[list(members)]
        if not counts.any():
            continue
        if segments:
            before = segments[-1].up_to(first)
        segments.append(segment([Fraction(int(count)) for count in counts], first, before))
        first += int(counts.sum())
    return segments


def decided(segments: list[Segment], first: int, weights: Sequence[Fraction]) -> list[Segment]:
    """The segments with other weights from this example of the stage on."""
    kept = [part for part in segments if part.first < first]
    before = kept[-1].up_to(first) if kept else np.zeros(len(weights), np.int64)
    return [*kept, segment(weights, first, before)]
