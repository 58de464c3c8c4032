"""Where sentences begin and end, for European and East Asian marks, over a batch of texts.

A sentence ends
- after . ! ? … or a like mark of another script, with the closing quotes and brackets after it,
  where white space or the end of the text follows. After a full stop it goes on when the next
  letter is in lower case, when the word before is one capital letter or a known abbreviation;
- after 。！？ and the other full-width marks, with or without a space;
- at a blank line, and at the end of a line unless the next begins with a letter in lower case
  (text that is wrapped).
"""

from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.corpus.characters import CODES, decode, table
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.statistics import Ints, Spans

_OTHER, _SPACE, _DOT, _END, _WIDE_END, _CLOSER, _LOWER, _UPPER, _NEWLINE = range(9)
_ENDS = "!?…‼⁇⁈⁉؟۔܀܁܂։।॥།༎።፧፨᠃᠉"
_WIDE_ENDS = "。！？｡．︒︕︖︙"
_CLOSERS = "\"'”’»›)]}」』）】》〉］｝〕〗﹂﹄"
_ABBREVIATIONS = """
mr mrs ms dr prof st sr jr vs etc al fig figs eq nos vol vols pp ed eds cf ca approx dept inc ltd
co corp gen col capt lt sgt rev hon gov sen rep e.g i.e z.b d.h bzw usw u.a p.ex sra
"""


def sentences(texts: Strings) -> Spans:
    """The sentences of all documents, from their first visible character to the closing mark.

    Every character that is not white space is in exactly one sentence.
    """
    starts, ends, first = _split(
        np.ascontiguousarray(texts.buffer), texts.offsets, _classes(), _known()
    )
    return Spans(starts, ends, first)


def with_space_after(texts: Strings, spans: Spans) -> Ints:
    """Ends of the spans moved over the white space up to the next span of the same document, so
    that nothing but one newline at most is left of a span that is cut out, int64 [spans]."""
    ends = spans.ends.copy()
    if len(ends) > 1:
        inner = np.diff(spans.documents) == 0
        ends[:-1][inner] = spans.starts[1:][inner]
    newline = np.concatenate([np.zeros(1, np.int64), np.cumsum(texts.buffer == 10)])
    across = newline[ends] > newline[spans.ends]
    ends[across] = spans.ends[across]
    return ends


@cache
def _classes() -> NDArray[np.uint8]:
    def of(c: str) -> int:
        if c == "\n":
            return _NEWLINE
        if c.isspace():
            return _SPACE
        if c.islower():
            return _LOWER
        return _UPPER if c.isupper() else _OTHER

    classes: NDArray[np.uint8] = table(of, np.uint8)
    for marks, kind in ((".", _DOT), (_ENDS, _END), (_WIDE_ENDS, _WIDE_END), (_CLOSERS, _CLOSER)):
        classes[[ord(mark) for mark in marks]] = kind
    return classes


@cache
def _known() -> NDArray[np.uint64]:
    """Sorted abbreviations, each packed into 8 bytes."""
    packed = [int.from_bytes(word.encode(), "big") for word in _ABBREVIATIONS.split()]
    return np.array(sorted(packed), np.uint64)


@njit(cache=True)
def _split(
    buffer: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    classes: NDArray[np.uint8],
    known: NDArray[np.uint64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    documents = len(offsets) - 1
    # no more sentences than bytes; pages that are not touched cost nothing, growing arrays do
    starts = np.empty(len(buffer), np.int64)
    ends = np.empty(len(buffer), np.int64)
    first = np.zeros(documents + 1, np.int64)
    n = 0
    for d in range(documents):
        stop = offsets[d + 1]
        at = offsets[d]
        start: Any = np.int64(-1)  # of the open sentence; -1: none
        last = at  # the end of its last visible character
        mark: Any = _OTHER  # the mark that may have ended it
        newlines = 0  # since `last`
        space = False  # white space since `last`
        dot = np.int64(-1)  # the full stop of `mark`
        while at < stop:
            code, width = decode(buffer, at)
            kind = classes[code] if code < CODES else np.uint8(_OTHER)
            if kind in (_SPACE, _NEWLINE):
                newlines += kind == _NEWLINE
                space = True
                at += width
                continue
            if start >= 0:
                over = False
                if mark == _WIDE_END:
                    over = space or kind not in (_CLOSER, _WIDE_END, _END)
                elif space and mark == _END:
                    over = kind != _LOWER or newlines > 0
                elif space and mark == _DOT:
                    over = kind != _LOWER and not _abbreviated(buffer, start, dot, known)
                if newlines > 1 or (newlines == 1 and kind != _LOWER):
                    over = True
                if over:
                    starts[n], ends[n] = start, last
                    n += 1
                    start = -1
            if start < 0:
                start = at
                mark = _OTHER
            if kind in (_DOT, _END, _WIDE_END):
                if mark == _OTHER or kind != _DOT:
                    mark = kind
                elif mark == _DOT:
                    mark = _END if dot == at - 1 else _DOT  # an ellipsis is not an abbreviation
                dot = at
            elif kind != _CLOSER:
                mark = _OTHER
            newlines = 0
            space = False
            at += width
            last = at
        if start >= 0:
            starts[n], ends[n] = start, last
            n += 1
        first[d + 1] = n
    return starts[:n].copy(), ends[:n].copy(), first


@njit(cache=True)
def _abbreviated(buffer: NDArray[np.uint8], start: Any, dot: Any, known: NDArray[np.uint64]) -> Any:
    """Whether the word before the full stop is an initial or a known abbreviation."""
    begin = dot
    packed = np.uint64(0)
    shift = np.uint64(0)
    while begin > start and dot - begin < 7:
        byte = buffer[begin - 1]
        letter = byte | np.uint8(0x20)
        if not (97 <= letter <= 122 or byte == 46):
            break
        packed |= np.uint64(letter if byte != 46 else byte) << shift
        shift += np.uint64(8)
        begin -= 1
    size = dot - begin
    if size == 0 or (begin > start and buffer[begin - 1] >= 0x80):
        return False
    if size == 1 and 65 <= buffer[begin] <= 90:
        return buffer[begin] != 73  # "I" is a word
    place = np.searchsorted(known, packed)
    return place < len(known) and known[place] == packed
