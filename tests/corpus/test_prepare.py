"""The whole stage: what is written, that it does not depend on workers, and what goes wrong."""

import io
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from jaxlm.config import Config
from jaxlm.config.load import validate
from jaxlm.corpus import inputs, prepare
from jaxlm.corpus.run import segments
from jaxlm.errors import UserError
from jaxlm.workdir import Workdir, no_progress

STOP = "the and of to with that have be"


def prose(seed: int, words: int = 120) -> str:
    draw = random.Random(seed)
    plain = [f"word{draw.randrange(3000)}" for _ in range(words)]
    return " ".join(a + " " + draw.choice(STOP.split()) for a in plain)


def config(folder: Path, sources: list[dict[str, Any]], **keys: Any) -> Config:
    return validate({
        "workdir": str(folder / "run"), "train": {"steps": 1000}, "sources": sources,
        "prepare": {"workers": 1, "batch_bytes": 4096, "shard_bytes": 8192, **keys},
    })  # fmt: skip


def lines(path: Path) -> list[dict[str, Any]]:
    with open(path, "rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        return [json.loads(line) for line in io.TextIOWrapper(stream, "utf-8", newline="\n")]


def documents(corpus: Path, source: str) -> list[dict[str, Any]]:
    shards = sorted((corpus / "documents").glob(f"{source}-*.jsonl.zst"))
    return [document for shard in shards for document in lines(shard)]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources: records with every sort of trouble, and a tree of source files."""
    folder = tmp_path_factory.mktemp("raw")
    rows: list[dict[str, Any]] = [
        {"id": f"d{i}", "text": prose(i), "url": f"u{i}", "n": i} for i in range(40)
    ]
    rows.append({"id": "copy", "text": "  " + prose(3).replace("word", "WORD")})
    rows.append({"id": "near", "text": prose(5).rsplit(" ", 1)[0] + " end"})
    rows.append({"id": "d7", "text": prose(1000)})
    rows.append({"id": "short", "text": "too short"})
    rows.append({"id": "accent", "text": prose(1001) + " e\u0301"})
    text = [json.dumps(row) for row in rows]
    (folder / "a.jsonl").write_text("\n".join([*text[:20], "{broken", *text[20:]]) + "\n")
    (folder / "code").mkdir()
    for i in range(5):
        body = f"def function_{i}(x):\n    return x + {i}\n" * (i + 2)
        (folder / "code" / f"m{i}.py").write_text(body)
    return folder


def sources(raw: Path) -> list[dict[str, Any]]:
    return [
        {"name": "web", "path": f"{raw}/a.jsonl", "id_field": "id", "meta_fields": ["url"]},
        {"name": "code", "path": f"{raw}/code/*.py", "kind": "code"},
    ]


@pytest.fixture(scope="module")
def corpus(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    prepare(config(folder, sources(raw)), Workdir(folder / "run"), no_progress)
    return folder / "run" / "corpus"


def test_what_is_kept(corpus: Path) -> None:
    web = documents(corpus, "web")
    assert [d["id"] for d in web] == [f"d{i}" for i in range(40)] + ["accent"]
    assert web[7] == {"id": "d7", "source": "web", "text": prose(7), "url": "u7"}
    assert web[-1]["text"].endswith("\u00e9")
    assert [d["id"] for d in documents(corpus, "code")] == ["m0.py", "m1.py"] + [
        f"m{i}.py" for i in (2, 3, 4)
    ]
    assert not (corpus / "work").exists()


def test_each_loss_and_change_is_in_the_ledger(corpus: Path) -> None:
    ledger = lines(corpus / "ledger.jsonl.zst")
    seen = {(e["id"], f"{e['stage']}.{e['rule']}", e["action"], e.get("partner")) for e in ledger}
    assert seen == {
        ("a.jsonl:21", "read.invalid_json", "error", None),
        ("short", "quality.length.min_bytes", "drop", None),
        ("d7", "ids.duplicate", "drop", "d7"),
        ("copy", "dedup.exact.same_text", "drop", "d3"),
        ("near", "dedup.minhash.jaccard", "drop", "d5"),
        ("accent", "unicode.nfc", "change", None),
    }
    near = next(e for e in ledger if e["id"] == "near")
    words = [set(zip(*[t.split()[k:] for k in range(5)], strict=False))
             for t in (prose(5), prose(5).rsplit(" ", 1)[0] + " end")]  # fmt: skip
    true = len(words[0] & words[1]) / len(words[0] | words[1])
    assert near["value"] == pytest.approx(true, abs=1e-6)
    assert near["threshold"] == 0.8
    assert all(len(e["excerpt"]) <= 300 for e in ledger)


def test_statistics_add_up(corpus: Path) -> None:
    stats = json.loads((corpus / "stats.json").read_text())
    web = stats["sources"]["web"]
    counts = {s["stage"]: s["documents"] for s in web["stages"]}
    assert list(counts) == [
        "read", "unicode", "quality.length", "quality.gopher", "quality.repetition",
        "quality.code", "ids", "dedup.exact", "dedup.minhash",
    ]  # fmt: skip
    assert list(counts.values()) == [45, 45, 44, 44, 44, 44, 43, 42, 41]
    kept = documents(corpus, "web")
    assert web["stages"][-1]["bytes"] == sum(len(d["text"].encode()) for d in kept)
    assert (
        web["rules"]["ids.duplicate"].items() >= {"documents": 1, "bytes": len(prose(1000))}.items()
    )
    words = web["rules"]["quality.gopher.min_words"]
    assert (words["judged"], words["failed"], words["threshold"]) == (45, 1, 50)
    assert sum(words["histogram"]) == 45
    assert sum(words["histogram"][:11]) == 1  # below the threshold, which lies after bin 10
    assert web["kind"] == "web"
    shards = [s for s in stats["shards"] if "web" in s["path"]]
    assert len(shards) > 1
    assert sum(s["documents"] for s in shards) == 41
    assert sum(s["bytes"] for s in shards) == web["stages"][-1]["bytes"]


def test_other_workers_make_the_same_bytes(raw: Path, corpus: Path, tmp_path: Path) -> None:
    prepare(config(tmp_path, sources(raw), workers=2), Workdir(tmp_path / "run"), no_progress)
    other = tmp_path / "run" / "corpus"
    names = sorted(p.relative_to(corpus) for p in corpus.rglob("*.zst"))
    assert names == sorted(p.relative_to(other) for p in other.rglob("*.zst"))
    for name in names:
        assert (corpus / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize("workers", [1, 2])
def test_max_bytes_keeps_a_prefix_and_says_so(raw: Path, tmp_path: Path, workers: int) -> None:
    for i in range(9):
        (tmp_path / f"{i}.txt").write_text(prose(i, 300))
    size = len(prose(0, 300).encode())
    limit = int(size * 4.5)
    source = {"name": "t", "path": f"{tmp_path}/*.txt", "max_bytes": limit}
    done: list[tuple[str, int, int | None, str]] = []
    prepare(config(tmp_path, [source], workers=workers), Workdir(tmp_path / "run"),
            lambda *report: done.append(report))  # fmt: skip
    corpus = tmp_path / "run" / "corpus"
    assert [d["id"] for d in documents(corpus, "t")] == [f"{i}.txt" for i in range(4)]
    stats = json.loads((corpus / "stats.json").read_text())["sources"]["t"]
    assert stats["max_bytes"] == limit
    assert stats["cut_at_max_bytes"] is True
    assert stats["stages"][0]["documents"] == 4
    assert ("read to quality.code", limit, limit, "B") in done
    assert all(unit in ("B", "documents", "files") for *_, unit in done)


def test_stages_may_be_ordered_and_left_out(raw: Path, tmp_path: Path) -> None:
    stages = ["dedup.exact", "unicode", "quality.length"]
    prepare(config(tmp_path, sources(raw), stages=stages), Workdir(tmp_path / "run"), no_progress)
    stats = json.loads((tmp_path / "run/corpus/stats.json").read_text())["sources"]["web"]
    assert [s["stage"] for s in stats["stages"]] == ["read", "ids", *stages]
    ids = [d["id"] for d in documents(tmp_path / "run/corpus", "web")]
    assert "near" in ids
    assert "copy" not in ids


def test_segments_end_where_documents_are_compared() -> None:
    cut = segments(("unicode", "dedup.exact", "dedup.minhash", "quality.length"))
    assert [(s.stages, s.duplicates) for s in cut] == [
        (("unicode",), ("ids", "dedup.exact", "dedup.minhash")),
        (("quality.length",), ()),
    ]
    assert [s.duplicates for s in segments(("unicode",))] == [("ids",)]


def test_inputs_name_every_file(raw: Path, tmp_path: Path) -> None:
    found = inputs(config(tmp_path, sources(raw)))
    assert len(found) == 6
    assert found[0]["source"] == "web"
    assert found[0]["path"] == f"{raw}/a.jsonl"
    assert found[0]["size"] == (raw / "a.jsonl").stat().st_size


def earlier(folder: Path) -> Path:
    """A corpus from before, which failures must leave alone."""
    old = folder / "run" / "corpus" / "stats.json"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    return old


def test_all_missing_sources_are_told_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    old = earlier(tmp_path)
    bad = [{"name": n, "path": f"{tmp_path}/{n}.txt"} for n in ("x", "y")]
    with pytest.raises(UserError) as failure:
        prepare(config(tmp_path, bad), Workdir(tmp_path / "run"), no_progress)
    assert len(failure.value.messages) == 2
    assert old.read_text() == "old"
    with pytest.raises(UserError, match="names no source"):
        prepare(config(tmp_path, []), Workdir(tmp_path / "run"), no_progress)


def test_a_broken_file_is_told_and_the_run_goes_on(tmp_path: Path) -> None:
    rows = [json.dumps({"id": f"d{i}", "text": prose(i)}) for i in range(400)]
    whole = zstandard.ZstdCompressor().compress("\n".join(rows).encode())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.jsonl.zst").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in" / "2.jsonl").write_text(json.dumps({"id": "last", "text": prose(2000)}))
    source = {"name": "cut", "path": f"{tmp_path}/in/*", "id_field": "id"}
    prepare(config(tmp_path, [source]), Workdir(tmp_path / "run"), no_progress)
    corpus = tmp_path / "run" / "corpus"
    ids = {document["id"] for document in documents(corpus, "cut")}
    assert {"d0", "last"} <= ids
    assert len(ids) < 390
    broken = [e for e in lines(corpus / "ledger.jsonl.zst") if e["rule"] == "broken_file"]
    assert [(e["id"], e["action"], e["value"]) for e in broken] == [
        ("1.jsonl.zst", "error", "the zstd stream ends early")
    ]
    rules = json.loads((corpus / "stats.json").read_text())["sources"]["cut"]["rules"]
    assert rules["read.broken_file"]["documents"] == 1


def test_a_source_that_is_left_empty_is_told_with_the_rules(raw: Path, tmp_path: Path) -> None:
    keys = {"quality": {"length": {"min_bytes": 10**6}}}
    with pytest.raises(UserError) as failure:
        prepare(config(tmp_path, sources(raw), **keys), Workdir(tmp_path / "run"), no_progress)
    assert len(failure.value.messages) == 2
    assert "quality.length.min_bytes took 45" in str(failure.value)


def test_a_full_disk_is_told_and_nothing_is_lost(raw: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the same error, from workers too."""
    old = earlier(tmp_path)
    (tmp_path / "big.txt").write_text("\n\n".join(prose(i, 2000) for i in range(40)))
    script = f"""
import resource
from pathlib import Path
from tests.corpus.test_prepare import *

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    folder = Path({str(tmp_path)!r})
    run = config(folder, [{{"name": "t", "path": str(folder / "big.txt"), "split": "\\n\\n"}}],
                 batch_bytes=1 << 20)
    try:
        prepare(run, Workdir(folder / "run"), no_progress)
    except UserError as error:
        print(error)
"""
    (tmp_path / "script.py").write_text(script)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], cwd=root, text=True, capture_output=True,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}, timeout=120,
    )  # fmt: skip
    assert "no room to write" in done.stdout, done.stderr
    assert old.read_text() == "old"
    assert not (tmp_path / "run" / "corpus.partial").exists()


def test_what_was_found_stays_with_the_documents(raw: Path, tmp_path: Path) -> None:
    keep = ["quality.length.bytes", "language", "quality.gopher.words"]
    stages = ["unicode", "quality.length", "quality.gopher", "dedup.exact"]
    folder = tmp_path / "run"
    run = config(tmp_path, sources(raw), keep=keep, stages=stages)
    prepare(run, Workdir(folder), no_progress)
    for document in documents(folder / "corpus", "web"):
        assert list(document)[-3:] == keep
        assert document["quality.length.bytes"] == len(document["text"].encode())
        assert document["quality.gopher.words"] == len(document["text"].split())
        assert document["language"] == "en"
    for document in documents(folder / "corpus", "code"):  # gopher does not judge code
        assert list(document) == ["id", "source", "text", "quality.length.bytes", "language"]
    with pytest.raises(UserError, match=r"keep: quality\.length\.size was found of no .*\.bytes"):
        prepare(
            config(tmp_path, sources(raw), keep=["quality.length.size"], stages=stages),
            Workdir(folder), no_progress,
        )  # fmt: skip
    with pytest.raises(UserError, match="is no attribute of one of the stages"):
        config(tmp_path, sources(raw), keep=["quality.c4.x"], stages=stages)
