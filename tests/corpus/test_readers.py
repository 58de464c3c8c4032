"""Every format gives the same documents; what is broken is told, and what is not is read."""

import gzip
import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from jaxlm.config.corpus import Limits, Source
from jaxlm.corpus.listing import files
from jaxlm.corpus.readers import Bad, Record, read
from jaxlm.errors import UserError

ROWS: list[dict[str, Any]] = [
    {"id": "a", "text": "Hello, \u4e16\u754c.\nSecond line.", "url": "http://x"},
    {"id": "b", "text": "Zw\u00f6lf", "url": None},
]


def records(path: Path, limits: Limits | None = None, **keys: Any) -> list[Record | Bad]:
    source = Source(name="s", path=str(path), **keys)
    return [r for file in files(source) for r in read(source, file, limits or Limits())]


def rules(path: Path, limits: Limits | None = None, **keys: Any) -> list[str]:
    return [r.rule if isinstance(r, Bad) else "ok" for r in records(path, limits, **keys)]


def write(path: Path, content: bytes) -> Path:
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = zstandard.ZstdCompressor(write_checksum=True).compress(content)
    path.write_bytes(content)
    return path


JSONL = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


@pytest.mark.parametrize(
    "name", ["x.jsonl", "x.jsonl.gz", "x.jsonl.zst", "x.json", "x.json.gz", "x.parquet"]
)
def test_formats_of_records(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        write(path, json.dumps(ROWS, indent=1).encode() if ".json." in name + "." else JSONL)
    found = records(path, id_field="id", meta_fields=("url",))
    assert found == [
        Record("a", ROWS[0]["text"].encode(), b'{"url": "http://x"}'),
        Record("b", ROWS[1]["text"].encode(), b""),
    ]
    # without an id field the place in the file is the id
    assert [r.id for r in records(path)] == [f"{name}:1", f"{name}:2"]


def test_files_of_a_file_system_that_is_not_local() -> None:
    remote = fsspec.filesystem("memory")
    try:
        remote.pipe({"/corpus/sub/a.jsonl.gz": gzip.compress(JSONL), "/corpus/b.txt": b"plain"})
        with remote.open("/corpus/c.parquet", "wb") as file:
            pq.write_table(pa.Table.from_pylist(ROWS), file)
        source = Source(name="s", path="memory://corpus/**")
        found = files(source)
        assert [(f.name, f.format) for f in found] == [
            ("b.txt", "text"), ("c.parquet", "parquet"), ("sub/a.jsonl.gz", "jsonl"),
        ]  # fmt: skip
        texts = [r.text for f in found for r in read(source, f, Limits()) if isinstance(r, Record)]
        assert texts == [b"plain", *[row["text"].encode() for row in ROWS] * 2]
    finally:
        remote.rm("/corpus", recursive=True)
    with pytest.raises(UserError, match=r"memory:///corpus/b.txt: no such file"):
        list(read(source, found[0], Limits()))


@pytest.mark.parametrize("name", ["x.txt", "x.py", "x.md.gz", "x.txt.zst"])
def test_a_text_file_is_a_document_or_is_split(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "one\ntwo\n---\n\n---\ndr\u00e9i\n".encode())
    assert records(path) == [Record(name, "one\ntwo\n---\n\n---\ndr\u00e9i\n".encode())]
    assert records(path, split="---") == [
        Record(f"{name}:1", b"one\ntwo"),
        Record(f"{name}:3", "dr\u00e9i".encode()),
    ]


def test_html_gives_the_main_content(tmp_path: Path) -> None:
    body = "<p>" + "The article goes on and on. " * 20 + "</p>"
    page = (
        "<html><head><title>t</title><script>evil()</script></head><body>"
        f"<nav><a href=1>Home</a></nav><main><h1>Title</h1>{body}</main></body></html>"
    )
    path = write(tmp_path / "x.html", page.encode())
    (record,) = records(path)
    assert isinstance(record, Record)
    assert record.text.startswith(b"Title\n\nThe article goes on")
    assert b"evil" not in record.text
    latin = page.replace("<head>", '<head><meta charset="iso-8859-1">').replace("goes", "g\u00f6es")
    (record,) = records(write(tmp_path / "y.html", latin.encode("latin-1")))
    assert isinstance(record, Record)
    assert "g\u00f6es" in record.text.decode()


def test_lists_of_strings_become_lines_and_paragraphs(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", b'[{"a": {"t": [["1", "2"], ["3"]]}}, {"a": {"t": ["4"]}}]')
    assert [r.text for r in records(path, text_field="a.t") if isinstance(r, Record)] == [
        b"1\n2\n\n3",
        b"4",
    ]
    assert rules(path, text_field="a") == ["missing_text"] * 2


def test_broken_lines_are_told_and_the_others_read(tmp_path: Path) -> None:
    lines = [
        b'{"text": "good"}',
        b"{broken",
        b'["a list"]',
        b'{"txt": "no text"}',
        b'{"text": 5}',
        b'{"text": "bad \xff byte"}',
        rb'{"text": "half a pair \ud800"}',
        b'{"text": "  \\n "}',
        b'{"text": "' + b"x" * 60 + b'"}',
        b'{"text": "' + b"x" * 300 + b'"}',
        b"[" * 150,
        b"",
        b'{"text": "last"}',
    ]
    path = write(tmp_path / "x.jsonl", b"\n".join(lines))
    limits = Limits(max_document_bytes=50, max_line_bytes=200)
    found = records(path, limits)
    assert [r.rule if isinstance(r, Bad) else "ok" for r in found] == [
        "ok", "invalid_json", "not_an_object", "missing_text", "missing_text", "invalid_utf8",
        "lone_surrogate", "empty", "max_document_bytes", "max_line_bytes", "invalid_json", "ok",
    ]  # fmt: skip
    assert found[-1] == Record("x.jsonl:13", b"last")
    long = found[9]
    assert isinstance(long, Bad)
    assert (long.size, long.value, long.threshold) == (len(lines[9]) + 1, len(lines[9]) + 1, 200)


def test_a_missing_id_and_a_numeric_one(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", b'{"text": "a", "id": 7}\n{"text": "b", "id": null}\n')
    assert [r.id for r in records(path, id_field="id")] == ["7", "x.jsonl:2"]
    assert rules(path, id_field="id") == ["ok", "missing_id"]


def test_text_files_that_are_not_text(tmp_path: Path) -> None:
    assert rules(write(tmp_path / "w.txt", b"ab\x00c")) == ["binary"]
    assert rules(write(tmp_path / "v.txt", "nur fast \u00fc \u00f6".encode() + b"\xff")) == [
        "invalid_utf8"
    ]
    assert rules(write(tmp_path / "u.txt", bytes(range(128, 256)))) == ["doubtful_encoding"]
    assert rules(write(tmp_path / "y.txt", b"")) == ["empty"]
    assert rules(write(tmp_path / "z.txt", b"a" * 11), Limits(max_document_bytes=10)) == [
        "max_document_bytes"
    ]


def test_invalid_utf8_in_a_parquet_column_is_one_document(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"bad \xff", None], pa.binary())
    column = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"text": column}), tmp_path / "x.parquet")
    assert rules(tmp_path / "x.parquet") == ["ok", "invalid_utf8", "missing_text"]


def test_a_parquet_file_without_the_column_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"content": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="no column text; it has content"):
        records(tmp_path / "x.parquet")


BIG = b"".join(b'{"text": "%d"}\n' % (i * i * 7919) for i in range(20000))


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl.zst", "x.parquet"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_file_is_read_up_to_the_damage(tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        rows = [{"text": str(i * i * 7919)} for i in range(20000)]
        table = pa.Table.from_pylist(rows)
        pq.write_table(table, path, write_page_checksum=True, row_group_size=5000)
    else:
        write(path, BIG)
    raw = bytearray(path.read_bytes())
    if damage == "cut":
        del raw[len(raw) // 2 :]
    elif damage == "empty":
        raw = bytearray(b"\x00" * 100)
    else:
        raw[len(raw) // 2] ^= 0x10
    path.write_bytes(raw)
    *read_before, last = records(path)
    if name.endswith("parquet") and damage == "flipped":
        # the other row groups are whole
        found = records(path)
        assert [r.rule for r in found if isinstance(r, Bad)] == ["broken_row_group"]
        assert len(found) == 15001
        kept = [r for r in found if isinstance(r, Record)]
    else:
        assert isinstance(last, Bad)
        assert (last.id, last.rule) == (name, "broken_file")
        assert last.value
        kept = [r for r in read_before if isinstance(r, Record)]
    if damage == "flipped" and not name.endswith("parquet"):
        return  # the stream's checksum comes at its end: what is wrong may look like records
    # what was read is what was written, under the numbers that the whole file gives
    assert all(int(r.text) == (int(r.id.split(":")[1]) - 1) ** 2 * 7919 for r in kept)
    if damage == "cut" and not name.endswith("parquet"):
        assert len(kept) > 5000


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl.zst"])
def test_several_streams_in_a_file_are_read_on(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, b'{"text": "a"}\n')
    path.write_bytes(path.read_bytes() * 3)
    assert rules(path) == ["ok"] * 3


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl.zst"])
def test_a_decompression_bomb_is_read_no_further(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, b'{"text": "a"}\n' + b" " * (80 << 20))
    found = records(path, Limits(max_expansion=3))
    assert isinstance(found[-1], Bad)
    assert (found[-1].rule, found[-1].threshold) == ("max_expansion", 3)


def test_a_compressed_text_is_read_no_further_than_a_document_may_be(tmp_path: Path) -> None:
    path = write(tmp_path / "x.txt.gz", b" " * (80 << 20))
    assert rules(path) == ["max_document_bytes"]


def test_json_lines_in_a_json_file_are_a_mistake_of_the_config(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", b'{"text": "a"}\n{"text": "b"}')
    with pytest.raises(UserError, match=r"not an array of records.*format to jsonl"):
        records(path)
    assert rules(path, format="jsonl") == ["ok", "ok"]


@pytest.mark.parametrize(
    ("content", "before", "message"),
    [
        (b'[{"text": "a"}', 1, "does not end"),
        (b'[{"text": "a"}, {"text": ]', 1, "record 2"),
        (b'[{"text": "a"}] x', 1, "something follows"),
        (b'[{"text": "\xff"}]', 0, "not UTF-8"),
        (b"[" * 200_000, 0, "record 1"),
        (b"[" + b"9" * 5000 + b"]", 0, "record 1"),
        (b"nothing", 0, "not an array"),
        (b"", 0, "does not end"),
    ],
)
def test_broken_json_arrays_are_read_up_to_the_break(
    tmp_path: Path, content: bytes, before: int, message: str
) -> None:
    *found, last = records(write(tmp_path / "x.json", content))
    assert len(found) == before
    assert isinstance(last, Bad)
    assert (last.id, last.rule) == ("x.json", "broken_file")
    assert message in str(last.value)


def test_a_json_array_of_many_pieces(tmp_path: Path) -> None:
    rows = [{"text": "\u4e16" * (i % 977) + str(i)} for i in range(3000)]
    path = write(tmp_path / "x.json", json.dumps(rows, ensure_ascii=False).encode())
    found = [r.text.decode() for r in records(path) if isinstance(r, Record)]
    assert found == [row["text"] for row in rows]


def test_a_parquet_row_with_another_broken_column(tmp_path: Path) -> None:
    raw = pa.array([b"one", b"bad \xff", b"three"], pa.binary())
    column = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    table = pa.table({"text": ["a", "b", "c"], "url": column})
    pq.write_table(table, tmp_path / "x.parquet")
    assert rules(tmp_path / "x.parquet", meta_fields=("url",)) == ["ok", "invalid_utf8", "ok"]


def test_a_byte_order_mark_before_json_lines(tmp_path: Path) -> None:
    assert rules(write(tmp_path / "x.jsonl", b"\xef\xbb\xbf" + JSONL)) == ["ok", "ok"]


def test_files_of_unknown_formats_among_others_are_told(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"a")
    write(tmp_path / "b.xyz", b"b")
    assert rules(tmp_path / "*") == ["ok", "unknown_format"]


FORMATS = ["x.txt", "x.jsonl", "x.json", "x.html", "x.parquet", "x.jsonl.gz", "x.jsonl.zst", "x.md",
           "x.tex", "x.ipynb", "x.warc", "x.warc.gz", "x.wet.zst"]  # fmt: skip


@pytest.mark.parametrize("extract", ["main", "plain"])
@pytest.mark.parametrize("name", FORMATS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(content=some.binary(max_size=200) | some.text(max_size=100).map(str.encode))
@example(content=b"PAR1" + b"\x00" * 8 + b"PAR1")
@example(content=b"\x1f\x8b\x08\x00")
@example(content=b"\x28\xb5\x2f\xfd\x00\x00")
@example(content=b'[1, "a", {"text": 1}]')
@example(content=b'{"cells": [{"cell_type": "code", "source": [1]}], "metadata": []}')
@example(content=b'{"worksheets": [{"cells": 7}]}')
@example(content=b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 9\r\n\r\nHTTP/1.1")
@example(content=b"\\newcommand{\\a}{\\b\\b}\\newcommand{\\b}{\\a\\a}\\a {{\\begin{x}$")
@example(content=b"---\n```\n<!-- ` [a](b" + b"<math><mfrac><annotation>")
def test_arbitrary_bytes_are_read_or_told(
    tmp_path: Path, name: str, extract: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    try:
        found = records(path, extract=extract)
    except UserError:
        # the one mistake of a config that arbitrary bytes can look like
        assert name == "x.json"
        assert content.lstrip().startswith(b"{")
        return
    for record in found:
        record.id.encode()
        if isinstance(record, Record):
            record.text.decode()
        else:
            record.excerpt.encode()
            str(record.value).encode()
