"""Stretches of bytes that occurred before: anchors say where to look, suffix arrays decide.

A window is `width` bytes of one text. It is a repeat when an equal window ends before it begins,
in the same text or an earlier one; what lies in a repeat was there before. (Windows that overlap
do not count as copies of each other: of a line of a thousand dashes the first `width` stay.)

Anchors. Every window has `width - gram + 1` grams of half its width; its anchor is the smallest of
their hashes (winnowing: Schleimer, Wilkerson and Aiken 2003, "Winnowing: local algorithms for
document fingerprinting"). Equal windows have equal anchors, and the anchor changes only about every
`width / 4` bytes. So windows are taken in runs with the same anchor: of an anchor that has only one
run no window is a repeat, and where all its runs have the same bytes, all but the first are. What
is left are the ends of copies; their text, a small part of a corpus, goes into suffix arrays.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.corpus.statistics import mix

type Bytes = NDArray[np.uint8]
type Ints = NDArray[np.int64]
type Int32 = NDArray[np.int32]
type Hashes = NDArray[np.uint64]

END = 0xFF
"""Ends each piece of text in a suffix array; it is in no UTF-8, so no match goes over it."""
BUCKETS = 4096
"""Window hashes are stored by their highest 12 bits."""
TABLE = mix(np.arange(1, 257, dtype=np.uint64))
"""A random number for each byte, of which rolling hashes are polynomials modulo 2^64."""
BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Anchors:
    """Runs of windows with the same anchor.

    hashes: of the anchors, uint64 [R]; contents: of all bytes of a run, different for runs of
    different lengths, uint64 [R]; starts, ends: these bytes, from the first of the first window to
    the last of the last, int64 [R]; first: text d has first[d]:first[d + 1], int64 [D + 1].
    """

    hashes: Hashes
    contents: Hashes
    starts: Ints
    ends: Ints
    first: Ints


def anchors(buffer: Bytes, offsets: Ints, width: int) -> Anchors:
    """The runs of the texts buffer[offsets[d]:offsets[d + 1]].

    A run has `width` windows at most, so that windows apart are in different ones.
    """
    buffer = np.ascontiguousarray(buffer)
    gram = width // 2
    hashes, starts, first = _anchors(buffer, offsets, width, gram, TABLE, BASE, _power(gram))
    ends = np.append(starts[1:], 0)[: len(starts)] + width - 1
    some = np.diff(first) > 0
    ends[first[1:][some] - 1] = offsets[1:][some]
    powers = np.array([pow(int(BASE), k, 1 << 64) for k in range(2 * width)], np.uint64)
    contents = mix(_contents(buffer, starts, ends, TABLE, BASE, powers))
    bits = np.uint64((2 * width).bit_length())
    contents = contents << bits | (ends - starts).astype(np.uint64)
    return Anchors(mix(hashes), contents, starts, ends, first)  # smallest hashes are all small


def _power(length: int) -> np.uint64:
    return np.uint64(pow(int(BASE), length - 1, 1 << 64))


@njit(cache=True)
def _anchors(
    buffer: Bytes,
    offsets: Ints,
    width: int,
    gram: int,
    table: Hashes,
    base: np.uint64,
    power: np.uint64,
) -> tuple[Hashes, Ints, Ints]:
    count = width - gram + 1
    ring = np.empty(count, np.uint64)
    hashes, starts = np.empty(1024, np.uint64), np.empty(1024, np.int64)
    first = np.empty(len(offsets), np.int64)
    n = 0
    for d in range(len(offsets) - 1):
        first[d] = n
        begin, end = offsets[d], offsets[d + 1]
        if end - begin < width:
            continue
        value = np.uint64(0)
        for i in range(begin, begin + gram - 1):
            value = value * base + table[buffer[i]]
        slot, age, length = 0, count, 0
        best = current = np.uint64(0)
        for g in range(begin, end - gram + 1):
            value = value * base + table[buffer[g + gram - 1]]
            mixed = (value ^ (value >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(29)
            value -= table[buffer[g]] * power
            ring[slot] = mixed
            slot = slot + 1 if slot + 1 < count else 0
            age += 1
            if g == begin or mixed <= best:
                best, age = mixed, 0
            elif age >= count:
                # the smallest has left; of equals the last, which stays longest
                best = ring[slot]
                for k in range(count):
                    at = slot + k if slot + k < count else slot + k - count
                    if ring[at] <= best:
                        best, age = ring[at], count - 1 - k
            window = g - count + 1
            if window >= begin:
                if length == 0 or best != current or length == width:
                    if n == len(hashes):
                        hashes = np.concatenate((hashes, np.empty_like(hashes)))
                        starts = np.concatenate((starts, np.empty_like(starts)))
                    hashes[n], starts[n] = best, window
                    n += 1
                    current, length = best, 0
                length += 1
    first[-1] = n
    return hashes[:n].copy(), starts[:n].copy(), first


@njit(cache=True)
def _contents(
    buffer: Bytes, starts: Ints, ends: Ints, table: Hashes, base: np.uint64, powers: Hashes
) -> Hashes:
    """A hash of each piece of the buffer; pieces rise, and may overlap."""
    out = np.empty(len(starts), np.uint64)
    head = tail = np.int64(0)
    high = low = np.uint64(0)  # polynomials of the buffer up to head and tail
    for r in range(len(starts)):
        for i in range(tail, starts[r]):
            low = low * base + table[buffer[i]]
        for i in range(head, ends[r]):
            high = high * base + table[buffer[i]]
        tail, head = starts[r], ends[r]
        out[r] = high - low * powers[head - tail]
    return out


def join_pieces(buffer: Bytes, starts: Ints, ends: Ints) -> Bytes:
    """The pieces buffer[starts[i]:ends[i]], each followed by END."""
    out = np.empty(int((ends - starts).sum()) + len(starts), np.uint8)
    _join_pieces(buffer, starts, ends, out)
    return out


@njit(cache=True)
def _join_pieces(buffer: Bytes, starts: Ints, ends: Ints, out: Bytes) -> None:
    at = 0
    for i in range(len(starts)):
        size = ends[i] - starts[i]
        out[at : at + size] = buffer[starts[i] : ends[i]]
        out[at + size] = END
        at += size + 1


def first_copies(text: Bytes, width: int) -> Int32:
    """For each byte of text (pieces followed by END) where a repeat begins, the beginning of the
    earliest equal window; -1 elsewhere. int32 [N]; N is below 2^31.

    By a suffix array (libdivsufsort): equal windows are neighbours in it. Neighbours' common
    prefixes, no further than `width`, are counted in the order of the text, each from the one
    before (Kärkkäinen, Manzini and Puglisi 2009, "Permuted longest-common-prefix array"). Takes 9
    bytes a byte: text, suffix array, and one array that holds predecessors, links, the result.
    """
    from pydivsufsort import divsufsort

    if len(text) >= 1 << 31:
        raise ValueError("a suffix array of 32 bits holds less than 2 GiB of text")
    if not len(text):
        return np.empty(0, np.int32)
    suffixes = divsufsort(text)
    first = np.empty(len(text), np.int32)
    _predecessors(suffixes, first)
    _links(text, first, width)
    _firsts(suffixes, first, width)
    return first


@njit(cache=True)
def _predecessors(suffixes: Int32, out: Int32) -> None:
    out[suffixes[0]] = -1
    for rank in range(1, len(suffixes)):
        out[suffixes[rank]] = suffixes[rank - 1]


@njit(cache=True)
def _links(text: Bytes, out: Int32, width: int) -> None:
    """Predecessors become 1 where the windows are equal, 0 elsewhere."""
    size = len(text)
    length = 0
    for i in range(size):
        j = out[i]
        if j < 0:
            length = 0
        else:
            most = min(width, size - max(i, j))
            while length < most and text[i + length] == text[j + length] != END:
                length += 1
        out[i] = length >= width
        length = max(0, length - 1)


@njit(cache=True)
def _firsts(suffixes: Int32, out: Int32, width: int) -> None:
    size = len(suffixes)
    begin = 0
    while begin < size:
        end = begin + 1
        earliest = suffixes[begin]
        while end < size and out[suffixes[end]] == 1:
            earliest = min(earliest, suffixes[end])
            end += 1
        for rank in range(begin, end):
            i = suffixes[rank]
            out[i] = earliest if earliest + width <= i else -1
        begin = end


def window_hashes(text: Bytes, first: Int32, width: int) -> tuple[Hashes, NDArray[np.uint32], Ints]:
    """Hashes of the windows that are no repeats, uint64 [W], and where they begin, uint32 [W], by
    bucket and in each in the order of the text; bucket b is bounds[b]:bounds[b + 1]."""
    bounds = np.zeros(BUCKETS + 1, np.int64)
    nothing = np.empty(0, np.uint64), np.empty(0, np.uint32)
    setting = text, first, width, TABLE, BASE, _power(width)
    _window_hashes(*setting, bounds, *nothing)
    bounds = np.cumsum(bounds)
    hashes, places = np.empty(bounds[-1], np.uint64), np.empty(bounds[-1], np.uint32)
    _window_hashes(*setting, bounds.copy(), hashes, places)
    return hashes, places, bounds


@njit(cache=True)
def _window_hashes(
    text: Bytes,
    first: Int32,
    width: int,
    table: Hashes,
    base: np.uint64,
    power: np.uint64,
    next: Ints,
    hashes: Hashes,
    places: NDArray[np.uint32],
) -> None:
    """Counts windows a bucket into next[bucket + 1] when `hashes` is empty, else fills them in
    from next[bucket] on."""
    value = np.uint64(0)
    length = 0
    for i in range(len(text)):
        if text[i] == END:
            value = np.uint64(0)
            length = 0
            continue
        value = value * base + table[text[i]]
        length += 1
        if length >= width:
            begin = i - width + 1
            if first[begin] < 0:
                mixed = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                mixed ^= mixed >> np.uint64(31)
                bucket = np.int64(mixed >> np.uint64(52))
                if len(hashes) == 0:
                    next[bucket + 1] += 1
                else:
                    hashes[next[bucket]], places[next[bucket]] = mixed, begin
                    next[bucket] += 1
            value -= table[text[begin]] * power


@njit(cache=True)
def equal_pieces(
    text: Bytes, places: Ints, sizes: Ints, other: Bytes, firsts: Ints
) -> NDArray[np.bool_]:
    """Whether sizes[i] bytes of text from places[i] on are those of other from firsts[i] on,
    bool [P].

    Where both go on by the same distance from the pair before, what is known to be equal is not
    compared again, so that a long copy costs its length.
    """
    out = np.empty(len(places), np.bool_)
    known = np.int64(0)
    for i in range(len(places)):
        place, first = np.int64(places[i]), np.int64(firsts[i])
        step = known
        if i > 0 and place - np.int64(places[i - 1]) == first - np.int64(firsts[i - 1]):
            step = place - np.int64(places[i - 1])
        known = max(np.int64(0), known - step)
        while known < sizes[i] and text[place + known] == other[first + known]:
            known += 1
        out[i] = known >= sizes[i]
    return out


@njit(cache=True)
def repeat_spans(first: Int32, width: int) -> tuple[Ints, Ints]:
    """Starts and ends of the maximal stretches of bytes that lie in repeats, int64 [S] each."""
    starts, ends = np.empty(256, np.int64), np.empty(256, np.int64)
    n = 0
    for i in range(len(first)):
        if first[i] >= 0:
            if n > 0 and i <= ends[n - 1]:
                ends[n - 1] = i + width
                continue
            if n == len(starts):
                starts = np.concatenate((starts, np.empty_like(starts)))
                ends = np.concatenate((ends, np.empty_like(ends)))
            starts[n], ends[n] = i, i + width
            n += 1
    return starts[:n].copy(), ends[:n].copy()


def whole_characters(buffer: Bytes, starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """The stretches buffer[starts[i]:ends[i]] shrunk to begin and end between characters."""
    starts, ends = starts.copy(), ends.copy()
    for _ in range(3):  # a character has three following bytes at most
        starts += (starts < ends) & ((buffer[np.minimum(starts, len(buffer) - 1)] & 0xC0) == 0x80)
        inside = (ends < len(buffer)) & (starts < ends)
        ends -= inside & ((buffer[np.minimum(ends, len(buffer) - 1)] & 0xC0) == 0x80)
    return starts, ends
