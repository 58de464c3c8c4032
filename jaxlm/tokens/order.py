"""In which order the windows of a source are read, over epochs and over stages of other lengths."""

import math
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxlm.tokens.shuffle import permute

LONGEST_BLOCK = 16
FEWEST_BLOCKS = 16
GROUP = 16
"""Blocks whose windows are shuffled together where it is not known how many a stage takes."""


def block_length(strides: list[int], tokens: int) -> int:
    """Tokens of a block of a source of so many, which holds whole windows of every stage.

    The least common multiple of the strides; where that is more than 16 times the largest of them,
    the largest: then what is left of a block behind its last whole window is not read. So where
    the source has fewer than 16 such blocks, as more would be lost behind its last one.
    """
    common = math.lcm(*strides)
    longest = min(LONGEST_BLOCK * max(strides), tokens // FEWEST_BLOCKS)
    return common if common <= longest else max(strides)


class WindowOrder(NamedTuple):
    """The windows of one source that the examples of one stage read.

    An epoch is the source's blocks in shuffled order. A stage takes whole blocks of it from where
    the stage before ended, so no token is read twice in an epoch, whatever the stages' lengths.
    Where a block is more than one window, the windows of the blocks that a stage takes of an epoch
    are shuffled once more, all together (or `group` by group). With `sort` the blocks that a stage
    takes of an epoch are read in the order of the store, or backwards.
    """

    blocks: int
    """Blocks of an epoch."""
    block: int
    """Tokens of a block."""
    stride: int
    """Tokens between the begins of two windows."""
    begin: int
    """Blocks that earlier stages took, over all epochs."""
    taken: int | None
    """Blocks that this stage takes; None for one whose end is not known."""
    key: int
    """Of the order of blocks; the same in all stages."""
    inner_key: int
    """Of the order of windows."""
    group: int
    """Blocks, at most, whose windows are shuffled together."""
    sort: Literal["ascending", "descending"] | None = None

    @property
    def per_block(self) -> int:
        """Windows of a block."""
        return self.block // self.stride

    def blocks_of(self, examples: int) -> int:
        """Blocks that so many examples of this stage leave nothing of for the stages behind it."""
        block = -(-examples // self.per_block)
        if self.per_block == 1 or not block:
            return block
        part = self._part(np.array([block - 1]))
        return int(part.first[0] + part.size[0])

    def starts(self, example: NDArray[np.int64]) -> NDArray[np.int64]:
        """First stored token of the windows of examples, numbered in the stage from 0; [B]."""
        block, window = np.divmod(example, self.per_block)
        if self.sort is not None:
            return self._sorted(block) * self.block + window * self.stride
        if self.per_block > 1:
            block, window = self._spread(example)
        epoch, place = np.divmod(self.begin + block, self.blocks)
        return permute(place, self.blocks, self.key, epoch) * self.block + window * self.stride

    def _part(self, block: NDArray[np.int64], group: int | None = None) -> "_Part":
        """The part of the stage in which a block (numbered in the stage) lies; parts end where
        epochs and groups do."""
        rest = self.blocks - self.begin % self.blocks
        epoch = (block + self.blocks - rest) // self.blocks
        first = np.where(epoch == 0, 0, rest + (epoch - 1) * self.blocks)
        size = np.where(epoch == 0, rest, self.blocks)
        group = group or self.group
        number = (block - first) // group
        first, size = first + number * group, np.minimum(size - number * group, group)
        if self.taken is not None:
            size = np.minimum(size, self.taken - first)
        return _Part(epoch, first, size)

    def _spread(self, example: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Each example's block, and which of its windows."""
        per = self.per_block
        part = self._part(example // per)
        # each has a shuffle of its own
        number = part.first + part.epoch if self.group < self.blocks else part.epoch
        window = np.empty_like(example)
        for size in np.unique(part.size):
            rows = part.size == size
            inside = example[rows] - part.first[rows] * per
            window[rows] = permute(inside, int(size) * per, self.inner_key, number[rows])
        block, window = np.divmod(window, per)
        return part.first + block, window

    def _sorted(self, block: NDArray[np.int64]) -> NDArray[np.int64]:
        """The block of the store that is read for each block of the stage."""
        part = self._part(block, self.blocks)
        inside = block - part.first
        if self.sort == "descending":
            inside = part.size - 1 - inside
        found = np.empty_like(block)
        for epoch in np.unique(part.epoch):
            rows = part.epoch == epoch
            first, size = int(part.first[rows][0]), int(part.size[rows][0])
            if size == self.blocks:
                found[rows] = inside[rows]
            else:
                found[rows] = _chosen(self, first, size)[inside[rows]]
        return found


class _Part(NamedTuple):
    """Consecutive blocks of a stage, by the number of the first, int64 [B]."""

    epoch: NDArray[np.int64]
    """From that in which the stage begins."""
    first: NDArray[np.int64]
    size: NDArray[np.int64]


@lru_cache(maxsize=512)  # two for each stream, of its first and its last epoch in a stage
def _chosen(order: WindowOrder, first: int, size: int) -> NDArray[np.int64]:
    """The blocks of the store that a stage takes of an epoch, int64 [size], ascending."""
    place = np.arange(order.begin + first, order.begin + first + size) % order.blocks
    whole = np.full(size, (order.begin + first) // order.blocks)
    return np.sort(permute(place, order.blocks, order.key, whole))
