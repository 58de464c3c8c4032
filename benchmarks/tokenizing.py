"""Throughput of `jaxlm tokenize` against the tokenizer library's own batch call, on the same cores.

    python benchmarks/tokenizing.py [--kinds bpe ...] [--megabytes 200] [--rounds 5]

The documents are the texts and Python files that are installed in this environment, each content
once. In each round, one after the other:

whole    `jaxlm tokenize` in a process of its own, from the corpus's compressed shards to the store
         on disk with its checksums; worker processes start anew each time
start    the same for a corpus of one document: what it takes to begin
encode   the same work without the corpus and the store: texts in memory -> arrays of ids, one core
library  texts in memory -> lists of ids, on all cores and on one: sentencepiece's
         SentencePieceProcessor.encode (bpe, unigram), or tokenizers' encode_batch (wordpiece, and
         byte-level: a tokenizer.json as GPT-2's)

Wall seconds compare `whole` with the library on all cores; CPU seconds, which mean something on a
shared machine too, compare whole (all processes) and encode with the library on one core. Ratios
are of medians; above 1 ours is faster. (A file tokenize.py here would hide Python's own from every
script of this folder.)
"""

import argparse
import hashlib
import itertools
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import sentencepiece
import tokenizers
import zstandard

from jaxlm.config import Config, dump
from jaxlm.config.load import validate
from jaxlm.tokens import load_tokenizer, train_tokenizer
from jaxlm.tokens.pool import cores
from jaxlm.workdir import Workdir

SHARD = 32 << 20
KINDS = ["bpe", "unigram", "wordpiece", "byte-level"]


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


def byte_level(texts: list[str], vocab_size: int, path: Path) -> None:
    """A byte-level tokenizer.json, as GPT-2's."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=["<s>", "</s>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator(itertools.islice(texts, 0, None, 16), trainer)
    made.save(str(path))


def library(workdir: Workdir, texts: list[str]) -> Callable[[int], object]:
    """The library's batch call on so many threads, all or one."""
    if (path := workdir.tokenizer / "tokenizer.model").exists():
        processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        return lambda threads: processor.encode(texts, num_threads=threads)
    made = tokenizers.Tokenizer.from_file(str(workdir.tokenizer / "tokenizer.json"))

    def call(threads: int) -> object:
        os.environ["TOKENIZERS_PARALLELISM"] = str(threads > 1).lower()
        return made.encode_batch(texts, add_special_tokens=False)

    return call


def measure(kind: str, corpus: Path, texts: list[str], vocab_size: int, rounds: int) -> None:
    """Print the figures of one kind of tokenizer."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys: dict[str, object] = {"kind": kind, "vocab_size": vocab_size, "sample_bytes": 16 << 20}
        if kind == "byte-level":
            byte_level(texts, vocab_size, folder / "tokenizer.json")
            keys = {"path": str(folder / "tokenizer.json"), "bos": "<s>", "eos": "</s>"}
        config: Config = validate({
            "workdir": str(folder / "run"), "tokenizer": keys, "train": {"steps": 1},
            "sources": [{"name": "text", "path": "unused"}],
        })  # fmt: skip
        workdir = Workdir(config.workdir)
        workdir.path.mkdir()
        workdir.corpus.symlink_to(corpus)
        train_tokenizer(config, workdir)
        small = Workdir(folder / "small")
        write_corpus(small.corpus, [("one", texts[0])])
        shutil.copytree(workdir.tokenizer, small.tokenizer)

        def verb(workdir: Workdir) -> None:
            path = folder / f"{workdir.path.name}.yaml"
            path.write_text(dump(config.model_copy(update={"workdir": str(workdir.path)})))
            command = [sys.executable, "-m", "jaxlm", "tokenize", str(path), "--quiet"]
            subprocess.run(command, check=True)

        tokenizer, batch = load_tokenizer(workdir.tokenizer), library(workdir, texts)
        work: dict[str, Callable[[], object]] = {
            "whole": lambda: verb(workdir),
            "start": lambda: verb(small),
            "library": lambda: batch(cores()),
            "encode": lambda: [tokenizer.encode_array(text) for text in texts],
            "library, 1 thread": lambda: batch(1),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
        for _ in range(rounds):
            for name, call in work.items():
                found[name].append(timed(call))
    wall, cpu = (
        {name: statistics.median(pair[k] for pair in pairs) for name, pairs in found.items()}
        for k in range(2)
    )
    cpu["whole, started"] = cpu["whole"] - cpu["start"]
    print(f"{kind:10} start {wall['start']:.2f} s, {cpu['start']:.2f} CPU-seconds")
    for name in ("whole", "library", "encode", "library, 1 thread"):
        print(
            f"{kind:10} {name:18} {size / wall[name]:7.2f} MB/s, {size / cpu[name]:7.2f} MB a CPU "
            f"second (wall {min(w for w, _ in found[name]):.2f} to "
            f"{max(w for w, _ in found[name]):.2f} s)"
        )
    print(
        f"{kind:10} whole / library, {cores()} cores, wall: {wall['library'] / wall['whole']:.3f}; "
        f"CPU, library on 1: {cpu['library, 1 thread'] / cpu['whole']:.3f}, without the start "
        f"{cpu['library, 1 thread'] / cpu['whole, started']:.3f}; "
        f"encode alone: {cpu['library, 1 thread'] / cpu['encode']:.3f}",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    arguments = parser.parse_args()
    documents = list(installed(arguments.megabytes * 10**6))
    texts = [text for _, text in documents]
    print(
        f"{platform.platform()}, Python {platform.python_version()}, sentencepiece "
        f"{sentencepiece.__version__}, tokenizers {tokenizers.__version__}, {cores()} cores; "
        f"{len(texts):,} documents",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        corpus = Path(name) / "corpus"
        write_corpus(corpus, documents)
        for kind in arguments.kinds:
            measure(kind, corpus, texts, arguments.vocab_size, arguments.rounds)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
