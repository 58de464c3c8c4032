"""FineWeb's rules (Penedo et al. 2024, arXiv:2406.17557) as datatrove 0.10.1 computes them."""

from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.config.prose import FineWeb
from jaxlm.config.rules import Rules
from jaxlm.corpus import classes as c
from jaxlm.corpus.characters import decode
from jaxlm.corpus.stages.base import Tags
from jaxlm.corpus.statistics import Analysis, Ints
from jaxlm.corpus.tables import mixed, room
from jaxlm.corpus.words import POWER, kind_of

ATTRIBUTES = ("lines", "ended_lines", "short_lines", "duplicate_characters", "newline_ratio")


def fineweb(texts: Analysis, rules: Rules) -> Tags:
    """The attributes; all but `lines` are NaN in a document without lines."""
    assert isinstance(rules, FineWeb)
    words = texts.tokens(rules.words)
    out = _fineweb(
        texts.plain.buffer, texts.plain.offsets, c.classes(), words.first, texts.characters,
        texts.newlines, rules.short_line,
    )  # fmt: skip
    return {name: out[k] for k, name in enumerate(ATTRIBUTES)}


def spans(text: str, rules: Rules) -> dict[str, list[tuple[int, int]]]:
    """Lines without an end, short lines, later copies of lines."""
    assert isinstance(rules, FineWeb)
    endless, short, again = [], [], []
    seen = set()
    at = 0
    for line in text.split("\n"):
        span = (at, at + len(line))
        at += len(line) + 1
        if not line.strip():
            continue
        if not ends_line(line[-1]):
            endless.append(span)
        if len(line) <= rules.short_line:
            short.append(span)
        if line in seen:
            again.append(span)
        seen.add(line)
    return {
        "min_ended_lines": endless,
        "max_short_lines": short,
        "max_duplicate_characters": again,
    }


def ends_line(character: str) -> bool:
    """Whether a character is terminal punctuation."""
    return ord(character) < len(c.classes()) and bool(c.classes()[ord(character)] & c.TERMINAL)


TAGGERS: dict[str, Callable[[Analysis, Rules], Tags]] = {"quality.fineweb": fineweb}
SPANS: dict[str, Callable[[str, Rules], dict[str, list[tuple[int, int]]]]] = {
    "quality.fineweb": spans
}


@njit(cache=True)
def _fineweb(
    buffer: NDArray[np.uint8],
    offsets: Ints,
    kinds: NDArray[np.uint32],
    first: Ints,
    characters: Ints,
    newlines: Ints,
    short_line: int,
) -> NDArray[np.float64]:
    out = np.full((5, len(characters)), np.nan)
    most = 0
    for d in range(len(characters)):
        most = max(most, newlines[d])
    keys = np.empty(room(most + 1), np.uint64)
    for d in range(len(characters)):
        size = room(newlines[d] + 1)
        keys[:size] = np.uint64(0)
        lines = ended = short = again = 0
        at, end = offsets[d], offsets[d + 1]
        value = np.uint64(0)
        length = 0
        last = np.uint32(0)  # bits of the character before
        blank = True
        while at <= end:
            if at == end or buffer[at] == 10:
                if not blank:
                    lines += 1
                    ended += (last & c.TERMINAL) != 0
                    short += length <= short_line
                    key = mixed(value)
                    place = np.int64(key) & (size - 1)
                    while keys[place] != 0 and keys[place] != key:
                        place = (place + 1) & (size - 1)
                    if keys[place] == key:
                        again += length
                    keys[place] = key
                value = np.uint64(0)
                length = 0
                blank = True
                at += 1
                continue
            code, width = decode(buffer, at)
            last = kind_of(kinds, code)
            blank &= (last & c.SPACE) != 0
            length += 1
            for k in range(width):
                value = value * POWER + np.uint64(buffer[at + k]) + np.uint64(1)
            at += width
        words = first[d + 1] - first[d]
        out[0, d] = lines
        if lines:
            out[1, d] = ended / lines
            out[2, d] = short / lines
            out[3, d] = again / (characters[d] - newlines[d])
            out[4, d] = newlines[d] / words
    return out
