"""Input file -> records: a document's id, text and metadata, or the reason why it has none.

A broken record becomes a `Bad`, and reading goes on. A broken file raises UserError.
"""

import ast
import codecs
import email
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from jaxlm.config.corpus import Limits, Source
from jaxlm.corpus.files import FREE_EXPANSION, broken, open_file, raw_file, whole
from jaxlm.corpus.listing import InputFile
from jaxlm.errors import UserError

_JSON_OPEN = re.compile(r"[ \t\r\n]*\[?")
_JSON_BETWEEN = re.compile(r"[ \t\r\n,]*")


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
        for record in _split(source, reader(source, file, limits)):
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
        raise UserError(broken(source, file, str(error))) from None
    except OSError as error:
        raise UserError(broken(source, file, error.strerror or str(error))) from None
    except Exception as error:
        # a remote file system's own exceptions; ours would be a defect and must show
        if "://" not in file.path:
            raise
        raise UserError(broken(source, file, f"{type(error).__name__}: {error}")) from None


def _split(source: Source, records: Iterator[Record | Bad]) -> Iterator[Record | Bad]:
    """Cut texts at source.split; the parts are numbered from 1, and empty ones are no documents."""
    if source.split is None:
        yield from records
        return
    separator = re.compile(source.split)
    for record in records:
        if isinstance(record, Bad):
            yield record
            continue
        for number, part in enumerate(separator.split(record.text.decode()), start=1):
            if part and part.strip():
                yield Record(f"{record.id}:{number}", part.strip("\n").encode(), record.meta)


def _text(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """A file is a text."""
    limit = limits.max_document_bytes if source.split is None else limits.max_line_bytes
    with open_file(source, file, limits) as stream:
        raw, size = whole(stream, limit)
    if raw is None:
        yield Bad(file.name, "max_document_bytes", size, size, limit)
        return
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        yield _not_utf8(file.name, raw, error)
        return
    yield Record(file.name, raw)


def _not_utf8(id: str, raw: bytes, error: UnicodeDecodeError) -> Bad:
    head = raw[max(0, error.start - 60) : error.start + 60].decode(errors="backslashreplace")
    return Bad(id, "invalid_utf8", len(raw), error.start, None, head)


def _html(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """The main content of a page as text: no navigation, no scripts (resiliparse)."""
    from resiliparse.extract.html2text import extract_plain_text

    with open_file(source, file, limits) as stream:
        raw, size = whole(stream, limits.max_document_bytes)
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
    with open_file(source, file, limits) as stream:
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


def _json(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """One array of JSON objects, read a piece at a time. What is not JSON breaks the file, since
    nothing says where the next record begins."""
    decoder, decode = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8-sig")()
    text, at, number = "", 0, 0
    between = _JSON_OPEN
    with open_file(source, file, limits) as stream:
        while True:
            chunk = stream.read(max(1 << 20, len(text) - at))
            try:
                text, at = text[at:] + decode.decode(chunk, final=not chunk), 0
            except UnicodeDecodeError as error:
                raise UserError(broken(source, file, f"it is not UTF-8 ({error.reason})")) from None
            while True:
                found = between.match(text, at)
                assert found is not None, "matches the empty string too"
                at = found.end()
                if found.group().strip() == "[":
                    between = _JSON_BETWEEN
                if text.startswith("]", at) and between is _JSON_BETWEEN:
                    if text[at + 1 :].strip() or stream.read(1 << 20).strip():
                        raise UserError(broken(source, file, "something follows the array"))
                    return
                if at == len(text):
                    break
                if between is _JSON_OPEN:
                    reason = "it is not an array of records (one a line: set format to jsonl)"
                    raise UserError(broken(source, file, reason))
                try:
                    value, end = decoder.raw_decode(text, at)
                except (json.JSONDecodeError, RecursionError) as error:
                    if chunk and len(text) - at <= limits.max_line_bytes:
                        break  # the rest of the record is still to be read
                    reason = f"record {number + 1}: {error}"
                    raise UserError(broken(source, file, reason)) from None
                number += 1
                id, excerpt = f"{file.name}:{number}", text[at : at + 300]
                if isinstance(value, dict):
                    yield _record(source, id, partial(_inner, value), end - at, excerpt)
                else:
                    kind = type(value).__name__
                    yield Bad(id, "not_an_object", end - at, kind, None, excerpt)
                at = end
            if not chunk:
                raise EOFError("the array does not end")


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
    text = _joined(text)
    if text is None:
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


def _joined(value: Any) -> str | None:
    """A string as it is, a list of strings as lines, a list of lists as paragraphs; else None."""
    if isinstance(value, str) or not isinstance(value, list):
        return value if isinstance(value, str) else None
    parts = [_joined(part) for part in value]
    whole = [part for part in parts if part is not None]
    if not parts or len(whole) < len(parts):
        return None
    return ("\n" if isinstance(value[0], str) else "\n\n").join(whole)


def _parquet(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """A row is a document. Columns are read as bytes, so that one invalid text is one error."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [source.text_field, *source.meta_fields]
    if source.id_field is not None:
        fields.append(source.id_field)
    try:
        with raw_file(file) as raw:
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
        raise UserError(broken(source, file, str(error).splitlines()[0])) from None


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
    with open_file(source, file, limits) as stream:
        tree = ast.parse(stream.read(limits.max_line_bytes))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for name, text in sorted(ast.literal_eval(node.value).items()):
                yield Record(f"{file.name}:{name}", str(text).encode())
            return
    raise UserError(broken(source, file, "it holds no dict of topics"))


def _metadata(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """The long description in an installed distribution's METADATA file."""
    with open_file(source, file, limits) as stream:
        raw, size = whole(stream, limits.max_document_bytes)
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
    "json": _json,
    "parquet": _parquet,
    "html": _html,
    "pydoc": _pydoc,
    "metadata": _metadata,
}
