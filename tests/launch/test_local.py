"""launch/local.sh, which is how several processes train on one host: gloo, four devices each."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jaxlm.config import Config
from jaxlm.workdir import Workdir
from tests.training.runs import (
    arrays_of,
    config_of,
    figures,
    make_tokens,
    records,
    train_here,
    wait_for,
    write_config,
    write_text,
)

ROOT = Path(__file__).parents[2]
STEPS = 16
SECTIONS: dict[str, Any] = {
    "train": {"steps": STEPS},
    "model": {"layers": 1},
    "mesh": {"data": 2, "fsdp": 4},
    "checkpoint": {"every": 5},
    "recovery": {"start_timeout": 60},
}
HERE = ("-n", "2", "--devices", "4", "--verb", "train")


def start(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [ROOT / "launch" / "local.sh", *map(str, arguments)],
        env=os.environ | {"PYTHON": sys.executable, "XLA_FLAGS": ""} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def processes_of(path: Path) -> dict[int, int]:
    """Pids of the processes that train with this config, by their index."""
    found: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        try:
            if str(path).encode() not in (folder / "cmdline").read_bytes().split(b"\0"):
                continue
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        index = [v.split(b"=")[1] for v in variables if v.startswith(b"JAXLM_PROCESS=")]
        found |= {int(i): int(folder.name) for i in index}
    return found


def close(found: list[tuple[Any, ...]], wanted: list[tuple[Any, ...]]) -> bool:
    """Steps, tokens and sources are the same; losses and norms are, but for the order of sums."""
    exact, near = (0, 2, 3, 5), (1, 4)
    return [[row[k] for k in exact] for row in found] == [
        [row[k] for k in exact] for row in wanted
    ] and [[row[k] for k in near] for row in found] == [
        pytest.approx([row[k] for k in near], rel=1e-5) for row in wanted
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run of this process alone, on its eight devices."""
    folder = tmp_path_factory.mktemp("alone")
    write_text(folder)
    config = config_of(folder, **SECTIONS)
    make_tokens(config)
    train_here(config)
    return config


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[tuple[Config, Path]]:
    """A config with its text, and its file, in a folder with a space; nothing of it runs on."""
    folder = tmp_path / "a run"
    folder.mkdir()
    write_text(folder)
    config = config_of(folder, **SECTIONS)
    path = write_config(config, folder)
    yield config, path
    for pid in processes_of(path).values():
        os.kill(pid, signal.SIGKILL)


def test_run_outlives_the_death_of_a_process(alone: Config, fresh: tuple[Config, Path]) -> None:
    config, path = fresh
    # every stage; a sample as well, which process 0 makes alone, and scores, which both make
    more = ["eval.generate.prompts=[abc]", "eval.generate.max_tokens=4"]
    launcher = start(*HERE[:4], path, *more)
    wait_for(lambda: len(records(config)) >= 7, launcher)
    os.kill(processes_of(path)[1], signal.SIGKILL)
    _, said = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, said
    assert "a process ended with status 137" in said
    assert "starting again (1 of 3)" in said

    workdir = Workdir(config.workdir)
    logs = [(workdir.path / "logs" / f"host-{k}.log").read_text() for k in (0, 1)]
    assert f"resumed from {workdir.checkpoints}/5" in logs[0]
    assert "step" not in logs[1], "one tells how it goes"
    assert close(figures(config), figures(alone))
    for name, array in arrays_of(config, STEPS).items():
        assert array == pytest.approx(arrays_of(alone, STEPS)[name], rel=1e-3, abs=1e-5)
    assert json.loads(workdir.samples.read_text())["step"] == STEPS
    assert json.loads(workdir.evaluation.read_text())["step"] == STEPS
    assert (workdir.report / "index.html").is_file()


def test_a_signal_stops_all_and_one_process_goes_on(
    alone: Config, fresh: tuple[Config, Path]
) -> None:
    config, path = fresh
    make_tokens(config)
    launcher = start(*HERE, path)
    wait_for(lambda: len(records(config)) >= 2, launcher)
    # to one of them, as a host that is taken away hears it first
    os.kill(processes_of(path)[1], signal.SIGTERM)
    wait_for(lambda: not processes_of(path) or len(records(config)) >= STEPS, launcher)
    launcher.send_signal(signal.SIGTERM)  # it has begun to start them again, or is about to
    _, said = launcher.communicate(timeout=120)
    assert launcher.returncode == 128 + signal.SIGTERM, said
    begun = len(records(config))
    assert 2 <= begun < STEPS
    assert (Workdir(config.workdir).checkpoints / str(begun)).is_dir()

    train_here(config)  # another number of processes
    assert close(figures(config), figures(alone))


def test_two_processes_with_other_configs_are_refused(fresh: tuple[Config, Path]) -> None:
    _, path = fresh
    dry = start("-n", "2", "--devices", "1", "--dry-run", path)
    lines = dry.communicate(timeout=60)[0].replace("PORT", "40017").splitlines()
    commands = [shlex.split(line)[:-3] for line in lines]
    commands[1].append("seed=4")
    both = [
        subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [1, 1]
    assert said[0] == said[1]
    assert said[0].startswith("jaxlm: process 1 on ")
    assert "has another config than process 0" in said[0]


def test_dry_run_shares_gpus_out(fresh: tuple[Config, Path]) -> None:
    config, path = fresh
    words = []
    launcher = start("-n", "2", "--port", "5000", "--dry-run", path, CUDA_VISIBLE_DEVICES="4,5,6,7")
    out, _ = launcher.communicate(timeout=60)
    for k, line in enumerate(out.splitlines()):
        words = shlex.split(line)
        gpus = ("4,5", "6,7")[k]
        assert {f"JAXLM_PROCESS={k}", f"CUDA_VISIBLE_DEVICES={gpus}"} <= set(words)
        assert words[-4:] == [str(path), f">>{config.workdir}/logs/host-{k}.log", "2>&1", "&"]
    assert out.count("\n") == 2
    uneven = start("-n", "3", "--dry-run", path, CUDA_VISIBLE_DEVICES="4,5,6,7")
    assert "the 4 GPUs cannot be shared out evenly" in uneven.communicate(timeout=60)[1]
    assert uneven.returncode == 2


def test_a_failure_is_told_with_the_last_lines(fresh: tuple[Config, Path]) -> None:
    _, path = fresh
    launcher = start("-n", "2", "--devices", "4", "--restarts", "0", path, "mesh.fsdp=2")
    _, said = launcher.communicate(timeout=120)
    assert launcher.returncode == 1
    assert "does not multiply to the 8 devices" in said
