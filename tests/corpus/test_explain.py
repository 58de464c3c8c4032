"""What-if and explain, against a corpus that is prepared again with the other thresholds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxlm.config import Config
from jaxlm.config.load import validate
from jaxlm.corpus import prepare
from jaxlm.corpus.explain import story, what_if
from jaxlm.corpus.tags import read_tags
from jaxlm.errors import UsageError, UserError
from jaxlm.reports.answers import story_lines, what_if_lines
from jaxlm.workdir import Workdir, no_progress

WORDS = ["the", "and", "of", "to", "with", "that", "have", "be", "water", "stone", "river"]


def config(folder: Path, raw: Path, **gopher: Any) -> Config:
    return validate({
        "workdir": str(folder), "train": {"steps": 1},
        "sources": [{"name": name, "path": f"{raw}/{name}.jsonl", "id_field": "id"}
                    for name in ("long", "short")],
        "prepare": {"workers": 1, "batch_bytes": 2000, "quality": {"gopher": gopher},
                    "stages": ["quality.length", "quality.gopher", "dedup.exact"]},
    })  # fmt: skip


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    draw = np.random.default_rng(0)
    for name, most in (("long", 200), ("short", 70)):
        texts = [" ".join(draw.choice(WORDS, size)) for size in draw.integers(30, most, 60)]
        texts += [texts[0] + " \u2026 # # # # # # # # # # # # # # # # # #", "tiny"]
        rows = [json.dumps({"id": f"{name}-{i}", "text": text}) for i, text in enumerate(texts)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def workdir(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    folder = tmp_path_factory.mktemp("run")
    prepare(config(folder, raw), Workdir(folder), no_progress)
    return Workdir(folder)


def after_gopher(workdir: Workdir) -> dict[str, int]:
    stats = json.loads((workdir.corpus / "stats.json").read_text())["sources"]
    return {
        name: next(s["documents"] for s in source["stages"] if s["stage"] == "quality.gopher")
        for name, source in stats.items()
    }


@pytest.mark.parametrize("value", [0, 40, 51, 60])
def test_the_answer_is_what_preparing_again_gives(
    raw: Path, workdir: Workdir, tmp_path: Path, value: int
) -> None:
    answer = what_if(workdir, [f"prepare.quality.gopher.min_words={value}"])
    prepare(config(tmp_path, raw, min_words=value), Workdir(tmp_path), no_progress)
    assert {n: c["kept_after"] for n, c in answer.items()} == after_gopher(Workdir(tmp_path))
    assert {n: c["kept_before"] for n, c in answer.items()} == after_gopher(workdir)
    for change in answer.values():
        grown = change["kept_after"] - change["kept_before"]
        assert len(change["newly_kept" if grown > 0 else "newly_dropped"]) == min(3, abs(grown))
    text = "\n".join(what_if_lines(answer))
    assert ("would keep" in text) == (value < 50)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("quality.gofer.min_words=1", "the stage 'quality.gofer' did not run"),
        ("quality.gopher.min_wrods=1", "did you mean 'min_words'"),
        ("quality.gopher.min_words=much", "valid integer"),
        ("quality.gopher.languages=[de]", "not a threshold"),
        ("quality.gopher.min_words", "is not KEY=VALUE"),
    ],
)
def test_what_cannot_be_tried_is_refused(workdir: Workdir, setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        what_if(workdir, [setting])


def test_the_story_of_a_document_has_every_rule_not_only_the_first(workdir: Workdir) -> None:
    steps = story(workdir, "short-60")
    (tagged,) = [step for step in steps if step["step"] == "tagged"]
    values = {a["name"]: a for a in tagged["attributes"]}
    assert values["quality.gopher.hash_ratio"]["failed"]
    assert values["quality.gopher.hash_ratio"]["max"] == 0.1
    assert values["quality.length.bytes"]["value"] > 50
    assert tagged["dropped_by"] == "quality.gopher"
    assert "FAILED" in "\n".join(story_lines(steps))
    assert list(story_lines(steps))[-1] == "It is not in the corpus."
    # the length rule dropped it, and gopher's rules judged it all the same
    (tagged,) = [s for s in story(workdir, "long-61") if s["step"] == "tagged"]
    assert tagged["dropped_by"] == "quality.length"
    assert {a["name"] for a in tagged["attributes"] if a["failed"]} > {"quality.gopher.words"}
    with pytest.raises(UserError, match="no document had the id 'nobody'"):
        story(workdir, "nobody")


def test_tags_hold_every_document_that_was_read(workdir: Workdir) -> None:
    tables = list(read_tags(workdir.corpus / "tags" / "00-short.parquet"))
    assert len(tables) > 1
    assert [id for table in tables for id in table.ids] == [f"short-{i}" for i in range(62)]


def test_examples_are_of_both_sides_of_each_threshold(workdir: Workdir) -> None:
    import zstandard

    data = (workdir.corpus / "examples.jsonl.zst").read_bytes()
    lines = zstandard.ZstdDecompressor().stream_reader(data).read().decode().splitlines()
    found = [json.loads(line) for line in lines]
    words = [e for e in found if e["source"] == "short" and e["rule"] == "min_words"]
    dropped = [e["value"] for e in words if e["dropped"]]
    kept = [e["value"] for e in words if not e["dropped"]]
    assert len(dropped) == len(kept) == 20
    assert max(dropped) < 50 <= min(kept)
    table = list(read_tags(workdir.corpus / "tags" / "00-short.parquet"))
    alive = sorted(
        words
        for t in table
        for words, k in zip(t.columns["quality.gopher.words"], t.dropped, strict=True)
        if k == -1
    )
    assert sorted(kept) == alive[:20]  # the nearest to the threshold
