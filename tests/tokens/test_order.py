"""Which windows stages of different lengths read: none twice in an epoch, whatever the stages."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.tokens.order import WindowOrder, block_length
from jaxlm.tokens.shuffle import permute

STRIDES = [1, 2, 3, 4, 6, 8, 12]


def orders(strides: list[int], examples: list[int], blocks: int) -> list[WindowOrder]:
    """Stages of so many examples each, as the loader lays them out."""
    block, begin, made = block_length(strides, 1 << 20), 0, []
    for k, (stride, count) in enumerate(zip(strides, examples, strict=True)):
        taken = -(-count // (block // stride))
        last = k == len(strides) - 1
        made.append(
            WindowOrder(blocks, block, stride, begin, None if last else taken, 7, 100 + k, blocks)
        )
        begin += taken
    return made


@given(
    stages=st.lists(
        st.tuples(st.sampled_from(STRIDES), st.integers(1, 150)), min_size=1, max_size=4
    ),
    blocks=st.integers(1, 40),
)
@settings(max_examples=200, deadline=None)
def test_every_token_is_read_once_before_one_is_read_again(
    stages: list[tuple[int, int]], blocks: int
) -> None:
    strides, examples = [list(column) for column in zip(*stages, strict=True)]
    times, taken = Counter[int](), 0
    for order, count in zip(orders(strides, examples, blocks), examples, strict=True):
        starts = order.starts(np.arange(count))
        assert (starts % order.block % order.stride == 0).all()
        assert (starts + order.stride <= blocks * order.block).all()
        for start in starts.tolist():
            times.update(range(start, start + order.stride))
        taken += -(-count // order.per_block)
    assert max(times.values()) <= -(-taken // blocks), "the epochs that were begun"


@given(
    stride=st.sampled_from(STRIDES), others=st.lists(st.sampled_from(STRIDES), max_size=2),
    blocks=st.integers(1, 40), begin=st.integers(0, 100),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_the_last_stage_reads_the_rest_of_the_epoch_and_then_whole_ones(
    stride: int, others: list[int], blocks: int, begin: int
) -> None:
    block = block_length([stride, *others], 1 << 20)
    order = WindowOrder(blocks, block, stride, begin, None, 7, 8, blocks)
    per = order.per_block
    rest = (blocks - begin % blocks) * per
    starts = order.starts(np.arange(rest + 2 * blocks * per))
    every = sorted(b * block + w * stride for b in range(blocks) for w in range(per))
    first, second, third = np.split(starts, [rest, rest + blocks * per])
    assert sorted(second.tolist()) == sorted(third.tolist()) == every
    assert len(set(first.tolist())) == rest
    assert set(first.tolist()) <= set(every)


@pytest.mark.parametrize(
    "stages", [[(2, 31), (8, 9)], [(8, 9), (2, 31)], [(3, 10), (2, 7), (6, 5)]]
)
def test_stages_within_one_epoch_share_no_token(stages: list[tuple[int, int]]) -> None:
    strides, examples = [list(column) for column in zip(*stages, strict=True)]
    seen: list[int] = []
    for order, count in zip(orders(strides, examples, 100), examples, strict=True):
        for start in order.starts(np.arange(count)).tolist():
            seen += range(start, start + order.stride)
    assert len(seen) == len(set(seen)) == sum(s * n for s, n in stages)


def test_one_stage_is_the_shuffle_of_its_windows() -> None:
    order = WindowOrder(37, 64, 64, 0, None, 5, 6, 37)
    example = np.arange(100)
    epoch, place = np.divmod(example, 37)
    np.testing.assert_array_equal(order.starts(example), permute(place, 37, 5, epoch) * 64)


def test_windows_of_a_block_are_spread_over_the_stage() -> None:
    order = orders([1, 16], [1600, 1], 1000)[0]
    blocks = order.starts(np.arange(1600)) // 16
    gaps = [np.ptp(np.flatnonzero(blocks == block)) for block in np.unique(blocks)]
    assert len(gaps) == 100
    assert np.mean(gaps) > 1200, "not one after the other"


def test_blocks_of_lengths_that_have_little_in_common() -> None:
    assert block_length([512, 2048], 1 << 20) == 2048
    assert block_length([4, 6], 1 << 20) == 12
    assert block_length([1024], 1 << 20) == 1024
    assert block_length([2048, 2273], 1 << 40) == 2273, "not millions"


def test_small_sources_have_small_blocks() -> None:
    assert block_length([1100, 1500], 16 * 16500) == 16500
    assert block_length([1100, 1500], 16 * 16500 - 1) == 1500
    assert block_length([512, 1024], 1100) == 1024
    assert block_length([1024], 100) == 1024
