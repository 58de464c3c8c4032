"""The real command, stopped in every way there is, on a run from text to scores."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaxlm.workdir import Workdir
from tests.training.runs import (
    arrays_of,
    config_of,
    copy_of,
    ended,
    figures,
    records,
    same_bits,
    start,
    wait_for,
    write_config,
    write_text,
)

STEPS = 80
SECTIONS: dict[str, Any] = {
    "train": {"steps": STEPS},
    "model": {"layers": 1},
    "checkpoint": {"every": 8, "keep": 2},
    "eval": {"generate": {"prompts": ["abc", ""], "max_tokens": 4}},
}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with text and a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("straight")
    write_text(folder)
    code, said = ended(start("run", write_config(config_of(folder, **SECTIONS), folder)))
    assert code == 0, said
    return folder


def test_a_run_leaves_what_it_should(straight: Path) -> None:
    config = config_of(straight, **SECTIONS)
    workdir = Workdir(config.workdir)
    assert {path.name for path in workdir.path.iterdir()} >= {
        "config.yaml", "corpus", "tokenizer", "tokens", "checkpoints", "metrics.jsonl", "report",
        "eval.json", "samples.jsonl",
    }  # fmt: skip
    assert [record["step"] for record in records(config)] == list(range(1, STEPS + 1))
    scores = json.loads(workdir.evaluation.read_text())
    assert scores["step"] == STEPS
    # 50 words of letters drawn evenly: far better than 8 bits, no better than the source's entropy
    assert 1.0 < scores["all"]["bits_per_byte"] < 4.0
    assert len(workdir.samples.read_text().splitlines()) == 2


def test_stopped_in_every_way_it_ends_with_the_same_bits(straight: Path, tmp_path: Path) -> None:
    copy_of(straight, tmp_path, checkpoints=False)
    # a checkpoint a step here, so that most moments are in the middle of a save
    often = {"checkpoint": {"every": 1, "keep": 1}}
    config = config_of(tmp_path, **SECTIONS | often)
    workdir = Workdir(config.workdir)
    path = write_config(config, tmp_path)
    begun = 0

    def until(condition: Callable[[], bool], signum: signal.Signals) -> tuple[int, str]:
        process = start("train", path)
        wait_for(condition, process)
        process.send_signal(signum)
        return ended(process)

    def stepped() -> bool:
        return len(records(config)) >= begun + 2

    def saving() -> bool:
        found = workdir.checkpoints.is_dir() and os.listdir(workdir.checkpoints)
        return stepped() and any("tmp" in name for name in found or ())

    for signum, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")):
        code, said = until(stepped, signum)
        assert code == 128 + signum
        assert f"stopped by {name} after step" in said
        assert "the same command goes on from there" in said
        assert "Traceback" not in said
        begun = len(records(config))
        assert figures(config) == figures(config_of(straight, **SECTIONS))[:begun]

    half_written = 0
    for condition in (stepped, saving, saving):
        code, said = until(condition, signal.SIGKILL)
        assert code == -signal.SIGKILL
        assert f"resumed from {workdir.checkpoints}" in said
        half_written += any("tmp" in name for name in os.listdir(workdir.checkpoints))
        begun = len(records(config))
        assert begun < STEPS - 10, "meant to be stopped long before the end"
    assert half_written, "at least one kill fell into a save"

    code, said = ended(start("train", path))
    assert code == 0, said
    assert f"resumed from {workdir.checkpoints}" in said
    assert "damaged" not in said
    assert os.listdir(workdir.checkpoints) == [str(STEPS)]
    assert figures(config) == figures(config_of(straight, **SECTIONS))
    wanted = arrays_of(config_of(straight, **SECTIONS), STEPS)
    assert same_bits(arrays_of(config, STEPS), wanted)


def test_two_runs_in_one_workdir_are_one_too_many(straight: Path, tmp_path: Path) -> None:
    copy_of(straight, tmp_path, checkpoints=False)
    config = config_of(tmp_path, **SECTIONS)
    path = write_config(config, tmp_path)
    first = start("train", path)
    wait_for(lambda: len(records(config)) > 0, first)
    first.send_signal(signal.SIGSTOP)
    try:
        code, said = ended(start("train", path))
    finally:
        first.send_signal(signal.SIGCONT)
    assert code == 1
    assert f"another run (process {first.pid}) is writing here" in said
    first.send_signal(signal.SIGTERM)
    assert ended(first)[0] == 128 + signal.SIGTERM
