"""Editor: documents with text of evaluation sets are dropped, or that text is cut out."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from unicodedata import category

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.config.corpus import Limits, Source
from jaxlm.config.dedup import Decontamination, EvaluationSet
from jaxlm.config.rules import Rules
from jaxlm.corpus import characters, listing
from jaxlm.corpus.characters import CODES, decode
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.listing import InputFile
from jaxlm.corpus.readers import Bad, read
from jaxlm.corpus.stages.base import Changes, Edit, replaced
from jaxlm.corpus.statistics import Analysis, Spans, runs
from jaxlm.corpus.tables import mix
from jaxlm.errors import UserError

type Ints = NDArray[np.int64]
type Hashes = NDArray[np.uint64]

NAMED = 3
"""Items that the note on a document names."""
_APART, _WORD, _ALONE = range(3)
_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Table:
    """The runs of words of evaluation sets.

    sizes: their lengths in words, int64, the longest first; bits: a bit for each of their hashes
    modulo its size; slots: an open hash table of their numbers, -1 where empty. Run r has the hash
    hashes[r] and is words[starts[r]:starts[r] + lengths[r]] of the item names[items[r]].
    """

    sizes: Ints
    bits: NDArray[np.uint8]
    slots: NDArray[np.int32]
    hashes: Hashes
    starts: Ints
    lengths: Ints
    items: Ints
    words: Hashes
    names: tuple[str, ...]


def decontaminate(texts: Analysis, section: Rules) -> Edit:
    """Looks up every run of words; where one is in an item it is compared word by word."""
    assert isinstance(section, Decontamination)
    strings = texts.texts
    known = table(section)
    words, hashes = _words(strings)
    place, length, run = _find(
        hashes, words.first, known.sizes, known.bits, known.slots, known.hashes, known.starts,
        known.lengths, known.words,
    )  # fmt: skip
    documents = words.documents[place]
    number = len(strings)
    overlaps = np.bincount(documents, minlength=number).astype(np.float64)
    # the words in runs: runs rise, so that each covers what the ones before have not
    mask = np.zeros(len(words) + 1, np.int64)
    np.add.at(mask, place, 1)
    np.add.at(mask, place + length, -1)
    inside = np.cumsum(mask[:-1]) > 0
    covered = np.bincount(words.documents[inside], minlength=number)
    tags = {"overlaps": overlaps, "share": covered / np.maximum(1, words.counts)}
    notes: dict[int, list[str]] = {}
    for document, item in zip(documents.tolist(), known.items[run].tolist(), strict=True):
        found = notes.setdefault(document, [])
        if len(found) < NAMED and known.names[item] not in found:
            found.append(known.names[item])
    told = {document: ", ".join(found) for document, found in notes.items()}
    pieces = runs(inside, words.first)
    if section.action == "drop":
        pieces = Spans(pieces.starts[:0], pieces.ends[:0], np.zeros(number + 1, np.int64))
    starts, ends = words.starts[pieces.starts], words.ends[pieces.ends - 1]
    begin = strings.offsets[pieces.documents]
    changes = Changes(
        ("overlap",),
        pieces.documents,
        np.zeros(len(starts), np.int64),
        starts - begin,
        ends - begin,
    )
    return Edit(tags, replaced(strings, starts, ends), changes, told)


EDITORS: dict[str, Callable[[Analysis, Rules], Edit]] = {"decontaminate": decontaminate}


def _local_files(section: Rules) -> list[Path]:
    """The files of the evaluation sets on this machine; the sets are read, so that what is missing
    or broken is told at the beginning of a run."""
    assert isinstance(section, Decontamination)
    table(section)
    return [Path(file.path) for file in files(section) if "://" not in file.path]


FILES: dict[str, Callable[[Rules], list[Path]]] = {"decontaminate": _local_files}


def files(section: Decontamination) -> list[InputFile]:
    """The files of the evaluation sets. Raises UserError where there are none."""
    return [file for each in section.sets for file in listing.files(_source(each, each.fields[0]))]


def table(section: Decontamination) -> Table:
    """The table of a section, read once for each state of its files.

    Raises UserError for files that are missing or broken, and for fields that no record has.
    """
    stamps = tuple((file.path, file.stamp) for file in files(section))
    return _table(section.sets, stamps, section.ngram, section.shortest, section.common_items)


@lru_cache(maxsize=4)
def _table(
    sets: tuple[EvaluationSet, ...],
    stamps: tuple[object, ...],
    ngram: int,
    shortest: int,
    common_items: int,
) -> Table:
    names: list[str] = []
    texts: list[bytes] = []
    for each in sets:
        for field in each.fields:
            for id, text in _items(each, field):
                names.append(f"{each.name}/{id}" + (f"/{field}" if len(each.fields) > 1 else ""))
                texts.append(text)
    spans, words = _words(Strings.of(texts))
    size = np.minimum(ngram, spans.counts)
    size[size < shortest] = 0
    number = np.where(size > 0, spans.counts - size + 1, 0)
    items = np.repeat(np.arange(len(texts)), number)
    within = np.arange(len(items)) - np.repeat(np.cumsum(number) - number, number)
    starts = spans.first[items] + within
    hashes = _hashes(words, starts, size[items])
    # one of each hash and item, then one of each hash that few items have
    order = np.lexsort((items, hashes))
    again = np.zeros(len(order), np.bool_)
    ranked, owner = hashes[order], items[order]
    again[1:] = (ranked[1:] == ranked[:-1]) & (owner[1:] == owner[:-1])
    order = order[~again]
    _, first, counts = np.unique(hashes[order], return_index=True, return_counts=True)
    chosen = order[first[counts <= common_items]]
    hashes, starts, items = hashes[chosen], starts[chosen], items[chosen]
    lengths = size[items]
    room = 1 << max(4, int(2 * len(hashes)).bit_length())
    bits, slots = np.zeros(2 * room, np.uint8), np.full(room, -1, np.int32)
    _fill(hashes, bits, slots)
    sizes = np.unique(lengths)[::-1].copy()
    return Table(sizes, bits, slots, hashes, starts, lengths, items, words, tuple(names))


def _source(each: EvaluationSet, field: str) -> Source:
    return Source(
        name=each.name, path=each.path, text_field=field, id_field=each.id_field, split=each.split
    )


def _items(each: EvaluationSet, field: str) -> list[tuple[str, bytes]]:
    """Id and text of every item of a set that has the field."""
    source, out = _source(each, field), []
    for file in listing.files(source):
        for record in read(source, file, Limits()):
            if not isinstance(record, Bad):
                out.append((record.id, record.text))
            elif record.rule not in ("missing_text", "empty"):
                raise UserError(
                    f"evaluation set {each.name!r}: {file.path}: {record.id}: {record.rule}"
                    + (f" ({record.value})" if record.value is not None else "")
                    + "; mend the file"
                )
    if not out:
        raise UserError(
            f"evaluation set {each.name!r}: {each.path} has no text in the field {field!r}; "
            "correct prepare.decontaminate.sets"
        )
    return out


def _words(texts: Strings) -> tuple[Spans, Hashes]:
    """The words of all texts and their hashes, uint64."""
    starts, ends, hashes, first = _split(
        np.ascontiguousarray(texts.buffer), texts.offsets, _classes(), characters.lower()
    )
    return Spans(starts, ends, first), hashes


@cache
def _classes() -> NDArray[np.uint8]:
    classes: NDArray[np.uint8] = characters.table(
        lambda c: _WORD if c.isalnum() or category(c)[0] == "M" else _APART, np.uint8
    )
    classes[characters.spaceless() & (classes == _WORD)] = _ALONE
    return classes


@njit(cache=True)
def _split(
    buffer: NDArray[np.uint8],
    offsets: Ints,
    classes: NDArray[np.uint8],
    lower: NDArray[np.int32],
) -> tuple[Ints, Ints, Hashes, Ints]:
    documents = len(offsets) - 1
    most = len(buffer) // 2 + documents + 1  # a word takes two bytes at least, but for the last
    starts, ends = np.empty(most, np.int64), np.empty(most, np.int64)
    hashes = np.empty(most, np.uint64)
    first = np.zeros(documents + 1, np.int64)
    n = 0
    empty = np.uint64(0xCBF29CE484222325)
    prime = np.uint64(0x100000001B3)  # FNV-1a, over code points
    for d in range(documents):
        at = offsets[d]
        begin = np.int64(-1)
        value = empty
        while at < offsets[d + 1]:
            code, width = decode(buffer, at)
            kind = _WORD
            if code < CODES:
                kind = int(classes[code])
                code = int(lower[code])
            if kind == _WORD:
                if begin < 0:
                    begin = at
                value = (value ^ np.uint64(code)) * prime
            elif begin >= 0:
                starts[n], ends[n], hashes[n] = begin, at, mix(value)
                n += 1
                begin, value = np.int64(-1), empty
            if kind == _ALONE:
                starts[n], ends[n] = at, at + width
                hashes[n] = mix((empty ^ np.uint64(code)) * prime)
                n += 1
            at += width
        if begin >= 0:
            starts[n], ends[n], hashes[n] = begin, at, mix(value)
            n += 1
        first[d + 1] = n
    return starts[:n].copy(), ends[:n].copy(), hashes[:n].copy(), first


@njit(cache=True)
def _hashes(words: Hashes, starts: Ints, lengths: Ints) -> Hashes:
    """A hash of each run of words, as `_find` rolls it."""
    out = np.empty(len(starts), np.uint64)
    for r in range(len(starts)):
        value = np.uint64(0)
        for k in range(starts[r], starts[r] + lengths[r]):
            value = value * _BASE + words[k]
        out[r] = mix(value + np.uint64(lengths[r]))
    return out


@njit(cache=True)
def _fill(hashes: Hashes, bits: NDArray[np.uint8], slots: NDArray[np.int32]) -> None:
    for r in range(len(hashes)):
        bit = hashes[r] & np.uint64(8 * len(bits) - 1)
        bits[bit >> np.uint64(3)] |= np.uint8(1 << (bit & np.uint64(7)))
        slot = np.int64(hashes[r] >> np.uint64(32)) & (len(slots) - 1)
        while slots[slot] >= 0:
            slot = (slot + 1) & (len(slots) - 1)
        slots[slot] = r


@njit(cache=True)
def _find(
    words: Hashes,
    first: Ints,
    sizes: Ints,
    bits: NDArray[np.uint8],
    slots: NDArray[np.int32],
    hashes: Hashes,
    starts: Ints,
    lengths: Ints,
    known: Hashes,
) -> tuple[Ints, Ints, Ints]:
    """Runs of documents' words that are in the table: first word, length, number of the run in the
    table, int64 each; one at most, the longest, begins at a word."""
    found = np.full(len(words), -1, np.int32)
    for size in sizes:
        power = np.uint64(1)
        for _ in range(size - 1):
            power *= _BASE
        for d in range(len(first) - 1):
            value = np.uint64(0)
            for k in range(first[d], first[d + 1]):
                value = value * _BASE + words[k]
                begin = k - size + 1
                if begin < first[d]:
                    continue
                hash = mix(value + np.uint64(size))
                value -= words[begin] * power
                bit = hash & np.uint64(8 * len(bits) - 1)
                if not (bits[bit >> np.uint64(3)] >> (bit & np.uint64(7))) & 1 or found[begin] >= 0:
                    continue
                slot = np.int64(hash >> np.uint64(32)) & (len(slots) - 1)
                while slots[slot] >= 0:
                    r = slots[slot]
                    if hashes[r] == hash and lengths[r] == size:
                        same = True
                        for j in range(size):
                            same &= known[starts[r] + j] == words[begin + j]
                        if same:
                            found[begin] = r
                            break
                    slot = (slot + 1) & (len(slots) - 1)
    place = np.flatnonzero(found >= 0)
    run = found[place].astype(np.int64)
    return place, lengths[run], run
