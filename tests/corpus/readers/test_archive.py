"""WARC and WET: pages and texts with url and date; broken records are told and passed over."""

import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import fsspec
import pytest
import zstandard
from fastwarc.stream_io import BrotliWriter, GzipWriter
from fastwarc.warc import WarcRecord, WarcRecordType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from jaxlm.config.corpus import Limits, Source
from jaxlm.corpus.listing import files
from jaxlm.corpus.readers import Bad, Record, read

SENTENCE = "The article about number {} goes on and on, as articles of this length do. "


def page(number: int, charset: str = "utf-8", extra: str = "") -> bytes:
    body = "".join(SENTENCE.format(number) for _ in range(10))
    return (
        f"<html><head><title>t</title></head><body><nav><a href=1>Home</a></nav>"
        f"<main><h1>Page {number}</h1><p>{body}{extra}</p></main></body></html>"
    ).encode(charset)


def record(
    number: int,
    body: bytes | None = None,
    *,
    kind: str = "response",
    status: str = "200 OK",
    http: str = "Content-Type: text/html; charset=utf-8",
    more: str = "",
) -> bytes:
    """A record as ISO 28500 writes it."""
    block = page(number) if body is None else body
    mime = "text/plain"
    if kind == "response":
        head = f"HTTP/1.1 {status}\r\n{http}\r\n\r\n" if http else f"HTTP/1.1 {status}\r\n\r\n"
        block = head.encode() + block
        mime = "application/http; msgtype=response"
    return (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
        f"WARC-Target-URI: http://example.org/{number}\r\nWARC-Date: 2024-02-20T21:10:55Z\r\n"
        f"{more}Content-Type: {mime}\r\nContent-Length: {len(block)}\r\n\r\n"
    ).encode() + block + b"\r\n\r\n"  # fmt: skip


def packed(name: str, items: list[bytes]) -> bytes:
    """Each record compressed by itself, as crawlers do."""
    if name.endswith(".gz"):
        return b"".join(map(gzip.compress, items))
    if name.endswith(".zst"):
        return b"".join(map(zstandard.ZstdCompressor(write_checksum=True).compress, items))
    return b"".join(items)


def records(path: Path, limits: Limits | None = None, **keys: Any) -> list[Record | Bad]:
    source = Source(name="s", path=str(path), **keys)
    return [r for file in files(source) for r in read(source, file, limits or Limits())]


def told(found: list[Record | Bad]) -> list[str]:
    return [r.rule if isinstance(r, Bad) else r.id.removeprefix("urn:uuid:") for r in found]


NAMES = ["x.warc", "x.warc.gz", "x.warc.zst"]


@pytest.mark.parametrize("name", NAMES)
def test_pages_of_a_crawl(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    other = [record(8, kind=kind) for kind in ("warcinfo", "request", "metadata", "revisit")]
    path.write_bytes(packed(name, [*other, record(1), record(2)]))
    first, second = records(path)
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert first.id == "urn:uuid:1"
    assert first.text.decode().startswith("Page 1\n\nThe article about number 1 goes")
    assert b"Home" not in first.text
    assert json.loads(second.meta) == {
        "url": "http://example.org/2", "date": "2024-02-20T21:10:55Z",
    }  # fmt: skip
    (plain, _) = records(path, extract="plain")
    assert isinstance(plain, Record)
    assert b"Home" in plain.text


def test_texts_of_common_crawl(tmp_path: Path) -> None:
    path = tmp_path / "a.warc.wet.gz"
    language = "WARC-Identified-Content-Language: deu,eng\r\n"
    text = "Zwölf Boxkämpfer\nund Text\n"
    items = [record(1, text.encode(), kind="conversion", more=language)]
    path.write_bytes(packed("a.gz", items))
    (found,) = records(path, id_field="url", meta_fields=("language",))
    assert found == Record(
        "http://example.org/1",
        text.encode(),
        b'{"url": "http://example.org/1", "date": "2024-02-20T21:10:55Z", "language": "deu,eng"}',
    )


def test_files_that_another_program_wrote(tmp_path: Path) -> None:
    """FastWARC's own writer, with digests and chunks."""
    out = io.BytesIO()
    stream = GzipWriter(out)
    for number in range(3):
        item = WarcRecord()
        item.init_headers(record_type=WarcRecordType.response, record_urn=b"uuid:%d" % number)
        item.headers["WARC-Target-URI"] = f"http://example.org/{number}"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
        item.set_bytes_content(head + page(number))
        item.is_http = True
        item.write(stream, checksum_data=True)
    stream.close()
    path = tmp_path / "x.warc.gz"
    path.write_bytes(out.getvalue())
    found = records(path)
    assert told(found) == ["0", "1", "2"]


def test_what_is_no_page_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.warc"
    items = [
        record(1, status="404 Not Found"),
        record(2, b"%PDF-1.4 \x00\xff", http="Content-Type: application/pdf"),
        record(3, b"body { color: red }", http="Content-Type: text/css"),
        record(4, b"plain words", http="Content-Type: text/plain"),
        record(5, http=""),
        record(6, b"", http="Content-Type: text/html"),
        record(7, page(7) + b"x" * 5000),
        record(8, b"<html>\x00\x01", http="Content-Type: text/html"),
    ]
    path.write_bytes(b"".join(items))
    found = records(path, Limits(max_document_bytes=5000))
    assert told(found) == [
        "http_status", "content_type", "content_type", "4", "5", "empty", "max_document_bytes",
        "binary",
    ]  # fmt: skip
    assert all(r.id == f"urn:uuid:{i}" for i, r in enumerate(found, start=1))
    assert [r.value for r in found[:3] if isinstance(r, Bad)] == [
        404,
        "application/pdf",
        "text/css",
    ]


@pytest.mark.parametrize("charset", ["utf-8", "cp1252", "latin-1", "utf-16"])
@pytest.mark.parametrize("declared", ["http", "meta", "nothing"])
def test_encodings_of_pages(tmp_path: Path, charset: str, declared: str) -> None:
    word = "Voilà l'été, où les élèves rêvent déjà"
    name = "windows-1252" if charset == "cp1252" else charset
    body = page(1, charset, word)
    http = "Content-Type: text/html"
    if declared == "http":
        http += f"; charset={name}"
    elif declared == "meta" and charset != "utf-16":
        body = body.replace(b"<head>", f'<head><meta charset="{name}">'.encode())
    path = tmp_path / "x.warc.gz"
    path.write_bytes(packed("x.gz", [record(1, body, http=http)]))
    (found,) = records(path)
    assert isinstance(found, Record)
    assert word in found.text.decode()


def brotli(body: bytes) -> bytes:
    out = io.BytesIO()
    stream = BrotliWriter(out)
    stream.write(body)
    stream.close()
    return out.getvalue()


def chunked(body: bytes) -> bytes:
    parts = [body[at : at + 100] for at in range(0, len(body), 100)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("http", "encode"),
    [
        ("Transfer-Encoding: chunked", chunked),
        ("Content-Encoding: gzip", gzip.compress),
        ("Content-Encoding: br", brotli),
        ("Content-Encoding: gzip\r\nTransfer-Encoding: chunked",
         lambda body: chunked(gzip.compress(body))),
    ],
)  # fmt: skip
def test_encoded_bodies(tmp_path: Path, http: str, encode: Any) -> None:
    http = f"Content-Type: text/html\r\n{http}"
    # the second body was decoded under the old header, as in Common Crawl's before 2018
    items = [record(1, encode(page(1)), http=http), record(2, page(2), http=http), record(3)]
    path = tmp_path / "x.warc"
    path.write_bytes(b"".join(items))
    assert told(records(path)) == ["1", "2", "3"]


def test_a_bomb_in_a_body_and_one_in_the_file(tmp_path: Path) -> None:
    bomb = gzip.compress(b"<html>" + b" " * (100 << 20))
    http = "Content-Type: text/html\r\nContent-Encoding: gzip"
    path = tmp_path / "x.warc.gz"
    path.write_bytes(packed("x.gz", [record(1, bomb, http=http), record(2)]))
    assert told(records(path)) == ["max_document_bytes", "2"]
    cut = gzip.compress(page(1))[:-20]
    path.write_bytes(packed("x.gz", [record(1, cut, http=http), record(2)]))
    assert told(records(path)) == ["broken_record", "2"]
    path.write_bytes(packed("x.gz", [record(1), record(2, b" " * (100 << 20)), record(3)]))
    assert told(records(path, Limits(max_expansion=3))) == ["1", "max_expansion"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["flipped", "missing", "garbage", "cut"])
def test_reading_goes_on_behind_a_broken_record(tmp_path: Path, name: str, damage: str) -> None:
    parts = [packed(name, [record(i)]) for i in range(6)]
    broken = bytearray(parts[2])
    if damage == "flipped":
        if name == "x.warc":
            broken[broken.index(b"Content-Length")] = 0
        else:
            broken[len(broken) // 2] ^= 0x55
    elif damage == "missing":
        del broken[len(broken) // 3 : len(broken) // 2]
    elif damage == "garbage":
        broken = bytearray(random.Random(0).randbytes(5000))
    path = tmp_path / name
    content = b"".join([*parts[:2], bytes(broken), *parts[3:]])
    path.write_bytes(content[:-40] if damage == "cut" else content)
    found = records(path)
    kept = [r.id for r in found if isinstance(r, Record)]
    lost = [r for r in found if isinstance(r, Bad)]
    wanted = [0, 1, 2, 3, 4] if damage == "cut" else [0, 1, 3, 4, 5]
    assert kept == [f"urn:uuid:{i}" for i in wanted]
    assert [r.rule for r in lost] == ["broken_record"]


def test_a_page_that_the_crawler_cut_inside_a_character(tmp_path: Path) -> None:
    path = tmp_path / "x.warc"
    body = page(1, extra="mehr Wörter für ö")[: -len(b"</p></main></body></html>") - 1]
    cut = "WARC-Truncated: length\r\n"
    path.write_bytes(record(1, body, more=cut) + record(2, body))
    assert told(records(path)) == ["1", "invalid_utf8"]


def test_an_archive_that_is_not_local() -> None:
    remote = fsspec.filesystem("memory")
    try:
        broken = b"\x1f\x8b\x08nothing"
        remote.pipe({"/crawl/a.warc.gz": packed("x.gz", [record(1)]) + broken
                     + packed("x.gz", [record(2)])})  # fmt: skip
        source = Source(name="s", path="memory://crawl/*.warc.gz")
        (file,) = files(source)
        assert told(list(read(source, file, Limits()))) == ["1", "broken_record", "2"]
    finally:
        remote.rm("/crawl", recursive=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    name=some.sampled_from(NAMES),
    at=some.integers(0, 3000),
    new=some.binary(max_size=20),
    old=some.integers(0, 50),
)
def test_damage_anywhere_leaves_the_far_records(
    tmp_path: Path, name: str, at: int, new: bytes, old: int
) -> None:
    content = bytearray(packed(name, [record(i) for i in range(8)]))
    at %= len(content) // 2
    content[at : at + old] = new
    path = tmp_path / name
    path.write_bytes(content)
    found = records(path)
    assert "7" in told(found)
    for item in found:
        if isinstance(item, Record):
            item.text.decode()
