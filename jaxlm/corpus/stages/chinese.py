"""Tagger: statistics by character for languages that put no space between words."""

from collections.abc import Callable
from functools import cache
from typing import Any
from unicodedata import category

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.config.chinese import Chinese
from jaxlm.config.rules import Rules
from jaxlm.corpus import statistics as st
from jaxlm.corpus.automaton import Automaton
from jaxlm.corpus.characters import CODES, decode, table
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.recipes import data_folder
from jaxlm.corpus.sentences import sentences
from jaxlm.corpus.stages.base import Tags
from jaxlm.corpus.stages.words import copies, line_places
from jaxlm.corpus.statistics import Analysis, Ints

SCRIPTS = {
    "han": ((0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF),
            (0x20000, 0x3FFFF)),
    "kana": ((0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)),
    "hangul": ((0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7FF)),
    "thai": ((0x0E01, 0x0E5B),),
    "lao": ((0x0E80, 0x0EFF),),
    "khmer": ((0x1780, 0x17FF),),
    "myanmar": ((0x1000, 0x109F),),
}  # fmt: skip
_SPACE, _PUNCTUATION, _SYMBOL, _END, _CLOSER, _SIMPLE, _TRADITIONAL, _SCRIPT = (
    1 << bit for bit in range(8)
)
_ENDS = "。！？…；.!?;︒｡⋯។།။၊"
_CLOSERS = "\"'”’»›)]}」』）】》〉］｝〕"


def chinese(texts: Analysis, rules: Rules) -> Tags:
    """Every attribute of the section; shares of nothing are 0, traditional_share NaN."""
    assert isinstance(rules, Chinese)
    strings = texts.texts
    counts = _counts(
        np.ascontiguousarray(strings.buffer), strings.offsets, _classes(rules.script),
        rules.short_line, rules.ngram,
    )  # fmt: skip
    (number, punctuation, symbols, script, lines, ended, short, duplicates, grams, again) = counts.T
    spans = sentences(strings)
    repeated = st.repeats(st.span_hashes(strings.buffer, spans), spans.documents)
    return {
        "characters": number.astype(np.float64),
        "mean_line_length": _share(number, lines),
        "script_share": _share(script, number),
        "stop_words": _different(strings.lengths, rules.stop_words, texts),
        "ended_lines": _share(ended, lines),
        "short_lines": _share(short, lines),
        "duplicate_lines": _share(duplicates, lines),
        "duplicate_sentences": _share(st.sums(repeated, spans.first), spans.counts),
        "duplicate_ngrams": _share(again, grams),
        "punctuation_share": _share(punctuation, number),
        "symbol_share": _share(symbols, number),
        "traditional_share": traditional_share(texts),
    }


def traditional_share(texts: Analysis) -> NDArray[np.float64]:
    """Of the characters that only one of the two has, the share of traditional ones, float64 [D];
    NaN without any."""
    strings = texts.texts
    simple, traditional = _variants(
        np.ascontiguousarray(strings.buffer), strings.offsets, _classes(("han",))
    ).T
    both = simple + traditional
    return np.where(both > 0, traditional / np.maximum(both, 1), np.nan)


def spans(text: str, rules: Rules) -> dict[str, list[tuple[int, int]]]:
    """Lines, sentences, marks and symbols that count against a text, in characters."""
    assert isinstance(rules, Chinese)
    lines = [place for place in line_places(text) if text[slice(*place)].strip()]
    data = text.encode()
    found = sentences(Strings.of([data]))
    ends = [len(data[:at].decode()) for at in (*found.starts.tolist(), *found.ends.tolist())]
    kinds = [category(c)[0] for c in text]
    traditional, simple = _written("traditional"), _written("simplified")
    places = {
        "max_short_lines": [
            (start, end) for start, end in lines
            if len("".join(text[start:end].split())) <= rules.short_line
        ],
        "max_duplicate_lines": copies(text, lines),
        "max_duplicate_sentences": copies(
            text, list(zip(ends[: len(found)], ends[len(found) :], strict=True))
        ),
    }  # fmt: skip
    for rule, wanted in (
        ("max_punctuation_share", [kind == "P" for kind in kinds]),
        ("max_symbol_share", [kind == "S" for kind in kinds]),
        ("max_traditional_share", [c in traditional for c in text]),
        ("min_traditional_share", [c in simple for c in text]),
    ):
        places[rule] = [(at, at + 1) for at, here in enumerate(wanted) if here]
    return places


TAGGERS: dict[str, Callable[[Analysis, Rules], Tags]] = {"quality.chinese": chinese}
SPANS: dict[str, Callable[[str, Rules], dict[str, list[tuple[int, int]]]]] = {
    "quality.chinese": spans
}


def _share(part: Ints, whole: Ints) -> NDArray[np.float64]:
    return np.divide(part, np.maximum(whole, 1), dtype=np.float64)


def _different(lengths: Ints, words: tuple[str, ...], texts: Analysis) -> NDArray[np.float64]:
    """How many of the words occur."""
    found = _automaton(words).find(texts.texts)
    seen = np.zeros((len(lengths), len(words)), np.bool_)
    seen[found.document, found.pattern] = True
    return seen.sum(1).astype(np.float64)


@cache
def _automaton(words: tuple[str, ...]) -> Automaton:
    return Automaton([word.encode() for word in words])


@cache
def _written(name: str) -> frozenset[str]:
    """The characters of data/chinese/NAME.txt."""
    text = (data_folder() / "chinese" / f"{name}.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return frozenset("".join(lines))


@cache
def _classes(script: tuple[str, ...]) -> NDArray[Any]:
    def of(c: str) -> int:
        kind = category(c)
        return (
            _SPACE * c.isspace()
            + _PUNCTUATION * (kind[0] == "P")
            + _SYMBOL * (kind[0] == "S")
            + _END * (c in _ENDS)
            + _CLOSER * (c in _CLOSERS)
        )

    classes = table(of, np.uint8)
    for name in script:
        for first, last in SCRIPTS[name]:
            classes[first : last + 1] |= _SCRIPT
    for bit, name in ((_SIMPLE, "simplified"), (_TRADITIONAL, "traditional")):
        classes[[ord(c) for c in _written(name)]] |= bit
    return classes


@njit(cache=True)
def _variants(
    buffer: NDArray[np.uint8], offsets: Ints, classes: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Characters that are only simplified, only traditional, [D, 2]."""
    out = np.zeros((len(offsets) - 1, 2), np.int64)
    for d in range(len(offsets) - 1):
        at = offsets[d]
        while at < offsets[d + 1]:
            code, width = decode(buffer, at)
            if code < CODES:
                out[d, 0] += (classes[code] & _SIMPLE) != 0
                out[d, 1] += (classes[code] & _TRADITIONAL) != 0
            at += width
    return out


@njit(cache=True)
def _counts(
    buffer: NDArray[np.uint8],
    offsets: Ints,
    classes: NDArray[np.uint8],
    short_line: int,
    ngram: int,
) -> NDArray[np.int64]:
    """Characters, punctuation marks, symbols, characters of the script, lines, lines that end in a
    mark, short lines, lines that came before, n-grams, n-grams that came before: int64 [D, 10]."""
    prime = np.uint64(0x9E3779B97F4A7C15)
    out = np.zeros((len(offsets) - 1, 10), np.int64)
    power = np.uint64(1)
    for _ in range(ngram):
        power *= prime
    ring = np.zeros(ngram, np.uint64)
    seen = {np.uint64(0)}
    for d in range(len(offsets) - 1):
        at, stop = offsets[d], offsets[d + 1]
        number = size = 0  # characters of the text, of the line
        ended = False
        line = np.uint64(0)
        gram = np.uint64(0)
        seen.clear()
        while at <= stop:
            code, width = (10, 1) if at == stop else decode(buffer, at)
            kind = classes[code] if code < CODES else np.uint8(0)
            if code == 10 and size:
                out[d, 4] += 1
                out[d, 5] += ended
                out[d, 6] += size <= short_line
                key = line ^ np.uint64(0x5555555555555555)  # not an n-gram
                out[d, 7] += key in seen
                seen.add(key)
                size = 0
                line = np.uint64(0)
                ended = False
            elif not kind & _SPACE:
                value = np.uint64(code) + np.uint64(1)
                value = (value ^ (value >> np.uint64(7))) * prime
                value = (value ^ (value >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
                line = line * prime + value
                place = number % ngram
                gram = gram * prime + value
                if number >= ngram:
                    gram -= ring[place] * power
                ring[place] = value
                number += 1
                size += 1
                out[d, 1] += (kind & _PUNCTUATION) != 0
                out[d, 2] += (kind & _SYMBOL) != 0
                out[d, 3] += (kind & _SCRIPT) != 0
                if not kind & _CLOSER:
                    ended = (kind & _END) != 0
                if number >= ngram:
                    out[d, 8] += 1
                    out[d, 9] += gram in seen
                    seen.add(gram)
            at += width
        out[d, 0] = number
    return out
