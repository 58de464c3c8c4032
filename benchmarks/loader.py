"""Tokens a second of Loader.batch_at on one core, and the time to seek in 10^12 tokens.

    python benchmarks/loader.py [--batch 512] [--rounds 20]

Figures are CPU time of this process, pinned to one core, after one warm batch (first batches are
measured in processes of their own), so that they mean something on a shared machine too; wall time
stands beside them. The large store is a real array of 10^12 tokens whose files are absent, so each
read walks the whole path and finds the fill value.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorstore as ts

from jaxlm.config.mixture import Mixture
from jaxlm.config.objective import LM
from jaxlm.config.steps import Span
from jaxlm.objectives import Prepared
from jaxlm.tokens.loader import Loader, Stage, Stream
from jaxlm.tokens.store import ArrayWriter, TokenArray, array_metadata, array_spec, context
from jaxlm.tokens.tokenizer import ByteTokenizer
from jaxlm.tokens.weights import Kept

SEQ_LEN = 2048
DOCUMENT = 1000
STORED = 1 << 27
LARGE = 10**12
SHARD_BYTES = 64 << 20
VOCABULARY = ByteTokenizer()


def write_store(folder: Path, dtype: str) -> None:
    """Random ids in documents of about a thousand tokens."""
    rng = np.random.default_rng(0)
    writer = ArrayWriter(folder, "train/tokens", dtype, SHARD_BYTES, context())
    for _ in range(STORED >> 22):
        ids = rng.integers(3, 32000, 1 << 22).astype(dtype)
        ids[rng.integers(0, ids.size, ids.size // DOCUMENT)] = VOCABULARY.bos_id
        writer.append(ids)
    writer.close()


def write_large_store(folder: Path) -> None:
    """The metadata of an array of 10^12 tokens; every file of it is absent."""
    spec = array_spec(folder, "train/tokens")
    spec["metadata"] = array_metadata("uint16", LARGE, SHARD_BYTES)
    ts.open(spec, create=True).result()


def loader(folder: Path, batch: int) -> Loader:
    """A loader of two streams over one array, three to one."""
    array = TokenArray(folder, "train/tokens", context(threads=1))
    streams = [Stream(Kept(name, name, {}, 1.0, array.length), array) for name in ("a", "b")]
    mixture, steps = Mixture(weights={"a": 3.0, "b": 1.0}), Span(0, 0, 1, batch, SEQ_LEN, 0)
    objective = Prepared(LM(), kind="decoder", seq_len=SEQ_LEN, vocabulary=VOCABULARY, seed=0)
    return Loader(streams, [Stage(None, (steps,), mixture, "random", objective)], seed=0)


def resident() -> float:
    """MiB in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def throughput(folder: Path, batch: int, rounds: int) -> dict[str, float]:
    """Medians over rounds of one batch each, and memory after the first and the last."""
    made = loader(folder, batch)
    made.batch_at(0)
    cpu, wall, first = [], [], resident()
    for step in range(1, rounds + 1):
        c, w = time.process_time(), time.perf_counter()
        made.batch_at(step)
        cpu.append(time.process_time() - c)
        wall.append(time.perf_counter() - w)
    tokens = batch * SEQ_LEN
    return {
        "mtokens_per_cpu_s": tokens / statistics.median(cpu) / 1e6,
        "mtokens_per_s": tokens / statistics.median(wall) / 1e6,
        "rss_first_mib": first,
        "rss_last_mib": resident(),
    }


def first_batch(folder: Path, batch: int, step: int) -> dict[str, float]:
    """Open the loader and make one batch, in this fresh process."""
    c, w = time.process_time(), time.perf_counter()
    loader(folder, batch).batch_at(step)
    return {
        "cpu_ms": (time.process_time() - c) * 1e3,
        "ms": (time.perf_counter() - w) * 1e3,
        "rss_mib": resident(),
    }


def in_fresh_process(folder: Path, batch: int, step: int) -> dict[str, float]:
    """`first_batch` in a process of its own, so that nothing is warm."""
    command = [sys.executable, __file__, "--first", str(folder), str(step), "--batch", str(batch)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--first", nargs=2, metavar=("FOLDER", "STEP"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if arguments.first:
        folder, step = arguments.first
        print(json.dumps(first_batch(Path(folder), arguments.batch, int(step))))
        return
    print(f"{platform.platform()}, Python {platform.python_version()}, numpy {np.__version__}")
    print(f"one core; sequences of {SEQ_LEN}, batch {arguments.batch}, {arguments.rounds} rounds")
    with tempfile.TemporaryDirectory() as name:
        for dtype in ("uint16", "uint32"):
            folder = Path(name) / dtype
            write_store(folder, dtype)
            for key, value in throughput(folder, arguments.batch, arguments.rounds).items():
                print(f"{dtype:8} {key:20} {value:10.1f}")
        large = Path(name) / "large"
        write_large_store(large)
        found: dict[int, list[dict[str, float]]] = {0: [], 10_000_000: []}
        for _ in range(7):
            for step, results in found.items():
                results.append(in_fresh_process(large, arguments.batch, step))
        for step, results in found.items():
            for key in results[0]:
                values = sorted(result[key] for result in results)
                print(
                    f"10^12 tokens, first batch at step {step:>10,} {key:8} "
                    f"median {statistics.median(values):8.1f} (from {values[0]:.1f} "
                    f"to {values[-1]:.1f})"
                )
        made = loader(large, arguments.batch)
        steps = np.random.default_rng(1).integers(0, 10**7, 3 * arguments.rounds).tolist()
        for count, step in enumerate(steps, 1):
            made.batch_at(step)
            if count % arguments.rounds == 0:
                print(f"10^12 tokens, after {count} random steps: {resident():.1f} MiB resident")


if __name__ == "__main__":
    main()
