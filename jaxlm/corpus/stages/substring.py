"""Exact substrings that occurred before, within and across documents: cut, or the document dropped.

Which bytes go is a property of the corpus alone: those in a window of `min_bytes` bytes of one
document that equals a window of the same or an earlier document which ends before it begins. So
the first occurrence stays, and batches, parts and workers play no role.

Text is handled in parts of PART_BYTES, each a task that fits into memory:

1. The anchors of all parts (`jaxlm/corpus/repeats.py`), sorted by hash, show which occur twice;
   only windows under such an anchor can be repeats. Their text is gathered, a part for itself.
2. A suffix array of each part's gathered text decides about repeats within the part.
3. The other gathered windows go by their hash into shards, so that equal ones of several parts
   meet; the earliest of a hash stays, the others are compared with it byte for byte. (Windows
   with equal hashes that differ are compared with each other in the main process.)

Every step reads and writes what grows linearly with the corpus: anchors about 4 / min_bytes of
its bytes, then only text that occurs twice. No process holds more than a part or a shard.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.dedup import Dedup
from jaxlm.corpus import repeats
from jaxlm.corpus.documents import Documents, load_array, save_array
from jaxlm.corpus.repeats import Ints
from jaxlm.corpus.stages.base import Tags
from jaxlm.corpus.stages.compare import Batch, Cut, Duplicate, Map, Signature

STAGE = "dedup.substring"
PART_BYTES = 64 << 20
"""Text a suffix array, about; memory is up to 17 bytes a byte where all of it occurs twice."""
SHARD_HASHES = 4 << 20

type Stored = tuple[int, Path, NDArray[np.bool_]]
"""A batch: its number, its folder and which of its documents are still there."""
type Where = tuple[int, int]
"""A part, and a byte of its gathered text."""


class Substring:
    """Stretches of text that occurred before."""

    cuts = True

    def __init__(self, config: Dedup) -> None:
        self.config = config.substring
        self.by_source = config.scope == "source"

    def signature(self, documents: Documents, tags: Tags) -> Signature:
        """hashes, starts, first: the anchors of the texts (`repeats.Anchors`)."""
        texts = documents.texts
        found = repeats.anchors(texts.buffer, texts.offsets, self.config.min_bytes)
        return {"hashes": found.hashes, "starts": found.starts, "first": found.first}

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
        parts = list(_parts(batches))
        total = sum(run(_sort_anchors, ((work, p, part) for p, part in enumerate(parts))))
        shards = -(-total // SHARD_HASHES)
        edges = [(k << 64) // max(1, shards) for k in range(shards + 1)]
        for _ in run(
            _find_repeated, ((work, k, edges[k : k + 2], len(parts)) for k in range(shards))
        ):
            pass
        several = len(parts) > 1
        sizes = np.zeros(repeats.BUCKETS, np.int64)
        for counts in run(
            _search_part, ((work, p, part, edges, width, several) for p, part in enumerate(parts))
        ):
            sizes += counts
        more: list[list[tuple[int, int, int, int]]] = [[] for _ in parts]
        if several:
            shelves = list(_shelves(sizes))
            tasks = ((work, k, shelf, len(parts)) for k, shelf in enumerate(shelves))
            for _ in run(_meet, tasks):
                pass
            failed: list[list[tuple[int, Where]]] = list(
                run(_compare, ((work, p, len(shelves), width) for p in range(len(parts))))
            )
            more = _collided(work, failed, width)
        for found in run(
            _finish,
            ((work, p, part, width, several, more[p]) for p, part in enumerate(parts)),
        ):
            borders = np.flatnonzero(np.diff(found[:2], axis=1, prepend=-1).any(axis=0))
            for group in np.split(found, borders[1:], axis=1):
                if not group.size:
                    continue
                b, i, _, _, _, _, size = map(int, group[:, 0])
                partner = (int(group[4, 0]), int(group[5, 0]))
                share = float((group[3] - group[2]).sum()) / size
                if config.action == "drop":
                    if share > config.max_share:
                        yield Duplicate(b, i, "max_share", share, config.max_share, partner)
                else:
                    for _, _, start, end, there, first, _ in group.T.tolist():
                        yield Cut(b, i, start, end, "repeated", end - start, (there, first))


def _parts(batches: Iterable[tuple[int, Batch]]) -> Iterator[list[Stored]]:
    """Neighbouring batches until their text is PART_BYTES long."""
    part: list[Stored] = []
    size = 0
    for number, batch in batches:
        here = int(batch.documents().texts.lengths[batch.keep].sum())
        if part and size + here > PART_BYTES:
            yield part
            part, size = [], 0
        part.append((number, batch.folder, np.array(batch.keep)))
        size += here
    if part:
        yield part


def _shelves(sizes: Ints) -> Iterator[tuple[int, int]]:
    """Ranges of buckets with about SHARD_HASHES hashes."""
    begin = 0
    for end in range(1, len(sizes) + 1):
        if end == len(sizes) or sizes[begin : end + 1].sum() > SHARD_HASHES:
            yield begin, end
            begin = end


def _load(folder: Path, name: str) -> NDArray[Any]:
    return load_array(folder / f"{STAGE}.{name}.npy")


def _runs(folder: Path, keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which anchors of a batch are of documents that are still there."""
    return np.repeat(keep, np.diff(_load(folder, "first")))


def _sort_anchors(work: Path, part: int, batches: list[Stored]) -> int:
    """Sort a part's anchors by hash, each at most twice; returns their number."""
    hashes = np.sort(
        np.concatenate(
            [_load(folder, "hashes")[_runs(folder, keep)] for _, folder, keep in batches]
        )
    )
    third = np.zeros(len(hashes), np.bool_)
    third[2:] = hashes[2:] == hashes[:-2]
    save_array(work / f"anchors-{part}.npy", hashes[~third])
    return len(hashes)


def _find_repeated(work: Path, shard: int, edges: list[int], parts: int) -> None:
    """Collect the hashes from edges[0] to below edges[1] that occur twice in the corpus."""
    pieces = []
    for part in range(parts):
        hashes = load_array(work / f"anchors-{part}.npy")
        pieces.append(hashes[_cut(hashes, edges)])
    hashes = np.sort(np.concatenate(pieces))
    save_array(work / f"repeated-{shard}.npy", np.unique(hashes[1:][hashes[1:] == hashes[:-1]]))


def _cut(hashes: NDArray[Any], edges: list[int]) -> slice:
    """Where sorted hashes lie from edges[0] to below edges[1] (2^64 at most)."""
    last = np.uint64(edges[1] - 1)
    begin = int(np.searchsorted(hashes, np.uint64(edges[0])))
    return slice(begin, int(np.searchsorted(hashes, last, side="right")))


def _search_part(
    work: Path, part: int, batches: list[Stored], edges: list[int], width: int, several: bool
) -> Ints:
    """Gather the text under repeated anchors and find the repeats within the part.

    Writes spans-P (start, end, beginning of the first copy [3, S]) and pieces-P: where each piece
    begins in the gathered text, batch, document, where it begins in the document, [4, P]. With
    several parts also the text and the hashes of windows that are no repeats so far. Returns the
    number of hashes by bucket.
    """
    repeated = _repeated(work, batches, edges)
    pieces, texts = [], []
    at = 0
    for (number, folder, keep), hit in zip(batches, repeated, strict=True):
        offsets, first = load_array(folder / "texts_offsets.npy"), _load(folder, "first")
        begin = np.array(_load(folder, "starts"))
        last = np.append(begin[1:], 0)
        some = np.diff(first) > 0
        last[first[1:][some] - 1] = offsets[1:][some] - width + 1
        use = hit & _runs(folder, keep)
        begin, end = begin[use], last[use] + width - 1
        opens = np.ones(len(begin), np.bool_)
        opens[1:] = begin[1:] >= end[:-1]
        begin, end = begin[opens], end[np.append(opens[1:], True)] if len(end) else end
        document = np.searchsorted(offsets, begin, side="right") - 1
        texts.append(repeats.join_pieces(load_array(folder / "texts.npy"), begin, end))
        sizes = end - begin + 1
        place = at + np.cumsum(sizes) - sizes
        batch = np.full(len(begin), number)
        pieces.append(np.stack([place, batch, document, begin - offsets[document]]))
        at += len(texts[-1])
    save_array(work / f"pieces-{part}.npy", np.concatenate(pieces, axis=1))
    text = np.concatenate(texts)
    del texts
    first_copy = repeats.first_copies(text, width)
    starts, ends = repeats.repeat_spans(first_copy, width)
    save_array(work / f"spans-{part}.npy", np.stack([starts, ends, first_copy[starts]]))
    if not several:
        return np.zeros(repeats.BUCKETS, np.int64)
    hashes, places, bounds = repeats.window_hashes(text, first_copy, width)
    save_array(work / f"text-{part}.npy", text)
    save_array(work / f"hashes-{part}.npy", hashes)
    save_array(work / f"places-{part}.npy", places)
    save_array(work / f"bounds-{part}.npy", bounds)
    return np.diff(bounds)


def _repeated(work: Path, batches: list[Stored], edges: list[int]) -> list[NDArray[np.bool_]]:
    """For each batch, which of its anchors occur twice in the corpus."""
    hashes = [_load(folder, "hashes") for _, folder, _ in batches]
    joined = np.concatenate(hashes)
    order = np.argsort(joined)
    ranked = joined[order]
    hit = np.zeros(len(joined), np.bool_)
    for shard in range(len(edges) - 1):
        known = load_array(work / f"repeated-{shard}.npy")
        here = _cut(ranked, edges[shard : shard + 2])
        if len(known):
            nearest = np.minimum(np.searchsorted(known, ranked[here]), len(known) - 1)
            hit[order[here]] = known[nearest] == ranked[here]
    return np.split(hit, np.cumsum([len(part) for part in hashes])[:-1])


def _meet(work: Path, shelf: int, buckets: tuple[int, int], parts: int) -> None:
    """Join windows with equal hashes: writes pairs-K, [4, W]: part and place of each but the
    earliest, and of the earliest; in the order of the corpus."""
    hashes, places, owner = [], [], []
    for part in range(parts):
        low, high = load_array(work / f"bounds-{part}.npy")[list(buckets)]
        hashes.append(load_array(work / f"hashes-{part}.npy")[low:high])
        places.append(load_array(work / f"places-{part}.npy")[low:high].astype(np.int64))
        owner.append(np.full(high - low, part))
    hash = np.concatenate(hashes)
    where = np.stack([np.concatenate(owner), np.concatenate(places)])
    order = np.argsort(hash, kind="stable")  # equal ones stay in the order of the corpus
    ranked = hash[order]
    opens = np.ones(len(hash), np.bool_)
    opens[1:] = ranked[1:] != ranked[:-1]
    earliest = order[np.flatnonzero(opens)[np.cumsum(opens) - 1]]
    pairs = np.concatenate([where[:, order[~opens]], where[:, earliest[~opens]]])
    save_array(work / f"pairs-{shelf}.npy", pairs[:, np.lexsort((pairs[1], pairs[0]))])


def _compare(work: Path, part: int, shelves: int, width: int) -> list[tuple[int, Where]]:
    """Compare a part's windows with the earliest of their hash. Writes met-P: start and end of
    what is equal, part and place of the first copy, [4, S]. Returns what differs after all: its
    place, and the earliest of its hash."""
    found = []
    for shelf in range(shelves):
        pairs = load_array(work / f"pairs-{shelf}.npy")
        low, high = np.searchsorted(pairs[0], (part, part + 1))
        found.append(pairs[1:, low:high])
    pairs = np.concatenate(found, axis=1)
    pairs = pairs[:, np.argsort(pairs[0])]
    text = load_array(work / f"text-{part}.npy")
    equal = np.zeros(pairs.shape[1], np.bool_)
    for other in map(int, np.unique(pairs[1])):
        here = np.flatnonzero(pairs[1] == other)
        there = load_array(work / f"text-{other}.npy")
        equal[here] = repeats.equal_windows(text, pairs[0, here], there, pairs[2, here], width)
    failed = [(int(place), (int(p), int(q))) for place, p, q in pairs[:, ~equal].T]
    # within the part the suffix array has spoken: these overlap their first copy
    place, other, first = pairs[:, equal & (pairs[1] != part)]
    opens = np.ones(len(place), np.bool_)
    opens[1:] = np.diff(place) > width
    ends = place[np.append(opens[1:], True)] + width if len(place) else place
    save_array(work / f"met-{part}.npy", np.stack([place[opens], ends, other[opens], first[opens]]))
    return failed


def _collided(
    work: Path, failed: list[list[tuple[int, Where]]], width: int
) -> list[list[tuple[int, int, int, int]]]:
    """Among windows that differ from the earliest with their hash, those equal to an earlier one
    of another part: start, end, part and place of that one, by part."""
    known: dict[tuple[Where, bytes], Where] = {}
    out: list[list[tuple[int, int, int, int]]] = []
    for part, windows in enumerate(failed):
        text = load_array(work / f"text-{part}.npy") if windows else None
        out.append([])
        for place, group in windows:
            assert text is not None
            key = group, text[place : place + width].tobytes()
            first = known.setdefault(key, (part, place))
            if first[0] != part:
                out[-1].append((place, place + width, *first))
    return out


def _finish(
    work: Path,
    part: int,
    batches: list[Stored],
    width: int,
    several: bool,
    more: list[tuple[int, int, int, int]],
) -> Ints:
    """All of a part that occurred before: batch, document, start and end in its bytes, batch and
    document of the first copy, bytes of the document, int64 [7, S], in the order of the corpus."""
    start, end, first = load_array(work / f"spans-{part}.npy").astype(np.int64)
    spans = [np.stack([start, end, np.full(len(start), part), first])]
    if several:
        spans += [load_array(work / f"met-{part}.npy"), np.array(more, np.int64).reshape(-1, 4).T]
    joined = np.concatenate(spans, axis=1)
    joined = joined[:, np.argsort(joined[0], kind="stable")]
    reach = np.maximum.accumulate(joined[1])
    opens = np.ones(len(reach), np.bool_)
    opens[1:] = joined[0, 1:] > reach[:-1]
    start, _, other, first = joined[:, opens]
    end = reach[np.append(opens[1:], True)] if len(reach) else reach
    places, batch, document, begin = load_array(work / f"pieces-{part}.npy")
    piece = np.searchsorted(places, start, side="right") - 1
    shift = begin[piece] - places[piece]
    start, end = start + shift, end + shift
    batch, document = batch[piece], document[piece]
    partner = np.zeros((2, len(start)), np.int64)
    for there in map(int, np.unique(other)):
        here = np.flatnonzero(other == there)
        table = load_array(work / f"pieces-{there}.npy")
        partner[:, here] = table[1:3, np.searchsorted(table[0], first[here], side="right") - 1]
    # stretches of neighbouring pieces may touch
    touch = np.zeros(len(start), np.bool_)
    touch[1:] = (np.diff(batch) == 0) & (np.diff(document) == 0) & (start[1:] == end[:-1])
    end = end[np.append(~touch[1:], True)] if len(end) else end
    found = np.stack([batch, document, start, start, *partner, start])[:, ~touch]
    found[3] = end
    for number, folder, _ in batches:
        low, high = np.searchsorted(found[0], (number, number + 1))
        offsets = np.array(load_array(folder / "texts_offsets.npy"))
        here = found[:, low:high]
        base = offsets[here[1]]
        ends = repeats.whole_characters(
            load_array(folder / "texts.npy"), here[2] + base, here[3] + base
        )
        here[2], here[3] = ends[0] - base, ends[1] - base
        here[6] = offsets[here[1] + 1] - base
    return found[:, found[2] < found[3]]
