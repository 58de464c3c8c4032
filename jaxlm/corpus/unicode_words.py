"""The tokens of the fast dialect: where spaCy's English tokenizer cuts, as a kernel.

Marks come off both ends of what white space separates, contractions are looked up, and what is left
is cut at some of the marks inside it (spaCy 3.8: lang/punctuation.py, tokenizer.pyx). Besides, each
character of a script without spaces between words is a token.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.corpus import classes as c
from jaxlm.corpus.characters import decode
from jaxlm.corpus.contractions import LONGEST, contractions
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.words import POWER, Hashes, Ints, TokenSpans, Words, in_memory, kind_of

_UNITS = (
    "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s "
    "km/h kmh mph hPa Pa mbar mb MB kb KB gb GB tb TB T G M K %"
)


def unicode_words(texts: Strings) -> Words:
    """The tokens of the fast dialect; at most 2 GiB of text."""
    texts = in_memory(texts)
    spans = _split(texts.buffer, texts.offsets, c.classes(), *contractions(), _units())
    return Words.of(texts, spans)


def _units() -> Hashes:
    """What is a token of its own after a digit, as hashes of code points, uint64 [units]."""
    return np.array([_code_hash(unit) for unit in _UNITS.split()], np.uint64)


def _code_hash(word: str) -> int:
    value = 0
    for character in word:
        value = (value * int(POWER) + ord(character) + 1) % (1 << 64)
    return value


@njit(cache=True)
def _special(code: NDArray[np.int32], low: int, high: int, keys: Hashes) -> int:
    """The place of a word in the table of contractions, -1 if it is none."""
    key = np.uint64(0)
    for k in range(low, high):
        key = key * POWER + np.uint64(code[k]) + np.uint64(1)
    at: Any = np.int64(key >> np.uint64(40)) & (len(keys) - 1)
    while keys[at] != np.uint64(0):
        if keys[at] == key:
            return int(at)
        at = (at + 1) & (len(keys) - 1)
    return -1


# The helpers of the inner loop take numbers alone: Numba counts references of arrays at each call.


@njit(cache=True, inline="always")
def _inner(before: np.uint32, here: np.int32, following: np.int32, after: np.uint32) -> bool:
    """Whether a mark between these two characters is a token."""
    if here == 46:  # .
        return (before & (c.LOWER | c.QUOTE)) != 0 and (after & (c.UPPER | c.QUOTE)) != 0
    if here == 44:  # ,
        return (before & after & c.ALPHA) != 0
    sign = here == 43 or here == 42 or here == 94 or here == 45  # + * ^ -
    if sign and before & c.DIGIT and (after & c.DIGIT or following == 45):
        return True
    if before & (c.ALPHA | c.DIGIT) and after & c.ALPHA:
        return (
            here == 45 or here == 126 or here == 0x2013 or here == 0x2014  # - ~ – —
            or here == 47 or here == 58 or here == 60 or here == 61 or here == 62  # / : < = >
        )  # fmt: skip
    return False


@njit(cache=True, inline="always")
def _in_host(code: int) -> bool:
    return 97 <= code <= 122 or 65 <= code <= 90 or 48 <= code <= 57 or 0xA1 <= code <= 0xFFFF


@njit(cache=True)
def _is_host(code: NDArray[np.int32], kinds: NDArray[np.uint32], low: int, high: int) -> bool:
    """Whether this is HOST.TLD, with or without a port and a path."""
    end = low
    dot = -1
    begin = low  # of the label
    while end < high and (_in_host(code[end]) or code[end] == 95 or code[end] == 45
                          or code[end] == 46):  # fmt: skip
        if code[end] == 46:
            if end == begin or not _in_host(code[end - 1]) or not _in_host(code[begin]):
                return False
            if end - begin > 64:
                return False
            dot = end
            begin = end + 1
        end += 1
    if dot < 0 or end - dot - 1 < 2 or end - dot - 1 > 63:
        return False
    for k in range(dot + 1, end):
        if not kind_of(kinds, code[k]) & c.LOWER:
            return False
    if end < high and code[end] == 58:
        n = 0
        end += 1
        while end < high and kind_of(kinds, code[end]) & c.DIGIT:
            end += 1
            n += 1
        if n < 2 or n > 5:
            return False
    return end == high or code[end] == 47 or code[end] == 63 or code[end] == 35


@njit(cache=True)
def _is_url(code: NDArray[np.int32], kinds: NDArray[np.uint32], low: int, high: int) -> bool:
    begin = low
    k = low
    while k < high and (
        kind_of(kinds, code[k]) & (c.ALPHA | c.DIGIT)
        or code[k] == 43 or code[k] == 45 or code[k] == 46 or code[k] == 95
    ):  # fmt: skip
        k += 1
    if k - low >= 2 and k + 2 < high and code[k] == 58 and code[k + 1] == 47 and code[k + 2] == 47:
        begin = k + 3
    if _is_host(code, kinds, begin, high):
        return True
    for k in range(high - 1, begin, -1):
        if code[k] == 64 and _is_host(code, kinds, k + 1, high):
            return True
    return False


@njit(cache=True)
def _join(
    starts: NDArray[np.int32],
    ends: NDArray[np.int32],
    first: int,
    last: int,
    code: NDArray[np.int32],
    keys: Hashes,
    cuts: Ints,
    shapes: NDArray[np.uint32],
) -> int:
    """Join neighbouring tokens first..last - 1 that are an uncut word of the table together, the
    longest first; returns the new last."""
    n = i = first
    while i < last:
        j = i + 1
        low = starts[i]
        for k in range(min(last, i + 6) - 1, i, -1):
            length = ends[k] - low
            shape = shapes[0, min(code[low], 128)] & shapes[1, min(code[ends[k] - 1], 128)]
            if length <= LONGEST and (shape >> np.uint32(length)) & np.uint32(1):
                special = _special(code, low, ends[k], keys)
                if special >= 0 and cuts[special, 0] == 0:
                    j = k + 1
                    break
        starts[n], ends[n] = low, ends[j - 1]
        n += 1
        i = j
    return n


@njit(cache=True)
def _split(
    buffer: NDArray[np.uint8],
    offsets: Ints,
    kinds: NDArray[np.uint32],
    keys: Hashes,
    cuts: Ints,
    shapes: NDArray[np.uint32],
    units: Hashes,
) -> TokenSpans:
    most = len(buffer)
    starts = np.empty(most, np.int32)  # pages that are not written to cost nothing
    ends = np.empty(most, np.int32)
    first = np.zeros(len(offsets), np.int64)
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    # what is between white space: code points, their bits, where they begin; its closers
    code = np.empty(longest + 1, np.int32)
    bits = np.empty(longest + 1, np.uint32)
    place = np.empty(longest + 1, np.int32)
    closers = np.empty(longest + 1, np.int32)
    n = 0
    for d in range(len(offsets) - 1):
        at, stop = offsets[d], offsets[d + 1]
        while at < stop:
            # most words need no more than this: ASCII letters, perhaps a mark after them, and no
            # contraction that looks like it
            to = at
            while to < stop and buffer[to] < 128 and kinds[buffer[to]] & c.ALPHA:
                to += 1
            size = to - at
            if size:
                tail = 0
                mark = buffer[to] if to < stop else np.uint8(32)
                if mark == 44 or mark == 58 or mark == 59 or (mark == 46 and buffer[to - 1] > 96):
                    tail = 1
                    mark = buffer[to + 1] if to + 1 < stop else np.uint8(32)
                alike = np.uint32(0)
                if size < LONGEST:
                    shape = shapes[0, buffer[at]]
                    alike = (shape & shapes[1, buffer[to - 1]]) >> np.uint32(size)
                    if tail:
                        alike |= (shape & shapes[1, buffer[to]]) >> np.uint32(size + 1)
                if mark < 128 and kinds[mark] & c.SPACE and not alike & np.uint32(1):
                    starts[n], ends[n] = at, to
                    n += 1
                    if tail:
                        starts[n], ends[n] = to, to + 1
                        n += 1
                    at = to + tail + 1
                    continue
            size = 0
            every = np.uint32(0xFFFFFFFF)
            some = np.uint32(0)
            while at < stop:
                point, width = decode(buffer, at)
                kind = kind_of(kinds, point)
                if kind & c.SPACE:
                    break
                code[size], bits[size], place[size] = point, kind, at
                size += 1
                every &= kind
                some |= kind
                at += width
            if size == 0:
                at += width
                continue
            place[size] = at
            plain = every & c.ALPHA and not some & c.SPACELESS
            opened = n
            low, high, closed, special = 0, size, 0, -1
            begin, end = 0, 0  # characters that come off at both ends
            while low < high:
                # is what is left a contraction: without what opens it, what closes it, both
                left, right = low, high
                for trial in range(3):
                    left = low + begin if trial != 1 else low
                    right = high - end if trial != 0 else high
                    length = right - left
                    if (trial == 0 and begin == 0) or (trial == 1 and end == 0):
                        continue
                    if length < 1 or length > LONGEST:
                        continue
                    shape = shapes[0, min(code[left], 128)] & shapes[1, min(code[right - 1], 128)]
                    if not (shape >> np.uint32(length)) & np.uint32(1):
                        continue
                    key = np.uint64(0)
                    for k in range(left, right):
                        key = key * POWER + np.uint64(code[k]) + np.uint64(1)
                    slot: Any = np.int64(key >> np.uint64(40)) & (len(keys) - 1)
                    while keys[slot] != np.uint64(0):
                        if keys[slot] == key:
                            special = slot
                            break
                        slot = (slot + 1) & (len(keys) - 1)
                    if special >= 0:
                        break
                if left > low:
                    starts[n], ends[n] = low, left
                    n += 1
                    low = left
                if right < high:
                    closers[closed] = right
                    closed += 1
                    high = right
                if special >= 0 or plain or low >= high:
                    break
                begin = end = 0
                here, kind = code[low], bits[low]
                following = code[low + 1] if low + 1 < high else 0
                if here == 46:
                    if following == 46:
                        begin = 2
                        while low + begin < high and code[low + begin] == 46:
                            begin += 1
                elif kind & c.OPENER:
                    if not (here == 43 and 48 <= following <= 57):  # +1
                        begin = 1
                elif following == 36 and (here == 65 or here == 67):  # A$ C$
                    begin = 2
                elif here == 85 and following == 83 and low + 2 < high and code[low + 2] == 36:
                    begin = 3  # US$
                length = high - low - begin
                if length > 0:
                    here, kind = code[high - 1], bits[high - 1]
                    before = code[high - 2] if length > 1 else 0
                    before_kind = bits[high - 2] if length > 1 else np.uint32(0)
                    if here == 46:
                        if before == 46:
                            end = 2
                            while end < length and code[high - end - 1] == 46:
                                end += 1
                        elif before_kind & c.BEFORE_STOP or (
                            before_kind & c.UPPER and length > 2 and bits[high - 3] & c.UPPER
                        ):
                            end = 1
                        elif length > 2 and code[high - 3] == 0xB0 and before_kind & c.UPPER:
                            end = 1  # 20°C.
                    elif (here == 115 or here == 83) and (before == 39 or before == 0x2019):
                        end = 2  # 's ’S
                    elif here == 0x2026 and before == 0x2026:
                        end = 2
                    elif kind & c.CLOSER:
                        end = 1
                    elif some & c.DIGIT and length > 1:
                        if before_kind & c.DIGIT and (here == 43 or kind & c.CURRENCY):
                            end = 1
                        elif kind & c.ALPHA or here == 37 or here == 0xB2 or here == 0xB3:
                            for k in range(min(4, length - 1), 0, -1):
                                if end == 0 and bits[high - k - 1] & c.DIGIT:
                                    key = np.uint64(0)
                                    for i in range(high - k, high):
                                        key = key * POWER + np.uint64(code[i]) + np.uint64(1)
                                    for i in range(len(units)):
                                        if units[i] == key:
                                            end = k
                if begin == 0 and end == 0:
                    break
            begin = low
            if special >= 0:
                for k in range(2):
                    if cuts[special, k]:
                        starts[n], ends[n] = begin, low + cuts[special, k]
                        n += 1
                        begin = low + cuts[special, k]
            elif not plain:
                asked = False
                k = low
                while k < high:
                    kind = bits[k]
                    here = code[k]
                    length = 0  # of a token in here
                    if kind & c.SPACELESS:
                        length = 1
                    elif kind & (c.ALPHA | c.DIGIT):
                        pass
                    elif kind & c.ICON or here == 0x2026:
                        length = 1
                    elif here == 46 and k + 1 < high and code[k + 1] == 46:
                        length = 2
                        while k + length < high and code[k + length] == 46:
                            length += 1
                    elif k > low and k + 1 < high:
                        wide = some & c.SPACELESS and kind & c.CLOSER and here > 0x2000
                        if wide or _inner(bits[k - 1], here, code[k + 1], bits[k + 1]):
                            length = 1
                        elif here == 45 or here == 0x2014:  # -- --- and ——
                            run = 1
                            while (run < (3 if here == 45 else 2) and k + run + 1 < high
                                   and code[k + run] == here):  # fmt: skip
                                run += 1
                            if run > 1 and _inner(bits[k - 1], here, code[k + run], bits[k + run]):
                                length = run
                    if length == 0 or (k == low and not kind & c.SPACELESS):
                        k += max(length, 1)
                        continue
                    if not asked and not some & c.SPACELESS:
                        asked = True
                        if _is_url(code, kinds, low, high):
                            break
                    if k > begin:
                        starts[n], ends[n] = begin, k
                        n += 1
                    starts[n], ends[n] = k, k + length
                    n += 1
                    k += length
                    begin = k
            if begin < high:
                starts[n], ends[n] = begin, high
                n += 1
            for k in range(closed - 1, -1, -1):
                starts[n] = closers[k]
                ends[n] = closers[k - 1] if k else size
                n += 1
            joins = False
            for k in range(opened, n - 1):
                shape = shapes[0, min(code[starts[k]], 128)]
                for j in range(k + 1, min(n, k + 6)):
                    length = ends[j] - starts[k]
                    if shape >> np.uint32(min(length, 31)) == 0:
                        break
                    bit = (shape & shapes[1, min(code[ends[j] - 1], 128)]) >> np.uint32(length)
                    joins |= (bit & np.uint32(1)) != 0
            if joins and not plain:
                n = _join(starts, ends, opened, n, code, keys, cuts, shapes)
            for k in range(opened, n):
                starts[k], ends[k] = place[starts[k]], place[ends[k]]
        first[d + 1] = n
    return starts[:n], ends[:n], first
