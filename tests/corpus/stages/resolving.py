"""Runs comparing stages on documents as `prepare` does: signatures on disk, then `resolve`."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.config.corpus import Source
from jaxlm.config.dedup import Dedup
from jaxlm.corpus.documents import Documents, load_array, save_array
from jaxlm.corpus.stages import DUPLICATES, Tags
from jaxlm.corpus.stages.compare import Batch, Cut, Duplicate, Stage

SOURCE = Source(name="s", path="x.txt", kind="web")


def documents(
    texts: list[str],
    ids: list[str] | None = None,
    meta: list[str] | None = None,
    source: Source = SOURCE,
) -> Documents:
    """A batch of documents."""
    return Documents.of(
        source,
        (text.encode() for text in texts),
        (id.encode() for id in ids) if ids else None,
        (raw.encode() for raw in meta) if meta else None,
    )


def in_turn(function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    """The executor: this process."""
    return (function(*task) for task in tasks)


def resolved(
    stage: str,
    batches: Sequence[Documents],
    config: Dedup | None = None,
    tags: Sequence[Tags] | None = None,
    worker: Stage | None = None,
    keeps: Sequence[Sequence[bool]] | None = None,
) -> list[Any]:
    """What the stage yields for these batches."""
    worker = worker or DUPLICATES[stage](config or Dedup())
    with tempfile.TemporaryDirectory() as name:
        views = []
        for number, batch in enumerate(batches):
            folder = Path(name) / str(number)
            folder.mkdir()
            batch.save(folder)
            for key, array in worker.signature(batch, tags[number] if tags else {}).items():
                save_array(folder / f"{stage}.{key}.npy", array)
            keep = np.array(keeps[number]) if keeps else np.ones(len(batch), np.bool_)
            load = partial(_load, folder, stage)
            views.append(Batch(keep, load, partial(Documents.load, SOURCE, folder), folder))
        work = Path(name) / "work"
        work.mkdir()
        found: list[Duplicate | Cut] = list(worker.resolve(views, work, in_turn))
        return found


def _load(folder: Path, stage: str, name: str) -> Any:
    return load_array(folder / f"{stage}.{name}.npy")
