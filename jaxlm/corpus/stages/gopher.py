"""Gopher's quality rules (Rae et al. 2021, arXiv:2112.11446, appendix A.1) as datatrove 0.10.1
computes them."""

import re
from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.config.prose import Gopher
from jaxlm.config.rules import Rules
from jaxlm.corpus import classes as c
from jaxlm.corpus.characters import decode
from jaxlm.corpus.stages.base import Tags
from jaxlm.corpus.statistics import Analysis, Ints
from jaxlm.corpus.words import HAS_LETTER, NOT_MARKS, Words, hash_of, kind_of

ATTRIBUTES = (
    "words", "mean_word_length", "hash_ratio", "ellipsis_ratio", "bullet_lines", "ellipsis_lines",
    "alphabetic_words", "stop_words",
)  # fmt: skip


def gopher(texts: Analysis, rules: Rules) -> Tags:
    """The attributes; NaN where there is no word or line to divide by.

    Words without punctuation marks count for words and mean_word_length, all for the other ratios.
    Lines are those of str.splitlines(), empty ones included.
    """
    assert isinstance(rules, Gopher)
    words = texts.tokens(rules.words)
    stop = np.array([hash_of(word) for word in rules.stop_words], np.uint64)
    out = _gopher(
        texts.plain.buffer, texts.plain.offsets, c.classes(), words.first, words.characters,
        words.flags, words.hashes, stop,
    )  # fmt: skip
    tags = {name: out[k] for k, name in enumerate(ATTRIBUTES)}
    return tags | {"symbol_ratio": np.maximum(tags["hash_ratio"], tags["ellipsis_ratio"])}


def spans(text: str, rules: Rules) -> dict[str, list[tuple[int, int]]]:
    """Number signs, ellipses, lines with a bullet or an ellipsis, words without a letter."""
    assert isinstance(rules, Gopher)
    bullets, ellipses = [], []
    at = 0
    for line in text.splitlines(keepends=True):
        bare = line.strip()
        if bare.startswith(("•", "-")):
            bullets.append((at, at + len(line)))
        if bare.endswith(("...", "…")):
            ellipses.append((at, at + len(line)))
        at += len(line)
    words = Words.of_text(text, rules.words)
    return {
        "max_hash_ratio": [m.span() for m in re.finditer("#", text)],
        "max_ellipsis_ratio": [m.span() for m in re.finditer(r"\.\.\.|…", text)],
        "max_symbol_ratio": [m.span() for m in re.finditer(r"#|\.\.\.|…", text)],
        "max_bullet_lines": bullets,
        "max_ellipsis_lines": ellipses,
        "min_alphabetic_words": [
            span for span in words if not any(map(str.isalpha, text[slice(*span)]))
        ],
    }


TAGGERS: dict[str, Callable[[Analysis, Rules], Tags]] = {"quality.gopher": gopher}
SPANS: dict[str, Callable[[str, Rules], dict[str, list[tuple[int, int]]]]] = {
    "quality.gopher": spans
}


@njit(cache=True)
def _gopher(
    buffer: NDArray[np.uint8],
    offsets: Ints,
    kinds: NDArray[np.uint32],
    first: Ints,
    characters: NDArray[np.int32],
    flags: NDArray[np.uint8],
    hashes: NDArray[np.uint64],
    stop: NDArray[np.uint64],
) -> NDArray[np.float64]:
    out = np.full((8, len(offsets) - 1), np.nan)
    seen = np.zeros(len(stop), np.bool_)
    for d in range(len(offsets) - 1):
        words = size = letters = 0
        seen[:] = False
        for i in range(first[d], first[d + 1]):
            flag = flags[i]
            if flag & NOT_MARKS:
                words += 1
                size += int(characters[i])
            letters += (flag & HAS_LETTER) != 0
            for k in range(len(stop)):
                if hashes[i] == stop[k]:
                    seen[k] = True
        number_signs = ellipses = lines = bullets = ended = 0
        opening = last = 0  # first and last character of the line that is not white space
        dots = tail = 0  # dots up to here, and up to the last such character
        inside = False  # of a line
        at, end = offsets[d], offsets[d + 1]
        while at < end:
            code, width = decode(buffer, at)
            at += width
            inside = True
            if code == 46:
                dots += 1
                tail = dots
                last = code
                if opening == 0:
                    opening = code
                continue
            ellipses += dots // 3
            dots = 0
            kind = kind_of(kinds, code)
            if kind & c.SPACE:
                if kind & c.LINE_END:
                    if code == 13 and at < end and buffer[at] == 10:
                        at += 1
                    lines += 1
                    bullets += opening == 0x2022 or opening == 45
                    ended += tail >= 3 or last == 0x2026
                    opening = last = tail = 0
                    inside = False
                continue
            number_signs += code == 35
            ellipses += code == 0x2026
            last = code
            tail = 0
            if opening == 0:
                opening = code
        ellipses += dots // 3
        if inside:
            lines += 1
            bullets += opening == 0x2022 or opening == 45
            ended += tail >= 3 or last == 0x2026
        every = first[d + 1] - first[d]
        out[0, d] = words
        if words:
            out[1, d] = size / words
        if every:
            out[2, d] = number_signs / every
            out[3, d] = ellipses / every
            out[6, d] = letters / every
        if lines:
            out[4, d] = bullets / lines
            out[5, d] = ended / lines
        out[7, d] = seen.sum()
    return out
