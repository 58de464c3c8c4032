"""WORKDIR/report/index.html: one page that needs nothing else, made from the records alone."""

import base64
import hashlib
import math
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined

from jaxlm.errors import UserError
from jaxlm.reports import records, units
from jaxlm.reports.charts import Chart, Series, draw, smooth
from jaxlm.workdir import Workdir, write_text

EXAMPLES = 5  # of each rule
SAMPLES = 20
ALARM_SHARE, ALARM_DOCUMENTS = 0.9, 10


def write_report(workdir: Workdir) -> Path:
    """Write the report of a run, finished or not, and return its path.

    Reads only the records in the workdir; the same records give the same bytes. A record that is
    not there yet becomes a line that names the command that makes it.
    Raises UserError with every broken record at once.
    """
    if not workdir.path.is_dir():
        raise UserError(f"{workdir.path}: no such folder; give the workdir of a run")
    problems: list[str] = []

    def read[R](reader: Callable[..., R], *args: int) -> R | None:
        try:
            return reader(workdir, *args)
        except UserError as error:
            problems.extend(error.messages)
            return None

    config = read(records.read_config)
    corpus = read(records.read_corpus)
    ledger = read(records.read_ledger, EXAMPLES)
    tokenizer = read(records.read_tokenizer)
    tokens = read(records.read_tokens)
    metrics = read(records.read_metrics)
    evaluation = read(records.read_evaluation)
    samples = read(records.read_samples, SAMPLES)
    if problems:
        raise UserError(problems)

    names = [s.name for s in config.keys.sources] if config else []
    for record in (corpus, tokens, evaluation):
        names += [name for name in (record.sources if record else ()) if name not in names]
    html = _environment().get_template("page.html").render(
        workdir=workdir.path,
        # nine colours: the ninth is for all further sources
        colour={name: min(index, 8) for index, name in enumerate(names)},
        config=config,
        corpus=corpus,
        funnel=corpus and funnel(corpus),
        rules=rules(corpus, ledger),
        has_ledger=ledger is not None,
        alarms=corpus and alarms(corpus, ledger),
        tokenizer=tokenizer,
        tokens=tokens,
        mixture=config and mixture(config.keys, tokens, metrics),
        metrics=metrics,
        broken_losses=metrics and int((~np.isfinite(metrics.columns["loss"])).sum()),
        charts=metrics and charts(metrics, evaluation),
        evaluation=evaluation,
        samples=samples,
        seconds=metrics and training_seconds(metrics),
        median_rate=metrics and median(metrics.columns["tokens_per_s"]),
        smooth_loss=metrics and float(smooth(metrics.columns["loss"])[-1]),
    )  # fmt: skip
    path = workdir.report / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, html)
    return path


def funnel(corpus: records.CorpusStats) -> dict[str, Any]:
    """Documents and bytes after each stage, by source and in all.

    Sources may have stages of their own: a stage that a source lacks leaves it as it was.
    """
    stages: list[str] = []
    for source in corpus.sources.values():
        stages += [s.stage for s in source.stages if s.stage not in stages]
    zero = records.Count(documents=0, bytes=0)
    table: dict[str, dict[str, records.Count]] = {}
    for name, source in corpus.sources.items():
        own = {stage.stage: stage for stage in source.stages}
        before: records.Count = zero
        table[name] = {stage: (before := own.get(stage, before)) for stage in stages}
    totals = {
        stage: records.Count(
            documents=sum(row[stage].documents for row in table.values()),
            bytes=sum(row[stage].bytes for row in table.values()),
        )
        for stage in stages
    }
    return {
        "stages": stages,
        "table": table,
        "totals": totals,
        "read": totals[stages[0]] if stages else zero,
        "kept": totals[stages[-1]] if stages else zero,
        "widest": records.Count(
            documents=max((t.documents for t in totals.values()), default=0),
            bytes=max((t.bytes for t in totals.values()), default=0),
        ),
    }


def rules(
    corpus: records.CorpusStats | None, ledger: dict[str, records.RuleRecord] | None
) -> list[dict[str, Any]]:
    """One row a rule that did something, most documents first: counts of stats.json, actions and
    examples of the ledger."""
    rows: dict[str, dict[str, Any]] = {}

    def row_of(name: str) -> dict[str, Any]:
        new = {"name": name, "documents": 0, "bytes": 0, "sources": {}}
        return rows.setdefault(name, new | {"actions": [], "examples": []})

    for source, stats in (corpus.sources if corpus else {}).items():
        for name, count in stats.rules.items():
            row = row_of(name)
            row["documents"] += count.documents
            row["bytes"] += count.bytes
            if count.documents:
                row["sources"][source] = count.documents
    for name, record in (ledger or {}).items():
        if name not in rows:
            row_of(name).update(
                documents=record.actions.total(),
                bytes=None,
                sources=dict(sorted(record.sources.items())),
            )
        rows[name].update(actions=sorted(record.actions), examples=record.examples)
    fired = [row for row in rows.values() if row["documents"]]
    return sorted(fired, key=lambda row: (-row["documents"], row["name"]))


def alarms(corpus: records.CorpusStats, ledger: dict[str, records.RuleRecord] | None) -> list[str]:
    """Sources that were cut, rules that took nearly all of one, rules that never did anything."""
    found, fired = [], dict[str, bool]()
    for source, stats in corpus.sources.items():
        read = stats.stages[0].documents if stats.stages else 0
        if stats.cut_at_max_bytes:
            limit = units.size(stats.max_bytes or 0)
            found.append(f"{source} was read up to its max_bytes, {limit}; it has more")
        for rule, count in stats.rules.items():
            fired[rule] = fired.get(rule, False) or count.documents > 0
            # a rule that changes most documents is no alarm
            drops = ledger is None or rule not in ledger or "drop" in ledger[rule].actions
            if drops and read >= ALARM_DOCUMENTS and count.documents >= ALARM_SHARE * read:
                found.append(
                    f"{rule} took {units.whole(count.documents)} of the {units.whole(read)} "
                    f"documents of {source}"
                )
    if idle := [rule for rule, did in sorted(fired.items()) if not did]:
        found.append(f"Never fired: {', '.join(idle)}")
    return found


def mixture(
    config: records.ConfigKeys,
    tokens: records.TokensManifest | None,
    metrics: records.Metrics | None,
) -> list[dict[str, Any]]:
    """Share of training tokens by source: wanted (weights), held in the store, consumed so far."""
    held = {n: s.train.tokens for n, s in tokens.sources.items()} if tokens else {}
    read = metrics.last.source_tokens if metrics else {}
    weights = {s.name: s.weight for s in config.sources}
    return [
        {
            "name": name,
            "wanted": share(weight, sum(weights.values())),
            "held": share(held.get(name), sum(held.values())),
            "read": share(read.get(name), sum(read.values())),
            "tokens": read.get(name),
            "passes": share(read.get(name), held.get(name)),
        }
        for name, weight in weights.items()
    ]


def share(part: float | None, of: float | None) -> float | None:
    """part / of, None where either is unknown or there is nothing to divide by."""
    return part / of if part is not None and of else None


def charts(metrics: records.Metrics, evaluation: records.Evaluation | None) -> list[Chart]:
    """Loss, learning rate, throughput, MFU and gradient norm over steps, where they are known."""
    column = metrics.columns
    steps = column["step"]

    def one(name: str, key: str) -> Series:
        return Series(name, steps, column[key])

    loss = [
        Series("smoothed", steps, smooth(column["loss"])),
        Series("logged", steps, column["loss"], "faint"),
    ]
    if evaluation:
        at, value = np.array([float(evaluation.step)]), np.array([evaluation.all.loss])
        loss.append(Series("validation", at, value, "dot"))
    causal = Series("causal half", steps, column["mfu_causal"], "second")
    found = [
        draw("Loss (nats per token)", loss, log=True, write=lambda v: f"{v:.4g}"),
        draw("Learning rate", [one("learning rate", "learning_rate")], from_zero=True,
             write=lambda v: f"{v:.3g}"),
        draw("Throughput (tokens per second)", [one("tokens/s", "tokens_per_s")], from_zero=True),
        draw("Model FLOPs utilisation", [one("all attention", "mfu"), causal], from_zero=True,
             write=lambda v: f"{100 * v:.3g}%"),
        draw("Gradient norm", [one("gradient norm", "grad_norm")], log=True),
    ]  # fmt: skip
    return [chart for chart in found if chart]


def median(values: np.ndarray) -> float | None:
    """Median of the finite values."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else None


def training_seconds(metrics: records.Metrics) -> float | None:
    """Time in steps: the mean step time times the steps; pauses between restarts do not count."""
    times = metrics.columns["step_time_s"]
    finite = times[np.isfinite(times)]
    return float(finite.mean()) * metrics.last.step if len(finite) else None


def _source(name: str) -> str | None:
    file = resources.files("jaxlm.reports") / name
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _environment() -> Environment:
    """Autoescaping is on: nothing from a record reaches the page as markup."""
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    for function in (units.whole, units.short, units.size, units.duration, units.percent):
        environment.filters[function.__name__] = function
    environment.filters["value"] = _value
    script = _source("page.js") or ""
    environment.globals |= {
        "isfinite": math.isfinite,
        "style": _source("page.css"),
        "script": script,
        # the page's policy runs this one script and no other, whatever stands in a document
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    return environment


def _value(value: Any) -> str:
    """A value or threshold of the ledger: numbers short, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
