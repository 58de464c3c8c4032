"""Small runs: token stores made once, trained in this process or by the real command."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlm.config import Config
from jaxlm.config.load import validate
from jaxlm.evaluation import evaluate
from jaxlm.parallel import make_mesh
from jaxlm.pipeline import BY_NAME, do
from jaxlm.reports import Terminal
from jaxlm.tokens import load_tokenizer
from jaxlm.training import train
from jaxlm.training.checkpoints import named, read_arrays, read_facts
from jaxlm.training.state import shapes_of_state
from jaxlm.workdir import Workdir

ROOT = Path(__file__).parents[2]
TIMEOUT = 120.0


def config_of(folder: Path, **sections: Any) -> Config:
    """The config of a run in `folder`; each keyword replaces keys of its section."""
    plain: dict[str, Any] = {
        "workdir": str(folder / "run"),
        "seed": 3,
        "sources": [
            {"name": "words", "path": str(folder / "words.txt"), "split": "\n\n", "weight": 2.0},
            {"name": "more", "path": str(folder / "more.txt"), "split": "\n\n", "weight": 1.0},
        ],
        "prepare": {"workers": 1, "stages": ["unicode"]},
        "tokenizer": {"kind": "byte"},
        "data": {"seq_len": 32, "validation_fraction": 0.1},
        "model": {"layers": 2, "d_model": 32, "heads": 2, "d_mlp": 64},
        "optimizer": {"learning_rate": 3e-3, "schedule": {"warmup_steps": 2}},
        "train": {"steps": 12, "batch_size": 8},
        "checkpoint": {"every": 4, "keep": 3},
        "logging": {"every": 1, "tensorboard": False, "peak_flops": 1e11},
    }
    for name, section in sections.items():
        plain[name] = plain.get(name, {}) | section if isinstance(section, dict) else section
    return validate(plain)


def write_text(folder: Path, seed: int = 0) -> None:
    """Two files of documents, 20 KB and 10 KB."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefgh", k=5)) for _ in range(50)]
    for name, count in (("words", 80), ("more", 40)):
        documents = [" ".join(rng.choices(words, k=rng.randint(20, 60))) for _ in range(count)]
        (folder / f"{name}.txt").write_text("\n\n".join(documents))


def make_tokens(config: Config) -> None:
    """The stages before training."""
    workdir = Workdir(config.workdir)
    with workdir.lock(), Terminal(quiet=True) as show:
        for stage in ("prepare", "tokenizer", "tokenize"):
            do(BY_NAME[stage], config, workdir, show, again=True)


def copy_of(folder: Path, to: Path, *, checkpoints: bool = True) -> Path:
    """A copy of a folder with a run, to be changed by one test."""
    leave = shutil.ignore_patterns(*([] if checkpoints else ["checkpoints", "metrics.jsonl"]))
    return Path(shutil.copytree(folder, to, ignore=leave, dirs_exist_ok=True))


class Said:
    """Keeps what a run tells; `at` is called with each record."""

    def __init__(self, at: Callable[[dict[str, Any]], object] = lambda record: None) -> None:
        self.lines: list[str] = []
        self._at = at

    def line(self, text: str) -> None:
        self.lines.append(text)

    def training(self, record: dict[str, Any], total_steps: int) -> None:
        self._at(record)


def train_here(config: Config, said: Said | None = None) -> Said:
    """Train in this process, on its eight devices."""
    said = said or Said()
    workdir = Workdir(config.workdir)
    tokenizer = load_tokenizer(workdir.tokenizer)

    def score(own: Config, params: Any) -> Any:
        return evaluate(own, workdir, params, tokenizer, batches=own.eval.batches)

    train(config, workdir, said, score)
    return said


def write_config(config: Config, folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text(config.model_dump_json())  # JSON is YAML
    return path


def start(*args: str | Path, devices: int = 1, **options: Any) -> subprocess.Popen[str]:
    """The command `jaxlm` on so many devices, under way."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}
    return subprocess.Popen(
        [sys.executable, "-m", "jaxlm", *map(str, args)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status (negative: the signal) and stderr of a command."""
    _, stderr = process.communicate(timeout=TIMEOUT)
    return process.returncode, stderr


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Return as soon as the condition holds; fails when the process ends before."""
    until = time.monotonic() + TIMEOUT
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.001)


def records(config: Config) -> list[dict[str, Any]]:
    """metrics.jsonl, without a line that is still being written."""
    path = Workdir(config.workdir).metrics
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def figures(config: Config) -> list[tuple[Any, ...]]:
    """What of metrics.jsonl a restart must not change: all but the clock's figures."""
    names = ("step", "loss", "tokens", "learning_rate", "grad_norm", "source_tokens")
    return [tuple(record[name] for name in names) for record in records(config)]


def arrays_of(config: Config, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, of parameters and optimizer, on the host."""
    path = Workdir(config.workdir).checkpoints / str(step)
    with jax.set_mesh(make_mesh(config)):
        shapes = shapes_of_state(config)
        trees = read_arrays(
            path, read_facts(path), params=shapes.params, optimizer=shapes.optimizer
        )
    return {
        f"{tree}.{name}": np.asarray(array)
        for tree, arrays in trees.items()
        for name, array in named(arrays).items()
    }


def same_bits(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
    return found.keys() == wanted.keys() and all(
        found[name].tobytes() == wanted[name].tobytes() for name in wanted
    )
