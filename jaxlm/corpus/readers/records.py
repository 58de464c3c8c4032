"""What readers give: documents, and the reasons why some could not be read."""

import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jaxlm.config.corpus import Source

EXCERPT_BYTES = 1200
"""Enough for the ledger's 300 characters of any script."""


@dataclass(frozen=True)
class Record:
    """One document; text is valid UTF-8, meta a JSON object or empty."""

    id: str
    text: bytes
    meta: bytes = b""


@dataclass(frozen=True)
class Bad:
    """One document, or the rest of a file, that could not be read, and why."""

    id: str
    rule: str
    size: int
    value: float | str | None = None
    threshold: float | None = None
    excerpt: str = ""


class BrokenFileError(Exception):
    """What a file holds cannot be read further; the message says why."""


def too_long(id: str, size: int, limit: int, head: bytes = b"") -> Bad:
    """A document of more than prepare.limits.max_document_bytes."""
    excerpt = head[:EXCERPT_BYTES].decode(errors="ignore")
    return Bad(id, "max_document_bytes", size, size, limit, excerpt)


def not_utf8(id: str, raw: bytes, error: UnicodeDecodeError) -> Bad:
    """A text that should be UTF-8; the value is the place of the first wrong byte."""
    head = raw[max(0, error.start - 60) : error.start + 60].decode(errors="backslashreplace")
    return Bad(id, "invalid_utf8", len(raw), error.start, None, head)


def inner(value: Any, field: str) -> Any:
    """value[field], or the field of an inner object where the name has dots; None where absent."""
    if isinstance(value, dict) and field in value:
        return value[field]
    for part in field.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def from_fields(
    source: Source,
    id: str,
    get: Callable[[str], Any],
    text: Any,
    size: int,
    excerpt: str,
    known: Mapping[str, Any] | None = None,
) -> Record | Bad:
    """Check the fields of one record and pack them; `known` is metadata besides meta_fields."""
    if source.id_field is not None:
        given = get(source.id_field)
        if not isinstance(given, str | int) or given == "":
            return Bad(id, "missing_id", size, source.id_field, None, excerpt)
        id = str(given)
    if isinstance(text, bytes):
        try:
            text.decode()
        except UnicodeDecodeError as error:
            return not_utf8(id, text, error)
    else:
        text = _joined(text)
    if text is None:
        return Bad(id, "missing_text", size, source.text_field, None, excerpt)
    try:
        id.encode()
        raw = text if isinstance(text, bytes) else text.encode()
        packed = pack({**(known or {}), **{name: get(name) for name in source.meta_fields}})
    except UnicodeEncodeError as error:
        shown = excerpt.encode(errors="backslashreplace").decode()
        return Bad(id.encode(errors="backslashreplace").decode(), "lone_surrogate", size,
                   error.start, None, shown)  # fmt: skip
    return Record(id, raw, packed)


def pack(meta: Mapping[str, Any]) -> bytes:
    """Metadata as a record holds it, without what is None."""
    found = {name: value for name, value in meta.items() if value is not None}
    return json.dumps(found, ensure_ascii=False, default=str).encode() if found else b""


def _joined(value: Any) -> str | None:
    """A string as it is, a list of strings as lines, a list of lists as paragraphs; else None."""
    if isinstance(value, str) or not isinstance(value, list):
        return value if isinstance(value, str) else None
    parts = [_joined(part) for part in value]
    whole = [part for part in parts if part is not None]
    if not parts or len(whole) < len(parts):
        return None
    return ("\n" if isinstance(value[0], str) else "\n\n").join(whole)


def split(source: Source, records: Iterator[Record | Bad]) -> Generator[Record | Bad]:
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
