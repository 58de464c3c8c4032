"""Throughput of `jaxlm tokenize` against the tokenizer library's own batch call, on the same cores.

    python benchmarks/tokenizing.py [--megabytes 200] [--vocab-size 32000] [--rounds 5]

The documents are the texts and Python files that are installed in this environment, each content
once. In each round, one after the other:

whole    `jaxlm tokenize` in a process of its own, from the corpus's compressed shards to the store
         on disk with its checksums; worker processes start anew each time
encode   the same work without the corpus and the store: texts in memory -> arrays of ids, one core
library  texts in memory -> lists of ids with num_threads = cores, and with one: sentencepiece's
         SentencePieceProcessor.encode

Wall seconds compare `whole` with the library on all cores; CPU seconds, which mean something on a
shared machine too, compare whole (all processes) and encode with the library on one core. Ratios
are of medians; above 1 ours is faster. (A file tokenize.py here would hide Python's own from every
script of this folder.)
"""

import argparse
import hashlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import sentencepiece
import zstandard

from jaxlm.config import Config, dump
from jaxlm.config.load import validate
from jaxlm.tokens import load_tokenizer, train_tokenizer
from jaxlm.tokens.pool import cores
from jaxlm.workdir import Workdir

SHARD = 32 << 20


def installed(size: int) -> Iterator[tuple[str, str]]:
    """Names and texts of files, to this many bytes."""
    seen: set[bytes] = set()
    roots = [Path(sysconfig.get_path(name)) for name in ("purelib", "stdlib")]
    for path in (path for root in roots for path in sorted(root.rglob("*"))):
        if path.suffix not in (".py", ".pyi", ".rst", ".md", ".txt") or not path.is_file():
            continue
        data = path.read_bytes()
        digest = hashlib.blake2b(data).digest()
        if not 200 < len(data) < 1 << 20 or digest in seen:
            continue
        try:
            text = data.decode()
        except UnicodeDecodeError:
            continue
        seen.add(digest)
        yield str(path), text
        size -= len(data)
        if size <= 0:
            return


def write_corpus(folder: Path, documents: list[tuple[str, str]]) -> None:
    """What `jaxlm prepare` would leave."""
    (folder / "documents").mkdir(parents=True)
    shards: list[dict[str, object]] = []
    lines: list[bytes] = []
    size = 0

    def end() -> None:
        nonlocal size
        path = folder / "documents" / f"text-{len(shards):05d}.jsonl.zst"
        path.write_bytes(zstandard.ZstdCompressor(level=3).compress(b"".join(lines)))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shards.append(
            {"path": f"documents/{path.name}", "documents": len(lines), "bytes": size,
             "sha256": digest}
        )  # fmt: skip
        lines.clear()
        size = 0

    for name, text in documents:
        line = {"id": name, "source": "text", "text": text}
        lines.append(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        size += len(text.encode())
        if size >= SHARD:
            end()
    end()
    (folder / "stats.json").write_text(json.dumps({"sources": {}, "shards": shards}))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds, those of ended child processes too."""

    def cpu() -> float:
        used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(u.ru_utime + u.ru_stime for u in used)

    c, w = cpu(), time.perf_counter()
    work()
    return time.perf_counter() - w, cpu() - c


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    documents = list(installed(arguments.megabytes * 10**6))
    texts = [text for _, text in documents]
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(
        f"{platform.platform()}, Python {platform.python_version()}, sentencepiece "
        f"{sentencepiece.__version__}, {cores()} cores; {len(texts):,} documents, {size:.1f} MB"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config: Config = validate({
            "workdir": str(folder / "run"),
            "sources": [{"name": "text", "path": "unused"}],
            "tokenizer": {"vocab_size": arguments.vocab_size, "sample_bytes": 16 << 20},
            "train": {"steps": 1},
        })  # fmt: skip
        workdir = Workdir(config.workdir)
        write_corpus(workdir.corpus, documents)
        train_tokenizer(config, workdir)
        path = folder / "config.yaml"
        path.write_text(dump(config))
        verb = [sys.executable, "-m", "jaxlm", "tokenize", str(path), "--quiet"]
        tokenizer = load_tokenizer(workdir.tokenizer)
        processor = sentencepiece.SentencePieceProcessor(
            model_file=str(workdir.tokenizer / "tokenizer.model")
        )
        work: dict[str, Callable[[], object]] = {
            "whole": lambda: subprocess.run(verb, check=True),
            "library": lambda: processor.encode(texts, num_threads=cores()),
            "encode": lambda: [tokenizer.encode_array(text) for text in texts],
            "library, 1 thread": lambda: processor.encode(texts, num_threads=1),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
        for _ in range(arguments.rounds):
            for name, call in work.items():
                found[name].append(timed(call))
    wall, cpu = (
        {name: statistics.median(pair[k] for pair in pairs) for name, pairs in found.items()}
        for k in range(2)
    )
    for name in work:
        print(
            f"{name:18} {size / wall[name]:7.2f} MB/s, {size / cpu[name]:7.2f} MB a CPU second "
            f"(wall {min(w for w, _ in found[name]):.2f} to {max(w for w, _ in found[name]):.2f} s)"
        )
    print(f"whole / library on {cores()} cores, wall: {wall['library'] / wall['whole']:.3f}")
    print(f"whole / library on 1 core, CPU:   {cpu['library, 1 thread'] / cpu['whole']:.3f}")
    print(f"encode / library on 1 core, CPU:  {cpu['library, 1 thread'] / cpu['encode']:.3f}")


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
