"""WARC and WET files (ISO 28500): pages that a crawler stored, and texts made of them."""

import codecs
import io
import re
import zlib
from collections.abc import Iterator
from typing import Any

from jaxlm.config.corpus import Limits, Source
from jaxlm.corpus.files import expands_too_far, raw_file
from jaxlm.corpus.listing import InputFile
from jaxlm.corpus.readers.encoding import Undecodable, declared_charset, decode
from jaxlm.corpus.readers.pages import html_record, undecodable
from jaxlm.corpus.readers.records import Bad, BrokenFileError, Record, from_fields, too_long

MAX_BREAKS = 1000
"""Broken places of one file after which the rest of it is left."""
MAX_HEADER = 1 << 16

# With what a record begins, as the file is stored.
_BEGINNINGS = {".gz": b"\x1f\x8b\x08", ".zst": b"\x28\xb5\x2f\xfd"}
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_HTML = re.compile(r"\s*(?:<!--.*?-->\s*)?<(?:!doctype html|html|head|body)\b", re.I | re.S)
_CHUNK = re.compile(rb"[0-9A-Fa-f]{1,8}[ \t]*(?:;[^\r\n]*)?\r\n")


def warc(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """A response of status 200 is a page or a text, a conversion (WET) a text. Other kinds of
    record are no documents. Behind a broken record the next one is looked for."""
    suffix = file.path[file.path.rfind(".") :].lower()
    beginning = _BEGINNINGS.get(suffix, b"WARC/1.")
    start = number = total = 0
    last = ""  # what is wrong, until a record is read again
    with raw_file(file) as raw:
        for _ in range(MAX_BREAKS):
            at = start
            found: Record | Bad | None = None
            try:
                for record in _records(raw, start):
                    if found is not None:
                        yield found
                    at, found, last = start + record.stream_pos, None, ""
                    number += 1
                    total += max(record.content_length, 0)
                    expands_too_far(file, raw, total, limits)
                    found = _document(source, f"{file.name}:{number}", record, limits)
                if found is not None:
                    yield found
                return
            except (OSError, EOFError, zlib.error, ValueError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                reason = str(error)[:300]
            # a checksum comes behind the record that it speaks of
            if isinstance(found, Record) and not _sound(raw, at, suffix):
                yield Bad(found.id, "broken_record", len(found.text), reason)
            else:
                if found is not None:
                    yield found
                if not last:
                    yield Bad(f"{file.name}@{at}", "broken_record", 0, reason)
            last = reason
            behind = _next(raw, at + 1, beginning)
            if behind is None:
                return
            start = behind
    raise BrokenFileError(f"more than {MAX_BREAKS} broken records")


def _sound(raw: Any, at: int, suffix: str) -> bool:
    """Whether the compressed record at `at` is whole and agrees with its checksum."""
    import zstandard

    if suffix not in _BEGINNINGS:
        return True
    stream: Any = zlib.decompressobj(31)
    if suffix == ".zst":
        stream = zstandard.ZstdDecompressor().decompressobj()
    raw.seek(at)
    try:
        while not stream.eof and (chunk := raw.read(1 << 14)):
            stream.decompress(chunk)
    except (zlib.error, zstandard.ZstdError):
        return False
    return bool(stream.eof)


def _records(raw: Any, start: int) -> Iterator[Any]:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    raw.seek(start)
    return iter(
        ArchiveIterator(
            raw,
            record_types=WarcRecordType.response
            | WarcRecordType.conversion
            | WarcRecordType.resource,
            max_header_len=MAX_HEADER,
            fsspec_args=False,
        )
    )


def _next(raw: Any, start: int, beginning: bytes) -> int | None:
    """Where the next record may begin, at `start` or behind it."""
    raw.seek(start)
    before = b""
    while chunk := raw.read(1 << 20):
        found = (before + chunk).find(beginning)
        if found >= 0:
            return int(start - len(before) + found)
        start += len(chunk)
        before = (before + chunk)[-len(beginning) + 1 :]
    return None


def _document(source: Source, id: str, record: Any, limits: Limits) -> Record | Bad | None:
    """The document of one record; raises EOFError or OSError where it is broken."""
    headers = {name.lower(): value for name, value in record.headers}
    if not headers.get("content-length", "").isdecimal():
        raise EOFError("it has no Content-Length")
    record_id = headers.get("warc-record-id", "").strip("<>")
    fields = {
        "url": headers.get("warc-target-uri", "").strip("<>") or None,
        "date": headers.get("warc-date"),
        "record_id": record_id or None,
        "language": headers.get("warc-identified-content-language"),
    }
    length = record.content_length
    status = getattr(record.http_headers, "status_code", None) if record.is_http else None
    mime = (record.http_content_type if record.is_http else headers.get("content-type")) or ""
    mime = mime.split(";")[0].strip().lower()
    fields["content_type"] = mime or None
    limit = limits.max_document_bytes
    raw = record.reader.read(limit + 1)
    if len(raw) <= limit and len(raw) < length:
        raise EOFError(f"it ends after {len(raw)} of {length} bytes")
    if b"\r\n\r\nWARC/1." in raw:
        raise EOFError("another record begins inside it")
    id = record_id or id
    if status is not None and status != 200:
        return Bad(id, "http_status", length, status)
    if len(raw) > limit:
        return too_long(id, length, limit)
    if record.is_http:
        body = _decoded(raw, record.http_headers, limit)
        if isinstance(body, str):
            return Bad(id, "broken_record", length, body)
        raw = body
        if len(raw) > limit:
            return too_long(id, len(raw), limit)
    if not raw.strip():
        return Bad(id, "empty", length)
    text = decode(raw, source.encoding, _charset(record, raw, mime))
    if isinstance(text, Undecodable) and headers.get("warc-truncated"):
        text = _cut_character(raw) or text
    known = {"url": fields["url"], "date": fields["date"]}
    if isinstance(text, Undecodable):
        if mime and not mime.startswith("text/") and mime not in _HTML_TYPES:
            return Bad(id, "content_type", length, mime)
        return undecodable(id, raw, text)
    page = mime in _HTML_TYPES or (mime in ("", "application/octet-stream") and _HTML.match(text))
    if not page and mime not in ("", "text/plain", "text/markdown"):
        return Bad(id, "content_type", length, mime, None, text[:300])
    packed = from_fields(source, id, fields.get, "", length, text[:300], known)
    if isinstance(packed, Bad):
        return packed
    if page:
        return html_record(source, packed.id, text, packed.meta)
    return Record(packed.id, text.encode(), packed.meta)


def _charset(record: Any, raw: bytes, mime: str) -> str | None:
    """The encoding that the server or, failing that, the page declares."""
    declared: str | None = record.http_charset if record.is_http else None
    if declared is None and mime != "text/plain":
        declared = declared_charset(raw)
    return declared


def _decoded(raw: bytes, headers: Any, limit: int) -> bytes | str:
    """The body of an HTTP response without its transfer and content encodings, or what is wrong.

    Crawls that stored decoded bodies under the old headers (Common Crawl before 2018) are why
    the bytes have to look encoded too.
    """
    from fastwarc.stream_io import BrotliReader, ChunkedReader

    names = {name.lower(): value.strip().lower() for name, value in headers}
    try:
        if names.get("transfer-encoding") == "chunked" and _CHUNK.match(raw):
            raw = ChunkedReader(io.BytesIO(raw)).read(limit + 1)
        encoding = names.get("content-encoding", "")
        if encoding in ("gzip", "x-gzip") and raw.startswith(b"\x1f\x8b"):
            raw = _inflated(raw, 31, limit)
        elif encoding == "deflate" and raw[:1] == b"\x78":
            raw = _inflated(raw, 15, limit)
        elif encoding == "br" and not raw.lstrip().startswith(b"<"):
            raw = BrotliReader(io.BytesIO(raw)).read(limit + 1)
    except (OSError, zlib.error, EOFError, ValueError) as error:
        return f"HTTP body: {error}"[:300]
    return raw


def _inflated(raw: bytes, wbits: int, limit: int) -> bytes:
    stream = zlib.decompressobj(wbits)
    out = stream.decompress(raw, limit + 1)
    if not stream.eof and len(out) <= limit:
        raise EOFError("the compressed body ends early")
    return out


def _cut_character(raw: bytes) -> str | None:
    """A text in UTF-8 that the crawler cut inside its last character."""
    text, used = codecs.utf_8_decode(raw[:-3], "ignore", False)
    return text if "\0" not in text and text.encode() == raw[:used] else None
