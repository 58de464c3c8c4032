"""Quality for CPU time: configs/shakespeare.yaml beside nanoGPT's CPU recipe, in one run.

    .venv/bin/python benchmarks/quality_per_minute.py --text FILE --torch-python ENV/bin/python
        [KEY=VALUE ...]

Both see the first 90 % of the text's characters and are scored on the whole last 10 %, in windows
of their own context that do not overlap. CPU-seconds are those of the whole process of `jaxlm
train` (compilation included, nothing cached) and of the peer's training. KEY=VALUE overrides are
for experiments.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlm.config import load
from jaxlm.evaluation import open_trained
from jaxlm.objectives import lm
from jaxlm.training.batches import place
from jaxlm.training.loss import loss_sum

ROOT = Path(__file__).parent.parent
PEER = ROOT / "benchmarks" / "peers" / "nanogpt_cpu.py"


def children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def train(text: bytes, folder: Path, overrides: list[str]) -> tuple[Path, float]:
    """Train on `text`; returns the workdir and the CPU-seconds of `jaxlm train`."""
    (folder / "train.txt").write_bytes(text)
    workdir = folder / "run"
    settings = [f"sources.0.path={folder / 'train.txt'}", f"workdir={workdir}", *overrides]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    spent = 0.0
    for verb in ("prepare", "tokenizer", "tokenize", "train"):
        before = children_cpu_seconds()
        command = [sys.executable, "-m", "jaxlm", verb, str(ROOT / "configs/shakespeare.yaml")]
        subprocess.run([*command, *settings], check=True, env=environment)
        spent = children_cpu_seconds() - before
    return workdir, spent


def nats_per_character(workdir: Path, text: bytes) -> float:
    """Mean loss over every character of `text` but the first, in windows of the model's context."""
    trained = open_trained(workdir, single_device=True)
    config, T = trained.config, trained.config.data.seq_len
    ids = np.array(trained.tokenizer.encode(text.decode("ascii")), np.uint16)
    total, batch_size = 0.0, config.train.batch_size
    starts = np.arange(0, len(ids) - 1, T)
    with jax.set_mesh(trained.mesh):
        score = jax.jit(lambda params, batch: loss_sum(config, params, batch))
        for begin in range(0, len(starts), batch_size):
            windows = np.zeros((batch_size, T + 1), np.uint16)
            lengths = np.zeros(batch_size, np.int64)
            for row, start in enumerate(starts[begin : begin + batch_size]):
                window = ids[start : start + T + 1]
                windows[row, : len(window)] = window
                lengths[row] = len(window)
            host = lm(windows, trained.tokenizer.bos_id, lengths)
            batch = place(host, 1, trained.mesh)
            total += float(score(trained.params, jax.tree.map(lambda a: a[0], batch)))
    return total / (len(ids) - 1)


def peer(python: str, text_file: Path) -> dict[str, Any]:
    out = subprocess.run([python, str(PEER), str(text_file)], check=True, capture_output=True)
    answer: dict[str, Any] = json.loads(out.stdout.splitlines()[-1])
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--text", type=Path, required=True, help="about 1.1 MB of ASCII text")
    parser.add_argument("--torch-python", help="interpreter with torch, for the peer")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args()
    text = options.text.read_bytes()
    cut = int(0.9 * len(text))
    load(ROOT / "configs/shakespeare.yaml", options.overrides)  # refuse typing errors first
    with tempfile.TemporaryDirectory() as folder:
        workdir, cpu = train(text[:cut], Path(folder), options.overrides)
        loss = nats_per_character(workdir, text[cut:])
    print(json.dumps({"peer": "jaxlm", "nats_per_character": loss, "cpu_s": cpu}), flush=True)
    if options.torch_python:
        theirs = peer(options.torch_python, options.text)
        print(json.dumps(theirs))


if __name__ == "__main__":
    main()
