"""The token store: zarr3 arrays of token ids and document offsets, with a manifest.

    manifest.json                         what is there, with sizes and checksums
    STREAM/{train,valid}/tokens           ids, documents end to end as BOS, tokens, EOS
    STREAM/{train,valid}/offsets          int64 [documents + 1], where each document begins

A stream is a source, or a part of one that data.split_by makes: SOURCE@FIELD=VALUE.

An array lies in files ("shards") of inner chunks that each carry a CRC-32C, so that a flipped bit
is found when it is read. The same code reads folders, gs:// and s3://.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from jaxlm.config.data import SplitBy
from jaxlm.config.objective import FIM
from jaxlm.errors import UserError

CHUNK_ITEMS = 8192
type Split = Literal["train", "valid"]
SPLITS: tuple[Split, ...] = ("train", "valid")
MANIFEST = "manifest.json"
LARGEST_MANIFEST = 1 << 30


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SplitSize(_Record):
    """What one split of one stream holds."""

    documents: int
    tokens: int
    bytes: int
    """UTF-8 bytes of text."""


class StreamSize(_Record):
    """Both splits of one stream."""

    source: str = ""
    tags: dict[str, str] = {}
    """Its value of each field in data.split_by; none: it is the whole source."""
    train: SplitSize
    valid: SplitSize


class CorpusSize(_Record):
    """The documents of one source, each of which is in one of its streams once."""

    documents: int
    checksum: str
    """sha256 of the checksums of the corpus's shards, in order."""
    tags: dict[str, str] = {}
    """Its kind and language."""


class StoredFile(_Record):
    """One file of the store."""

    path: str
    size: int
    checksum: str
    """sha256."""


class Manifest(_Record):
    """tokens/manifest.json."""

    tokenizer_hash: str
    vocab_size: int
    bos_id: int
    eos_id: int
    dtype: Literal["uint16", "uint32"]
    address: str | None
    """Where the arrays lie; None: beside the manifest."""
    sources: dict[str, StreamSize]
    """By name of the stream: those of one source stand together, sources in the config's order."""
    files: list[StoredFile]
    document_fim: FIM | None = None
    """The objective that rearranged the documents to train on; None: they are as they were."""
    split_by: tuple[SplitBy, ...] = ()
    sort_by: str | None = None
    corpus: dict[str, CorpusSize] = {}
    """What each source was made from; empty in stores of versions before this key."""

    @model_validator(mode="after")
    def _from_before_streams(self) -> Self:
        """A stream that does not say its source is the whole of the one with its name."""
        for name, stream in self.sources.items():
            if not stream.source:
                self.sources[name] = stream.model_copy(update={"source": name})
        return self


def kvstore_spec(address: str | Path) -> dict[str, Any]:
    """TensorStore's key-value store for a folder, file://, gs://, s3:// or memory:// address."""
    text = str(address)
    scheme, _, rest = text.partition("://") if "://" in text else ("file", "", text)
    if scheme == "file":
        return {"driver": "file", "path": str(Path(rest).absolute()) + "/"}
    if scheme == "memory":
        return {"driver": "memory", "path": rest.rstrip("/") + "/"}
    bucket, _, path = rest.partition("/")
    if scheme not in ("gs", "s3") or not bucket:
        raise UserError(f"data.store: {text} is no folder, gs://BUCKET/PATH or s3://BUCKET/PATH")
    driver = {"gs": "gcs", "s3": "s3"}[scheme]
    return {"driver": driver, "bucket": bucket, "path": path.rstrip("/") + "/" if path else ""}


def context(cache_bytes: int = 64 << 20, threads: int = 2) -> ts.Context:
    """Limits of TensorStore. Reads are random, so the cache serves the shards' indexes alone."""
    return ts.Context(
        {
            "cache_pool": {"total_bytes_limit": cache_bytes},
            "data_copy_concurrency": {"limit": threads},
            "file_io_concurrency": {"limit": threads},
        }
    )


def array_spec(address: str | Path, name: str) -> dict[str, Any]:
    """The spec of the array `name` ("STREAM/train/tokens") of a store."""
    base = kvstore_spec(address)
    return {"driver": "zarr3", "kvstore": {**base, "path": base["path"] + name + "/"}}


def array_metadata(dtype: str, length: int, shard_bytes: int) -> dict[str, Any]:
    """Metadata of a sharded zarr3 array with one dimension."""
    item = np.dtype(dtype).itemsize
    shard = max(shard_bytes // item // CHUNK_ITEMS, 1) * CHUNK_ITEMS
    plain = {"name": "bytes", "configuration": {"endian": "little"}}
    return {
        "shape": [length],
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [shard]}},
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [CHUNK_ITEMS],
                    "codecs": [plain, {"name": "crc32c"}],
                    "index_codecs": [plain, {"name": "crc32c"}],
                },
            }
        ],
    }


class ArrayWriter:
    """Appends to a new array; holds two shards in memory."""

    # An array is created as long as can be and cut to its true length at the end.
    _ENDLESS = 1 << 60

    def __init__(
        self, address: str | Path, name: str, dtype: str, shard_bytes: int, ctx: ts.Context
    ) -> None:
        self._name = f"{address}/{name}"
        spec = array_spec(address, name)
        spec["metadata"] = array_metadata(dtype, self._ENDLESS, shard_bytes)
        self._dtype = np.dtype(dtype)
        self._array = self._try(ts.open(spec, context=ctx, create=True, delete_existing=True))
        self._buffer = np.empty(self._array.chunk_layout.write_chunk.shape[0], self._dtype)
        self._held = 0
        self._writing: Any = None
        self.length = 0

    def _try(self, future: Any) -> Any:
        try:
            return future.result()
        except (ValueError, OSError, RuntimeError) as error:
            raise UserError(f"{self._name}: cannot be written: {_first_line(error)}") from None

    def append(self, items: NDArray[Any]) -> None:
        """Add a one-dimensional array of the writer's type. Raises UserError (disk full, ...)."""
        assert items.dtype == self._dtype, (items.dtype, self._dtype)
        while items.size:
            part = items[: self._buffer.size - self._held]
            self._buffer[self._held : self._held + part.size] = part
            self._held += part.size
            items = items[part.size :]
            if self._held == self._buffer.size:
                self._flush()

    def _flush(self) -> None:
        if self._writing is not None:
            self._try(self._writing)
        start, self.length = self.length, self.length + self._held
        self._writing = self._array[start : self.length].write(self._buffer[: self._held])
        self._buffer = np.empty_like(self._buffer)
        self._held = 0

    def close(self) -> None:
        """Write what is left and set the array's length."""
        if self._held:
            self._flush()
        if self._writing is not None:
            self._try(self._writing)
        self._try(self._array.resize(exclusive_max=[self.length], resize_metadata_only=True))


def check_writable(address: str) -> None:
    """Raise UserError, before any work, where data.store cannot be written."""
    spec = kvstore_spec(address)
    try:
        store = ts.KvStore.open(spec).result()
        store.write("written", b"").result()
        store.write("written", None).result()
    except (ValueError, OSError, RuntimeError) as error:
        raise UserError(
            f"data.store: {address} cannot be written ({_first_line(error)}); "
            "make it writable, or choose another"
        ) from None


def checksums(address: str | Path, name: str, ctx: ts.Context) -> list[StoredFile]:
    """Every file of the array `name` of a store, read once."""
    store = ts.KvStore.open(kvstore_spec(address), context=ctx).result()
    files = []
    for key in sorted(store.list(ts.KvStore.KeyRange(f"{name}/", f"{name}0")).result()):
        value = store.read(key).result().value
        checksum = hashlib.sha256(value).hexdigest()
        files.append(StoredFile(path=key.decode(), size=len(value), checksum=checksum))
    return files


class Store:
    """An existing token store."""

    def __init__(self, directory: Path, threads: int = 2) -> None:
        """Open WORKDIR/tokens. Raises UserError naming each file that is missing or has changed."""
        path = directory / MANIFEST
        try:
            if path.stat().st_size > LARGEST_MANIFEST:
                raise UserError(f"{path}: larger than a manifest can be")
            self.manifest = Manifest.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise UserError(
                f"{directory}: there are no tokens; run `jaxlm tokenize` first"
            ) from None
        except (OSError, ValidationError) as error:
            raise UserError(
                f"{path}: not a manifest of tokens ({_first_line(error)}); "
                "run `jaxlm tokenize` again"
            ) from None
        self.address: str | Path = self.manifest.address or directory
        self._context = context(threads=threads)
        self._check_files()

    def _check_files(self) -> None:
        """Absent files would read as zeros, so all must be there, as long as they were."""
        spec = kvstore_spec(self.address)
        try:
            store = ts.KvStore.open(spec, context=self._context).result()
            present = {key.decode() for key in store.list().result()}
        except (ValueError, OSError, RuntimeError) as error:
            raise UserError(f"{self.address}: cannot be read: {_first_line(error)}") from None
        problems = []
        for file in self.manifest.files:
            path = f"{self.address}/{file.path}"
            if file.path not in present:
                problems.append(f"{path}: is missing; put it back or run `jaxlm tokenize` again")
            elif file.path.endswith("zarr.json"):
                value = store.read(file.path).result().value
                if hashlib.sha256(value).hexdigest() != file.checksum:
                    problems.append(f"{path}: has changed; run `jaxlm tokenize` again")
            elif spec["driver"] == "file":
                size = (Path(spec["path"]) / file.path).stat().st_size
                if size != file.size:
                    problems.append(
                        f"{path}: has {size} bytes, not {file.size}; run `jaxlm tokenize` again"
                    )
        if problems:
            raise UserError(problems)

    def streams(self, sources: Sequence[str]) -> dict[str, StreamSize]:
        """The streams of these sources, in their order. Raises UserError for one that has none."""
        found = {
            name: stream
            for source in sources
            for name, stream in self.manifest.sources.items()
            if stream.source == source
        }
        there = {stream.source for stream in self.manifest.sources.values()}
        if missing := [source for source in sources if source not in there]:
            raise self._lacks("source", missing[0], sorted(there))
        return found

    def _lacks(self, what: str, name: str, there: Sequence[str]) -> UserError:
        return UserError(
            f"{self.address}: has no {what} {name} (it has {', '.join(there)}); "
            "run `jaxlm tokenize` again"
        )

    def size(self, stream: str, split: Split) -> SplitSize:
        """Counts of one split. Raises UserError for a stream that is not in the store."""
        if stream not in self.manifest.sources:
            raise self._lacks("stream", stream, list(self.manifest.sources))
        return getattr(self.manifest.sources[stream], split)

    def tokens(self, stream: str, split: Split) -> "TokenArray":
        """The ids of one split, uint16 or uint32 [tokens]."""
        size = self.size(stream, split)
        array = TokenArray(self.address, f"{stream}/{split}/tokens", self._context)
        if array.length != size.tokens:
            raise UserError(
                f"{array.name}: holds {array.length} tokens, the manifest says {size.tokens}; "
                "run `jaxlm tokenize` again"
            )
        return array

    def offsets(self, stream: str, split: Split) -> "TokenArray":
        """Where each document of one split begins, and the end of the last, int64."""
        self.size(stream, split)
        return TokenArray(self.address, f"{stream}/{split}/offsets", self._context)


class TokenArray:
    """An array of one dimension that is read in many short runs."""

    def __init__(self, address: str | Path, name: str, ctx: ts.Context) -> None:
        self.name = f"{address}/{name}"
        try:
            self._array = ts.open(
                {**array_spec(address, name), "recheck_cached_metadata": False,
                 "recheck_cached_data": False},
                context=ctx, open=True, read=True,
            ).result()  # fmt: skip
        except (ValueError, OSError, RuntimeError) as error:
            raise UserError(
                f"{self.name}: cannot be opened: {_first_line(error)}; run `jaxlm tokenize` again"
            ) from None
        self.length = int(self._array.shape[0])
        self.dtype = np.dtype(self._array.dtype.numpy_dtype)

    def start_reads(
        self, starts: NDArray[np.int64], ends: NDArray[np.int64], batch: ts.Batch
    ) -> list[Any]:
        """Begin to read [start, end) for each pair; `finish` waits for each."""
        array = self._array
        return [
            array[start:end].read(batch=batch)
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        ]

    def finish(self, future: Any) -> NDArray[Any]:
        """The items of one read. Raises UserError for a file that is damaged or gone."""
        try:
            return future.result()
        except (ValueError, OSError, RuntimeError) as error:
            found = re.search(r'"([^"]+/c/\d+)"', str(error))
            raise UserError(
                f"{found[1] if found else self.name}: is damaged ({_first_line(error)}); "
                "put a good copy back or run `jaxlm tokenize` again"
            ) from None

    def read(self, start: int, end: int) -> NDArray[Any]:
        """Items [start, end)."""
        return self.finish(self._array[start:end].read())


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
    return json.dumps(text, ensure_ascii=False)[1:-1][:300]
