"""A workdir with every record, small enough to check by hand."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from jaxlm.reports import records, rules
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


def judged(
    threshold: float, bins: dict[int, int], failed: int, documents: int, size: int
) -> dict[str, Any]:
    """The counts of a rule with a threshold; bins: number of documents by number of the bin."""
    histogram = [bins.get(i, 0) for i in range(32)]
    return {"documents": documents, "bytes": size, "judged": sum(histogram), "failed": failed,
            "threshold": threshold, "histogram": histogram}  # fmt: skip


def example(source: str, name: str, rule: str, dropped: bool, **more: Any) -> dict[str, Any]:
    """A line of the examples."""
    line = {"source": source, "id": name, "stage": "quality", "rule": rule, "dropped": dropped}
    text = f"text of {name}"
    return line | {"value": 0.25, "threshold": 0.1, "text": text, "from": 0,
                   "characters": len(text), "spans": []} | more  # fmt: skip


def stats(**rules: dict[str, Any]) -> records.CorpusStats:
    """A corpus of one source, of which `quality` left 60 of 100 documents."""
    stages = [
        {"stage": "read", "documents": 100, "bytes": 1000},
        {"stage": "quality", "documents": 60, "bytes": 600},
        {"stage": "dedup", "documents": 50, "bytes": 500},
    ]
    source = {"kind": "web", "stages": stages, "rules": rules}
    return records.CorpusStats.model_validate({"sources": {"web": source}})


def one(name: str, count: dict[str, Any]) -> rules.Rule:
    """The only rule of a corpus."""
    (rule,) = rules.rules(stats(**{name: count}), None, None)
    return rule


def metric(step: int, loss: float | None) -> dict[str, Any]:
    """A line of metrics.jsonl of a run with 100 tokens a step."""
    return {
        "step": step, "loss": loss, "tokens": 100 * step, "learning_rate": 0.001, "grad_norm": 0.5,
        "step_time_s": 0.5, "tokens_per_s": 200.0, "mfu": 0.4, "mfu_causal": 0.3, "time": 1.8e9,
        "source_tokens": {"web": 75 * step, "code": 25 * step},
        "source_epochs": {"web": 75e-6 * step, "code": step / 60}, "repeated_tokens": 0,
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
                    "quality.gopher.min_words": judged(
                        50, {0: 4, 6: 230, 11: 500, 31: 500}, 234, 234, 1_000_000
                    ),
                    "quality.gopher.max_words": judged(1000, {1: 1230, 5: 4}, 0, 0, 0),
                    "dedup.exact.same_text": {"documents": 2, "bytes": 10},
                },
            },
            "code": {
                "kind": "code",
                "stages": stages(("read", 20, 300_000), ("quality", 1, 1_000)),
                "rules": {"quality.gopher.min_words": judged(50, {1: 19, 31: 1}, 19, 19, 299_000)},
            },
        },
        "shards": [],
    }
    (workdir.corpus / "stats.json").write_text(json.dumps(corpus))
    timings = {
        "seconds": 10.0,
        "cpu_seconds": {"web": {"quality": 2.0}, "code": {"quality": 0.5}},
    }
    (workdir.corpus / "timings.json").write_text(json.dumps(timings))
    everything: dict[str, Any] = {"kinds": ["web", "code"], "languages": []}
    prepare = {
        "stages": ["quality.gopher", "quality.forum"],
        "routes": [{"sources": ["web"], "set": {"quality.gopher.min_stop_words": 2}}],
        "quality": {
            "gopher": everything
            | {"min_words": 50, "max_words": 1000, "max_digits": None, "min_stop_words": None},
            "forum": {"kinds": ["forum"], "languages": ["en", "zh"], "min_likes": 3},
        },
    }
    (workdir.corpus / "config.json").write_text(json.dumps({"prepare": prepare, "sources": []}))
    write_lines(
        workdir.corpus / "examples.jsonl.zst",
        [example("web", f"page-{i}", "gopher.min_words", True, spans=[[0, 4]]) for i in range(30)]
        + [example("web", f"good-{i}", "gopher.min_words", False) for i in range(3)],
    )
    write_lines(
        workdir.corpus / "ledger.jsonl.zst",
        [entry("web", f"page-{i}", "gopher.min_words", partner="first") for i in range(234)]
        + [entry("code", f"file-{i}", "gopher.min_words", partner="first") for i in range(19)]
        + [entry("web", f"copy-{i}", "same_text", stage="dedup.exact", value=None, threshold=None,
                 partner="first", note="the same bytes") for i in range(2)],
    )  # fmt: skip
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
    plan = {
        "name": None, "first": 0, "last": 20,
        "tokens": {"web": 1500, "code": 500}, "epochs": {"web": 0.002, "code": 1.25},
    }  # fmt: skip
    workdir.mixture.write_text(json.dumps({"stages": [plan]}))
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
