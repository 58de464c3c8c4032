"""C4's rules (Raffel et al. 2020, arXiv:1910.10683, section 2.2) as datatrove 0.10.1 applies them,
but for bad words, which `quality.lists` has. One thing differs: a document with both a lorem ipsum
and a curly bracket fails both rules, where datatrove names the one that comes first."""

import re
from collections.abc import Callable
from typing import get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.config.prose import C4, LineRule
from jaxlm.config.rules import Rules
from jaxlm.corpus import classes as c
from jaxlm.corpus.characters import decode
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.stages.base import Changes, Edit
from jaxlm.corpus.statistics import Analysis, Ints
from jaxlm.corpus.words import PUNCTUATION, SENTENCE_END, in_memory, kind_of, split_words

LINE_RULES: tuple[str, ...] = get_args(LineRule)
CHANGES = (*LINE_RULES, "citation", "white_space")
_LONG_WORD, _NO_END, _FEW_WORDS, _JAVASCRIPT, _POLICY, _CITATION, _WHITE_SPACE = range(7)
POLICIES = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies",
    "use cookies",
)  # fmt: skip
_LOREM, _SCRIPT, _POLICIES = 0, 1, 2  # needles from here on


def c4(texts: Analysis, rules: Rules) -> Edit:
    """The lines that stay, joined by newlines. Attributes: lines that stay (`lines`), those with
    lorem ipsum and with a curly bracket, their sentences, and lines that went by each of `cut`.

    Sentences are those of spaCy's sentencizer. A change of white_space is what stood around a line
    or ended it.
    """
    assert isinstance(rules, C4)
    buffer, offsets, tags, where = _cleaned(texts.texts, rules)
    new = Strings(buffer, offsets)
    words = split_words(new, rules.words)
    sentences = _sentences(buffer, words.first, words.starts, words.ends, words.flags)
    names = ("lines", "lorem_ipsum", "curly_brackets", *LINE_RULES)
    found = {name: tags[k].astype(np.float64) for k, name in enumerate(names)}
    return Edit(found | {"sentences": sentences.astype(np.float64)}, new, Changes(CHANGES, *where))


def spans(text: str, rules: Rules) -> dict[str, list[tuple[int, int]]]:
    """Lorem ipsum, curly brackets, lines that go."""
    assert isinstance(rules, C4)
    raw = text.encode()
    *_, (_, names, starts, ends) = _cleaned(Strings.of([raw]), rules)
    lines = [
        (len(raw[:start].decode()), len(raw[:end].decode()))
        for name, start, end in zip(names, starts, ends, strict=True)
        if name < len(LINE_RULES)
    ]
    return {
        "max_lorem_ipsum": [m.span() for m in re.finditer("(?i)lorem ipsum", text)],
        "max_curly_brackets": [m.span() for m in re.finditer("{", text)],
        "min_sentences": lines,
    }


EDITORS: dict[str, Callable[[Analysis, Rules], Edit]] = {"quality.c4": c4}
SPANS: dict[str, Callable[[str, Rules], dict[str, list[tuple[int, int]]]]] = {"quality.c4": spans}


def _cleaned(texts: Strings, rules: C4) -> tuple[NDArray[np.uint8], Ints, Ints, Ints]:
    """The lines that stay (buffer, offsets), counts of lines [8, D], and what goes [4, C]."""
    needles, sizes = _needles()
    cut = np.array([name in rules.cut for name in LINE_RULES])
    texts = in_memory(texts)
    found: tuple[NDArray[np.uint8], Ints, Ints, Ints] = _clean(
        texts.buffer, texts.offsets, c.classes(), needles, sizes, cut,
        rules.citations, rules.long_word, rules.few_words,
    )  # fmt: skip
    return found


def _needles() -> tuple[NDArray[np.uint8], Ints]:
    """What is looked for in lines, uint8 [needles, longest], and the lengths."""
    words = [word.encode() for word in ("lorem ipsum", "javascript", *POLICIES, "edit]",
                                        "citation needed]")]  # fmt: skip
    sizes = np.array([len(word) for word in words])
    out = np.zeros((len(words), max(sizes)), np.uint8)
    for k, word in enumerate(words):
        out[k, : len(word)] = np.frombuffer(word, np.uint8)
    return out, sizes


@njit(cache=True)
def _is_at(text: NDArray[np.uint8], at: int, end: int, needle: NDArray[np.uint8], n: int) -> bool:
    """Whether these n bytes stand at this place, before `end`."""
    if at + n > end:
        return False
    k = 0
    while k < n and text[at + k] == needle[k]:
        k += 1
    return k == n


@njit(cache=True)
def _clean(
    buffer: NDArray[np.uint8],
    offsets: Ints,
    kinds: NDArray[np.uint32],
    needles: NDArray[np.uint8],
    sizes: Ints,
    cut: NDArray[np.bool_],
    keep_citations: bool,
    long_word: int,
    few_words: int,
) -> tuple[NDArray[np.uint8], Ints, Ints, Ints]:
    documents = len(offsets) - 1
    citations = len(sizes) - 2  # of the needles, the first that is one
    second = np.zeros(256, np.uint8)  # of the needles with this first byte, which share it
    for k in range(citations):
        second[needles[k, 0]] = needles[k, 1]
    most = 0
    for d in range(documents):
        most = max(most, offsets[d + 1] - offsets[d])
    out = np.empty(len(buffer) + 1, np.uint8)
    new_offsets = np.zeros(documents + 1, np.int64)
    tags = np.zeros((8, documents), np.int64)
    changes = np.empty((4, len(buffer) + 1), np.int64)  # each has a byte of its own
    n = 0  # changes
    lower = np.empty(most, np.uint8)
    o = 0  # bytes of the new texts
    for d in range(documents):
        new_begin = o
        base, end = offsets[d], offsets[d + 1]
        begin = base
        while begin < end:
            # the line begin:stop, without white space low:high, next line at `after`
            low = high = -1
            words = size = 0
            too_long = False
            at = begin
            stop = after = end
            while at < end:
                code, width = decode(buffer, at)
                kind = kind_of(kinds, code)
                if kind & c.SPACE:
                    size = 0
                    if kind & c.LINE_END:
                        stop = at
                        after = at + width
                        if code == 13 and after < end and buffer[after] == 10:
                            after += 1
                        break
                    at += width
                    continue
                if size == 0:
                    words += 1
                    if low < 0:
                        low = at
                size += 1
                too_long |= size > long_word
                at += width
                high = at
            if low < 0:
                low = high = stop
            reason = -1
            first_change = n
            line = o  # where the line begins in the new text, after a newline
            if o > new_begin:
                line += 1
            length = 0
            if cut[_LONG_WORD] and too_long:
                reason = _LONG_WORD
            else:
                if low > begin:
                    changes[0, n], changes[1, n] = d, _WHITE_SPACE
                    changes[2, n], changes[3, n] = begin - base, low - base
                    n += 1
                at = low
                while at < high:
                    byte = buffer[at]
                    if byte == 91 and not keep_citations:
                        to = at + 1
                        while to < high:
                            code, width = decode(buffer, to)
                            if not kind_of(kinds, code) & c.DECIMAL:
                                break
                            to += width
                        if to < high and buffer[to] == 93:
                            to += 1
                        else:
                            to = at
                            for k in range(citations, citations + 2):
                                if _is_at(buffer, at + 1, high, needles[k], sizes[k]):
                                    to = at + 1 + sizes[k]
                        if to > at:
                            changes[0, n], changes[1, n] = d, _CITATION
                            changes[2, n], changes[3, n] = at - base, to - base
                            n += 1
                            at = to
                            continue
                    out[line + length] = byte
                    length += 1
                    at += 1
                last = out[line + length - 1] if length else np.uint8(0)
                ended = last == 46 or last == 63 or last == 33 or last == 34 or last == 39
                if last == 46 and length > 2:
                    ended = out[line + length - 2] != 46 or out[line + length - 3] != 46
                if cut[_NO_END] and not ended:
                    reason = _NO_END
                elif cut[_FEW_WORDS] and words < few_words:
                    reason = _FEW_WORDS
            if reason < 0:
                bracket = False
                m = 0
                k = 0
                while k < length:
                    byte = out[line + k]
                    if 65 <= byte <= 90:
                        byte += 32
                    elif byte == 123:
                        bracket = True
                    elif (byte == 0xE2 and out[line + k + 1] == 0x84
                          and out[line + k + 2] == 0xAA):  # fmt: skip
                        byte = np.uint8(107)  # the Kelvin sign is a k in lower case
                        k += 2
                    lower[m] = byte
                    m += 1
                    k += 1
                lorem = script = policy = False
                for k in range(m - 1):
                    if second[lower[k]] and second[lower[k]] == lower[k + 1]:
                        for j in range(citations):
                            if _is_at(lower, k, m, needles[j], sizes[j]):
                                lorem |= j == _LOREM
                                script |= j == _SCRIPT
                                policy |= j >= _POLICIES
                # in datatrove's order: what is cut by javascript has no bracket
                tags[1, d] += lorem
                if cut[_JAVASCRIPT] and script:
                    reason = _JAVASCRIPT
                else:
                    tags[2, d] += bracket
                    if cut[_POLICY] and policy:
                        reason = _POLICY
            if reason >= 0:
                tags[3 + reason, d] += 1
                n = first_change
                changes[0, n], changes[1, n] = d, reason
                changes[2, n], changes[3, n] = begin - base, after - base
                n += 1
            else:
                tags[0, d] += 1
                if o > new_begin:
                    out[o] = 10
                o = line + length
                bare = high == stop and after - stop == 1 and buffer[stop] == 10 and after < end
                if high < after and not bare:
                    changes[0, n], changes[1, n] = d, _WHITE_SPACE
                    changes[2, n], changes[3, n] = high - base, after - base
                    n += 1
            begin = after
        # white space that a citation left at the beginning, or a line without an end
        low = new_begin
        while low < o:
            code, width = decode(out, low)
            if not kind_of(kinds, code) & c.SPACE:
                break
            low += width
        if low > new_begin:
            for k in range(o - low):
                out[new_begin + k] = out[low + k]
            o -= low - new_begin
        while o > new_begin:
            at = o - 1
            while out[at] & 0xC0 == 0x80:
                at -= 1
            code, width = decode(out, at)
            if not kind_of(kinds, code) & c.SPACE:
                break
            o = at
        new_offsets[d + 1] = o
    return out[:o].copy(), new_offsets, tags, changes[:, :n].copy()


@njit(cache=True)
def _sentences(
    buffer: NDArray[np.uint8],
    first: Ints,
    starts: NDArray[np.int32],
    ends: NDArray[np.int32],
    flags: NDArray[np.uint8],
) -> Ints:
    """Sentences of each document, a line at least one, int64 [D].

    A sentence ends at a mark that ends sentences and begins with the next token that is no
    punctuation. White space other than one space is such a token.
    """
    out = np.zeros(len(first) - 1, np.int64)
    for d in range(len(out)):
        number = 0
        ended = False
        for i in range(first[d], first[d + 1]):
            fresh = i == first[d]
            space = False
            if not fresh:
                gap = starts[i] - ends[i - 1]
                space = gap > 1 or (gap == 1 and buffer[ends[i - 1]] != 32)
                for at in range(ends[i - 1], starts[i]):
                    fresh |= buffer[at] == 10
            if fresh or (space and ended):
                number += 1
                ended = False
            flag = flags[i]
            if ended and not flag & (PUNCTUATION | SENTENCE_END):
                number += 1
                ended = False
            elif flag & SENTENCE_END:
                ended = True
        out[d] = number
    return out
