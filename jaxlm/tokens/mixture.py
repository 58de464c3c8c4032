"""Which source example i of a run comes from: in exact proportion at every moment."""

import heapq
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

SHORT_CYCLE = 1 << 16
LONG_CYCLE = 1 << 20
SMALLEST_COUNT = 16
MARGINS = 64


class Mixture:
    """A cycle of sources that repeats for ever, with the prefix counts that make seeking free.

    After any number of examples, each source's count differs from its exact share by less than
    one (at most 1 - 1 / (2 S - 2) for S sources, and in cycles up to 65,536 by as little as any
    order can, to 1/64), hence by less than two within any window.
    """

    def __init__(self, weights: Sequence[float | Fraction]) -> None:
        """Relative weights, one a source, positive."""
        self.counts = cycle_counts(weights)
        """Examples of each source in a cycle, int64 [S]; their ratio is the mixture."""
        self.length = int(self.counts.sum())
        self._cycle = nearest(self.counts)
        # How many examples of its own source come before each slot of the cycle.
        self._rank = np.empty(self.length, np.int64)
        for source, count in enumerate(self.counts):
            self._rank[self._cycle == source] = np.arange(count)

    def __call__(self, example: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The source of each example, and how many examples of that source came before it.

        example: int64 [B], number in the run from 0. Returns int32 [B] and int64 [B].
        """
        cycle, slot = np.divmod(example, self.length)
        source = self._cycle[slot]
        return source, cycle * self.counts[source] + self._rank[slot]

    def before(self, example: int) -> NDArray[np.int64]:
        """How many examples of each source come before this one, int64 [S]."""
        cycle, slot = divmod(example, self.length)
        part = np.bincount(self._cycle[:slot], minlength=len(self.counts))
        return cycle * self.counts + part


def exact(weight: float | Fraction) -> Fraction:
    """A weight as the decimal that a person wrote."""
    return weight if isinstance(weight, Fraction) else Fraction(repr(float(weight)))


def cycle_counts(weights: Sequence[float | Fraction]) -> NDArray[np.int64]:
    """Whole numbers in the ratio of the weights, int64 [S].

    Exact where the weights, read as the decimals that a person wrote, have a common denominator
    up to 65536. Otherwise the sum is the number up to 65536 with which rounded shares are nearest;
    where a source would get fewer than 16 slots, shares are rounded (largest remainder) to 1/131072
    or finer, to 1/1048576, and each source gets one slot at least.
    """
    parts = [exact(weight) for weight in weights]
    whole = [int(part * math.lcm(*(p.denominator for p in parts))) for part in parts]
    whole = [number // math.gcd(*whole) for number in whole]
    total = sum(whole)
    if total <= SHORT_CYCLE:
        return np.array(whole, np.int64)
    if min(whole) * SHORT_CYCLE >= SMALLEST_COUNT * total:
        found = _nearest_counts([number / total for number in whole])
        if found is not None:
            return found
    length = SHORT_CYCLE
    while length < LONG_CYCLE and min(whole) * length < SMALLEST_COUNT * total:
        length *= 2
    counts = [max(number * length // total, 1) for number in whole]
    by_remainder = sorted(
        range(len(whole)),
        key=lambda s: Fraction(whole[s] * length, total) - counts[s],
        reverse=True,
    )
    for source in by_remainder[: max(length - sum(counts), 0)]:
        counts[source] += 1
    return np.array(counts, np.int64)


def _nearest_counts(shares: list[float]) -> NDArray[np.int64] | None:
    """Shares rounded to whole numbers, int64 [S], whose sum, up to SHORT_CYCLE, is the first of
    those with the least error; None where rounded shares never add up to one."""
    share_S = np.array(shares)
    lengths = np.arange(math.ceil(SMALLEST_COUNT / share_S.min()), SHORT_CYCLE + 1)
    count_LS = np.rint(lengths[:, None] * share_S).astype(np.int64)
    fits = count_LS.sum(axis=1) == lengths
    if not fits.any():
        return None
    error_L = np.abs(count_LS / lengths[:, None] - share_S).max(axis=1)
    error_L[~fits] = np.inf
    # float64 does not tell a length from its multiples
    return count_LS[np.flatnonzero(error_L <= error_L.min() + 1e-15)[0]]


def nearest(counts: NDArray[np.int64]) -> NDArray[np.int32]:
    """A sequence with counts[s] slots of each s in which every prefix is in proportion, int32 [L].

    Tijdeman's, or the one that always takes the source that lacks most where that is as near to
    the shares, which often is nearer within windows too.
    """
    first = tijdeman(counts)
    if len(counts) < 2 or len(first) > SHORT_CYCLE:
        return first
    return min((_by_lack(counts), first), key=lambda cycle: _worst(cycle, counts))


def _by_lack(counts: NDArray[np.int64]) -> NDArray[np.int32]:
    """Each slot goes to the source that is furthest below its share, the first of them."""
    length = int(counts.sum())
    cycle, lack_S = np.empty(length, np.int32), np.zeros(len(counts), np.int64)
    for slot in range(length):
        lack_S += counts
        cycle[slot] = source = lack_S.argmax()
        lack_S[source] -= length
    return cycle


def _worst(cycle: NDArray[np.int32], counts: NDArray[np.int64]) -> tuple[int, int]:
    """The largest difference from a share, times L, over prefixes and over windows."""
    slots = np.arange(len(cycle) + 1)
    prefix = window = 0
    for source, count in enumerate(counts.tolist()):
        seen = np.concatenate([[0], np.cumsum(cycle == source)])
        off = seen * len(cycle) - slots * count
        prefix = max(prefix, int(np.abs(off).max()))
        window = max(window, int(off.max() - off.min()))
    return prefix, window


def tijdeman(counts: NDArray[np.int64]) -> NDArray[np.int32]:
    """A sequence with counts[s] slots of each s in which every prefix is in proportion.

    The chairman assignment (Tijdeman 1980): after each slot the count of a source differs from its
    share by 1 - d at most, with d = 1 / (2 S - 2) for S sources, which always can be. In cycles up
    to SHORT_CYCLE the largest d that these counts allow is taken, of multiples of 1/64, since the
    assignment below finds a sequence wherever there is one. Returns int32 [L].
    """
    sizes = [int(count) for count in counts]
    if len(sizes) == 1:
        return np.zeros(sizes[0], np.int32)
    best = _assigned(sizes, Fraction(1, 2 * len(sizes) - 2))
    assert best is not None, "Tijdeman's theorem"
    possible, impossible = MARGINS // (2 * len(sizes) - 2), MARGINS // 2 + 1
    while sum(sizes) <= SHORT_CYCLE and impossible - possible > 1:
        middle = (possible + impossible) // 2
        if (found := _assigned(sizes, Fraction(middle, MARGINS))) is None:
            impossible = middle
        else:
            best, possible = found, middle
    return best


def _assigned(sizes: list[int], margin: Fraction) -> NDArray[np.int32] | None:
    """Such a sequence for d = margin, int32 [L]; None: there is none.

    Slot t goes, among the sources whose deficit allows one more, to the one that must be served
    first (earliest deadline first, which is optimal where all take one slot). With L slots, copy j
    (from 0) of source s may be placed from slot ceil((j + d) L / sizes[s]) on (slots from 1), and
    no later than the slot behind (j + 1 - d) L / sizes[s].
    """
    length, share, parts = sum(sizes), margin.numerator, margin.denominator
    opens: list[list[int]] = [[] for _ in range(length + 2)]
    for source, size in enumerate(sizes):
        opens[max(-(-share * length // (parts * size)), 1)].append(source)
    done = [0] * len(sizes)
    waiting: list[tuple[int, int]] = []
    cycle = np.empty(length, np.int32)
    for slot in range(1, length + 1):
        for source in opens[slot]:
            behind = ((done[source] + 1) * parts - share) * length // (parts * sizes[source])
            heapq.heappush(waiting, (behind + 1, source))
        if not waiting or waiting[0][0] < slot:
            return None
        _, source = heapq.heappop(waiting)
        size = sizes[source]
        cycle[slot - 1] = source
        done[source] += 1
        if done[source] < size:
            earliest = -(-(done[source] * parts + share) * length // (parts * size))
            opens[max(earliest, slot + 1)].append(source)
    return cycle
