"""All comparing stages of a preparation, with workers, and of a second corpus after it."""

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
import zstandard

from jaxlm.config.load import validate
from jaxlm.corpus import prepare
from jaxlm.corpus.stages import DUPLICATES
from jaxlm.errors import UserError
from jaxlm.workdir import Workdir, no_progress
from tests.corpus.stages.resolving import documents, resolved

STAGES = ["quality.length", "dedup.url", "dedup.exact", "dedup.minhash", "dedup.lines",
          "dedup.sentences"]  # fmt: skip
COPIED = ["It rained all day.", "Nobody came at all.", "The shop was shut."]


def text(seed: int) -> list[str]:
    draw = random.Random(seed)
    return [
        " ".join(f"w{draw.randrange(9999)}" for _ in range(12)).capitalize() + "."
        for _ in range(15)
    ]


def records() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"id": f"d{i}", "url": f"https://a.org/{i}", "text": "\n".join(["Home | Log in", *text(i)])}
        for i in range(14)
    ]
    texts = {
        "address": text(100),
        "exact": [line.upper() + " " for line in text(3)],
        "near": [*text(4)[:-1], "Another end."],
        "first": [*text(101), *COPIED],
        "second": [*text(102), *COPIED, *text(103)],
    }
    urls = {"address": "http://A.org/5/?utm_source=b"}
    found += [{"id": id, "url": urls.get(id, f"http://b.org/{id}"), "text": "\n".join(lines)}
              for id, lines in texts.items()]  # fmt: skip
    found[-4]["text"] = "Home | Log in\n" + found[-4]["text"]
    return found


def made(folder: Path, rows: list[dict[str, Any]], workers: int, **dedup: Any) -> Path:
    folder.mkdir()
    (folder / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    source = {"name": "web", "path": f"{folder}/a.jsonl", "id_field": "id", "meta_fields": ["url"]}
    config = validate({
        "workdir": str(folder / "run"), "train": {"steps": 1}, "sources": [source],
        "prepare": {"workers": workers, "batch_bytes": 4096, "stages": STAGES, "dedup": dedup},
    })  # fmt: skip
    workdir = Workdir(folder / "run")
    prepare(config, workdir, no_progress)
    return workdir.corpus


def rows(path: Path) -> list[dict[str, Any]]:
    with open(path, "rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        return [json.loads(line) for line in io.TextIOWrapper(stream, "utf-8")]


def test_each_stage_finds_its_own_and_a_later_corpus_is_compared_too(tmp_path: Path) -> None:
    index = str(tmp_path / "index")
    one = made(tmp_path / "one", records(), 1, index=index, name="one")
    ledger = rows(one / "ledger.jsonl.zst")
    drops = {line["id"]: (line["stage"], line["partner"]) for line in ledger
             if line["action"] == "drop"}  # fmt: skip
    assert drops == {
        "address": ("dedup.url", "d5"),
        "exact": ("dedup.exact", "d3"),
        "near": ("dedup.minhash", "d4"),
    }
    cuts = [line for line in ledger if line["action"] == "change"]
    menu = [line for line in cuts if line["stage"] == "dedup.lines"]
    assert [line["id"] for line in menu] == [f"d{i}" for i in range(14)]
    assert {line["value"] for line in menu} == {14}
    assert [line["partner"] for line in menu] == ["d1", *["d0"] * 13]
    spans = [line for line in cuts if line["stage"] == "dedup.sentences"]
    assert [(line["id"], line["partner"], line["value"]) for line in spans] == [
        ("second", "first", 3)
    ]
    texts = {row["id"]: row["text"] for row in rows(one / "documents" / "web-00000.jsonl.zst")}
    assert texts["d0"] == "\n".join(text(0))
    assert texts["second"].split("\n") == [*text(102), *text(103)]

    many = made(tmp_path / "many", records(), 3)
    for name in ("ledger.jsonl.zst", "documents/web-00000.jsonl.zst"):
        assert (one / name).read_bytes() == (many / name).read_bytes()

    new: list[dict[str, Any]] = [
        {"id": "n0", "url": "https://c.org", "text": "\n".join(text(200))},
        {"id": "n1", "url": "https://a.org/7#top", "text": "\n".join(text(201))},
        {"id": "n2", "url": "https://c.org/2", "text": "\n".join([*text(8)[:-1], "New end."])},
        {"id": "n3", "url": "https://c.org/3", "text": "\n".join([*text(202), *COPIED])},
    ]
    later = made(tmp_path / "later", new, 1, against=[index])
    found = {line["id"]: (line["stage"], line["action"], line["partner"])
             for line in rows(later / "ledger.jsonl.zst")}  # fmt: skip
    assert found == {
        "n1": ("dedup.url", "drop", "one:d7"),
        "n2": ("dedup.minhash", "drop", "one:d8"),
        "n3": ("dedup.sentences", "change", "one:first"),
    }


def test_an_attribute_that_no_stage_computes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no document has the attribute 'quality.gopher.words'"):
        made(tmp_path / "x", records(), 1, keep="quality", quality="quality.gopher.words")


@pytest.mark.parametrize("stage", DUPLICATES)
def test_little_or_nothing_to_compare(stage: str) -> None:
    assert resolved(stage, []) == []
    assert resolved(stage, [documents(["a"])], keeps=[[False]]) == []
    assert resolved(stage, [documents([".", "!"], ["x", "y"]), documents(["?"], ["z"])]) == []
