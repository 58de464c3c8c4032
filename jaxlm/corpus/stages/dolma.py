"""The Gopher and C4 rules as Dolma 1.2.1 computes them (taggers gopher_v1, c4_v1 and c4_v2).

They differ from the published rules, and from ours, in what a word, a line and a duplicate are;
`quality.gopher` and its neighbours are the ones to use where Dolma's decisions are not wanted.
"""

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.config.dolma import DolmaC4
from jaxlm.config.rules import Rules
from jaxlm.corpus.automaton import Automaton
from jaxlm.corpus.characters import CODES, decode, table
from jaxlm.corpus.lists import read_list
from jaxlm.corpus.stages.base import Changes, Edit, Tags, replaced
from jaxlm.corpus.stages.words import copies, line_places
from jaxlm.corpus.statistics import Analysis, Ints, Mask, spaces

REQUIRED = ("the", "be", "to", "of", "and", "that", "have", "with")
NGRAMS = range(2, 11)
_SPACE, _ALPHA, _SYMBOL, _BULLET = 1, 2, 4, 8  # bits of a character's class
_PRIME = np.uint64(0x9E3779B97F4A7C15)


def gopher(texts: Analysis, rules: Rules) -> Tags:
    """Every attribute of gopher_v1.

    Words are what white space separates, with case and punctuation; lines are what "\\n"
    separates, blank ones included, and every copy of a line counts as a duplicate. Required words
    count each occurrence. Shares of n-grams are of all characters in words (top_ngram: most
    frequent, of equals the first) or of all characters in all n-grams (duplicate: those that occur
    more than once, overlapping); NaN with fewer than n words, and the first also for empty texts.
    """
    required = np.array([_hash(word) for word in REQUIRED], np.uint64)
    out = _gopher(
        np.ascontiguousarray(texts.texts.buffer), texts.texts.offsets, _classes(), required
    )
    names = (
        "words", "median_word_length", "symbol_ratio", "alphabetic_words", "required_words",
        "bullet_lines", "ellipsis_lines", "duplicate_lines", "duplicate_line_characters",
        *(f"top_{n}gram" if n < 5 else f"duplicate_{n}grams" for n in NGRAMS),
    )  # fmt: skip
    return {name: out[:, k].copy() for k, name in enumerate(names)}


def c4(texts: Analysis, rules: Rules) -> Edit:
    """c4_v2, and what Dolma's mixer then cuts: lines (split at "\\n") that do not end in . ? ! or
    a straight double quote, and lines with fewer than three words, each with its newline.

    curly_brace, lorem_ipsum, javascript and naughty_word are 1 where the text has one, whatever
    its case and also inside a word, but for naughty words without a space, which have to be
    between white space. javascript_words is c4_v1's, which wants the word alone.
    """
    assert isinstance(rules, DolmaC4)
    strings = texts.texts
    number = len(strings)
    automaton, alone = _needles(rules.naughty_words)
    # two characters are ASCII letters, or have one in them, only in lower case
    odd = Automaton(["\u212a".encode(), "\u0130".encode()]).find(strings).document
    low = strings.replace({d: strings[d].decode().lower().encode() for d in set(odd.tolist())})
    found = automaton.find(low)
    space = texts.space if low is strings else spaces(low)
    free = np.ones(len(low.buffer) + 1, np.bool_)  # white space or a border of texts
    free[:-1] = space
    free[low.offsets] = True
    before = np.isin(found.starts, low.offsets) | free[found.starts - 1]
    after = free[found.ends]
    word = before & after
    tags: Tags = {}
    for name, hit in (
        ("curly_brace", found.pattern == 0),
        ("lorem_ipsum", found.pattern == 1),
        ("javascript", found.pattern == 2),
        ("javascript_words", (found.pattern == 2) & word),
        ("naughty_word", (found.pattern > 2) & (word | ~alone[found.pattern])),
    ):
        tags[name] = (np.bincount(found.document[hit], minlength=number) > 0).astype(np.float64)
    lines = _lines(np.ascontiguousarray(strings.buffer), strings.offsets, texts.space)
    document, start, end, endless, short = lines
    tags["lines"] = np.bincount(document, minlength=number).astype(np.float64)
    tags["lines_without_end"] = np.bincount(document, endless, number)
    tags["short_lines"] = np.bincount(document, short, number)
    cut = np.flatnonzero(((endless | short) == 1) & (end > start))
    begin = strings.offsets[document[cut]]
    changes = Changes(
        ("lines_without_end", "short_lines"),
        document[cut], 1 - endless[cut], start[cut] - begin, end[cut] - begin,
    )  # fmt: skip
    return Edit(tags, replaced(strings, start[cut], end[cut]), changes)


def gopher_spans(text: str, rules: Rules) -> dict[str, list[tuple[int, int]]]:
    """Lines, words and runs of words that count against a text, in characters."""
    lines = line_places(text)
    words = [match.span() for match in re.finditer(r"\S+", text)]
    duplicates = copies(text, lines, first_too=True)
    places = {
        "max_symbol_ratio": [w for w in words if set("#…") & set(text[slice(*w)])],
        "max_bullet_lines": [line for line in lines if text[slice(*line)].startswith(("*", "-"))],
        "max_ellipsis_lines": [line for line in lines if text[slice(*line)].endswith("…")],
        "max_duplicate_lines": duplicates,
        "max_duplicate_line_characters": duplicates,
    }
    for n in range(5, 11):
        runs = [
            tuple(text[slice(*word)] for word in words[i : i + n])
            for i in range(len(words) - n + 1)
        ]
        number = Counter(runs)
        joined: list[tuple[int, int]] = []
        for i, run in enumerate(runs):
            if number[run] > 1:
                start, end = words[i][0], words[i + n - 1][1]
                if joined and start <= joined[-1][1]:
                    start = joined.pop()[0]
                joined.append((start, end))
        places[f"max_duplicate_{n}grams"] = joined
    return places


def c4_spans(text: str, rules: Rules) -> dict[str, list[tuple[int, int]]]:
    """What documents are dropped for, in characters."""
    needles = (("max_curly_brace", "{"), ("max_lorem_ipsum", "lorem ipsum"),
               ("max_javascript", "javascript"))  # fmt: skip
    return {
        rule: [match.span() for match in re.finditer(re.escape(needle), text, re.IGNORECASE)]
        for rule, needle in needles
    }


TAGGERS: dict[str, Callable[[Analysis, Rules], Tags]] = {"quality.dolma_gopher": gopher}
EDITORS: dict[str, Callable[[Analysis, Rules], Edit]] = {"quality.dolma_c4": c4}
SPANS: dict[str, Callable[[str, Rules], dict[str, list[tuple[int, int]]]]] = {
    "quality.dolma_gopher": gopher_spans,
    "quality.dolma_c4": c4_spans,
}


@cache
def _needles(naughty: str | None) -> tuple[Automaton, Mask]:
    """What c4 looks for, and which of these has to be a word by itself."""
    entries = read_list(naughty) if naughty else ()
    needles = ["{", "lorem ipsum", "javascript", *entries]
    return Automaton([needle.encode() for needle in needles]), np.array(
        [" " not in needle for needle in needles]
    )


@njit(cache=True)
def _lines(buffer: NDArray[np.uint8], offsets: Ints, space: Mask) -> tuple[Ints, ...]:
    """Every line: document, start and end (with its newline) in the buffer, and 1 or 0 for having
    no closing mark and for having fewer than three words."""
    number = len(offsets) - 1
    for byte in buffer:
        number += byte == 10
    document = np.empty(number, np.int64)
    start = np.empty(number, np.int64)
    end = np.empty(number, np.int64)
    endless = np.empty(number, np.int64)
    short = np.empty(number, np.int64)
    n = 0
    for d in range(len(offsets) - 1):
        begin = offsets[d]
        words = 0
        last = np.uint8(0)  # byte that is not of white space
        inside = False
        for at in range(offsets[d], offsets[d + 1] + 1):
            border = at == offsets[d + 1]
            if border or buffer[at] == 10:
                document[n], start[n], end[n] = d, begin, at if border else at + 1
                # . ? ! "
                endless[n] = not (last == 46 or last == 63 or last == 33 or last == 34)
                short[n] = words < 3
                n += 1
                begin = at + 1
                words = 0
                last = np.uint8(0)
                inside = False
            elif space[at]:
                inside = False
            else:
                words += not inside
                inside = True
                last = buffer[at]
    return document, start, end, endless, short


@cache
def _classes() -> NDArray[Any]:
    def of(c: str) -> int:
        return (
            _SPACE * c.isspace()
            + _ALPHA * c.isalpha()
            + _SYMBOL * (c in "#…")
            + _BULLET * (c in "*-")
        )

    return table(of, np.uint8)


def _hash(word: str) -> int:
    value = 0
    for byte in word.encode():
        value = (value * int(_PRIME) + byte + 1) % (1 << 64)
    return value


@njit(cache=True, inline="always")
def _slot(keys: NDArray[np.uint64], used: NDArray[np.int64], mark: int, key: np.uint64) -> int:
    """Where a key is, or the free place for it; places of other marks count as free."""
    mask = len(keys) - 1
    mixed = key ^ (key >> np.uint64(29))
    mixed = mixed * np.uint64(0xBF58476D1CE4E5B9)
    at = int(mixed >> np.uint64(20)) & mask
    while used[at] == mark and keys[at] != key:
        at = (at + 1) & mask
    return at


@njit(cache=True)
def _gopher(
    buffer: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    classes: NDArray[np.uint8],
    required: NDArray[np.uint64],
) -> NDArray[np.float64]:
    documents = len(offsets) - 1
    out = np.zeros((documents, 18))
    longest = 0
    for d in range(documents):
        longest = max(longest, offsets[d + 1] - offsets[d])
    word = np.empty(longest // 2 + 1, np.uint64)  # hashes
    length = np.empty(longest // 2 + 1, np.int64)  # characters
    line = np.empty(longest + 1, np.uint64)
    line_length = np.empty(longest + 1, np.int64)
    gram = np.empty(longest // 2 + 1, np.uint64)
    # one hash table for all documents and sizes of n-gram: each writes its own mark
    most = 1
    while most < 2 * (longest + 2):
        most *= 2
    keys = np.empty(most, np.uint64)
    used = np.zeros(most, np.int64)
    counts = np.empty(most, np.int64)
    mark = 0
    for d in range(documents):
        at, stop = offsets[d], offsets[d + 1]
        out[d, 9:] = np.nan
        if at == stop:
            continue
        words = lines = symbols = alphas = wanted = bullets = ellipses = 0
        visible = 0  # characters in words
        key = np.uint64(0)
        size = 0
        flags = 0
        line_key = np.uint64(0)
        size_of_line = 0
        last = 0
        while at <= stop:
            if at < stop:
                code, width = decode(buffer, at)
            else:
                code, width = 10, 1  # as if a newline followed the text
            kind = classes[code] if code < CODES else np.uint8(0)
            if kind & _SPACE:
                if size:
                    word[words], length[words] = key, size
                    words += 1
                    visible += size
                    symbols += (flags & _SYMBOL) != 0
                    alphas += (flags & _ALPHA) != 0
                    for k in range(len(required)):
                        wanted += key == required[k]
                    key = np.uint64(0)
                    size = flags = 0
            else:
                for k in range(width):
                    key = key * _PRIME + np.uint64(buffer[at + k]) + np.uint64(1)
                size += 1
                flags |= int(kind)
            if code == 10:
                ellipses += last == 0x2026
                line[lines], line_length[lines] = line_key, size_of_line
                lines += 1
                line_key = np.uint64(0)
                size_of_line = 0
                last = 0
            else:
                if size_of_line == 0:
                    bullets += (kind & _BULLET) != 0
                for k in range(width):
                    line_key = line_key * _PRIME + np.uint64(buffer[at + k]) + np.uint64(1)
                size_of_line += 1
                last = code
            at += width
        some = max(words, 1)
        out[d, 0] = words
        if words:
            middle: Any = np.sort(length[:words])
            out[d, 1] = (middle[(words - 1) // 2] + middle[words // 2]) / 2
        out[d, 2] = symbols / some
        out[d, 3] = alphas / some
        out[d, 4] = wanted
        out[d, 5] = bullets / lines
        out[d, 6] = ellipses / lines
        mark += 1
        for i in range(lines):
            place = _slot(keys, used, mark, line[i])
            if used[place] != mark:
                used[place], keys[place], counts[place] = mark, line[i], 0
            counts[place] += 1
        again = again_characters = 0
        for i in range(lines):
            if counts[_slot(keys, used, mark, line[i])] > 1:
                again += 1
                again_characters += line_length[i]
        out[d, 7] = again / lines
        out[d, 8] = again_characters / max(visible, 1)
        for n in range(2, 11):
            number = words - n + 1
            if number <= 0:
                break
            mark += 1
            for i in range(number):
                if n == 2:
                    gram[i] = word[i] * _PRIME + word[i + 1]
                else:
                    gram[i] = (gram[i] ^ (gram[i] >> np.uint64(31))) * _PRIME + word[i + n - 1]
                place = _slot(keys, used, mark, gram[i])
                if used[place] != mark:
                    used[place], keys[place], counts[place] = mark, gram[i], 0
                counts[place] += 1
            inside = 0  # characters of the n-gram at i
            for i in range(n - 1):
                inside += int(length[i])
            best = most_of_best = total = repeated = 0
            for i in range(number):
                inside += int(length[i + n - 1])
                count = counts[_slot(keys, used, mark, gram[i])]
                if count > best:
                    best, most_of_best = count, inside
                total += inside
                if count > 1:
                    repeated += inside
                inside -= int(length[i])
            if n < 5:
                out[d, 7 + n] = best * most_of_best / max(visible, 1)
            else:
                out[d, 7 + n] = repeated / max(total, 1)
    return out
