"""Files of records with fields: JSON lines, JSON arrays, Parquet."""

import codecs
import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

from jaxlm.config.corpus import Limits, Source
from jaxlm.corpus.files import expands_too_far, open_file, raw_file
from jaxlm.corpus.listing import InputFile
from jaxlm.corpus.readers.records import (
    EXCERPT_BYTES,
    Bad,
    BrokenFileError,
    Record,
    from_fields,
    inner,
    not_utf8,
)
from jaxlm.errors import UserError

_JSON_OPEN = re.compile(r"[ \t\r\n]*\[?")
_JSON_BETWEEN = re.compile(r"[ \t\r\n,]*")


def jsonl(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """A JSON object a line; blank lines are allowed."""
    with open_file(file, limits) as stream:
        number = 0
        while line := stream.readline(limits.max_line_bytes + 1):
            number += 1
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            id, size = f"{file.name}:{number}", len(line)
            if size > limits.max_line_bytes:
                head = line[:EXCERPT_BYTES].decode(errors="backslashreplace")
                while line and not line.endswith(b"\n"):
                    line = stream.readline(1 << 20)
                    size += len(line)
                yield Bad(id, "max_line_bytes", size, size, limits.max_line_bytes, head)
            elif line and not line.isspace():
                yield _json_record(source, id, line)


def _json_record(source: Source, id: str, line: bytes) -> Record | Bad:
    try:
        text = line.decode("utf-8" if source.encoding == "auto" else source.encoding)
    except UnicodeDecodeError as error:
        return not_utf8(id, line, error)
    except UnicodeError as error:
        return Bad(id, "invalid_utf8", len(line), str(error)[:200])
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Bad(id, "invalid_json", len(line), str(error)[:200], None, text[:300])
    return _json_value(source, id, value, len(line), text[:300])


def _json_value(source: Source, id: str, value: Any, size: int, excerpt: str) -> Record | Bad:
    if not isinstance(value, dict):
        return Bad(id, "not_an_object", size, type(value).__name__, None, excerpt)
    text = inner(value, source.text_field)
    return from_fields(source, id, partial(inner, value), text, size, excerpt)


def json_array(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """One array of JSON objects, read a piece at a time. What is not JSON breaks the file, since
    nothing says where the next record begins."""
    decoder, decode = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8-sig")()
    text, at, number = "", 0, 0
    between = _JSON_OPEN
    with open_file(file, limits) as stream:
        while True:
            chunk = stream.read(max(1 << 20, len(text) - at))
            try:
                text, at = text[at:] + decode.decode(chunk, final=not chunk), 0
            except UnicodeDecodeError as error:
                raise BrokenFileError(f"it is not UTF-8 ({error.reason})") from None
            while True:
                found = between.match(text, at)
                assert found is not None, "matches the empty string too"
                at = found.end()
                if found.group().strip() == "[":
                    between = _JSON_BETWEEN
                if text.startswith("]", at) and between is _JSON_BETWEEN:
                    if text[at + 1 :].strip() or stream.read(1 << 20).strip():
                        raise BrokenFileError("something follows the array")
                    return
                if at == len(text):
                    break
                if between is _JSON_OPEN and text.startswith("{", at):
                    raise UserError(
                        f"source {source.name!r}: {file.path} is not an array of records; "
                        "if it holds one a line, set the source's format to jsonl"
                    )
                if between is _JSON_OPEN:
                    raise BrokenFileError("it is not an array of records")
                try:
                    value, end = decoder.raw_decode(text, at)
                except (ValueError, RecursionError) as error:
                    if chunk and len(text) - at <= limits.max_line_bytes:
                        break  # the rest of the record is still to be read
                    raise BrokenFileError(f"record {number + 1}: {error}") from None
                number += 1
                excerpt = text[at : at + 300]
                yield _json_value(source, f"{file.name}:{number}", value, end - at, excerpt)
                at = end
            if not chunk:
                raise BrokenFileError("the array does not end")


def parquet(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """A row is a document. A row group that cannot be read is told, and the next one is read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [source.text_field, *source.meta_fields]
    if source.id_field is not None:
        fields.append(source.id_field)
    with raw_file(file) as raw:
        try:
            table = pq.ParquetFile(raw, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise BrokenFileError(_first_line(error)) from None
        names = set(table.schema_arrow.names)
        missing = sorted({field for field in fields if field.split(".")[0] not in names})
        if missing:
            raise UserError(
                f"source {source.name!r}: {file.path} has no column {', '.join(missing)}; "
                f"it has {', '.join(sorted(names))}"
            )
        groups = [table.metadata.row_group(i) for i in range(table.num_row_groups)]
        expands_too_far(file, raw, sum(group.total_byte_size for group in groups), limits)
        columns = sorted({field.split(".")[0] for field in fields})
        first = 0
        for index, group in enumerate(groups):
            number = first
            first += max(group.num_rows, 0)
            try:
                for batch in table.iter_batches(256, row_groups=[index], columns=columns):
                    for row in _rows(batch, source.text_field, pa):
                        number += 1
                        id = f"{file.name}:{number}"
                        if isinstance(row, UnicodeDecodeError):
                            yield not_utf8(id, row.object, row)
                            continue
                        text = inner(row, source.text_field)
                        size = len(text) if isinstance(text, bytes) else 0
                        yield from_fields(source, id, partial(inner, row), text, size, "")
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                lost = group.total_byte_size
                name = f"{file.name}:{number + 1}-{first}"
                yield Bad(name, "broken_row_group", lost, _first_line(error))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _rows(batch: Any, text_field: str, pa: Any) -> list[dict[str, Any] | UnicodeDecodeError]:
    """The rows of an Arrow batch as dicts, the text as bytes (a string column is not checked); in
    place of a row of which another column is not UTF-8, the error."""
    if text_field in batch.schema.names:
        index = batch.schema.names.index(text_field)
        column = batch.column(index)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            large = pa.types.is_large_string(column.type)
            column = column.cast(pa.large_binary() if large else pa.binary())
        batch = batch.set_column(index, text_field, column)
    try:
        return cast(list[dict[str, Any] | UnicodeDecodeError], batch.to_pylist())
    except UnicodeDecodeError as error:
        if len(batch) == 1:
            return [error]
        return [row for i in range(len(batch)) for row in _rows(batch.slice(i, 1), text_field, pa)]
