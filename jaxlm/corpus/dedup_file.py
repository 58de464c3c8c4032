"""What one file of records holds twice, without a corpus: the verb `jaxlm dedup`."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from jaxlm.config.corpus import Limits, Source
from jaxlm.config.dedup import Dedup
from jaxlm.corpus import listing
from jaxlm.corpus.documents import Documents, load_array, save_array
from jaxlm.corpus.readers import Bad, Record, read
from jaxlm.corpus.stages import DUPLICATES
from jaxlm.corpus.stages.compare import Batch, Duplicate, Stage
from jaxlm.errors import UsageError

BATCH_BYTES = 4 << 20

METHODS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "exact": ("exact", None, {}),
    "minhash": ("minhash", "threshold", {}),
    "substring": ("substring", "min_bytes", {}),
    "sentence": ("sentences", "span", {"min_sentences": 0}),
}
"""Method -> its section of the config, the key that the threshold sets, further keys."""


def dedup_file(
    path: str | Path, method: str, threshold: float | None = None
) -> Iterator[dict[str, Any]]:
    """One record for each document or piece of a .jsonl file (.gz, .zst) that is there already.

    A document is {"id", "kept", "similarity"}; a piece is {"id", "start", "end", "bytes"}, from
    byte `start` up to `end` of its text in UTF-8. A record that cannot be read is {"id", "error":
    {"rule", "value"}} and comes before all others. threshold: Jaccard similarity (minhash), bytes
    (substring) or sentences (sentence). Raises UsageError for an unknown method or a threshold that
    it cannot have, UserError for a file that is not there.
    """
    worker, stage = _worker(method, threshold)
    source = Source(name="file", path=str(path), format="jsonl", id_field="id")
    with tempfile.TemporaryDirectory(prefix="jaxlm-dedup-") as name:
        batches: list[Batch] = []
        records: list[Record] = []
        size = 0
        for file in listing.files(source):
            for record in read(source, file, Limits()):
                if isinstance(record, Bad):
                    yield {"id": record.id, "error": {"rule": record.rule, "value": record.value}}
                    continue
                if records and size + len(record.text) > BATCH_BYTES:
                    folder = Path(name) / str(len(batches))
                    batches.append(_stored(worker, stage, source, records, folder))
                    records, size = [], 0
                records.append(record)
                size += len(record.text)
        if records:
            folder = Path(name) / str(len(batches))
            batches.append(_stored(worker, stage, source, records, folder))
        work = Path(name) / "work"
        work.mkdir()
        for found in worker.resolve(batches, work, _in_turn):
            id = batches[found.batch].documents().id(found.index)
            if isinstance(found, Duplicate):
                assert isinstance(found.partner, tuple), "there is no other corpus"
                there, index = found.partner
                kept = batches[there].documents().id(index)
                yield {"id": id, "kept": kept, "similarity": found.value}
            else:
                length = found.end - found.start
                yield {"id": id, "start": found.start, "end": found.end, "bytes": length}


def _worker(method: str, threshold: float | None) -> tuple[Stage, str]:
    if method not in METHODS:
        raise UsageError(f"--method: {method!r} is not one of {', '.join(METHODS)}")
    section, key, values = METHODS[method]
    if threshold is not None:
        if key is None:
            raise UsageError(f"--threshold: {method} has none; leave it out")
        whole = key != "threshold" and threshold.is_integer()
        values = values | {key: int(threshold) if whole else threshold}
    try:
        config = Dedup.model_validate({section: values} if values else {})
    except ValidationError as error:
        raise UsageError(f"--threshold: {threshold:g}: {error.errors()[0]['msg']}") from None
    return DUPLICATES[f"dedup.{section}"](config), f"dedup.{section}"


def _stored(
    worker: Stage, stage: str, source: Source, records: list[Record], folder: Path
) -> Batch:
    """Write a batch and its signature."""
    documents = Documents.of(
        source,
        (record.text for record in records),
        (record.id.encode() for record in records),
    )
    folder.mkdir()
    documents.save(folder)
    for name, array in worker.signature(documents, {}).items():
        save_array(folder / f"{stage}.{name}.npy", array)
    return Batch(
        np.ones(len(documents), np.bool_),
        partial(_signature, folder, stage),
        partial(Documents.load, source, folder),
        folder,
    )


def _signature(folder: Path, stage: str, name: str) -> NDArray[Any]:
    return load_array(folder / f"{stage}.{name}.npy")


def _in_turn(function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    return (function(*task) for task in tasks)
