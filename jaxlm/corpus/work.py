"""What a worker does: read files or batches, tag, decide and change documents, write batches."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.corpus import Prepare, Source
from jaxlm.config.rules import Rules
from jaxlm.corpus.documents import Documents, load_array, save_array
from jaxlm.corpus.ledger import Tally, entry
from jaxlm.corpus.listing import InputFile
from jaxlm.corpus.readers import Bad, Record, read
from jaxlm.corpus.stages import DUPLICATES, EDITORS, TAGGERS, Failure, decide
from jaxlm.corpus.statistics import Analysis


@dataclass(frozen=True)
class Segment:
    """Stages between two points where documents are compared across the corpus."""

    stages: tuple[str, ...]
    """Taggers and changers, in order."""
    duplicates: tuple[str, ...]
    """Comparing stages that come next; their signatures are computed at the end."""


@dataclass
class Stored:
    """A batch on disk and which of its documents are still there (bool [D])."""

    source: Source
    folder: Path
    keep: NDArray[np.bool_]

    def documents(self) -> Documents:
        """The whole batch, mapped from disk."""
        return Documents.load(self.source, self.folder)

    def signature(self, stage: str, name: str) -> NDArray[Any]:
        """An array of a comparing stage's signature, mapped from disk."""
        return load_array(self.folder / f"{stage}.{name}.npy")

    def kept_bytes(self) -> int:
        """Bytes of the texts that are still there."""
        return int(np.diff(load_array(self.folder / "texts_offsets.npy"))[self.keep].sum())


@dataclass
class Result:
    """What a task made: batches on disk, and its part of the statistics and the ledger."""

    batches: list[Stored]
    tally: Tally
    read_bytes: int = 0
    full: bool = False
    """Reading stopped at the limit of bytes."""


def read_files(
    source: Source,
    files: tuple[InputFile, ...],
    max_bytes: int | None,
    segment: Segment,
    config: Prepare,
    folder: Path,
) -> Result:
    """Read files until `max_bytes` of text would be exceeded, and run the first segment."""
    result = Result([], Tally())
    result.tally.stage("read", 0, 0)
    records: list[Record] = []
    size = 0
    for record in itertools.chain.from_iterable(
        read(source, file, config.limits) for file in files
    ):
        if isinstance(record, Bad):
            result.tally.rule(f"read.{record.rule}", record.size)
            result.tally.lines.append(
                entry(source.name, record.id, "read", record.rule, "error", record.value,
                      record.threshold, record.excerpt)
            )  # fmt: skip
            continue
        if max_bytes is not None and result.read_bytes + len(record.text) > max_bytes:
            result.full = True
            break
        if records and size + len(record.text) > config.batch_bytes:
            _finish(_pack(source, records), segment, config, folder, result)
            records, size = [], 0
        records.append(record)
        size += len(record.text)
        result.read_bytes += len(record.text)
    if records:
        _finish(_pack(source, records), segment, config, folder, result)
    return result


def _pack(source: Source, records: list[Record]) -> Documents:
    return Documents.of(
        source,
        (record.text for record in records),
        (record.id.encode() for record in records),
        (record.meta for record in records),
    )


def process_batches(
    batches: list[Stored], segment: Segment, config: Prepare, folder: Path
) -> Result:
    """Run a later segment over stored batches."""
    result = Result([], Tally())
    for batch in batches:
        documents = batch.documents().take(batch.keep)
        if len(documents):
            _finish(documents, segment, config, folder, result)
    return result


def _finish(
    documents: Documents, segment: Segment, config: Prepare, folder: Path, result: Result
) -> None:
    """Run a segment's stages over one batch and store what is left with its signatures."""
    if result.tally.stages.get("read") is not None:
        result.tally.stage("read", len(documents), int(documents.texts.offsets[-1]))
    for stages in _groups(segment.stages):
        if stages[0] in EDITORS:
            documents = edit(documents, stages[0], config, result.tally)
        else:
            documents = judge(documents, stages, config, result.tally)
    if not len(documents):
        return
    folder = folder / f"{len(result.batches):05d}"
    folder.mkdir(parents=True)
    documents.save(folder)
    for stage in segment.duplicates:
        for name, array in DUPLICATES[stage](config.dedup).signature(documents, {}).items():
            save_array(folder / f"{stage}.{name}.npy", array)
    result.batches.append(Stored(documents.source, folder, np.ones(len(documents), np.bool_)))


def _groups(stages: tuple[str, ...]) -> Iterator[list[str]]:
    """Neighbouring taggers together, so that they share their analysis; editors alone."""
    for edits, group in itertools.groupby(stages, lambda stage: stage in EDITORS):
        names = list(group)
        yield from ([name] for name in names) if edits else [names]


def edit(documents: Documents, stage: str, config: Prepare, tally: Tally) -> Documents:
    """Tag, decide and rewrite; each rule that changed a document is in the ledger."""
    section = rules(config, stage, documents.source)
    if section is None:
        return documents
    edited = EDITORS[stage](Analysis(documents), section)
    failures = decide(section, edited.tags)
    keep = ~np.any([np.zeros(len(documents), np.bool_), *(f.failed for f in failures)], axis=0)
    changes = edited.changes
    for index, name in sorted(
        set(zip(changes.document.tolist(), changes.name.tolist(), strict=True))
    ):
        pieces = (changes.document == index) & (changes.name == name)
        tally.hit(documents, index, stage, changes.names[name], "change", int(pieces.sum()), None)
    _drop(documents, stage, failures, ~keep, tally)
    for index in map(int, np.flatnonzero((edited.texts.lengths == 0) & keep)):
        tally.hit(documents, index, stage, "empty", "drop", 0, None)
    keep &= edited.texts.lengths > 0
    changed = replace(documents, texts=edited.texts).take(keep)
    tally.stage(stage, len(changed), int(changed.texts.offsets[-1]))
    return changed


def judge(documents: Documents, stages: list[str], config: Prepare, tally: Tally) -> Documents:
    """Tag a batch for all these rule sets, then decide one set after the other.

    A document falls at the first set that it fails; every rule of that set which it fails is
    counted and has a line in the ledger.
    """
    analysis = Analysis(documents)
    alive = np.ones(len(documents), np.bool_)
    for stage in stages:
        section = rules(config, stage, documents.source)
        if section is not None:
            failures = decide(section, TAGGERS[stage](analysis, section))
            dropped = np.any([~alive & alive, *(f.failed for f in failures)], axis=0)
            _drop(documents, stage, failures, dropped & alive, tally)
            alive &= ~dropped
        tally.stage(stage, int(alive.sum()), int(documents.texts.lengths[alive].sum()))
    return documents.take(alive)


def _drop(
    documents: Documents,
    stage: str,
    failures: list[Failure],
    dropped: NDArray[np.bool_],
    tally: Tally,
) -> None:
    for index in map(int, np.flatnonzero(dropped)):
        for failure in failures:
            if failure.failed[index]:
                tally.hit(documents, index, stage, failure.rule, "drop",
                          _number(failure.values[index]), failure.threshold)  # fmt: skip


def rules(config: Prepare, stage: str, source: Source) -> Rules | None:
    """The section of a stage (quality.gopher -> config.quality.gopher); None where it does not
    judge documents of this kind and language."""
    found: Any = config
    for name in stage.split("."):
        found = getattr(found, name)
    assert isinstance(found, Rules)
    if source.kind not in found.kinds:
        return None
    if found.languages and source.language not in found.languages:
        return None
    return found


def _number(value: float) -> float:
    """Whole numbers as int, others to six places: what a person reads in the ledger."""
    return int(value) if float(value).is_integer() else round(float(value), 6)


def write_shard(batches: list[Stored], path: Path) -> tuple[int, int, str]:
    """Write the documents that are left as JSON lines, zstd; returns documents, bytes, sha256."""
    import zstandard

    documents = size = 0
    with open(path, "wb") as file:
        with zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(
            file, closefd=False
        ) as out:
            for batch in batches:
                kept = batch.documents().take(batch.keep)
                out.write(b"".join(_json_lines(kept)))
                documents += len(kept)
                size += int(kept.texts.offsets[-1])
        file.flush()
        os.fsync(file.fileno())
    with open(path, "rb") as file:
        return documents, size, hashlib.file_digest(file, "sha256").hexdigest()


def _json_lines(documents: Documents) -> Iterator[bytes]:
    for i in range(len(documents)):
        meta = documents.meta[i]
        line = {
            "id": documents.id(i),
            "source": documents.source.name,
            "text": documents.texts[i].decode(),
        } | (json.loads(meta) if meta else {})
        yield json.dumps(line, ensure_ascii=False).encode() + b"\n"
