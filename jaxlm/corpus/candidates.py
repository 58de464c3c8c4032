"""Where a text may have an IP address or a telephone, card or identity number: one pass over bytes.

The pass is quick and lets too much through; `stages/privacy.py` judges what it finds.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

type Bytes = NDArray[np.uint8]
type Ints = NDArray[np.int64]

IPV4, IPV6, NUMBER = range(3)
PHONES, CARDS, IDS, IPS = 1, 2, 4, 8

_DIGIT, _START, _COLON = 1, 2, 3
_CLASSES = np.zeros(256, np.uint8)
_CLASSES[48:58] = _DIGIT
_CLASSES[[ord("+"), ord("(")]] = _START
_CLASSES[ord(":")] = _COLON
_WORD = np.zeros(256, np.bool_)  # letters of ASCII, digits, underscore
_HEX = np.zeros(256, np.bool_)
for _byte in b"0123456789abcdefABCDEF":
    _HEX[_byte] = True
for _byte in b"0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ":
    _WORD[_byte] = True
_GAP = 3  # characters between two groups of digits, at most: ") - "


@njit(cache=True)
def candidates(
    buffer: Bytes, offsets: Ints, wanted: int, lengths: NDArray[np.bool_]
) -> tuple[Ints, Ints, Ints, Ints]:
    """Kind (IPV4, ...), document, start and end (in the buffer) of each candidate, int64 [C].

    Where a number may be only a part of several groups, the parts come after the whole.

    wanted: sum of PHONES, CARDS, IDS, IPS; lengths: bool [16], how many digits a telephone number
    without + may have.
    """
    out = [(0, 0, 0, 0) for _ in range(0)]
    for d in range(len(offsets) - 1):
        begin, end = offsets[d], offsets[d + 1]
        i = begin
        while i < end:
            kind = _CLASSES[buffer[i]]
            if kind == 0:
                i += 1
            elif kind == _COLON:
                i = _colons(buffer, begin, end, i, wanted, d, out)
            else:
                i = _digits(buffer, begin, end, i, wanted, lengths, d, out)
    table = np.empty((4, len(out)), np.int64)
    for k in range(len(out)):
        for column in range(4):
            table[column, k] = out[k][column]
    return table[0], table[1], table[2], table[3]


@njit(cache=True)
def _colons(
    buffer: Bytes, begin: int, end: int, i: int, wanted: int, d: int,
    out: list[tuple[int, int, int, int]],
) -> int:  # fmt: skip
    """A run of hexadecimal digits, colons and dots that may be an IPv6 address."""
    if not wanted & IPS:
        return i + 1
    start = i
    while start > begin and i - start < 4 and _HEX[buffer[start - 1]]:
        start -= 1
    stop, colons, double = i, 0, False
    border = min(end, i + 64)
    while stop < border and (_HEX[buffer[stop]] or buffer[stop] == 58 or buffer[stop] == 46):
        if buffer[stop] == 58:
            colons += 1
            double |= stop > i and buffer[stop - 1] == 58
        stop += 1
    if (colons >= 7 or (double and colons >= 2)) and not (
        start > begin and (_WORD[buffer[start - 1]] or buffer[start - 1] == 46)
    ):
        # a number that the same run gave before is part of it
        while len(out) and out[-1][1] == d and out[-1][3] > start:
            out.pop()
        out.append((IPV6, d, start, stop))
        return stop
    # what comes after the colons may be a number of its own
    while i < stop and buffer[i] == 58:
        i += 1
    return i


@njit(cache=True)
def _quad(buffer: Bytes, end: int, i: int) -> int:
    """Where d.d.d.d from i on ends, each d at most 255 and without a leading 0; -1: it is none."""
    for part in range(4):
        value, first = 0, i
        while i < end and _CLASSES[buffer[i]] == _DIGIT and i - first < 4:
            value = value * 10 + buffer[i] - 48
            i += 1
        if i == first or value > 255 or (buffer[first] == 48 and i - first > 1):
            return -1
        if part < 3:
            if i == end or buffer[i] != 46:
                return -1
            i += 1
    return i


@njit(cache=True)
def _gap(buffer: Bytes, end: int, i: int) -> int:
    """Bytes of the character at i that may stand between groups of digits, 0 if it may not."""
    byte = buffer[i]
    if byte == 32 or byte == 45 or byte == 46 or byte == 40 or byte == 41 or byte == 47:
        return 1
    if byte == 0xC2 and i + 1 < end and buffer[i + 1] == 0xA0:  # no-break space
        return 2
    if byte == 0xE2 and i + 2 < end and buffer[i + 1] == 0x80:
        last = buffer[i + 2]
        if 0x90 <= last <= 0x93 or last == 0xAF:  # hyphens, en dash, narrow no-break space
            return 3
    return 0


@njit(cache=True)
def _joined(buffer: Bytes, begin: int, i: int) -> bool:
    """Whether what begins at i is the rest of a word or a number."""
    if i == begin:
        return False
    if buffer[i - 1] == 46:
        return i - 1 > begin and _CLASSES[buffer[i - 2]] == _DIGIT
    return bool(_WORD[buffer[i - 1]])


@njit(cache=True)
def _digits(
    buffer: Bytes, begin: int, end: int, i: int, wanted: int, lengths: NDArray[np.bool_], d: int,
    out: list[tuple[int, int, int, int]],
) -> int:  # fmt: skip
    """Groups of digits that may be a number, from i on; returns where to go on."""
    start = i
    while i < end and _CLASSES[buffer[i]] == _START:
        i += 1
    if i == end or _CLASSES[buffer[i]] != _DIGIT:
        return i
    head = i
    if not _joined(buffer, begin, head):
        stop = _quad(buffer, end, head)
        if stop > 0 and not (stop < end and _WORD[buffer[stop]]):
            if wanted & IPS:
                out.append((IPV4, d, head, stop))
            return stop
    plus = i > start and buffer[i - 1] == 43
    digits, groups, size, single, first, second = 0, 1, 0, 0, 0, 0
    gap, dot, dots, others, slash, bracket = 0, False, 0, 0, False, -1
    stop = i
    while i < end:
        if _CLASSES[buffer[i]] == _DIGIT:
            if gap:
                if buffer[i - 1] == 32 or buffer[i - 1] == 40:
                    after = _quad(buffer, end, i)
                    if after > 0 and not (after < end and _WORD[buffer[after]]):
                        break
                if groups == 1:
                    first = digits
                elif groups == 2:
                    second = size
                groups += 1
                single += size == 1
                dots += dot
                others += not dot
                size, gap, slash = 0, 0, False
            digits += 1
            size += 1
            i += 1
            stop = i
            continue
        width = _gap(buffer, end, i)
        # two numbers that follow each other: 1234567 (..., 1234567 / ...
        slash |= gap > 0 and buffer[i] == 47
        if not width or gap == _GAP or (digits >= 7 and (buffer[i] == 40 or slash)):
            break
        if buffer[i] == 40:
            bracket = i
        dot = gap == 0 and buffer[i] == 46
        gap += 1
        i += width
    if digits < 6:
        return stop
    take = wanted & CARDS > 0 and 13 <= digits <= 19
    take |= wanted & IDS > 0 and (digits == 6 or digits == 9 or digits == 17 or digits == 18)
    phone = wanted & PHONES and digits >= 7 and not _joined(buffer, begin, start)
    if phone and size > 1 and single <= 2:
        shaped = digits <= 15 and (plus or lengths[digits])
        shaped |= 9 <= digits <= 17 and buffer[head] == 48 and buffer[head + 1] == 48  # 00 for +
        century = (buffer[head] - 48) * 10 + buffer[head + 1] - 48
        date = groups > 2 and first == 4 and (century == 19 or century == 20) and second <= 2
        decimal = groups == 2 and dots == 1 and others == 0  # 40.7127761
        take |= bool(shaped and not date and not decimal)
    if take:
        out.append((NUMBER, d, start, stop))
    if phone and groups > 2:
        # a part may be a number by itself: what has no space in it, what begins with a bracket
        piece = head
        while piece < stop:
            at, count, breaks = piece, 0, 0
            while at < stop and buffer[at] != 32:
                if _CLASSES[buffer[at]] == _DIGIT:
                    count += 1
                else:
                    breaks += 1
                at += 1
            if breaks > 1 and 7 <= count <= 15 and lengths[count] and at - piece < stop - start:
                out.append((NUMBER, d, piece, at))
            piece = at + 1
        if bracket > head:
            out.append((NUMBER, d, bracket, stop))
    return stop
