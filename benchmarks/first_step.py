"""Seconds from `jaxlm train` to the first finished step, with a warm compilation cache.

    .venv/bin/python benchmarks/first_step.py runs/quickstart [--rounds 5]

WORKDIR is a finished quick start; each round trains afresh on its tokens, in a folder of its own,
until the first step's record is on disk. The first round fills the cache and is not counted.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

LIMIT_S = 8.0


def first_record_after(source: Path, folder: Path) -> float:
    for name in ("tokenizer", "tokens"):
        shutil.copytree(source / name, folder / name)
    command = [sys.executable, "-m", "jaxlm", "train", str(source / "config.yaml")]
    settings = [f"workdir={folder}", "logging.every=1"]
    metrics = folder / "metrics.jsonl"
    start = time.perf_counter()
    process = subprocess.Popen([*command, *settings, "--quiet"], stderr=subprocess.PIPE, text=True)
    while not (metrics.exists() and metrics.stat().st_size):
        if process.poll() is not None:
            sys.exit(f"jaxlm train ended early: {process.communicate()[1]}")
        time.sleep(0.01)
    seconds = time.perf_counter() - start
    process.send_signal(signal.SIGKILL)
    process.wait()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("workdir", type=Path, help="folder of a finished quick start")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    seconds = []
    for round_number in range(options.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            seconds.append(first_record_after(options.workdir, Path(folder)))
        name = f"round {round_number}" if round_number else "warm-up"
        print(f"{name}: {seconds[-1]:.2f} s, load {os.getloadavg()[0]:.2f}", flush=True)
    print(f"median {median(seconds[1:]):.2f} s, wanted at most {LIMIT_S} s")


if __name__ == "__main__":
    main()
