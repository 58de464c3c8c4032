"""Taggers that count words, and two that read what comes with a document.

Words are separated by white space, and each character of a script that puts no space between words
is one.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.config.rules import Rules
from jaxlm.config.words import Forum, Repeats, StopWords, Symbols
from jaxlm.corpus import statistics as st
from jaxlm.corpus.characters import CODES, decode, spaceless
from jaxlm.corpus.documents import Documents, Strings
from jaxlm.corpus.lists import WordList
from jaxlm.corpus.sentences import sentences
from jaxlm.corpus.stages.base import Tags
from jaxlm.corpus.statistics import Analysis, Hashes, Ints, Mask


def repeats(texts: Analysis, rules: Rules) -> Tags:
    """repeated_words, repeated_sentences: how often a sequence of them stands in a row; 1 where
    none is repeated, 0 without any."""
    assert isinstance(rules, Repeats)
    keys, first = words(texts.texts, texts.space)
    spans = sentences(texts.texts)
    hashes = st.span_hashes(texts.texts.buffer, spans)
    return {
        "repeated_words": _in_a_row(keys, first, rules.longest),
        "repeated_sentences": _in_a_row(hashes, spans.first, rules.longest),
    }


def stop_words(texts: Analysis, rules: Rules) -> Tags:
    """stop_words: how many different ones occur as whole words."""
    assert isinstance(rules, StopWords)
    found = _list(rules.words).find(texts.texts)
    seen = np.zeros((len(texts.texts), len(rules.words)), np.bool_)
    seen[found.document, found.pattern] = True
    return {"stop_words": seen.sum(1).astype(np.float64)}


def symbols(texts: Analysis, rules: Rules) -> Tags:
    """symbol_ratio: symbols a word, 0 without words."""
    assert isinstance(rules, Symbols)
    found = _list(rules.symbols).find(texts.texts)
    number = np.bincount(found.document, minlength=len(texts.texts))
    _, first = words(texts.texts, texts.space)
    return {"symbol_ratio": np.divide(number, np.maximum(np.diff(first), 1), dtype=np.float64)}


def forum(texts: Analysis, rules: Rules) -> Tags:
    """likes: the number in the meta field, NaN without one."""
    assert isinstance(rules, Forum)
    values = [_number(value) for value in meta_values(texts.documents, rules.likes_field)]
    return {"likes": np.array(values, np.float64)}


def wiki(texts: Analysis, rules: Rules) -> Tags:
    """words: their number."""
    _, first = words(texts.texts, texts.space)
    return {"words": np.diff(first).astype(np.float64)}


def repeats_spans(text: str, rules: Rules) -> dict[str, list[tuple[int, int]]]:
    """The longest stretch of repeated words."""
    assert isinstance(rules, Repeats)
    places = word_places(text)
    found = [text[start:end] for start, end in places]
    best = (1, 0, 0)
    for period in range(1, min(rules.longest, len(found) - 1) + 1):
        same = 0
        for i in range(period, len(found)):
            same = same + 1 if found[i] == found[i - period] else 0
            if same // period + 1 > best[0]:
                best = (same // period + 1, i - same - period + 1, i)
    times, first, last = best
    return {"max_repeated_words": [(places[first][0], places[last][1])] if times > 1 else []}


def symbols_spans(text: str, rules: Rules) -> dict[str, list[tuple[int, int]]]:
    """The symbols."""
    assert isinstance(rules, Symbols)
    marks = sorted(rules.symbols, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, marks)))
    return {"max_symbol_ratio": [match.span() for match in pattern.finditer(text)]}


def word_places(text: str) -> list[tuple[int, int]]:
    """Where the words of a text are, in characters."""
    alone = spaceless()
    out: list[tuple[int, int]] = []
    for match in re.finditer(r"\S+", text):
        start = match.start()
        for at in range(*match.span()):
            if ord(text[at]) < CODES and alone[ord(text[at])]:
                out += [(start, at)] * (start < at) + [(at, at + 1)]
                start = at + 1
        out += [(start, match.end())] * (start < match.end())
    return out


def line_places(text: str) -> list[tuple[int, int]]:
    """Where the lines of a text are, blank ones too, in characters without their newlines."""
    ends = [match.start() for match in re.finditer("\n", text)]
    return list(zip([0, *(end + 1 for end in ends)], [*ends, len(text)], strict=True))


def copies(
    text: str, places: Sequence[tuple[int, int]], first_too: bool = False
) -> list[tuple[int, int]]:
    """Those of the places whose text came before, or with first_too comes more than once."""
    number = Counter(text[start:end] for start, end in places)
    seen: set[str] = set()
    out = []
    for start, end in places:
        piece = text[start:end]
        if number[piece] > 1 and (first_too or piece in seen):
            out.append((start, end))
        seen.add(piece)
    return out


TAGGERS: dict[str, Callable[[Analysis, Rules], Tags]] = {
    "quality.repeats": repeats,
    "quality.stop_words": stop_words,
    "quality.symbols": symbols,
    "quality.forum": forum,
    "quality.wiki": wiki,
}
SPANS: dict[str, Callable[[str, Rules], dict[str, list[tuple[int, int]]]]] = {
    "quality.repeats": repeats_spans,
    "quality.symbols": symbols_spans,
}


def words(texts: Strings, space: Mask) -> tuple[Hashes, Ints]:
    """A hash of each word, uint64 [W]; those of document d are first[d]:first[d + 1]."""
    return _words(np.ascontiguousarray(texts.buffer), texts.offsets, space, spaceless())


def meta_values(documents: Documents, field: str) -> list[object]:
    """The value of a meta field of each document, None without one."""
    out: list[object] = []
    for i in range(len(documents)):
        meta = documents.meta[i]
        out.append(json.loads(meta).get(field) if meta else None)
    return out


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


@cache
def _list(entries: tuple[str, ...]) -> WordList:
    return WordList(entries)


@njit(cache=True)
def _words(
    buffer: NDArray[np.uint8], offsets: Ints, space: Mask, alone: Mask
) -> tuple[Hashes, Ints]:
    prime = np.uint64(0x9E3779B97F4A7C15)
    keys = np.empty(len(buffer) // 2 + len(offsets), np.uint64)
    first = np.zeros(len(offsets), np.int64)
    n = 0
    for d in range(len(offsets) - 1):
        at, stop = offsets[d], offsets[d + 1]
        key = np.uint64(0)  # of the open word; 0: none
        while at < stop:
            if space[at]:
                width = 1
                if key:
                    keys[n] = key
                    n += 1
                    key = np.uint64(0)
            else:
                code, width = decode(buffer, at)
                single = code < CODES and alone[code]
                if key and single:
                    keys[n] = key
                    n += 1
                    key = np.uint64(0)
                for k in range(width):
                    key = (key ^ (key >> np.uint64(31))) * prime + np.uint64(buffer[at + k])
                    key += np.uint64(1)
                if single:
                    keys[n] = key
                    n += 1
                    key = np.uint64(0)
            at += width
        if key:
            keys[n] = key
            n += 1
        first[d + 1] = n
    return keys[:n].copy(), first


@njit(cache=True)
def _in_a_row(keys: Hashes, first: Ints, longest: int) -> NDArray[np.float64]:
    """How often in a row a sequence of at most `longest` keys stands in each document."""
    out = np.zeros(len(first) - 1)
    for d in range(len(first) - 1):
        start, stop = first[d], first[d + 1]
        most = min(1, stop - start)
        for period in range(1, min(longest, stop - start - 1) + 1):
            same = 0
            for i in range(start + period, stop):
                same = same + 1 if keys[i] == keys[i - period] else 0
                if same // period + 1 > most:
                    most = same // period + 1
        out[d] = most
    return out
