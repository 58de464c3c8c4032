"""Reading records back: bounded memory, samples that do not depend on order, broken files."""

import json
import random
import resource
from pathlib import Path

import numpy as np
import pytest
import zstandard

from jaxlm.errors import UserError
from jaxlm.reports import records
from jaxlm.workdir import Workdir
from tests.reports.conftest import entry, metric, write_lines


def test_ledger_examples_do_not_depend_on_its_order(workdir: Workdir) -> None:
    path = workdir.corpus / "ledger.jsonl.zst"
    lines = [entry("web", f"page-{i}", f"rule-{i % 3}") for i in range(900)]
    write_lines(path, lines)
    first = records.read_ledger(workdir, 5)
    random.Random(1).shuffle(lines)
    write_lines(path, lines)
    assert records.read_ledger(workdir, 5) == first
    assert first is not None
    assert list(first) == ["quality.rule-0", "quality.rule-1", "quality.rule-2"]
    assert all(r.actions == {"drop": 300} and len(r.examples) == 5 for r in first.values())
    # a sample of the whole ledger, not its beginning
    assert max(int(e.id.split("-")[1]) for r in first.values() for e in r.examples) > 300


def test_a_long_ledger_needs_no_more_memory(workdir: Workdir) -> None:
    block = "".join(
        json.dumps(entry("web", f"page-{i}", f"rule-{i % 7}", excerpt="x" * 300)) + "\n"
        for i in range(500)
    ).encode()
    with open(workdir.corpus / "ledger.jsonl.zst", "wb") as file:
        file.write(zstandard.compress(block))
    records.read_ledger(workdir, 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open(workdir.corpus / "ledger.jsonl.zst", "wb") as file:
        for _ in range(200):  # 100,000 entries, 45 MB of text, in frames of their own
            file.write(zstandard.compress(block))
    ledger = records.read_ledger(workdir, 20)
    assert ledger is not None
    assert sum(rule.actions.total() for rule in ledger.values()) == 100_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # kB


@pytest.mark.parametrize("cut", [1, 5, 100])
def test_truncated_ledger(workdir: Workdir, cut: int) -> None:
    path = workdir.corpus / "ledger.jsonl.zst"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(UserError, match="ends too early"):
        records.read_ledger(workdir, 5)


def test_damaged_ledger(workdir: Workdir) -> None:
    path = workdir.corpus / "ledger.jsonl.zst"
    path.write_bytes(b"not zstd at all")
    with pytest.raises(UserError, match="broken zstd data"):
        records.read_ledger(workdir, 5)
    path.write_bytes(zstandard.compress(b'{"source": "web"}\n'))
    with pytest.raises(UserError, match=r"ledger.jsonl.zst:1: id: Field required"):
        records.read_ledger(workdir, 5)


def test_a_bomb_of_one_line_is_refused(workdir: Workdir) -> None:
    data = zstandard.compress(b" " * (1 << 28))
    assert len(data) < 1 << 16
    (workdir.corpus / "ledger.jsonl.zst").write_bytes(data)
    with pytest.raises(UserError, match=r"ledger.jsonl.zst:1: a line of more than"):
        records.read_ledger(workdir, 5)


def test_metrics_by_column(workdir: Workdir) -> None:
    write_lines(workdir.metrics, [metric(1, 5.0), metric(2, None) | {"mfu": None}])
    metrics = records.read_metrics(workdir)
    assert metrics is not None
    np.testing.assert_array_equal(metrics.columns["loss"], [5.0, np.nan])
    np.testing.assert_array_equal(metrics.columns["mfu"], [0.4, np.nan])
    assert (metrics.last.step, metrics.last.tokens, metrics.unfinished) == (2, 200, False)


def test_only_an_unended_last_line_of_metrics_is_forgiven(workdir: Workdir) -> None:
    whole = workdir.metrics.read_text()
    for end in ("{", '{"step": 21', '{"step": 21, "loss": 3.0}'):
        workdir.metrics.write_text(whole + end)
        metrics = records.read_metrics(workdir)
        assert metrics is not None
        assert metrics.unfinished
        assert metrics.last.step == 20
        workdir.metrics.write_text(whole + end + "\n")
        with pytest.raises(UserError, match=r"metrics.jsonl:21: "):
            records.read_metrics(workdir)
    # a whole last line counts, with its newline or without
    workdir.metrics.write_text(whole.rstrip("\n"))
    metrics = records.read_metrics(workdir)
    assert metrics is not None
    assert not metrics.unfinished
    assert metrics.last.step == 20


def test_nothing_yet_is_none(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    workdir.metrics.touch()
    assert records.read_metrics(workdir) is None
    assert records.read_samples(workdir, 5) is None
    assert records.read_ledger(workdir, 5) is None
    assert records.read_corpus(workdir) is None


def test_last_samples(workdir: Workdir) -> None:
    sample = {"prompt": "", "text": "", "temperature": 0.8, "top_p": 0.9, "seed": 0}
    write_lines(workdir.samples, [sample | {"step": step} for step in range(30)])
    samples = records.read_samples(workdir, 3)
    assert samples is not None
    assert [s.step for s in samples] == [27, 28, 29]
