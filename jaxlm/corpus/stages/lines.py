"""Pieces of documents that occur elsewhere too: boilerplate lines of a site, and spans of sentences
(C4: Raffel et al. 2020, section 2.2, "any three-sentence span occurring more than once")."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.config.dedup import Dedup
from jaxlm.corpus import characters
from jaxlm.corpus import sentences as split
from jaxlm.corpus.characters import CODES, decode
from jaxlm.corpus.documents import Documents, Strings, load_array
from jaxlm.corpus.stages.base import Tags
from jaxlm.corpus.stages.compare import Batch, Cut, Duplicate, Map, Signature, host, metadata
from jaxlm.corpus.stages.exact import scope
from jaxlm.corpus.stages.index import Compared, add, earlier
from jaxlm.corpus.stages.shuffle import (
    DROPPED,
    RECORDS,
    Place,
    grouped,
    opens,
    parts,
    read_part,
    read_range,
    write_run,
)
from jaxlm.corpus.tables import mix

type Ints = NDArray[np.int64]
type Keys = NDArray[np.uint64]


class Lines:
    """Lines in more than a number of documents of one site are cut out of all of them."""

    name = "dedup.lines"
    cuts = True

    def __init__(self, config: Dedup) -> None:
        self.section = config.lines

    def signature(self, documents: Documents, tags: Tags) -> Signature:
        """key: hashes of site and line, in lower case with single spaces, uint64; start, end: the
        line with its newline, bytes of its document, int64; first: int64 [D + 1] into them."""
        texts = documents.texts
        count = len(documents) if documents.source.kind in self.section.kinds else 0
        newlines = np.flatnonzero(texts.buffer == 10) + 1
        ends = np.unique(np.concatenate([newlines, texts.offsets[1:]]))
        ends = ends[ends > 0]
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
        document = np.searchsorted(texts.offsets, starts, "right") - 1
        seeds = np.array([_seed(self._site(documents, i)) for i in range(count)], np.uint64)
        if not count:
            starts, ends, document = starts[:0], ends[:0], document[:0]
        keys, sizes = _span_keys(texts.buffer, starts, ends, seeds[document])
        long = sizes >= self.section.min_characters
        return _pieces(documents, keys[long], starts[long], ends[long], document[long])

    def _site(self, documents: Documents, index: int) -> str:
        field = self.section.site_field
        site = metadata(documents, index).get(field) if field else None
        if not isinstance(site, str) or not site:
            return f"source {documents.source.name}"
        return host(site) or site

    def resolve(self, batches: Sequence[Batch], work: Path, run: Map) -> Iterator[Cut]:
        """Each line that too many documents have; the partner is the first of the others."""
        compared = Compared(self.name, batches, [], work)
        runs = _shuffled(compared, 1, work, run)
        most = self.section.max_documents
        found = _found(_frequent, runs, work / "found", most, run)
        for b, place, records in _by_batch(compared, found):
            document, piece = records["document"] - place.start, records["piece"]
            where = place.array("first")[document] + piece
            spans = np.stack([place.array("start")[where], place.array("end")[where]], 1)
            for i, (start, end), partner, count in zip(
                document.tolist(), spans.tolist(), records["partner"].tolist(),
                records["count"].tolist(), strict=True,
            ):  # fmt: skip
                yield Cut(b, i, start, end, "max_documents", count, compared.partner(partner))


class Sentences:
    """Spans of sentences that occurred before are cut; what is left too short is dropped."""

    name = "dedup.sentences"
    cuts = True

    def __init__(self, config: Dedup) -> None:
        self.config, self.section = config, config.sentences

    def signature(self, documents: Documents, tags: Tags) -> Signature:
        """key: hashes of the sentences, in lower case with single spaces, uint64; start, end: from
        its first character to that of the next one, line_end: the same but for a newline, bytes of
        its document, int64; opens: whether it is the first of a line, bool; first: int64 [D + 1]
        into them."""
        texts = documents.texts
        if documents.source.kind not in self.section.kinds:
            empty = np.empty(0, np.int64)
            return _pieces(documents, empty.astype(np.uint64), empty, empty, empty)
        spans = split.sentences(texts)
        document = spans.documents
        seed = _seed(scope(documents, self.config).decode())
        keys, _ = _span_keys(texts.buffer, spans.starts, spans.ends, np.full(len(document), seed))
        ends = texts.offsets[1:][document]
        inner = np.flatnonzero(np.diff(document) == 0)
        ends[inner] = spans.starts[inner + 1]
        pieces = _pieces(documents, keys, spans.starts, ends, document)
        line_ends = split.with_space_after(texts, spans) - texts.offsets[document]
        return pieces | {"line_end": line_ends, "opens": _opens_line(texts, spans.starts)}

    def resolve(self, batches: Sequence[Batch], work: Path, run: Map) -> Iterator[Duplicate | Cut]:
        """Runs of sentences in which every one is part of a span that occurred before; the partner
        is the document where the first of these spans did."""
        section = self.section
        parameters = {"span": section.span, "scope": self.config.scope}
        others = earlier(self.config, self.name, parameters, run)
        compared = Compared(self.name, batches, others, work)
        runs = _shuffled(compared, section.span, work, run)
        found = _found(_repeated, runs, work / "found", section.span, run)
        for b, place, records in _by_batch(compared, found):
            document = records["document"] - place.start
            first, starts, opening = (place.array(name) for name in ("first", "start", "opens"))
            ends, line_ends = place.array("end"), place.array("line_end")
            borders = [*np.flatnonzero(opens(document)).tolist(), len(document)]
            for begin, end in itertools.pairwise(borders):
                i = int(document[begin])
                at, total = int(first[i]), int(first[i + 1] - first[i])
                cuts = _joined(records["piece"][begin:end], section.span)
                left = total - sum(size for _, size, _ in cuts)
                if left < section.min_sentences:
                    compared.state[place.start + i] = DROPPED
                    partner = compared.partner(int(records["partner"][begin]))
                    yield Duplicate(b, i, "min_sentences", left, section.min_sentences, partner)
                    continue
                for piece, size, k in cuts:
                    partner = compared.partner(int(records["partner"][begin + k]))
                    last = at + piece + size - 1
                    # of whole lines nothing is left; inside a line its newline stays
                    stop = ends[last] if opening[at + piece] else line_ends[last]
                    yield Cut(b, i, int(starts[at + piece]), int(stop), "span", size, partner)
        add(self.config, self.name, parameters, (), ("key",), compared, run)


def _opens_line(texts: Strings, starts: Ints) -> NDArray[np.bool_]:
    """True where a piece is the first of its document or line."""
    newlines = np.flatnonzero(texts.buffer == 10)
    line = np.searchsorted(newlines, starts) + np.searchsorted(texts.offsets, starts, "right")
    return opens(line)


def _joined(pieces: Ints, span: int) -> list[tuple[int, int, int]]:
    """Spans that touch or overlap as one: first piece, number of pieces, number of its span."""
    out: list[tuple[int, int, int]] = []
    for k, piece in enumerate(pieces.tolist()):
        if out and piece <= out[-1][0] + out[-1][1]:
            out[-1] = out[-1][0], piece + span - out[-1][0], out[-1][2]
        else:
            out.append((piece, span, k))
    return out


def _seed(text: str) -> np.uint64:
    return np.frombuffer(hashlib.blake2b(text.encode(), digest_size=8).digest(), np.uint64)[0]


def _pieces(
    documents: Documents, keys: Keys, starts: Ints, ends: Ints, document: Ints
) -> Signature:
    begin = documents.texts.offsets[document]
    first = np.searchsorted(document, np.arange(len(documents) + 1))
    return {"key": keys, "start": starts - begin, "end": ends - begin, "first": first}


@cache
def _space() -> NDArray[np.bool_]:
    space: NDArray[np.bool_] = characters.table(str.isspace, np.bool_)
    return space


def _span_keys(
    buffer: NDArray[np.uint8], starts: Ints, ends: Ints, seeds: Keys
) -> tuple[Keys, Ints]:
    """A hash of each span in lower case with single spaces, and how many visible characters it
    has."""
    return _hash_spans(
        np.ascontiguousarray(buffer), starts, ends, seeds, characters.lower(), _space()
    )


@njit(cache=True)
def _hash_spans(
    buffer: NDArray[np.uint8],
    starts: Ints,
    ends: Ints,
    seeds: Keys,
    lower: NDArray[np.int32],
    space: NDArray[np.bool_],
) -> tuple[Keys, Ints]:
    keys = np.empty(len(starts), np.uint64)
    sizes = np.zeros(len(starts), np.int64)
    prime = np.uint64(0x100000001B3)  # FNV-1a, over code points
    for s in range(len(starts)):
        value = seeds[s]
        gap = False
        at = starts[s]
        while at < ends[s]:
            code, width = decode(buffer, at)
            at += width
            if code < CODES:
                if space[code]:
                    gap = sizes[s] > 0
                    continue
                code = int(lower[code])
            if gap:
                value = (value ^ np.uint64(32)) * prime
                gap = False
            value = (value ^ np.uint64(code)) * prime
            sizes[s] += 1
        keys[s] = mix(value)
    return keys, sizes


def _shuffled(compared: Compared, span: int, work: Path, run: Map) -> Path:
    """Runs of the keys of all spans of `span` pieces, with document and number of the piece."""
    sizes = [place.array("key").shape[0] for place in compared.places]
    runs = work / "runs"
    runs.mkdir()
    for _ in run(_scatter, (
        (runs / f"{number:06d}", group, compared.state_path, span)
        for number, group in enumerate(grouped(compared.places, sizes, RECORDS))
    )):  # fmt: skip
        pass
    return runs


def _scatter(folder: Path, places: tuple[Place, ...], state_path: Path, span: int) -> int:
    state = load_array(state_path)
    pieces: list[tuple[NDArray[Any], ...]] = []
    for place in places:
        key, first = np.array(place.array("key")), place.array("first")
        counts = np.diff(first)
        document = np.repeat(np.arange(len(counts)), counts)
        piece = np.arange(len(key)) - first[:-1][document]
        whole = np.flatnonzero(
            (piece + span <= counts[document]) & (state[place.range][document] < DROPPED)
        )
        value = key[whole] if span == 1 else np.zeros(len(whole), np.uint64)
        for k in range(span if span > 1 else 0):
            value = _mixed(value + key[whole + k])
        pieces.append((value, place.start + document[whole], piece[whole]))
    keys, documents, numbers = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return write_run(folder, {"key": keys, "document": documents, "piece": numbers})


@njit(cache=True)
def _mixed(values: Keys) -> Keys:
    out = np.empty_like(values)
    for i in range(len(values)):
        out[i] = mix(values[i])
    return out


def _found(function: Any, runs: Path, folder: Path, bound: int, run: Map) -> Path:
    """Apply a function to the records of each part, sorted by key, document and piece; its answers
    become runs sorted by document."""
    folder.mkdir()
    count = parts(sum(len(load_array(path / "key.npy")) for path in runs.iterdir()))
    if any(runs.iterdir()):
        for _ in run(
            _apply,
            ((function, runs, part, count, bound, folder / f"{part:06d}") for part in range(count)),
        ):
            pass
    return folder


def _apply(function: Any, runs: Path, part: int, count: int, bound: int, out: Path) -> None:
    found = read_part(runs, ("key", "document", "piece"), part, count)
    order = np.lexsort((found["piece"], found["document"], found["key"]))
    records = function(*(found[name][order] for name in ("key", "document", "piece")), bound)
    write_run(out, {"key": records["document"].astype(np.uint64), **records})


def _frequent(key: Keys, document: Ints, piece: Ints, most: int) -> dict[str, Ints]:
    """Pieces of keys that more than `most` documents have, how many, and another of these."""
    opened = opens(key)
    first = np.flatnonzero(opened)
    group = np.cumsum(opened) - 1
    new_document = opens(key, document)
    count = np.bincount(group, new_document, len(first)).astype(np.int64)
    # the second document of each key, for the pieces of the first
    later = np.flatnonzero(new_document & ~opened)
    second = document[first]
    second[group[later[::-1]]] = document[later[::-1]]
    wanted = count[group] > most
    own = document == document[first][group]
    partner = np.where(own, second[group], document[first][group])
    return {"document": document[wanted], "piece": piece[wanted], "partner": partner[wanted],
            "count": count[group][wanted]}  # fmt: skip


def _repeated(key: Keys, document: Ints, piece: Ints, span: int) -> dict[str, Ints]:
    """Spans that occurred before, and where first. A span that overlaps its first occurrence is no
    repetition, so that one of them is left whole."""
    opened = opens(key)
    first = np.flatnonzero(opened)[np.cumsum(opened) - 1] if len(key) else piece
    wanted = (document != document[first]) | (piece >= piece[first] + span)
    return {"document": document[wanted], "piece": piece[wanted],
            "partner": document[first][wanted]}  # fmt: skip


def _by_batch(
    compared: Compared, found: Path
) -> Iterator[tuple[int, Place, dict[str, NDArray[Any]]]]:
    """The records of each batch, sorted by document and piece; batches without any are left out."""
    if not any(found.iterdir()):
        return
    names = [path.stem for path in next(found.iterdir()).iterdir() if path.stem != "key"]
    b = 0
    sizes = [len(place.array("key")) for place in compared.batches]
    for group in grouped(compared.batches, sizes, RECORDS):
        last = group[-1]
        end = max(last.start + last.documents - 1, group[0].start)
        records = read_range(found, names, group[0].start, end)
        order = np.lexsort((records["piece"], records["document"]))
        records = {name: column[order] for name, column in records.items()}
        for place in group:
            low, high = np.searchsorted(
                records["document"], (place.start, place.start + place.documents)
            )
            if low < high:
                yield b, place, {name: column[low:high] for name, column in records.items()}
            b += 1
