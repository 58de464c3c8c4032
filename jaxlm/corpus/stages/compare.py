"""The protocol of stages that compare documents with each other, and which of two copies stays.

Workers compute a signature (a few arrays) of each batch, saved as FOLDER/STAGE.NAME.npy; `resolve`
then sees the batches in the order of the corpus and names the documents that are copies, or the
pieces of them. It holds no index: records go to files sorted by key, and tasks read a range of
keys each (shuffle.py).
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.dedup import Dedup
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.stages.base import Tags

type Signature = dict[str, NDArray[Any]]

type Map = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterator[Any]]
"""Runs a function on argument tuples, wherever the executor has room; results in order."""

type Partner = tuple[int, int] | str
"""Batch and index of the document that stays, or NAME:ID in an earlier corpus."""


@dataclass(frozen=True)
class Batch:
    """What `resolve` knows of a batch: who is still there (bool [D]) and where the rest lies."""

    keep: NDArray[np.bool_]
    signature: Callable[[str], NDArray[Any]]
    """Name -> array of the signature, mapped from disk."""
    documents: Callable[[], Documents]
    """The whole batch, mapped from disk."""
    folder: Path
    """Where the batch lies."""


@dataclass(frozen=True)
class Duplicate:
    """Document `index` of batch `batch` repeats another."""

    batch: int
    index: int
    rule: str
    value: float
    threshold: float
    partner: Partner


@dataclass(frozen=True)
class Cut:
    """Bytes start:end of document `index` of batch `batch` occurred before."""

    batch: int
    index: int
    start: int
    end: int
    rule: str
    value: float
    partner: Partner | None


class Stage(Protocol):
    """A stage that compares documents."""

    cuts: bool
    """Whether it may yield a Cut."""

    def __init__(self, config: Dedup) -> None: ...

    def signature(self, documents: Documents, tags: Tags) -> Signature:
        """Arrays that stand for the documents; `tags` are those of their segment."""
        ...

    def resolve(
        self, batches: Sequence[Batch], work: Path, run: Map
    ) -> Iterator[Duplicate] | Iterator[Cut] | Iterator[Duplicate | Cut]:
        """What to remove, in the order of the documents; `work` is an empty folder."""
        ...


def rank(documents: Documents, tags: Tags, config: Dedup) -> NDArray[np.float64]:
    """The place of each document among its copies by `config.keep`, float64 [D]: the lowest stays,
    the first of equals; infinity where a document has no date or attribute."""
    n = len(documents)
    if config.keep == "longest":
        return -documents.texts.lengths.astype(np.float64)
    if config.keep == "source_priority":
        names = (*config.sources, documents.source.name)
        return np.full(n, float(names.index(documents.source.name)))
    if config.keep == "oldest":
        dates = [_seconds(metadata(documents, i).get(config.date_field)) for i in range(n)]
        return np.array(dates, np.float64)
    if config.keep == "quality":
        assert config.quality is not None
        values = tags.get(config.quality, np.full(n, np.nan))
        return np.where(np.isnan(values), np.inf, -values)
    return np.zeros(n)


def metadata(documents: Documents, index: int) -> dict[str, Any]:
    """The metadata of one document."""
    raw = documents.meta[index]
    found: dict[str, Any] = json.loads(raw) if raw else {}
    return found


def _seconds(date: object) -> float:
    """Seconds since 1970 of a date in UTC; infinity where there is none."""
    if isinstance(date, bool) or not isinstance(date, str | int | float):
        return math.inf
    try:
        if not isinstance(date, str):
            return float(date) if math.isfinite(date) else math.inf
        moment = datetime.fromisoformat(date.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.inf


def host(address: str) -> str | None:
    """The host of an address in lower case, without its final dot; None where it has none."""
    try:
        name = urlsplit(address.strip()).hostname
    except ValueError:
        return None
    return name.rstrip(".") or None if name else None
