"""Code points inside Numba kernels: UTF-8 decoding, and tables of what Python knows of each one."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

CODES = 0x40000
"""Code points below this are in the tables; those above are private, unassigned or tags."""

# Scripts that put no space between words: a character of these counts as a word.
NO_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # ideographic iteration mark, closing mark, zero
    (0x3040, 0x30FF),  # kana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # ideographs
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9D),  # half-width kana
    (0x20000, 0x3FFFF),
)


@njit(cache=True, inline="always")
def decode(buffer: NDArray[np.uint8], at: Any) -> tuple[Any, int]:
    """The code point at a byte of a valid UTF-8 buffer, and how many bytes it has."""
    byte = np.int64(buffer[at])
    if byte < 0x80:
        return byte, 1
    if byte < 0xE0:
        return (byte & 0x1F) << 6 | np.int64(buffer[at + 1] & 0x3F), 2
    middle = np.int64(buffer[at + 1] & 0x3F)
    if byte < 0xF0:
        return (byte & 0x0F) << 12 | middle << 6 | np.int64(buffer[at + 2] & 0x3F), 3
    low = np.int64(buffer[at + 2] & 0x3F) << 6 | np.int64(buffer[at + 3] & 0x3F)
    return (byte & 0x07) << 18 | middle << 12 | low, 4


def table(value: Callable[[str], int], dtype: type[np.generic]) -> NDArray[Any]:
    """value(character) for every code point below CODES."""
    return np.fromiter((value(chr(code)) for code in range(CODES)), dtype, CODES)


@cache
def lower() -> NDArray[np.int32]:
    """Lower case of each code point, int32 [CODES]; where it is several characters, the first."""
    return table(lambda c: ord(c.lower()[0]), np.int32)


@cache
def spaceless() -> NDArray[np.bool_]:
    """True for characters of scripts without spaces between words, bool [CODES]."""
    mask = np.zeros(CODES, np.bool_)
    for first, last in NO_SPACES:
        mask[first : last + 1] = True
    return mask
