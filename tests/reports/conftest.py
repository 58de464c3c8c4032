"""A workdir with every record, small enough to check by hand."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from jaxlm.workdir import Workdir

HASH = "ab" * 32


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines, through zstd where the name says so."""
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(zstandard.compress(data) if path.suffix == ".zst" else data)


def entry(source: str, name: str, rule: str, **more: Any) -> dict[str, Any]:
    """A line of the ledger."""
    line = {"source": source, "id": name, "stage": "quality", "rule": rule, "action": "drop"}
    return line | {"value": 0.25, "threshold": 0.1, "excerpt": f"text of {name}"} | more


def metric(step: int, loss: float | None) -> dict[str, Any]:
    """A line of metrics.jsonl of a run with 100 tokens a step."""
    return {
        "step": step, "loss": loss, "tokens": 100 * step, "learning_rate": 0.001, "grad_norm": 0.5,
        "step_time_s": 0.5, "tokens_per_s": 200.0, "mfu": 0.4, "mfu_causal": 0.3, "time": 1.8e9,
        "source_tokens": {"web": 75 * step, "code": 25 * step},
    }  # fmt: skip


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    """A finished run of 20 steps on two sources."""
    workdir = Workdir(tmp_path / "little")
    for folder in (workdir.corpus, workdir.tokenizer, workdir.tokens, workdir.checkpoints / "20"):
        folder.mkdir(parents=True)

    def stages(*counts: tuple[str, int, int]) -> list[dict[str, Any]]:
        return [{"stage": name, "documents": docs, "bytes": size} for name, docs, size in counts]

    corpus = {
        "sources": {
            "web": {
                "kind": "web",
                "stages": stages(("read", 1234, 5_000_000), ("quality", 1000, 4_000_000)),
                "rules": {
                    "quality.gopher.min_words": {"documents": 234, "bytes": 1_000_000},
                    "quality.c4.lorem_ipsum": {"documents": 0, "bytes": 0},
                },
            },
            "code": {
                "kind": "code",
                "stages": stages(("read", 20, 300_000), ("quality", 1, 1_000)),
                "rules": {"quality.gopher.min_words": {"documents": 19, "bytes": 299_000}},
            },
        },
        "shards": [],
        "seconds": 10.0,
    }
    (workdir.corpus / "stats.json").write_text(json.dumps(corpus))
    write_lines(
        workdir.corpus / "ledger.jsonl.zst",
        [entry("web", f"page-{i}", "gopher.min_words", partner="first") for i in range(234)]
        + [entry("code", f"file-{i}", "gopher.min_words", partner="first") for i in range(19)],
    )
    manifest = {"kind": "bpe", "vocab_size": 8192, "hash": HASH, "bos_id": 1, "eos_id": 2}
    (workdir.tokenizer / "manifest.json").write_text(json.dumps(manifest))

    def split(documents: int, tokens: int, size: int) -> dict[str, int]:
        return {"documents": documents, "tokens": tokens, "bytes": size}

    tokens = {
        "tokenizer_hash": HASH,
        "dtype": "uint16",
        "sources": {
            "web": {"train": split(980, 1_000_000, 3_900_000), "valid": split(20, 25_000, 100_000)},
            "code": {"train": split(1, 1_500, 1_000), "valid": split(0, 0, 0)},
        },
        "files": [],
    }
    (workdir.tokens / "manifest.json").write_text(json.dumps(tokens))
    write_lines(workdir.metrics, [metric(step, 9.0 - 0.25 * step) for step in range(1, 21)])
    score = {"loss": 4.125, "perplexity": 61.87, "bits_per_byte": 1.5321, "tokens": 25_000}
    evaluation = {"step": 20, "sources": {"web": score}, "all": score, "parameters": 7_345_408}
    workdir.evaluation.write_text(json.dumps(evaluation))
    write_lines(
        workdir.samples,
        [{"prompt": "Once", "text": " upon a time", "temperature": 0.8, "top_p": 0.95, "seed": 7,
          "step": 20}],
    )  # fmt: skip
    workdir.config.write_text(
        "workdir: little\nsources:\n- {name: web, weight: 3}\n- {name: code}\n"
        "train: {steps: 20, batch_size: 4}\ndata: {seq_len: 25}\n"
    )
    return workdir
