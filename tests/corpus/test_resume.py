"""A preparation that is killed goes on where it was, inside a file too: the bytes are the same."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jaxlm.config import Config, dump
from jaxlm.config.load import validate
from jaxlm.corpus import prepare
from jaxlm.corpus.apply import apply
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.work import read_files
from jaxlm.errors import UserError
from jaxlm.workdir import Workdir, no_progress

ROOT = Path(__file__).parents[2]
WORDS = [
    "the",
    "and",
    "of",
    "to",
    "with",
    "that",
    "have",
    "be",
    "in",
    "on",
    "river",
    "mountain",
    "house",
    "light",
    "water",
    "stone",
]


def config(folder: Path, raw: Path, **keys: Any) -> Config:
    return validate({
        "workdir": str(folder), "train": {"steps": 1},
        "sources": [{"name": "web", "path": f"{raw}/*.jsonl", "id_field": "id"}],
        "prepare": {"batch_bytes": 20_000, "shard_bytes": 100_000, **keys},
    })  # fmt: skip


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files, each of many batches, with copies and near copies across them."""
    folder = tmp_path_factory.mktemp("raw")
    draw = random.Random(1)
    texts = [" ".join(f"{draw.choice(WORDS)} {draw.randrange(9999)}" if draw.random() < 0.1
                      else draw.choice(WORDS) + str(draw.randrange(50)) * (draw.random() < 0.3)
                      for _ in range(200)) for _ in range(500)]  # fmt: skip
    texts += [text.upper() for text in texts[:30]] + [f"{text} end" for text in texts[50:90]]
    draw.shuffle(texts)
    for name, part in (("a", texts[:400]), ("b", texts[400:])):
        rows = [json.dumps({"id": f"{name}{i}", "text": text}) for i, text in enumerate(part)]
        rows.insert(100, "{broken")
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    return folder


def contents(workdir: Path) -> dict[str, bytes]:
    corpus = workdir / "corpus"
    return {
        str(path.relative_to(corpus)): path.read_bytes()
        for path in sorted(corpus.rglob("*"))
        if path.is_file() and path.name not in ("timings.json", "config.json")
    }


@pytest.fixture(scope="module")
def whole(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    prepare(config(folder, raw, workers=1), Workdir(folder), no_progress)
    return contents(folder)


def start(folder: Path, raw: Path, workers: int) -> subprocess.Popen[bytes]:
    path = folder.with_suffix(f".{workers}.yaml")
    path.write_text(dump(config(folder, raw, workers=workers)))
    return subprocess.Popen(
        [sys.executable, "-m", "jaxlm", "prepare", str(path), "--quiet"],
        cwd=ROOT, start_new_session=True,
    )  # fmt: skip


def test_killed_at_any_moment_with_other_workers_each_time(
    raw: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    kills = 0
    # each time it is killed when a few more files than before have been written
    for attempt in range(40):
        process = start(folder, raw, 1 + attempt % 2)
        wanted = 15 * (attempt + 1)
        while process.poll() is None:
            if sum(1 for _ in (folder / "corpus.work").rglob("batch.json")) >= wanted:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.01)
        if process.wait() == 0:
            break
    assert kills >= 2
    assert contents(folder) == whole
    assert not (folder / "corpus.work").exists()


def test_a_file_is_taken_up_after_its_last_whole_batch(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a task that was half done, only the rest is judged again."""
    from jaxlm.corpus.listing import files
    from jaxlm.corpus.run import segments

    run = config(tmp_path, raw)
    source = run.sources[0]
    (segment, *_) = segments(run.prepare.stages)
    arguments = (source, tuple(files(source)), None, segment, run.prepare)
    (tmp_path / "one").mkdir()
    first = read_files(tmp_path / "one", *arguments)
    assert len(first.batches) > 20
    (tmp_path / "two").mkdir()
    for name, _ in first.batches[:13]:
        (tmp_path / "one" / name).rename(tmp_path / "two" / name)
    (tmp_path / "two" / "00013.partial").mkdir()
    (tmp_path / "two" / "00013.partial" / "texts.npy").write_bytes(b"half")
    judged: list[int] = []

    def counted(documents: Documents, *more: Any) -> Any:
        judged.append(len(documents))
        return apply(documents, *more)

    monkeypatch.setattr("jaxlm.corpus.work.apply", counted)
    second = read_files(tmp_path / "two", *arguments)
    assert len(judged) == len(first.batches) - 13
    assert second.batches == first.batches
    ours, theirs = first.tally.to_json(), second.tally.to_json()
    del ours["seconds"], theirs["seconds"]
    assert ours == theirs


def test_another_config_begins_afresh(raw: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, raw, 1)
    while process.poll() is None and not list((folder / "corpus.work").rglob("batch.json")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    other = config(folder, raw, quality={"length": {"min_bytes": 10**6}}, workers=1)
    with pytest.raises(UserError, match="nothing is left"):
        prepare(other, Workdir(folder), no_progress)
    prepare(config(folder, raw, workers=1), Workdir(folder), no_progress)
    assert contents(folder) == whole
