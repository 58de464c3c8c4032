"""Documents whose sets of shingles are alike: LSH proposes, true Jaccard similarity decides.

A document is dropped if a document that stays, of higher priority, shares a bucket with it and is
at least `threshold` similar. It is compared with documents that stay, never with dropped ones, so
chains of merely linked documents cannot form. This names one set of documents, the one that a
single process finds by going through all of them in order of priority; here tasks find the same:

1. Documents with equal sets are decided as one, by the first of them.
2. Band keys go to sorted runs; a task reads a range of keys and stores the buckets of several
   documents. The sets of these documents go to one file that is mapped into memory.
3. In rounds, a task goes through its buckets in order of priority. It drops what is similar to a
   document that is known to stay, and blocks what is similar to an undecided one. What no task
   dropped or blocked stays. When few records are left, one task decides them in order; when a
   round decides less than half of them (long chains), one task decides the first of them.
4. Each dropped document is compared with those that stay once more, for the most similar one.

A bucket of n documents of which k stay costs k comparisons a document, not n.
"""

import functools
import itertools
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.config.dedup import Dedup, MinHash
from jaxlm.corpus.documents import Documents, load_array, save_array
from jaxlm.corpus.stages.base import Tags
from jaxlm.corpus.stages.compare import Batch, Duplicate, Map, Signature, rank
from jaxlm.corpus.stages.exact import hashed, leaders, scope
from jaxlm.corpus.stages.index import Compared, add, earlier, removed
from jaxlm.corpus.stages.shingles import Ints, hashes, jaccard, signatures
from jaxlm.corpus.stages.shuffle import (
    DROPPED,
    KEPT,
    OPEN,
    RECORDS,
    Place,
    grouped,
    mapped,
    opens,
    parts,
    read_part,
    write_run,
)
from jaxlm.corpus.tables import mix

type Keys = NDArray[np.uint64]

_FREE, _BLOCKED = 4, 5  # what a task finds of undecided documents
_SLICE_BYTES = 256 << 20  # sets that a task compares before it lets go of their pages


class NearDuplicates:
    """MinHash LSH with verified similarity."""

    name = "dedup.minhash"
    cuts = False
    records_at_once = 1 << 22
    """Records of undecided buckets that one task decides in order."""

    def __init__(self, config: Dedup) -> None:
        self.config = config
        self.section: MinHash = config.minhash

    def signature(self, documents: Documents, tags: Tags) -> Signature:
        """sketch: MinHash values, uint32 [D, permutations]; shingles: each document's sorted
        distinct 64-bit hashes, uint64, one after another; first: int64 [D + 1] into them; set:
        128-bit hash of each document's, uint64 [D, 2]; rank: float64 [D]."""
        section = self.section
        multiplier, increment = permutations(section.permutations)
        values, first = hashes(documents.texts, section.ngram, section.characters)
        shingles, ends, sketch = signatures(values, first, multiplier, increment)
        prefix = scope(documents, self.config)
        pieces = (shingles[a:b].data for a, b in itertools.pairwise(ends))
        salt = hashed(iter([prefix]), b"")[0, 0]
        return {
            "sketch": sketch,
            "shingles": shingles,
            "first": ends,
            "set": hashed(pieces, prefix),
            "salt": np.full(len(documents), salt),
            "rank": rank(documents, tags, self.config),
        }

    def resolve(self, batches: Sequence[Batch], work: Path, run: Map) -> Iterator[Duplicate]:
        """Every document that is similar to one that stays; its partner is the most similar of
        those of higher priority, the earliest of equals."""
        section, threshold = self.section, self.section.threshold
        parameters = section.model_dump(exclude={"threshold"}) | {"scope": self.config.scope}
        others = earlier(self.config, self.name, parameters, run)
        compared = Compared(self.name, batches, others, work)
        compared.refuse_unranked(self.config)
        leader = leaders(compared, "set", work / "sets", run)
        compared.state[: compared.earlier][compared.state[: compared.earlier] == OPEN] = KEPT
        bands, rows = lsh(threshold, section.permutations)
        buckets = _buckets(compared, bands, rows, work, run)
        score: NDArray[np.float64] = mapped(work / "score.npy", compared.documents, np.float64)
        if buckets:
            _store_sets(compared, buckets, work, run)
            self._decide(compared, buckets, threshold, work, run)
            _partners(compared, buckets, threshold, score, leader, work, run)
        for b, place in enumerate(compared.batches):
            for i in removed(compared.state, place):
                number = place.start + i
                if score[number] == 0:  # its set is that of another
                    first = int(leader[number])
                    value = float(score[first])
                    number = first if value else number
                value = float(score[number]) or 1.0
                partner = compared.partner(int(leader[number]))
                yield Duplicate(b, i, "jaccard", value, threshold, partner)
        add(self.config, self.name, parameters, ("sketch", "set", "salt"), ("shingles",),
            compared, run)  # fmt: skip

    def _decide(
        self, compared: Compared, buckets: list[Path], threshold: float, work: Path, run: Map
    ) -> None:
        """Set the state of all documents in buckets to KEPT or DROPPED."""
        state, state_path = compared.state, compared.state_path
        blocked: NDArray[np.bool_] = mapped(work / "blocked.npy", len(state), np.bool_)
        before = 0
        for number in itertools.count():
            left = sum(run(_open_records, ((folder, state_path) for folder in buckets)))
            if not left:
                return
            out = work / f"round-{number}"
            if left <= self.records_at_once:
                task = (tuple(buckets), state_path, work, threshold, out, True, None)
                _settle(state, blocked, list(run(_judge, [task])))
                continue
            seen = list(run(_judge, (
                ((folder,), state_path, work, threshold, out / folder.name, False, None)
                for folder in buckets
            )))  # fmt: skip
            stalled, before = left > before / 2 > 0, left
            _settle(state, blocked, seen, only_dropped=stalled)
            if stalled:
                last = _last(state, seen, self.records_at_once / left)
                if last is not None:
                    some = (tuple(buckets), state_path, work, threshold, out / "first", True, last)
                    _settle(state, blocked, list(run(_judge, [some])))


def _settle(
    state: NDArray[np.uint8],
    blocked: NDArray[np.bool_],
    seen: list[Path],
    only_dropped: bool = False,
) -> None:
    """Take over what tasks found: DROPPED if one says so, else KEPT if none says _BLOCKED."""
    blocked[:] = False
    for folder in seen:
        documents, verdicts = load_array(folder / "verdicts.npy")
        state[documents[verdicts == DROPPED]] = DROPPED
        blocked[documents[verdicts == _BLOCKED]] = True
    for folder in [] if only_dropped else seen:
        documents, _ = load_array(folder / "verdicts.npy")
        state[documents[(state[documents] == OPEN) & ~blocked[documents]]] = KEPT


def _last(state: NDArray[np.uint8], seen: list[Path], share: float) -> tuple[float, int] | None:
    """Rank and number of the document up to which a share of the undecided ones goes, about; None
    where all are decided."""
    ranks, numbers = [], []
    for folder in seen:
        documents, _ = load_array(folder / "verdicts.npy")
        there = np.flatnonzero(state[documents] == OPEN)
        there = there[:: max(1, len(there) >> 12)]
        ranks.append(load_array(folder / "rank.npy")[there])
        numbers.append(documents[there])
    rank, number = np.concatenate(ranks), np.concatenate(numbers)
    if not len(number):
        return None
    order = np.lexsort((number, rank))
    last = order[int(share * (len(order) - 1))]
    return float(rank[last]), int(number[last])


@functools.cache
def permutations(number: int) -> NDArray[np.uint32]:
    """datasketch's multipliers and increments of its scheme affine32, uint32 [2, number]."""
    from datasketch import MinHash as Sketch

    found: NDArray[np.uint32] = Sketch(number, scheme="affine32").permutations
    return found


@functools.cache
def lsh(threshold: float, permutations: int) -> tuple[int, int]:
    """datasketch's choice of bands and rows, where a missed pair weighs 49 times as much as a false
    candidate, which costs one comparison: a pair at a threshold of 0.8 is found with p = 0.98."""
    from datasketch import MinHashLSH

    index = MinHashLSH(threshold, permutations, weights=(0.02, 0.98))
    return index.b, index.r


def _buckets(compared: Compared, bands: int, rows: int, work: Path, run: Map) -> list[Path]:
    """Folders with the records of buckets of several documents, sorted by key, rank, number."""
    sizes = [place.documents * bands for place in compared.places]
    total = sum(
        run(_band_runs, (
            (work / "bands" / f"{number:06d}", group, compared.state_path, bands, rows)
            for number, group in enumerate(grouped(compared.places, sizes, RECORDS))
        ))
    )  # fmt: skip
    if not total:
        return []
    count = parts(total)
    found = run(
        _bucket_part,
        ((work / "bands", part, count, compared.state_path, work / "buckets" / f"{part:06d}")
         for part in range(count)),
    )  # fmt: skip
    return [folder for folder in found if folder is not None]


def _band_runs(
    folder: Path, places: tuple[Place, ...], state_path: Path, bands: int, rows: int
) -> int:
    state = load_array(state_path)
    pieces: list[tuple[NDArray[Any], ...]] = []
    for place in places:
        there = np.flatnonzero(state[place.range] < DROPPED)
        there = there[np.diff(place.array("first"))[there] > 0]
        keys = band_keys(place.array("sketch")[there], place.array("salt")[there], bands, rows)
        pieces.append(
            (keys.ravel(), place.rank()[there].repeat(bands), (place.start + there).repeat(bands))
        )
    key, ranks, numbers = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return write_run(folder, {"key": key, "rank": ranks, "document": numbers})


@njit(cache=True)
def band_keys(sketch: NDArray[np.uint32], salt: Keys, bands: int, rows: int) -> Keys:
    """A hash of each band of each sketch and of the document's salt, uint64 [D, bands]."""
    keys = np.empty((len(sketch), bands), np.uint64)
    for d in range(len(sketch)):
        for b in range(bands):
            value = mix(salt[d] + np.uint64(b))
            for r in range(b * rows, (b + 1) * rows):
                value = mix(value + np.uint64(sketch[d, r]))
            keys[d, b] = value
    return keys


def _bucket_part(runs: Path, part: int, count: int, state_path: Path, folder: Path) -> Path | None:
    found = read_part(runs, ("key", "rank", "document"), part, count)
    order = np.lexsort((found["document"], found["rank"], found["key"]))
    records = {name: column[order] for name, column in found.items()}
    records = _undecided(records, load_array(state_path))
    if not len(records["key"]):
        return None
    folder.mkdir(parents=True)
    for name, column in records.items():
        save_array(folder / f"{name}.npy", column)
    return folder


def _undecided(
    records: dict[str, NDArray[Any]],
    state: NDArray[np.uint8],
    last: tuple[float, int] | None = None,
) -> dict[str, NDArray[Any]]:
    """The records of buckets with several documents, an undecided one among them; with `last`,
    only undecided documents up to this rank and number, alone in their bucket or not."""
    there = state[records["document"]]
    if last is not None:
        rank, number = records["rank"], records["document"]
        wanted = (rank < last[0]) | ((rank == last[0]) & (number <= last[1]))
        return {name: column[wanted & (there == OPEN)] for name, column in records.items()}
    records = {name: column[there != DROPPED] for name, column in records.items()}
    there = there[there != DROPPED]
    bucket = np.cumsum(opens(records["key"])) - 1
    members = np.bincount(bucket)
    undecided = np.bincount(bucket, there == OPEN)
    wanted = ((members > 1) & (undecided > 0))[bucket]
    return {name: column[wanted] for name, column in records.items()}


def _read_bucket(folder: Path) -> dict[str, NDArray[Any]]:
    return {name: load_array(folder / f"{name}.npy") for name in ("key", "rank", "document")}


def _open_records(folder: Path, state_path: Path) -> int:
    return len(_undecided(_read_bucket(folder), load_array(state_path))["key"])


def _store_sets(compared: Compared, buckets: list[Path], work: Path, run: Map) -> None:
    """Write sets.npy, the sets of all documents in buckets, and place.npy, where each begins."""
    place: Ints = mapped(work / "place.npy", compared.documents + 1, np.int64)
    for bucket in buckets:
        place[load_array(bucket / "document.npy") + 1] = 1
    at = 0
    for batch in compared.places:
        inner = slice(batch.start + 1, batch.start + batch.documents + 1)
        ends = at + np.cumsum(place[inner] * np.diff(batch.array("first")))
        place[inner] = ends
        at = int(place[inner.stop - 1])
    # every task writes its own range of the file
    mapped(work / "sets.npy", at, np.uint64)
    for _ in run(_copy_sets, ((work, p) for p in grouped(
        compared.places, [p.documents for p in compared.places], RECORDS >> 6
    ))):  # fmt: skip
        pass


def _copy_sets(work: Path, places: tuple[Place, ...]) -> None:
    ends = load_array(work / "place.npy")
    sets = np.load(work / "sets.npy", mmap_mode="r+", allow_pickle=False) if ends[-1] else None
    for place in places:
        begin, end = ends[place.start], ends[place.start + place.documents]
        if sets is not None and end > begin:
            first = place.array("first")
            stored = np.diff(ends[place.start : place.start + place.documents + 1]) > 0
            sets[begin:end] = place.array("shingles")[np.repeat(stored, np.diff(first))]


def _judge(
    buckets: tuple[Path, ...],
    state_path: Path,
    work: Path,
    threshold: float,
    out: Path,
    alone: bool,
    last: tuple[float, int] | None,
) -> Path:
    """Save the undecided documents of some buckets, their ranks, and what follows for each:
    DROPPED, _BLOCKED, _FREE, or, where the task is `alone` with all buckets, KEPT.

    last: only undecided documents up to this one in order of priority; then none of them may be
    like one that is known to stay.
    """
    state = load_array(state_path)
    found = [_undecided(_read_bucket(folder), state, last) for folder in buckets]
    seen = _compare(found, state, work, threshold, alone)
    out.mkdir(parents=True)
    verdicts = np.stack([seen.documents, seen.states])[:, seen.was == OPEN]
    save_array(out / "verdicts.npy", verdicts)
    save_array(out / "rank.npy", seen.ranks[seen.was == OPEN])
    return out


def _find_partners(folder: Path, state_path: Path, work: Path, threshold: float, out: Path) -> Path:
    """Save the dropped documents of a part and the most similar that stays: numbers, scores."""
    state = load_array(state_path)
    seen = _compare([_read_bucket(folder)], state, work, threshold, True)
    there = (seen.was == DROPPED) & (seen.partner >= 0)
    out.mkdir(parents=True)
    save_array(out / "document.npy", seen.documents[there])
    save_array(out / "partner.npy", seen.documents[seen.partner[there]])
    save_array(out / "score.npy", seen.best[there])
    return out


def _partners(
    compared: Compared,
    buckets: list[Path],
    threshold: float,
    score: NDArray[np.float64],
    leader: Ints,
    work: Path,
    run: Map,
) -> None:
    """Set score and leader of each document that was dropped for a similar one."""
    for out in run(_find_partners, (
        (folder, compared.state_path, work, threshold, work / "partners" / folder.name)
        for folder in buckets
    )):  # fmt: skip
        documents, new, value = (
            load_array(out / f"{name}.npy") for name in ("document", "partner", "score")
        )
        old = score[documents]
        better = (value > old) | ((value == old) & (new < leader[documents]))
        score[documents[better]] = value[better]
        leader[documents[better]] = new[better]


@dataclass(frozen=True)
class _Seen:
    """D documents in order of priority."""

    documents: Ints
    """Their numbers."""
    ranks: NDArray[np.float64]
    was: NDArray[np.uint8]
    """States before."""
    states: NDArray[np.uint8]
    """And afterwards."""
    best: NDArray[np.float64]
    """Similarity to the partner."""
    partner: Ints
    """Index of the most similar one that stays and is similar enough, -1 where there is none."""


def _compare(
    found: list[dict[str, NDArray[Any]]],
    state: NDArray[np.uint8],
    work: Path,
    threshold: float,
    alone: bool,
) -> _Seen:
    """Go through the documents of some buckets in order of priority."""
    key, ranks, number = (
        np.concatenate([records[name] for records in found]) for name in ("key", "rank", "document")
    )
    documents, example = np.unique(number, return_index=True)
    priority = np.lexsort((documents, ranks[example]))
    documents = documents[priority]
    position = np.empty(len(priority), np.int64)
    position[priority] = np.arange(len(priority))
    index = position[np.searchsorted(documents[position], number)]  # of each record
    bucket = np.cumsum(opens(key)) - 1
    first_bucket = np.append(np.flatnonzero(opens(key)), len(key))
    by_document = np.argsort(index, kind="stable")
    first_document = np.searchsorted(index[by_document], np.arange(len(documents) + 1))
    was = state[documents]
    states = was.copy()
    place = load_array(work / "place.npy")
    starts, sizes = place[documents], place[documents + 1] - place[documents]
    sets = load_array(work / "sets.npy")
    best = np.zeros(len(documents))
    partner = np.full(len(documents), -1, np.int64)
    seen = np.full(len(documents), -1, np.int64)
    kept, undecided = np.empty(len(key), np.int64), np.empty(len(key), np.int64)
    kept_count = np.zeros(len(first_bucket) - 1, np.int64)
    undecided_count = np.zeros(len(first_bucket) - 1, np.int64)
    slices = np.cumsum(sizes) * 8 // _SLICE_BYTES
    borders = [0, *(np.flatnonzero(np.diff(slices)) + 1).tolist(), len(documents)]
    for begin, end in itertools.pairwise(borders):
        _walk(begin, end, sets, starts, sizes, documents, first_document, bucket[by_document],
              first_bucket, states, best, partner, seen, kept, kept_count, undecided,
              undecided_count, threshold, alone)  # fmt: skip
        if isinstance(sets, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
            sets._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
    return _Seen(documents, ranks[example][priority], was, states, best, partner)


@njit(cache=True)
def _walk(
    begin: int,
    end: int,
    sets: Keys,
    starts: Ints,
    sizes: Ints,
    numbers: Ints,
    first_document: Ints,
    buckets: Ints,
    first_bucket: Ints,
    states: NDArray[np.uint8],
    best: NDArray[np.float64],
    partner: Ints,
    seen: Ints,
    kept: Ints,
    kept_count: Ints,
    undecided: Ints,
    undecided_count: Ints,
    threshold: float,
    alone: bool,
) -> None:
    """Documents begin:end in order of priority. Those of bucket b that stay, and those undecided,
    so far are kept[first_bucket[b]:][:kept_count[b]], and the same of `undecided`."""
    for d in range(begin, end):
        mine = buckets[first_document[d] : first_document[d + 1]]
        if states[d] != KEPT:
            a = sets[starts[d] : starts[d] + sizes[d]]
            for b in mine:
                for k in range(first_bucket[b], first_bucket[b] + kept_count[b]):
                    other = kept[k]
                    if seen[other] == d:
                        continue
                    seen[other] = d
                    score = jaccard(a, sets[starts[other] : starts[other] + sizes[other]],
                                    threshold)  # fmt: skip
                    if score >= threshold and (
                        score > best[d]
                        or (score == best[d] and numbers[other] < numbers[partner[d]])
                    ):
                        best[d], partner[d] = score, other
            if states[d] == DROPPED:
                continue
            if partner[d] >= 0:
                states[d] = DROPPED
                continue
            if alone:
                states[d] = KEPT
            else:
                states[d] = _FREE
                for b in mine:
                    for k in range(first_bucket[b], first_bucket[b] + undecided_count[b]):
                        other = undecided[k]
                        if seen[other] == d:
                            continue
                        seen[other] = d
                        if (
                            jaccard(a, sets[starts[other] : starts[other] + sizes[other]],
                                    threshold) >= threshold
                        ):  # fmt: skip
                            states[d] = _BLOCKED
                            break
                    if states[d] == _BLOCKED:
                        break
        for b in mine:
            if states[d] == KEPT:
                kept[first_bucket[b] + kept_count[b]] = d
                kept_count[b] += 1
            else:
                undecided[first_bucket[b] + undecided_count[b]] = d
                undecided_count[b] += 1
