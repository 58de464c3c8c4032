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
from jaxlm.reports import corpus as corpora
from jaxlm.reports import records, rules, units
from jaxlm.reports import tokenizer as tokenizers
from jaxlm.reports.charts import Chart, Series, draw, smooth
from jaxlm.workdir import Workdir, write_text

SAMPLES = 20


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
    ledger = read(records.read_ledger, rules.EXAMPLES)
    examples = read(records.read_examples, rules.EXAMPLES)
    timings = read(records.read_timings)
    corpus_config = read(records.read_corpus_config)
    tokenizer = read(records.read_tokenizer)
    measured = read(records.read_tokenizer_report)
    tokens = read(records.read_tokens)
    plan = read(records.read_plan)
    metrics = read(records.read_metrics)
    evaluation = read(records.read_evaluation)
    samples = read(records.read_samples, SAMPLES)
    if problems:
        raise UserError(problems)

    names = [s.name for s in config.keys.sources] if config else []
    for record in (corpus, tokens, evaluation):
        names += [name for name in (record.sources if record else ()) if name not in names]
    # nine colours: the ninth is for all further sources
    colour = {name: min(index, 8) for index, name in enumerate(names)}
    if not timings:
        corpus_config = None  # of a version that did not count what was judged
    found = rules.rules(corpus, ledger, examples)
    html = environment().get_template("page.html").render(
        workdir=workdir.path,
        colour=colour,
        config=config,
        corpus=corpus,
        funnel=corpus and corpora.funnel(corpus),
        speed=corpus and timings and corpora.speed(corpus, timings),
        cpu=corpus and timings and corpora.cpu_times(corpus, timings),
        rules=[rule for rule in found if rule.documents or rule.judged],
        has_ledger=ledger is not None,
        alarms=corpus and corpora.alarms(corpus, found, corpus_config),
        never_failed=corpus and corpora.never_failed(corpus, found, corpus_config),
        tokenizer=tokenizer,
        measured=measured,
        told=measured and {
            "trained_on": tokenizers.trained_on(measured),
            "unused": tokenizers.unused(measured.tokenizer),
            "coverage": tokenizers.coverage(measured.tokenizer),
            "round_trip": tokenizers.round_trip(measured.tokenizer),
        },
        tokens=tokens,
        mixture=config and mixture(config.keys, tokens, plan, metrics),
        stages=plan and [stage_row(stage) for stage in plan.stages if stage.name],
        steps=plan.steps if plan else 0,
        repeated=metrics and metrics.last.repeated_tokens,
        metrics=metrics,
        broken_losses=metrics and int((~np.isfinite(metrics.columns["loss"])).sum()),
        charts=metrics and charts(metrics, evaluation) + shares_over_steps(metrics, colour),
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


def mixture(
    config: records.ConfigKeys,
    tokens: records.TokensManifest | None,
    plan: records.Plan | None,
    metrics: records.Metrics | None,
) -> list[dict[str, Any]]:
    """Share of training tokens by stream: wanted up to the last step, held in the store, read."""
    held = {n: s.train.tokens for n, s in tokens.sources.items()} if tokens else {}
    read = metrics.last.source_tokens if metrics else {}
    epochs = metrics.last.source_epochs if metrics else {}
    names = list(held) or [source.name for source in config.sources]
    wanted = dict.fromkeys(names, 0.0)
    for stage in plan.stages if plan else ():
        end = min(metrics.last.step, stage.last) if metrics else stage.last
        done = max(end - stage.first, 0) / (stage.last - stage.first)
        for name, count in stage.tokens.items():
            wanted[name] = wanted.get(name, 0.0) + count * done
    return [
        {
            "name": name,
            "wanted": share(wanted[name], sum(wanted.values())),
            "held": share(held.get(name), sum(held.values())),
            "read": share(read.get(name), sum(read.values())),
            "tokens": read.get(name),
            "epochs": epochs.get(name),
        }
        for name in names
    ]


def stage_row(stage: records.PlannedStage) -> dict[str, Any]:
    """A stage of the curriculum: its length, and the share and epochs of each stream."""
    whole = sum(stage.tokens.values())
    return {
        "name": stage.name,
        "first": stage.first + 1,
        "last": stage.last,
        "tokens": whole,
        "shares": {name: count / whole for name, count in stage.tokens.items()},
        "epochs": max(stage.epochs.values()),
    }


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


def shares_over_steps(metrics: records.Metrics, colour: dict[str, int]) -> list[Chart]:
    """A dynamic mixture: share of each source, which changes behind the step of a decision."""
    last = float(metrics.last.step)
    names = dict.fromkeys(name for _, change in metrics.changes for name in change.after)
    found: list[Series] = []
    for name in names:
        steps, values, since = list[float](), list[float](), 1.0
        for step, change in metrics.changes:
            before, after = (shares.get(name, np.nan) for shares in (change.before, change.after))
            steps += [since, float(step), float(step)]
            values += [before, before, after]
            since = float(step)
        found.append(
            Series(
                name,
                np.array([*steps, last]),
                np.array([*values, values[-1]]),
                f"c{colour.get(name, 8)}",
            )
        )
    if not found:
        return []
    written = draw("Shares of sources", found, from_zero=True, write=lambda v: f"{100 * v:.3g}%")
    return [written] if written else []


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


def environment() -> Environment:
    """What makes pages of the templates beside this file. Autoescaping is on: nothing from a record
    reaches a page as markup."""
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    for function in (units.whole, units.short, units.size, units.duration, units.percent):
        environment.filters[function.__name__] = function
    environment.filters["value"] = rules.number
    script = _source("page.js") or ""
    environment.globals |= {
        "isfinite": math.isfinite,
        "box": (rules.WIDTH, rules.HEIGHT),
        "style": _source("page.css"),
        "script": script,
        # the page's policy runs this one script and no other, whatever stands in a document
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    return environment
