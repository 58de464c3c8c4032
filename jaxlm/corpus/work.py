"""What a worker does. A task has a folder of its own and writes `result.json` into it last, so that
a task that was killed is taken up where it was, batch by batch, and one that ended is not done
again. Ended or taken up, by whichever worker, it leaves the same bytes."""

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.corpus import Prepare, Source
from jaxlm.corpus.apply import KEPT, apply
from jaxlm.corpus.documents import Documents, load_array, save_array
from jaxlm.corpus.kept import kept_fields
from jaxlm.corpus.ledger import Tally, entry
from jaxlm.corpus.listing import InputFile
from jaxlm.corpus.readers import Bad, Record, read
from jaxlm.corpus.stages import DUPLICATES
from jaxlm.corpus.stages.base import replaced
from jaxlm.corpus.tags import write_tags
from jaxlm.workdir import write_json

NO_CUTS = np.empty((0, 3), np.int64)


@dataclass(frozen=True)
class Segment:
    """Stages between two points where documents are compared across the corpus."""

    stages: tuple[str, ...]
    """Taggers and editors, in order."""
    duplicates: tuple[str, ...]
    """Comparing stages that come next; their signatures are computed at the end."""


@dataclass
class Stored:
    """A batch on disk: which of its documents are still there, and what was cut out of them."""

    source: Source
    folder: Path
    root: int
    """Number of the batch in which these documents were read."""
    keep: NDArray[np.bool_]
    cuts: NDArray[np.int64] = field(default_factory=NO_CUTS.copy)
    """Document, first byte and end of each piece that was cut, [cuts, 3]."""

    def documents(self) -> Documents:
        """The whole batch, mapped from disk."""
        return Documents.load(self.source, self.folder)

    def signature(self, stage: str, name: str) -> NDArray[Any]:
        """An array of a comparing stage's signature, mapped from disk."""
        return load_array(self.folder / f"{stage}.{name}.npy")

    def kept_bytes(self) -> int:
        """Bytes of the texts that are still there."""
        whole = int(np.diff(load_array(self.folder / "texts_offsets.npy"))[self.keep].sum())
        cuts = self.cuts[self.keep[self.cuts[:, 0]]]
        return whole - int((cuts[:, 2] - cuts[:, 1]).sum())

    def left(self, tally: Tally, stage: str | None) -> Documents:
        """The documents that are still there without what was cut; one of which nothing is left
        is dropped in the name of `stage`."""
        documents = self.documents()
        keep = self.keep
        if len(self.cuts):
            at = documents.texts.offsets[self.cuts[:, 0]]
            texts = replaced(documents.texts, at + self.cuts[:, 1], at + self.cuts[:, 2])
            for index in map(int, np.flatnonzero((texts.lengths == 0) & keep)):
                tally.hit(documents, index, stage or "cut", "empty", "drop", 0, None)
            keep = keep & (texts.lengths > 0)
            documents = replace(documents, texts=texts)
        return documents.take(keep)


@dataclass
class Result:
    """What a task made: batches on disk, and its part of the statistics."""

    folder: Path
    batches: list[tuple[str, int]] = field(default_factory=list)
    """Folder below the task's own, and number of documents; empty ones too."""
    tally: Tally = field(default_factory=Tally)
    read_bytes: int = 0
    full: bool = False
    """Reading stopped at the limit of bytes."""

    def save(self) -> None:
        """Write result.json: the task has ended."""
        write_json(
            self.folder / "result.json",
            {
                "batches": self.batches,
                "tally": self.tally.to_json(),
                "read_bytes": self.read_bytes,
                "full": self.full,
            },
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read result.json."""
        data = json.loads((folder / "result.json").read_text())
        batches = [(name, count) for name, count in data["batches"]]
        return cls(folder, batches, Tally.from_json(data["tally"]), data["read_bytes"],
                   data["full"])  # fmt: skip

    def ledgers(self) -> list[Path]:
        """The files with the lines of this task, in order."""
        inner = [self.folder / name / "ledger.jsonl" for name, _ in self.batches]
        return [path for path in (*inner, self.folder / "ledger.jsonl") if path.exists()]


def once(function: Callable[..., Result], folder: Path, *arguments: Any) -> Result:
    """function(folder, *arguments), or what it gave when it ended before."""
    if not (folder / "result.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        result = function(folder, *arguments)
        _write_ledger(folder, result.tally)
        result.save()
    return Result.load(folder)


def read_files(
    folder: Path,
    source: Source,
    files: tuple[InputFile, ...],
    max_bytes: int | None,
    segment: Segment,
    config: Prepare,
) -> Result:
    """Read files until `max_bytes` of text would be exceeded, and run the first segment."""
    result = Result(folder)
    consumed = _take_up(result)
    records: list[Record] = []
    tally = Tally()
    tally.stage("read", 0, 0)
    size = 0

    def finish() -> None:
        nonlocal records, size, tally
        documents = Documents.of(
            source,
            (record.text for record in records),
            (record.id.encode() for record in records),
            (record.meta for record in records),
        )
        tally.stage("read", len(documents), size)
        marks = {"consumed": consumed, "read_bytes": result.read_bytes}
        _finish(result, documents, segment, config, tally, marks)
        records, size, tally = [], 0, Tally()

    every = itertools.chain.from_iterable(read(source, file, config.limits) for file in files)
    for record in itertools.islice(every, consumed, None):
        if isinstance(record, Bad):
            tally.rule(f"read.{record.rule}").add(1, record.size)
            tally.lines.append(
                entry(source.name, record.id, "read", record.rule, "error", record.value,
                      record.threshold, record.excerpt)
            )  # fmt: skip
            consumed += 1
            continue
        if max_bytes is not None and result.read_bytes + len(record.text) > max_bytes:
            result.full = True
            break
        if records and size + len(record.text) > config.batch_bytes:
            finish()
        records.append(record)
        size += len(record.text)
        result.read_bytes += len(record.text)
        consumed += 1
    if records:
        finish()
    result.tally.merge(tally)
    result.tally.lines += tally.lines
    return result


def process_batch(
    folder: Path, batch: Stored, cut_by: str | None, segment: Segment, config: Prepare
) -> Result:
    """Run a later segment over a stored batch; `cut_by`: the stage that made the batch's cuts."""
    result = Result(folder)
    tally = Tally()
    documents = batch.left(tally, cut_by)
    if len(documents):
        _finish(result, documents, segment, config, tally, {})
    else:
        result.tally = tally
    return result


def _take_up(result: Result) -> int:
    """Add the batches that an earlier attempt finished; returns how many records they took."""
    consumed = 0
    while (path := result.folder / f"{len(result.batches):05d}" / "batch.json").exists():
        data = json.loads(path.read_text())
        result.batches.append((path.parent.name, data["documents"]))
        result.tally.merge(Tally.from_json(data["tally"]))
        consumed, result.read_bytes = data["consumed"], data["read_bytes"]
    return consumed


def _finish(
    result: Result,
    documents: Documents,
    segment: Segment,
    config: Prepare,
    tally: Tally,
    marks: dict[str, int],
) -> None:
    """Run a segment's stages over one batch and store what is left with its signatures, what was
    found, and what was dropped; the folder gets its name when it is whole."""
    name = f"{len(result.batches):05d}"
    partial = result.folder / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    documents, tags, found = apply(documents, segment.stages, config, tally)
    for k, tagged in enumerate(found):
        write_tags(tagged, partial / f"tags-{k}.parquet")
        if (tagged.dropped != KEPT).any():
            dropped = partial / f"dropped-{k}"
            dropped.mkdir()
            tagged.documents.take(tagged.dropped != KEPT).save(dropped)
    if len(documents):
        documents.save(partial)
        for stage in segment.duplicates:
            arrays = DUPLICATES[stage](config.dedup).signature(documents, tags)
            for key, array in arrays.items():
                save_array(partial / f"{stage}.{key}.npy", array)
    _write_ledger(partial, tally)
    marks = {"documents": len(documents), **marks}
    write_json(partial / "batch.json", marks | {"tally": tally.to_json()})
    partial.rename(result.folder / name)
    result.batches.append((name, len(documents)))
    result.tally.merge(tally)


def _write_ledger(folder: Path, tally: Tally) -> None:
    if tally.lines:
        (folder / "ledger.jsonl").write_bytes(b"".join(tally.lines))
        tally.lines.clear()


def write_shard(
    path: Path, batches: list[Stored], tags: list[list[Path]], keep: tuple[str, ...]
) -> tuple[int, int, str]:
    """Write the documents that are left as JSON lines, zstd; returns documents, bytes, sha256.

    tags: the files with what was found of each batch, from which the fields `keep` come.
    A shard that was written before is not written again.
    """
    import zstandard

    done = path.with_suffix(".json")
    if path.exists() and done.exists():
        count, size, checksum = json.loads(done.read_text())
        return count, size, checksum
    documents = size = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        with zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(
            file, closefd=False
        ) as out:
            for batch, files in zip(batches, tags, strict=True):
                kept = batch.documents().take(batch.keep)
                fields = kept_fields(kept, keep, files) if keep else itertools.repeat({})
                out.write(b"".join(_json_lines(kept, fields)))
                documents += len(kept)
                size += int(kept.texts.offsets[-1])
        file.flush()
        os.fsync(file.fileno())
    with open(partial, "rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    partial.rename(path)
    write_json(done, [documents, size, checksum])
    return documents, size, checksum


def _json_lines(documents: Documents, fields: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    # as many fields as documents, or empty ones without end
    for i, more in zip(range(len(documents)), fields, strict=False):
        meta = documents.meta[i]
        line = (
            {
                "id": documents.id(i),
                "source": documents.source.name,
                "text": documents.texts[i].decode(),
            }
            | (json.loads(meta) if meta else {})
            | more
        )
        yield json.dumps(line, ensure_ascii=False).encode() + b"\n"
