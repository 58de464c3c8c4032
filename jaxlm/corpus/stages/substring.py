"""Exact substrings that occurred before, within and across documents: cut, or the document dropped.

Which bytes go is a property of the corpus alone: those in a window of `min_bytes` bytes of one
document that equals a window of the same or an earlier document which ends before it begins. So
the first occurrence stays, and batches, parts and workers play no role.

Text is handled in parts of PART_BYTES; a task has a part, or a shard of records by hash:

1. Runs of windows with the same anchor (`jaxlm/corpus/repeats.py`) of all parts meet by the hash of
   their anchor. Where all runs of an anchor have the same bytes, all but the first occurred before.
   Where some differ, their text is gathered, a part for itself.
2. A suffix array of each part's gathered text decides about repeats within the part.
3. The other gathered windows go by their hash into shards, where those of several parts meet.

What met by a hash is then compared byte for byte. (What differs after all is compared with each
other in the main process, window by window.) Every step reads and writes what grows linearly with
the corpus: about 4 / min_bytes of its bytes in runs, then the ends of what occurs twice. No process
holds more than a part or a shard.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.dedup import Dedup
from jaxlm.corpus import repeats
from jaxlm.corpus.documents import Documents, load_array, save_array
from jaxlm.corpus.repeats import Bytes, Ints
from jaxlm.corpus.stages.base import Tags
from jaxlm.corpus.stages.compare import Batch, Cut, Duplicate, Map, Signature
from jaxlm.workdir import write_json

STAGE = "dedup.substring"
PART_BYTES = 64 << 20
"""Text a part, about; a task takes up to 17 bytes a byte of what is gathered of it."""
SHARD_RECORDS = 4 << 20
"""Records a shard, about."""

type Rows = list[tuple[int, ...]]


class Substring:
    """Stretches of text that occurred before."""

    cuts = True

    def __init__(self, config: Dedup) -> None:
        self.config = config.substring
        self.by_source = config.scope == "source"

    def signature(self, documents: Documents, tags: Tags) -> Signature:
        """The fields of `repeats.Anchors` of the texts."""
        texts = documents.texts
        return vars(repeats.anchors(texts.buffer, texts.offsets, self.config.min_bytes))

    def resolve(self, batches: Sequence[Batch], work: Path, run: Map) -> Iterator[Duplicate | Cut]:
        """What occurred before, in the order of the corpus, with the document of its first copy; or
        the documents of which more than `max_share` did."""
        numbered = enumerate(batches)
        if not self.by_source:
            yield from self._resolve(numbered, work, run)
            return
        groups = itertools.groupby(numbered, lambda item: item[1].documents().source.name)
        for name, group in groups:
            folder = work / name
            folder.mkdir()
            yield from self._resolve(group, folder, run)

    def _resolve(
        self, batches: Iterable[tuple[int, Batch]], work: Path, run: Map
    ) -> Iterator[Duplicate | Cut]:
        config, width = self.config, self.config.min_bytes
        parts = _write_parts(work, batches)
        if not parts:
            return
        records = sum(run(_sort_runs, ((work, part) for part in range(parts))))
        shards = max(1, -(-records // SHARD_RECORDS))
        for _ in run(_meet_runs, ((work, k, shards, parts, width) for k in range(shards))):
            pass
        sizes = np.zeros(repeats.BUCKETS, np.int64)
        failed = []
        for counts, differ in run(
            _search, ((work, part, shards, width, parts > 1) for part in range(parts))
        ):
            sizes += counts
            failed.append(differ)
        more = _collided_runs(work, failed, width)
        windows: list[Rows] = [[] for _ in range(parts)]
        if parts > 1:
            shelves = list(_shelves(sizes))
            for _ in run(_meet_windows, ((work, k, s, parts) for k, s in enumerate(shelves))):
                pass
            tasks = ((work, part, len(shelves), width) for part in range(parts))
            windows = _collided_windows(work, list(run(_compare_windows, tasks)), width)
        for found in run(
            _finish, ((work, part, parts > 1, more[part], windows[part]) for part in range(parts))
        ):
            borders = np.flatnonzero(np.diff(found[:2], axis=1, prepend=-1).any(axis=0))
            for group in np.split(found, borders[1:], axis=1):
                if not group.size:
                    continue
                b, i, _, _, _, _, size = map(int, group[:, 0])
                share = float((group[3] - group[2]).sum()) / size
                if config.action == "cut":
                    for _, _, start, end, there, first, _ in group.T.tolist():
                        yield Cut(b, i, start, end, "repeated", end - start, (there, first))
                elif share > config.max_share:
                    partner = (int(group[4, 0]), int(group[5, 0]))
                    yield Duplicate(b, i, "max_share", share, config.max_share, partner)


@dataclass(frozen=True)
class _Part:
    """Neighbouring batches: their numbers and folders, and where in the part's text, which is that
    of all of them one after another, each begins, int64 [B + 1]. Positions are in this text."""

    numbers: list[int]
    folders: list[Path]
    bases: Ints

    @classmethod
    def load(cls, work: Path, part: int) -> "_Part":
        data = json.loads((work / f"part-{part}.json").read_text())
        return cls(data["numbers"], list(map(Path, data["folders"])), np.array(data["bases"]))

    def batches(self, positions: Ints) -> Iterator[tuple[int, Ints]]:
        """Each batch, counted from 0, in which some of the positions lie, and which these are."""
        found = np.searchsorted(self.bases, positions, side="right") - 1
        for batch in map(int, np.unique(found)):
            yield batch, np.flatnonzero(found == batch)

    def text(self, batch: int) -> Bytes:
        """The text of a batch."""
        return load_array(self.folders[batch] / "texts.npy")

    def offsets(self, batch: int) -> Ints:
        """Where its documents begin and end."""
        return np.array(load_array(self.folders[batch] / "texts_offsets.npy"))

    def column(self, name: str) -> NDArray[Any]:
        """An array of all batches' signatures; places in a text as positions."""
        places = name in ("starts", "ends")
        return np.concatenate(
            [
                load_array(folder / f"{STAGE}.{name}.npy") + base * places
                for folder, base in zip(self.folders, self.bases[:-1].tolist(), strict=True)
            ]
        )

    def documents(self, positions: Ints) -> Ints:
        """Number of the batch, document, its first position and its size, int64 [4, P]."""
        out = np.empty((4, len(positions)), np.int64)
        for batch, here in self.batches(positions):
            offsets = self.offsets(batch)
            place = positions[here] - self.bases[batch]
            document = np.searchsorted(offsets, place, side="right") - 1
            out[0, here], out[1, here] = self.numbers[batch], document
            out[2, here] = offsets[document] + self.bases[batch]
            out[3, here] = offsets[document + 1] - offsets[document]
        return out


def _write_parts(work: Path, batches: Iterable[tuple[int, Batch]]) -> int:
    """Group batches until their text is PART_BYTES long: writes part-P and keep-P, which of its
    runs are of documents that are still there. Returns the number of parts."""
    parts = 0
    numbers: list[int] = []
    folders: list[str] = []
    sizes: list[int] = []
    keep: list[NDArray[np.bool_]] = []

    def write() -> None:
        bases = np.cumsum([0, *sizes]).tolist()
        data = {"numbers": numbers, "folders": folders, "bases": bases}
        write_json(work / f"part-{parts}.json", data)
        save_array(work / f"keep-{parts}.npy", np.concatenate(keep))
        for column in (numbers, folders, sizes, keep):
            column.clear()

    for number, batch in batches:
        here = len(batch.documents().texts.buffer)
        if numbers and sum(sizes) + here > PART_BYTES:
            write()
            parts += 1
        numbers.append(number)
        folders.append(str(batch.folder))
        sizes.append(here)
        keep.append(np.repeat(batch.keep, np.diff(batch.signature("first"))))
    if numbers:
        write()
        parts += 1
    return parts


def _shelves(sizes: Ints) -> Iterator[tuple[int, int]]:
    """Ranges of buckets with about SHARD_RECORDS hashes."""
    begin = 0
    for end in range(1, len(sizes) + 1):
        if end == len(sizes) or sizes[begin : end + 1].sum() > SHARD_RECORDS:
            yield begin, end
            begin = end


def _sort_runs(work: Path, part: int) -> int:
    """Sort a part's runs by hash: writes anchors-P, contents-P, positions-P; returns how many."""
    here = _Part.load(work, part)
    keep = load_array(work / f"keep-{part}.npy")
    hashes = here.column("hashes")[keep]
    order = np.argsort(hashes, kind="stable")
    save_array(work / f"anchors-{part}.npy", hashes[order])
    save_array(work / f"contents-{part}.npy", here.column("contents")[keep][order])
    save_array(work / f"positions-{part}.npy", here.column("starts")[keep][order])
    return len(order)


def _meet_runs(work: Path, shard: int, shards: int, parts: int, width: int) -> None:
    """Bring the runs of each anchor together, for one of `shards` ranges of hashes.

    Writes whole-K, [4, W]: part and position of each run with the same bytes as the first of its
    anchor, part and position of that one, for anchors all of whose runs have the same bytes and
    lie apart from the first. Writes mixed-K, [2, M]: the runs of other anchors. Both by part.
    """
    low, high = (shard << 64) // shards, (shard + 1 << 64) // shards - 1
    columns: list[list[NDArray[Any]]] = [[], [], [], []]
    for part in range(parts):
        hashes = load_array(work / f"anchors-{part}.npy")
        begin = np.searchsorted(hashes, np.uint64(low))
        end = np.searchsorted(hashes, np.uint64(high), side="right")
        columns[0].append(hashes[begin:end])
        columns[1].append(load_array(work / f"contents-{part}.npy")[begin:end])
        columns[2].append(load_array(work / f"positions-{part}.npy")[begin:end])
        columns[3].append(np.full(end - begin, part))
    hashes, contents, positions, owner = map(np.concatenate, columns)
    order = np.argsort(hashes, kind="stable")  # equal ones stay in the order of the corpus
    hashes, contents, positions, owner = (c[order] for c in (hashes, contents, positions, owner))
    group, first = _groups(hashes)
    apart = (owner != owner[first]) | (positions >= positions[first] + width)
    later = first != np.arange(len(first))
    odd = (contents != contents[first]) | (later & ~apart)
    mixed = np.bincount(group, odd, minlength=1)[group] > 0
    whole = np.stack([owner, positions, owner[first], positions[first]])[:, later & ~mixed]
    save_array(work / f"whole-{shard}.npy", whole[:, np.lexsort((whole[1], whole[0]))])
    left = np.stack([owner, positions])[:, mixed]
    save_array(work / f"mixed-{shard}.npy", left[:, np.lexsort((left[1], left[0]))])


def _groups(ranked: NDArray[np.uint64]) -> tuple[Ints, Ints]:
    """For each of sorted hashes the number of its group of equal ones, and the first of these."""
    opens = np.ones(len(ranked), np.bool_)
    opens[1:] = ranked[1:] != ranked[:-1]
    group = np.cumsum(opens) - 1
    return group, np.flatnonzero(opens)[group]


def _of_part(work: Path, name: str, files: int, part: int) -> Ints:
    """The columns NAME-0 to NAME-(files - 1) of a part, without its number, by position."""
    found = []
    for number in range(files):
        rows = load_array(work / f"{name}-{number}.npy")
        low, high = np.searchsorted(rows[0], (part, part + 1))
        found.append(rows[1:, low:high])
    joined = np.concatenate(found, axis=1)
    return joined[:, np.argsort(joined[0])]


def _search(work: Path, part: int, shards: int, width: int, several: bool) -> tuple[Ints, Rows]:
    """Compare the runs that occurred before with their first copies; gather the text of mixed
    anchors and find the repeats in it.

    Writes copies-P: start, end, part and position of the first copy, [4, S]; spans-P: start and
    end in the gathered text, part and beginning of the first copy there, [4, S]; pieces-P: where
    each piece of it begins, and its position, [2, P]. With several parts also the text and the
    hashes of windows that are no repeats so far. Returns the number of hashes by bucket, and the
    runs that differ from their first copies: position, bytes, part and position of that one.
    """
    here = _Part.load(work, part)
    starts, ends = here.column("starts"), here.column("ends")
    place, other, first = _of_part(work, "whole", shards, part)
    size = ends[np.searchsorted(starts, place)] - place
    equal = np.zeros(len(place), np.bool_)
    for there in map(int, np.unique(other)):
        source = _Part.load(work, there)
        of_part = np.flatnonzero(other == there)
        for a, of_copy in source.batches(first[of_part]):
            text = source.text(a)
            chosen = of_part[of_copy]
            for b, of_batch in here.batches(place[chosen]):
                rows = chosen[of_batch]
                equal[rows] = repeats.equal_pieces(
                    here.text(b), place[rows] - here.bases[b], size[rows],
                    text, first[rows] - source.bases[a],
                )  # fmt: skip
    copies = np.stack([place, place + size, other, first])
    differ = [tuple(map(int, row)) for row in np.stack([place, size, other, first])[:, ~equal].T]
    save_array(work / f"copies-{part}.npy", copies[:, equal])

    (mixed,) = _of_part(work, "mixed", shards, part)
    begin, end = mixed, ends[np.searchsorted(starts, mixed)]
    del starts, ends
    opens = np.ones(len(begin), np.bool_)
    opens[1:] = begin[1:] >= end[:-1]
    begin, end = begin[opens], end[np.append(opens[1:], True)] if len(end) else end
    texts = [np.empty(0, np.uint8)]
    for b, rows in here.batches(begin):
        base = here.bases[b]
        texts.append(repeats.join_pieces(here.text(b), begin[rows] - base, end[rows] - base))
    text = np.concatenate(texts)
    del texts
    sizes = end - begin + 1
    save_array(work / f"pieces-{part}.npy", np.stack([np.cumsum(sizes) - sizes, begin]))
    first_copy = repeats.first_copies(text, width)
    start, stop = repeats.repeat_spans(first_copy, width)
    spans = np.stack([start, stop, np.full(len(start), part), first_copy[start].astype(np.int64)])
    save_array(work / f"spans-{part}.npy", spans)
    if not several:
        return np.zeros(repeats.BUCKETS, np.int64), differ
    hashes, places, bounds = repeats.window_hashes(text, first_copy, width)
    save_array(work / f"text-{part}.npy", text)
    save_array(work / f"hashes-{part}.npy", hashes)
    save_array(work / f"places-{part}.npy", places)
    save_array(work / f"bounds-{part}.npy", bounds)
    return np.diff(bounds), differ


def _collided_runs(work: Path, failed: list[Rows], width: int) -> list[Rows]:
    """Windows of runs that differ from the first with their hashes, and are in that one or in an
    earlier of them all the same: start, end, part and position of the first copy, by part."""
    known: dict[tuple[int, int], dict[bytes, tuple[int, int]]] = {}
    out: list[Rows] = [[] for _ in failed]

    def windows(part: int, position: int, size: int) -> Iterator[tuple[int, bytes]]:
        here = _Part.load(work, part)
        ((batch, _),) = here.batches(np.array([position]))
        start = position - int(here.bases[batch])
        piece = here.text(batch)[start : start + size].tobytes()
        for i in range(size - width + 1):
            yield position + i, piece[i : i + width]

    for part, rows in enumerate(failed):
        for position, size, *where in rows:
            first = where[0], where[1]
            if first not in known:
                known[first] = {}
                for place, window in windows(*first, size):
                    known[first].setdefault(window, (first[0], place))
            for place, window in windows(part, position, size):
                there, copy = known[first].setdefault(window, (part, place))
                if there != part or copy + width <= place:
                    out[part].append((place, place + width, there, copy))
    return out


def _meet_windows(work: Path, shelf: int, buckets: tuple[int, int], parts: int) -> None:
    """Join windows with equal hashes: writes pairs-K, [4, W]: part and place of each but the
    earliest, and of the earliest; by part."""
    columns: list[list[NDArray[Any]]] = [[], [], []]
    for part in range(parts):
        low, high = load_array(work / f"bounds-{part}.npy")[list(buckets)]
        columns[0].append(load_array(work / f"hashes-{part}.npy")[low:high])
        columns[1].append(load_array(work / f"places-{part}.npy")[low:high])
        columns[2].append(np.full(high - low, part, np.uint32))
    hashes, places, owner = map(np.concatenate, columns)
    order = np.argsort(hashes, kind="stable")  # equal ones stay in the order of the corpus
    _, first = _groups(hashes[order])
    later = np.flatnonzero(first != np.arange(len(first)))
    copy, first = order[later], order[first[later]]
    pairs = np.stack([owner[copy], places[copy], owner[first], places[first]])
    save_array(work / f"pairs-{shelf}.npy", pairs[:, np.lexsort((pairs[1], pairs[0]))])


def _compare_windows(work: Path, part: int, shelves: int, width: int) -> Rows:
    """Compare a part's windows with the earliest of their hash. Writes met-P: start and end of
    what is equal in the gathered text, part and place of the first copy, [4, S]. Returns what
    differs after all: its place, part and place of the earliest of its hash."""
    pairs = _of_part(work, "pairs", shelves, part)
    text = load_array(work / f"text-{part}.npy")
    equal = np.zeros(pairs.shape[1], np.bool_)
    for other in map(int, np.unique(pairs[1])):
        rows = np.flatnonzero(pairs[1] == other)
        there = load_array(work / f"text-{other}.npy")
        sizes = np.full(len(rows), width)
        equal[rows] = repeats.equal_pieces(text, pairs[0, rows], sizes, there, pairs[2, rows])
    differ = [tuple(map(int, row)) for row in pairs[:, ~equal].T]
    # within the part the suffix array has spoken: these overlap their first copy
    place, other, first = pairs[:, equal & (pairs[1] != part)].astype(np.int64)
    opens = np.ones(len(place), np.bool_)
    opens[1:] = np.diff(place) > width
    ends = place[np.append(opens[1:], True)] + width if len(place) else place
    save_array(work / f"met-{part}.npy", np.stack([place[opens], ends, other[opens], first[opens]]))
    return differ


def _collided_windows(work: Path, failed: list[Rows], width: int) -> list[Rows]:
    """Windows that differ from the earliest with their hash, and equal an earlier of them in
    another part: start, end, part and place of that one, by part."""
    known: dict[tuple[int, int, bytes], tuple[int, int]] = {}
    out: list[Rows] = [[] for _ in failed]
    for part, rows in enumerate(failed):
        for place, other, first in rows:
            text = load_array(work / f"text-{part}.npy")
            key = other, first, text[place : place + width].tobytes()
            there, copy = known.setdefault(key, (part, place))
            if there != part:
                out[part].append((place, place + width, there, copy))
    return out


def _finish(work: Path, part: int, several: bool, more: Rows, windows: Rows) -> Ints:
    """All of a part that occurred before: batch, document, start and end in its bytes, batch and
    document of the first copy, bytes of the document, int64 [7, S], in the order of the corpus."""
    gathered = [load_array(work / f"spans-{part}.npy"), _columns(windows)]
    if several:
        gathered.append(load_array(work / f"met-{part}.npy"))
    joined = np.concatenate(gathered, axis=1)
    shift = _shift(work, part, joined[0])
    joined[0] += shift
    joined[1] += shift
    for there in map(int, np.unique(joined[2])):
        rows = np.flatnonzero(joined[2] == there)
        joined[3, rows] += _shift(work, there, joined[3, rows])
    joined = np.concatenate(
        [joined, load_array(work / f"copies-{part}.npy"), _columns(more)], axis=1
    )
    joined = joined[:, np.argsort(joined[0], kind="stable")]
    here = _Part.load(work, part)
    number, document, begin, size = here.documents(joined[0])
    reach = np.maximum.accumulate(joined[1])
    opens = np.ones(len(reach), np.bool_)
    opens[1:] = (joined[0, 1:] > reach[:-1]) | (np.diff(begin) > 0)
    start, _, other, first = joined[:, opens]
    end = reach[np.append(opens[1:], True)] if len(reach) else reach
    number, document, begin, size = (c[opens] for c in (number, document, begin, size))
    partner = np.zeros((2, len(start)), np.int64)
    for there in map(int, np.unique(other)):
        rows = np.flatnonzero(other == there)
        partner[:, rows] = _Part.load(work, there).documents(first[rows])[:2]
    for batch, rows in here.batches(start):
        base = here.bases[batch]
        shrunk = repeats.whole_characters(here.text(batch), start[rows] - base, end[rows] - base)
        start[rows], end[rows] = shrunk[0] + base, shrunk[1] + base
    found = np.stack([number, document, start - begin, end - begin, *partner, size])
    return found[:, start < end]


def _columns(rows: Rows) -> Ints:
    return np.array(rows, np.int64).reshape(-1, 4).T


def _shift(work: Path, part: int, places: Ints) -> Ints:
    """From places in a part's gathered text to positions."""
    begin, position = load_array(work / f"pieces-{part}.npy")
    piece = np.searchsorted(begin, places, side="right") - 1
    shift: Ints = position[piece] - begin[piece]
    return shift
