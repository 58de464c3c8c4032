"""What a file holds twice."""

import gzip
import json
from pathlib import Path

import pytest

from jaxlm.corpus.dedup_file import dedup_file
from jaxlm.errors import UsageError, UserError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    words = [f"word{i}" for i in range(60)]
    records = [
        {"id": "a", "text": " ".join(words)},
        {"id": "b", "text": "It rained all day. Nobody came. The shop was shut."},
        {"id": "c", "text": " ".join(words).upper()},
        {"id": "d", "text": " ".join([*words, "more"])},
        {"id": "e", "text": "Été. Two. It rained all day. Nobody came. The shop was shut."},
        {"text": "no id"},
        {"id": "g", "text": " "},
    ]
    path = tmp_path / "x.jsonl.gz"
    lines = [json.dumps(record) for record in records]
    path.write_bytes(gzip.compress("\n".join([*lines, "{broken"]).encode()))
    return path


def test_every_method(file: Path) -> None:
    found = list(dedup_file(file, "exact"))
    assert [record["error"]["rule"] for record in found[:3]] == [
        "missing_id",
        "empty",
        "invalid_json",
    ]
    assert found[3:] == [{"id": "c", "kept": "a", "similarity": 1.0}]
    near = list(dedup_file(file, "minhash"))[3:]
    assert near == [
        {"id": "c", "kept": "a", "similarity": 1.0},
        {"id": "d", "kept": "a", "similarity": 56 / 57},
    ]
    assert len(list(dedup_file(file, "minhash", 0.99))) == 4
    spans = list(dedup_file(file, "sentence"))[3:]
    assert spans == [{"id": "e", "start": 12, "end": 62, "bytes": 50}]
    assert len(list(dedup_file(file, "sentence", 4))) == 3
    pieces = list(dedup_file(file, "substring", 20))[3:]
    assert [piece["id"] for piece in pieces] == ["d", "e"]
    # as many bytes as are the same: all of b, and the space before "more" has no pair in a
    assert [piece["bytes"] for piece in pieces] == [
        len(" ".join(f"word{i}" for i in range(60))),
        50,
    ]


def test_several_batches(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = list(dedup_file(file, "minhash"))
    monkeypatch.setattr("jaxlm.corpus.dedup_file.BATCH_BYTES", 1)
    assert list(dedup_file(file, "minhash")) == one


def test_wrong_usage(file: Path) -> None:
    for method, threshold, message in (
        ("near", None, "'near' is not one of exact"),
        ("exact", 0.5, "exact has none"),
        ("minhash", 1.5, "less than or equal to 1"),
        ("sentence", 2.5, "integer"),
        ("sentence", 0.0, "greater than 0"),
    ):
        with pytest.raises(UsageError, match=message):
            list(dedup_file(file, method, threshold))
    with pytest.raises(UserError, match="no such file"):
        list(dedup_file(file.with_name("other.jsonl"), "exact"))
