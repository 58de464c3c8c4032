"""Input file -> records: a document's id, text and metadata, or the reason why it has none.

A broken record becomes a `Bad`, and reading goes on. A broken file raises UserError.
"""

import ast
import contextlib
import email
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, cast

from jaxlm.config.corpus import Limits, Source
from jaxlm.corpus.inputs import InputFile
from jaxlm.errors import UserError

FREE_EXPANSION = 64 << 20


@dataclass(frozen=True)
class Record:
    """One document; text is valid UTF-8, meta a JSON object or empty."""

    id: str
    text: bytes
    meta: bytes = b""


@dataclass(frozen=True)
class Bad:
    """One document that could not be read, and why."""

    id: str
    rule: str
    size: int
    value: float | str | None = None
    threshold: float | None = None
    excerpt: str = ""


def read(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """The records of one file, in its order.

    Raises UserError naming the file when it cannot be opened, is truncated or corrupt, grows
    beyond limits.max_expansion, or lacks the text column.
    """
    reader = _READERS[file.format]
    try:
        for record in reader(source, file, limits):
            if isinstance(record, Record):
                if len(record.text) > limits.max_document_bytes:
                    size, limit = len(record.text), limits.max_document_bytes
                    head = record.text[:1200].decode(errors="ignore")
                    record = Bad(record.id, "max_document_bytes", size, size, limit, head)
                elif not record.text or record.text.isspace():
                    record = Bad(record.id, "empty", len(record.text))
            yield record
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"source {source.name!r}: {file.path}: no such file") from None
    except (EOFError, zlib.error) as error:
        raise UserError(_broken(source, file, str(error))) from None
    except OSError as error:
        raise UserError(_broken(source, file, error.strerror or str(error))) from None


def _broken(source: Source, file: InputFile, reason: str) -> str:
    return (
        f"source {source.name!r}: {file.path} is broken or unreadable: {reason}; "
        "fetch the file again or leave it out of the source's path"
    )


def _raw(file: InputFile) -> contextlib.AbstractContextManager[Any]:
    """The file as it is stored."""
    if "://" not in file.path:
        return open(file.path, "rb")
    import fsspec

    return cast(contextlib.AbstractContextManager[Any], fsspec.open(file.path, "rb"))


@contextlib.contextmanager
def _open(source: Source, file: InputFile, limits: Limits) -> Iterator[Any]:
    """The file's bytes, decompressed, and no more of them than limits.max_expansion allows."""
    with _raw(file) as raw:
        path = file.path.lower()
        if not path.endswith((".gz", ".zst")):
            yield raw
            return
        inner = _gzip(raw) if path.endswith(".gz") else _zstd(raw, source, file)
        allowed = limits.max_expansion * max(file.size, 1) + FREE_EXPANSION
        message = (
            f"source {source.name!r}: {file.path} expands to more than {limits.max_expansion} "
            "times its size; if that is right, raise prepare.limits.max_expansion"
        )
        yield io.BufferedReader(_Pieces(inner, allowed, message), 1 << 20)


class _Pieces(io.RawIOBase):
    """A raw stream over an iterator of byte strings, with a bound on their sum."""

    def __init__(self, pieces: Iterator[bytes], allowed: int, message: str) -> None:
        self._pieces, self._allowed, self._message = pieces, allowed, message
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._allowed -= len(piece)
            if self._allowed < 0:
                raise UserError(self._message)
            self._piece = memoryview(piece)
        n = min(len(buffer), len(self._piece))
        buffer[:n] = self._piece[:n]
        self._piece = self._piece[n:]
        return n


def _gzip(raw: BinaryIO) -> Iterator[bytes]:
    """Decompress gzip members; raises zlib.error or EOFError where they are broken or cut off."""
    stream: Any = None
    rest = b""
    while chunk := rest or raw.read(1 << 16):
        if stream is None:
            stream = zlib.decompressobj(wbits=31)
        yield stream.decompress(chunk, 1 << 22)
        rest = stream.unconsumed_tail
        if stream.eof:
            stream, rest = None, stream.unused_data.lstrip(b"\0")
    if stream is not None:
        yield stream.flush()
        if not stream.eof:
            raise EOFError("the gzip stream ends early")


def _zstd(raw: BinaryIO, source: Source, file: InputFile) -> Iterator[bytes]:
    """Decompress zstd frames. A short input piece bounds what one call can expand to."""
    import zstandard

    stream: Any = None
    rest = b""
    try:
        while chunk := rest or raw.read(1 << 12):
            if stream is None:
                stream = zstandard.ZstdDecompressor().decompressobj()
            yield stream.decompress(chunk)
            rest = b""
            if stream.eof:
                stream, rest = None, stream.unused_data
    except zstandard.ZstdError as error:
        raise UserError(_broken(source, file, str(error))) from None
    if stream is not None:
        raise EOFError("the zstd stream ends early")


def _text(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """A file is a document, or several where source.split separates them."""
    with _open(source, file, limits) as stream:
        raw, size = _whole(stream, limits.max_document_bytes if source.split is None else
                           limits.max_line_bytes)  # fmt: skip
    if raw is None:
        yield Bad(file.name, "max_document_bytes", size, size, limits.max_document_bytes)
        return
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        yield _not_utf8(file.name, raw, error)
        return
    if source.split is None:
        yield Record(file.name, raw)
        return
    for number, part in enumerate(re.split(source.split, text), start=1):
        if part.strip():
            yield Record(f"{file.name}:{number}", part.strip("\n").encode())


def _whole(stream: BinaryIO, limit: int) -> tuple[bytes | None, int]:
    """All bytes, or None when there are more than `limit`; and how many were seen."""
    raw = stream.read(limit + 1)
    return (raw, len(raw)) if len(raw) <= limit else (None, len(raw))


def _not_utf8(id: str, raw: bytes, error: UnicodeDecodeError) -> Bad:
    head = raw[max(0, error.start - 60) : error.start + 60].decode(errors="backslashreplace")
    return Bad(id, "invalid_utf8", len(raw), error.start, None, head)


def _html(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """The main content of a page as text: no navigation, no scripts (resiliparse)."""
    from resiliparse.extract.html2text import extract_plain_text

    with _open(source, file, limits) as stream:
        raw, size = _whole(stream, limits.max_document_bytes)
    if raw is None:
        yield Bad(file.name, "max_document_bytes", size, size, limits.max_document_bytes)
        return
    try:
        page = raw.decode(_charset(raw))
    except UnicodeDecodeError as error:
        yield _not_utf8(file.name, raw, error)
        return
    text = extract_plain_text(page, main_content=True, alt_texts=False)
    yield Record(file.name, text.encode(errors="replace"))


def _charset(raw: bytes) -> str:
    """The encoding that a page declares in its first kilobyte, utf-8 where it declares none."""
    found = re.search(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([A-Za-z0-9_:-]+)", raw[:1024], re.I)
    name = found.group(1).decode() if found else "utf-8"
    try:
        "".encode(name)
    except LookupError:
        return "utf-8"
    return name


def _jsonl(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """A JSON object a line; blank lines are allowed."""
    with _open(source, file, limits) as stream:
        number = 0
        while line := stream.readline(limits.max_line_bytes + 1):
            number += 1
            id, size = f"{file.name}:{number}", len(line)
            if size > limits.max_line_bytes:
                head = line[:1200].decode(errors="backslashreplace")
                while line and not line.endswith(b"\n"):
                    line = stream.readline(1 << 20)
                    size += len(line)
                yield Bad(id, "max_line_bytes", size, size, limits.max_line_bytes, head)
            elif not line.isspace():
                yield _json_record(source, id, line)


def _json_record(source: Source, id: str, line: bytes) -> Record | Bad:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return _not_utf8(id, line, error)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Bad(id, "invalid_json", len(line), str(error)[:200], None, text[:300])
    if not isinstance(value, dict):
        return Bad(id, "not_an_object", len(line), type(value).__name__, None, text[:300])
    return _record(source, id, partial(_inner, value), len(line), text[:300])


def _inner(value: Any, field: str) -> Any:
    """value[field], or the field of an inner object where the name has dots; None where absent."""
    if isinstance(value, dict) and field in value:
        return value[field]
    for part in field.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def _record(
    source: Source, id: str, get: Callable[[str], Any], size: int, excerpt: str
) -> Record | Bad:
    """Check the fields of one record and pack them."""
    if source.id_field is not None:
        given = get(source.id_field)
        if not isinstance(given, str | int) or given == "":
            return Bad(id, "missing_id", size, source.id_field, None, excerpt)
        id = str(given)
    text = get(source.text_field)
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            return _not_utf8(id, get(source.text_field), error)
    if not isinstance(text, str):
        return Bad(id, "missing_text", size, source.text_field, None, excerpt)
    try:
        id.encode()
        raw = text.encode()
        meta = {field: found for field in source.meta_fields if (found := get(field)) is not None}
        packed = json.dumps(meta, ensure_ascii=False, default=str).encode() if meta else b""
    except UnicodeEncodeError as error:
        shown = excerpt.encode(errors="backslashreplace").decode()
        return Bad(id.encode(errors="backslashreplace").decode(), "lone_surrogate", size,
                   error.start, None, shown)  # fmt: skip
    return Record(id, raw, packed)


def _parquet(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """A row is a document. Columns are read as bytes, so that one invalid text is one error."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [source.text_field, *source.meta_fields]
    if source.id_field is not None:
        fields.append(source.id_field)
    try:
        with _raw(file) as raw:
            table = pq.ParquetFile(raw)
            names = set(table.schema_arrow.names)
            missing = sorted({field for field in fields if field.split(".")[0] not in names})
            if missing:
                raise UserError(
                    f"source {source.name!r}: {file.path} has no column {', '.join(missing)}; "
                    f"it has {', '.join(sorted(names))}"
                )
            _check_expansion(source, file, table.metadata, limits)
            columns = sorted({field.split(".")[0] for field in fields})
            number = 0
            for batch in table.iter_batches(batch_size=256, columns=columns):
                rows = _rows(batch, source.text_field, pa)
                for row in rows:
                    number += 1
                    text = _inner(row, source.text_field)
                    size = len(text) if isinstance(text, bytes) else 0
                    id = f"{file.name}:{number}"
                    yield _record(source, id, partial(_inner, row), size, "")
    except pa.ArrowException as error:
        raise UserError(_broken(source, file, str(error).splitlines()[0])) from None


def _rows(batch: Any, text_field: str, pa: Any) -> list[dict[str, Any]]:
    """The rows of an Arrow batch as dicts, the text as bytes (a string column is not checked)."""
    if text_field in batch.schema.names:
        index = batch.schema.names.index(text_field)
        column = batch.column(index)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            large = pa.types.is_large_string(column.type)
            column = column.cast(pa.large_binary() if large else pa.binary())
        batch = batch.set_column(index, text_field, column)
    return cast(list[dict[str, Any]], batch.to_pylist())


def _check_expansion(source: Source, file: InputFile, metadata: Any, limits: Limits) -> None:
    total = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if total > limits.max_expansion * max(file.size, 1) + FREE_EXPANSION:
        raise UserError(
            f"source {source.name!r}: {file.path} expands to more than {limits.max_expansion} "
            "times its size; if that is right, raise prepare.limits.max_expansion"
        )


def _pydoc(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """pydoc_data/topics.py: the language reference as one dict literal, a topic a document."""
    with _open(source, file, limits) as stream:
        tree = ast.parse(stream.read(limits.max_line_bytes))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for name, text in sorted(ast.literal_eval(node.value).items()):
                yield Record(f"{file.name}:{name}", str(text).encode())
            return
    raise UserError(_broken(source, file, "it holds no dict of topics"))


def _metadata(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """The long description in an installed distribution's METADATA file."""
    with _open(source, file, limits) as stream:
        raw, size = _whole(stream, limits.max_document_bytes)
    if raw is None:
        yield Bad(file.name, "max_document_bytes", size, size, limits.max_document_bytes)
        return
    try:
        message = email.message_from_string(raw.decode())
    except UnicodeDecodeError as error:
        yield _not_utf8(file.name, raw, error)
        return
    text = str(message.get_payload() or message.get("Description") or "")
    yield Record(file.name, text.encode(errors="replace"))


_READERS: dict[str, Callable[[Source, InputFile, Limits], Iterator[Record | Bad]]] = {
    "text": _text,
    "jsonl": _jsonl,
    "parquet": _parquet,
    "html": _html,
    "pydoc": _pydoc,
    "metadata": _metadata,
}
