"""Encoded documents on their way into the store: plain files that grow, and a journal of them.

    inputs.json                    what all this depends on (jaxlm/workdir.py)
    journal.json                   the streams, which corpus shards are done, how long files are
    STREAM.{train,valid}.tokens    ids, documents end to end
    STREAM.{train,valid}.documents RECORD of each document

The journal is written when all files are safely on disk, after each shard of the corpus. What lies
behind the lengths in it is of a shard that was not finished, and is cut off.
"""

import json
import os
from contextlib import ExitStack
from io import BufferedWriter
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from jaxlm.tokens.store import Split, SplitSize
from jaxlm.tokens.streams import Plan
from jaxlm.workdir import write_json

JOURNAL = "journal.json"
RECORD = np.dtype([("tokens", "<i8"), ("key", "<f8")])
"""A document: its length, and what documents are sorted by (0 where they are not)."""
NOTHING = SplitSize(documents=0, tokens=0, bytes=0)


class Encoded(NamedTuple):
    """Documents of one split of a stream, in the order of the corpus."""

    tokens: NDArray[np.unsignedinteger]
    records: NDArray[Any]
    """RECORD [documents]."""
    bytes: int
    """UTF-8 bytes of text."""


class Part(NamedTuple):
    """A split of a stream on disk."""

    tokens: Path
    records: Path
    dtype: str
    size: SplitSize

    def lengths(self) -> tuple[int, int]:
        """Bytes of both files."""
        return (
            self.size.tokens * np.dtype(self.dtype).itemsize,
            self.size.documents * RECORD.itemsize,
        )

    def read(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """All tokens and records, mapped."""
        if not self.size.documents:
            return np.empty(0, self.dtype), np.empty(0, RECORD)
        return (
            np.asarray(np.memmap(self.tokens, self.dtype, "r", shape=(self.size.tokens,))),
            np.asarray(np.memmap(self.records, RECORD, "r", shape=(self.size.documents,))),
        )


class Spool:
    """The files of one folder. A context manager that closes them."""

    def __init__(self, folder: Path, dtype: str) -> None:
        """Take up what the journal of the folder tells, or begin."""
        self._folder, self._dtype = folder, dtype
        self._open: dict[tuple[str, Split], tuple[BufferedWriter, BufferedWriter]] = {}
        self._closing = ExitStack()
        self.plans: dict[str, list[Plan]] = {}
        """The streams of each source; none before they are found."""
        self.done: dict[str, int] = {}
        """Corpus shards of each source that are encoded."""
        self.sizes: dict[tuple[str, Split], SplitSize] = {}
        if (folder / JOURNAL).exists():
            self._take_up(json.loads((folder / JOURNAL).read_text(encoding="utf-8")))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _take_up(self, journal: dict[str, Any]) -> None:
        sizes = {
            (stream, split): SplitSize(**size)
            for stream, by_split in journal["sizes"].items()
            for split, size in by_split.items()
        }
        for place, size in sizes.items():
            part = self._part(*place, size)
            for path, length in zip((part.tokens, part.records), part.lengths(), strict=True):
                if (path.stat().st_size if path.exists() else 0) < length:
                    return  # not as it was left: all is done anew
        self.plans = {
            source: [Plan(name, tuple(values), limit) for name, values, limit in plans]
            for source, plans in journal["plans"].items()
        }
        self.done, self.sizes = journal["done"], sizes

    def _part(self, stream: str, split: Split, size: SplitSize) -> Part:
        name = self._folder / f"{stream}.{split}"
        return Part(Path(f"{name}.tokens"), Path(f"{name}.documents"), self._dtype, size)

    def part(self, stream: str, split: Split) -> Part:
        """What there is of a split of a stream."""
        return self._part(stream, split, self.sizes.get((stream, split), NOTHING))

    def append(self, stream: str, split: Split, part: Encoded) -> None:
        """Add documents. Raises OSError (disk full, ...)."""
        place, there = (stream, split), self.part(stream, split)
        if place not in self._open:
            tokens, documents = (
                self._closing.enter_context(path.open("ab"))
                for path in (there.tokens, there.records)
            )
            for file, length in zip((tokens, documents), there.lengths(), strict=True):
                file.truncate(length)
            self._open[place] = tokens, documents
        tokens, documents = self._open[place]
        tokens.write(part.tokens.data)
        documents.write(part.records.data)
        size = there.size
        self.sizes[place] = SplitSize(
            documents=size.documents + part.records.size,
            tokens=size.tokens + part.tokens.size,
            bytes=size.bytes + part.bytes,
        )

    def commit(self) -> None:
        """Make all that was added, `plans` and `done` last, whatever becomes of this process."""
        for file in (file for files in self._open.values() for file in files):
            file.flush()
            os.fsync(file.fileno())
        # a system has a limit of open files, and the next shard may be of another source
        self._closing.close()
        self._open.clear()
        sizes: dict[str, dict[str, Any]] = {}
        for (stream, split), size in self.sizes.items():
            sizes.setdefault(stream, {})[split] = size.model_dump()
        write_json(self._folder / JOURNAL, {"plans": self.plans, "done": self.done, "sizes": sizes})
