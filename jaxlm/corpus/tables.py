"""Sets of 64-bit hashes inside Numba kernels: open addressing in an array whose size is a power of
two, 0 for an empty place."""

import numpy as np
from numba import njit

MIX = np.uint64(0xD6E8FEB86659FD93)
"""The high bits of a hash times this depend on all of its bits."""


@njit(cache=True, inline="always")
def mix(value: np.uint64) -> np.uint64:
    """splitmix64's finaliser: every bit of the result depends on every bit of the input."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(cache=True)
def room(items: int) -> int:
    """Size of a table for so many hashes."""
    size = 16
    while size < 2 * items:
        size *= 2
    return size


@njit(cache=True, inline="always")
def mixed(value: np.uint64) -> np.uint64:
    """A hash whose low bits depend on all bits of `value`, and that is not 0; others do not meet
    but for the two that become 1."""
    first = (value ^ (value >> np.uint64(32))) * MIX
    second = first ^ (first >> np.uint64(32))
    return second if second else np.uint64(1)
