"""Gopher's repetition rules (Rae et al. 2021, arXiv:2112.11446, table A1) as datatrove 0.10.1
computes them."""

import re
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.config.prose import Repetition
from jaxlm.config.rules import Rules
from jaxlm.corpus.stages.base import Tags
from jaxlm.corpus.statistics import Analysis, Ints
from jaxlm.corpus.tables import MIX, mixed, room
from jaxlm.corpus.words import POWER, POWER_INVERSE, Hashes, Words

TOP = (2, 3, 4)
DUPLICATE = (5, 6, 7, 8, 9, 10)
ATTRIBUTES = (
    "characters", "duplicate_paragraphs", "duplicate_paragraph_characters", "duplicate_lines",
    "duplicate_line_characters", *(f"top_{n}gram" for n in TOP),
    *(f"duplicate_{n}grams" for n in DUPLICATE),
)  # fmt: skip


def repetition(texts: Analysis, rules: Rules) -> Tags:
    """Shares of what was there before in the document; NaN in an empty one.

    Paragraphs are the stripped text cut at two or more newlines, lines the text cut at one or more
    (so that a newline at the end leaves an empty line); a later copy is a duplicate. top_ngram: the
    most frequent n words joined by spaces, the first of equals, its length times its count; NaN for
    fewer than n words. duplicate_ngrams: n words that were there before, without spaces, after
    which n words are skipped. Characters are those of the whole text.
    """
    assert isinstance(rules, Repetition)
    words = texts.tokens(rules.words)
    plain, characters = texts.plain, texts.characters
    out = np.full((len(ATTRIBUTES), len(characters)), np.nan)
    out[0] = characters
    _blocks(plain.buffer, plain.offsets, texts.trimmed, characters, texts.newlines, out)
    _grams(words.starts, words.ends, words.first, words.characters, words.hashes, _powers(POWER),
           _powers(POWER_INVERSE), characters, out)  # fmt: skip
    return {name: out[k] for k, name in enumerate(ATTRIBUTES)}


def spans(text: str, rules: Rules) -> dict[str, list[tuple[int, int]]]:
    """Later copies of paragraphs and lines, the most frequent n-grams, repeated n-grams."""
    assert isinstance(rules, Repetition)
    body = text.strip()
    start = text.find(body)
    paragraphs = list(_again(_pieces(r"\n{2,}", text, start, start + len(body)), text))
    lines = list(_again(_pieces(r"\n+", text, 0, len(text)), text))
    out = {
        "max_duplicate_paragraphs": paragraphs,
        "max_duplicate_paragraph_characters": paragraphs,
        "max_duplicate_lines": lines,
        "max_duplicate_line_characters": lines,
    }
    words = Words.of_text(text, rules.words)
    texts = [text[a:b] for a, b in words]
    for n in TOP:
        grams = [" ".join(texts[i : i + n]) for i in range(len(words) - n + 1)]
        most = [gram for gram, _ in Counter(grams).most_common(1)]
        out[f"max_top_{n}gram"] = [
            (words[i][0], words[i + n - 1][1]) for i, gram in enumerate(grams) if gram in most
        ]
    for n in DUPLICATE:
        seen: set[str] = set()
        found = out[f"max_duplicate_{n}grams"] = []
        i = 0
        while i + n <= len(words):
            gram = "".join(texts[i : i + n])
            if gram in seen:
                found.append((words[i][0], words[i + n - 1][1]))
            i += n if gram in seen else 1
            seen.add(gram)
    return out


TAGGERS: dict[str, Callable[[Analysis, Rules], Tags]] = {"quality.repetition": repetition}
SPANS: dict[str, Callable[[str, Rules], dict[str, list[tuple[int, int]]]]] = {
    "quality.repetition": spans
}


def _pieces(border: str, text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for match in re.compile(border).finditer(text, start, end):
        yield start, match.start()
        start = match.end()
    yield start, end


def _again(pieces: Iterator[tuple[int, int]], text: str) -> Iterator[tuple[int, int]]:
    seen = set()
    for start, end in pieces:
        if text[start:end] in seen:
            yield start, end
        seen.add(text[start:end])


def _powers(base: np.uint64) -> Hashes:
    """base^0 ... base^255, uint64."""
    out = np.full(256, base, np.uint64)
    out[0] = 1
    return np.cumprod(out, dtype=np.uint64)


@njit(cache=True)
def _blocks(
    buffer: NDArray[np.uint8],
    offsets: Ints,
    trimmed: Ints,
    characters: Ints,
    newlines: Ints,
    out: NDArray[np.float64],
) -> None:
    most = 0
    for d in range(len(characters)):
        most = max(most, newlines[d])
    keys = np.empty(room(most + 1), np.uint64)
    for d in range(len(characters)):
        if characters[d] == 0:
            continue
        for kind in range(2):
            least = 2 - kind  # newlines between paragraphs, between lines
            low, high = offsets[d], offsets[d + 1]
            if kind == 0:
                low, high = trimmed[0, d], trimmed[1, d]
            size = room(newlines[d] + 1)
            keys[:size] = np.uint64(0)
            pieces = again = size_again = 0
            value = np.uint64(0)
            length = 0
            at = low
            while at <= high:
                run = 0
                while at + run < high and buffer[at + run] == 10:
                    run += 1
                if at == high or run >= least:
                    key = mixed(value)
                    place = np.int64(key) & (size - 1)
                    while keys[place] != 0 and keys[place] != key:
                        place = (place + 1) & (size - 1)
                    pieces += 1
                    if keys[place] == key:
                        again += 1
                        size_again += length
                    keys[place] = key
                    value = np.uint64(0)
                    length = 0
                    if at == high:
                        break
                    at += run
                    continue
                byte = buffer[at]
                value = value * POWER + np.uint64(byte) + np.uint64(1)
                length += (byte & 0xC0) != 0x80
                at += 1
            out[1 + 2 * kind, d] = again / pieces
            out[2 + 2 * kind, d] = size_again / characters[d]


@njit(cache=True)
def _grams(
    starts: NDArray[np.int32],
    ends: NDArray[np.int32],
    first: Ints,
    characters: NDArray[np.int32],
    hashes: Hashes,
    powers: Hashes,
    inverses: Hashes,
    whole: Ints,
    out: NDArray[np.float64],
) -> None:
    most = 0
    for d in range(len(whole)):
        most = max(most, first[d + 1] - first[d])
    # hash of all words up to here: each with a space after it, and without; and what takes the
    # part of a sum from i on to the beginning
    spaced = np.zeros(most + 1, np.uint64)
    spaced_shift = np.ones(most + 1, np.uint64)
    joined = np.zeros(most + 1, np.uint64)
    joined_shift = np.ones(most + 1, np.uint64)
    length = np.zeros(most + 1, np.int64)
    gram = np.empty(most, np.uint64)
    counts = np.empty(most, np.int32)
    slots = np.empty(room(most), np.int32)  # 1 + where an n-gram came first, 0 for none
    for d in range(len(whole)):
        if whole[d] == 0:
            continue
        words = first[d + 1] - first[d]
        spaced_power = joined_power = np.uint64(1)
        for i in range(words):
            t = first[d] + i
            power = inverse = np.uint64(1)
            rest = np.int64(ends[t] - starts[t])
            while rest > 254:
                power *= powers[254]
                inverse *= inverses[254]
                rest -= 254
            power *= powers[rest]
            inverse *= inverses[rest]
            length[i + 1] = length[i] + characters[t]
            joined[i + 1] = joined[i] + hashes[t] * joined_power
            joined_power *= power
            joined_shift[i + 1] = joined_shift[i] * inverse
            # a space is byte 32
            spaced[i + 1] = spaced[i] + (hashes[t] + np.uint64(33) * power) * spaced_power
            spaced_power *= power * powers[1]
            spaced_shift[i + 1] = spaced_shift[i] * inverse * inverses[1]
        size = room(words)
        bits = np.uint64(64)
        while np.uint64(1) << (np.uint64(64) - bits) < size:
            bits -= np.uint64(1)
        for n in range(2, 5):
            if words < n:
                break
            slots[:size] = 0
            for i in range(words - n + 1):
                gram[i] = (spaced[i + n] - spaced[i]) * spaced_shift[i]
            best = 1
            where = 0
            for i in range(words - n + 1):
                place = np.int64((gram[i] * MIX) >> bits)
                while slots[place] and gram[slots[place] - 1] != gram[i]:
                    place = (place + 1) & (size - 1)
                k = slots[place] - 1
                if k < 0:
                    slots[place] = i + 1
                    counts[i] = 1
                else:
                    counts[k] += 1
                    if counts[k] > best or (counts[k] == best and k < where):
                        best = counts[k]
                        where = k
            size_of_best = length[where + n] - length[where] + n - 1
            out[3 + n, d] = size_of_best * best / whole[d]
        for n in range(5, 11):
            slots[:size] = 0
            for i in range(words - n + 1):
                gram[i] = (joined[i + n] - joined[i]) * joined_shift[i]
            repeated = 0
            i = 0
            while i + n <= words:
                place = np.int64((gram[i] * MIX) >> bits)
                while slots[place] and gram[slots[place] - 1] != gram[i]:
                    place = (place + 1) & (size - 1)
                if slots[place]:
                    repeated += length[i + n] - length[i]
                    i += n
                else:
                    slots[place] = i + 1
                    i += 1
            out[3 + n, d] = repeated / whole[d]
