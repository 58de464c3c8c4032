"""CPU-seconds of the corpus stages against the frameworks that people use, on the same documents.

    python benchmarks/corpus.py --datatrove-python PY --dolma-python PY [--rounds 3]
    python benchmarks/corpus.py --growth [--large]

The documents are the 719 real ones of tests/reference. Each figure is the CPU time of one process,
pinned to one core, after imports, compiling and a warm-up; ours and the peer's alternate, both on
these documents; a second figure of ours is for 20 MB that are mixed from them. With --growth:
`jaxlm prepare` of 10, 100 and (--large) 1000 MB of such mixed documents with one worker: MB a
CPU-second, and the largest process.
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
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

ROOT = Path(__file__).parents[1]
PEERS = Path(__file__).parent / "peers"
REFERENCE = ROOT / "tests" / "reference" / "rule_decisions.jsonl.zst"
# our figure, the peer, the peer's figure, wanted MB/s of ours
COMPARED = [
    ("chain", "datatrove", "chain", 20.0),
    ("chain-spacy", "datatrove", "chain", None),
    ("gopher", "datatrove", "gopher", None),
    ("gopher-spacy", "datatrove", "gopher", None),
    ("dolma-gopher", "dolma", "gopher", None),
    ("pii", "dolma", "pii", 30.0),
    ("signatures", "datatrove", "bulk", 10.0),
]


def reference() -> list[dict[str, str]]:
    with open(REFERENCE, "rb") as raw:
        text = zstandard.ZstdDecompressor().stream_reader(raw).read().decode()
    return [json.loads(line) for line in text.split("\n") if line]


def mixed(rows: list[dict[str, str]], size: int, path: Path) -> None:
    """Documents of 1 to 40 paragraphs of real prose, each with its words in a new order, three by
    three, so that no text comes twice by itself; one document in twenty is a copy of an earlier
    one, one in twenty an earlier one with a paragraph exchanged."""
    prose = [r["text"] for r in rows if r["datatrove_gopher_quality"] == "KEPT"]
    paragraphs = []
    for block in (p for text in prose for p in text.split("\n\n") if 200 < len(p) < 4000):
        words = block.split()
        paragraphs.append([" ".join(words[i : i + 3]) for i in range(0, len(words), 3)])
    draw = np.random.default_rng(0)

    def paragraph() -> str:
        pieces = paragraphs[draw.integers(len(paragraphs))]
        return " ".join([pieces[i] for i in draw.permutation(len(pieces)).tolist()]) + "."

    recent: list[list[str]] = []
    written = number = 0
    with open(path, "w", encoding="utf-8") as file:
        while written < size:
            kind = draw.random()
            if kind < 0.1 and recent:
                parts = list(recent[draw.integers(len(recent))])
                if kind < 0.05:
                    parts[draw.integers(len(parts))] = paragraph()
            else:
                parts = [paragraph() for _ in range(draw.integers(1, 41))]
            recent.append(parts)
            del recent[:-1000]
            text = "\n\n".join(parts)
            file.write(json.dumps({"id": f"mixed/{number}", "text": text}) + "\n")
            written += len(text)
            number += 1


def run(command: list[str], core: int) -> dict[str, Any]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
                                "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}  # fmt: skip
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, check=True, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    rows = reference()
    once, large = folder / "once.jsonl", folder / "large.jsonl"
    documents = [{"id": row["id"], "text": row["text"]} for row in rows]
    once.write_text("".join(json.dumps(row) + "\n" for row in documents), encoding="utf-8")
    mixed(rows, 20_000_000, large)
    pythons = {"datatrove": arguments.datatrove_python, "dolma": arguments.dolma_python}
    core = min(os.sched_getaffinity(0))
    print(f"{'ours':14} {'MB/s':>7} {'20 MB':>7} {'wanted':>7}  "
          f"{'peer':16} {'MB/s':>7} {'ratio':>7}  equal decisions")  # fmt: skip
    for ours, peer, theirs, wanted in COMPARED:
        if pythons[peer] is None:
            continue
        mine: list[float] = []
        big: list[float] = []
        his: list[float] = []
        equal = ""
        for _ in range(arguments.rounds):
            script = [sys.executable, str(PEERS / "corpus_jaxlm.py"), ours]
            a = run([*script, str(once)], core)
            b = run([pythons[peer], str(PEERS / f"corpus_{peer}.py"), theirs, str(once)], core)
            c = run([*script, str(large)], core)
            for rate, answer in ((mine, a), (his, b), (big, c)):
                rate.append(answer["bytes"] / 1e6 / answer["seconds"])
            if b["decisions"]:
                pairs = zip(a["decisions"], b["decisions"], strict=True)
                same = sum((x == "KEPT") == (y == "KEPT") for x, y in pairs)
                equal = f"{same} of {len(rows)}"
                differ = Counter(
                    (x, y) for x, y in zip(a["decisions"], b["decisions"], strict=True)
                    if (x == "KEPT") != (y == "KEPT")
                )  # fmt: skip
                equal += f" {dict(differ.most_common(3))}" if differ else ""
        speed, other = statistics.median(mine), statistics.median(his)
        print(f"{ours:14} {speed:7.2f} {statistics.median(big):7.2f} {wanted or '':>7}  "
              f"{peer + ' ' + theirs:16} {other:7.2f} {speed / other:7.1f}  {equal}",
              flush=True)  # fmt: skip


def prepare(path: Path, workdir: Path, *overrides: str) -> tuple[float, float, dict[str, Any]]:
    """CPU-seconds, MiB of the largest process, and stats.json of `jaxlm prepare`, one worker."""
    script = (
        "import json, resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))\n"
    )
    config = workdir.with_suffix(".yaml")
    config.write_text(
        f"workdir: {workdir}\ntrain: {{steps: 1}}\n"
        f"sources: [{{name: mixed, path: {path}, id_field: id, kind: web}}]\n"
        "prepare: {workers: 1}\n"
    )
    command = [sys.executable, "-m", "jaxlm", "prepare", str(config), "--quiet", *overrides]
    done = subprocess.run(
        [sys.executable, "-c", script, *command], stdout=subprocess.PIPE, check=True, text=True,
        cwd=ROOT,
    )  # fmt: skip
    seconds, memory = json.loads(done.stdout)
    stats: dict[str, Any] = json.loads((workdir / "corpus" / "stats.json").read_text())
    return seconds, memory, stats


def growth(arguments: argparse.Namespace, folder: Path) -> None:
    rows = reference()
    every = arguments.stages.split(",") if arguments.stages else []
    stages = [f"prepare.stages=[{','.join(every)}]"] if every else []
    print(f"{'MB':>6} {'CPU-s':>8} {'MB/CPU-s':>9} {'largest process':>16} {'kept':>8}")
    for size in (1, 10, 100, 1000)[: 4 if arguments.large else 3]:
        path = folder / f"{size}.jsonl"
        mixed(rows, size * 1_000_000, path)
        seconds, memory, stats = prepare(path, folder / f"run-{size}", *stages)
        if size == 1:
            start = seconds  # starting Python, imports, compiled kernels from their cache
            continue
        kept = stats["sources"]["mixed"]["stages"][-1]["documents"]
        rate = size / (seconds - start)
        print(f"{size:6} {seconds:8.1f} {rate:9.2f} {memory:12.0f} MiB {kept:8}", flush=True)
        path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datatrove-python", help="Python with datatrove[io,processing]==0.10.1")
    parser.add_argument("--dolma-python", help="Python with dolma==1.2.1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--growth", action="store_true", help="jaxlm prepare on 10 and 100 MB")
    parser.add_argument("--large", action="store_true", help="and on 1000 MB")
    parser.add_argument("--stages", help="for --growth: prepare.stages, separated by commas")
    arguments = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, numpy {version('numpy')}, "
          f"numba {version('numba')}, {len(os.sched_getaffinity(0))} cores")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        if arguments.growth:
            growth(arguments, Path(folder))
        else:
            compare(arguments, Path(folder))
    print(f"largest child: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
