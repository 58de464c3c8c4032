"""Editor: classifiers that judge documents or sentences, alone, together, or as a cascade."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.classifiers import Classifiers
from jaxlm.config.rules import Rules
from jaxlm.corpus.classify import judges
from jaxlm.corpus.classify.judges import Section, bounds, judge
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.sentences import sentences, with_space_after
from jaxlm.corpus.stages.base import Changes, Edit, Tags, replaced
from jaxlm.corpus.statistics import Analysis, Mask, Spans
from jaxlm.errors import UserError

_orders: dict[Classifiers, tuple[int, ...]] = {}
"""The order that this process measured for a section."""


def classifiers(texts: Analysis, rules: Rules) -> Edit:
    """Attribute `score` (see the section), with cascade: false one more for each classifier; the
    sentences to cut of documents that `score` keeps.

    A text without a score (no sentence in it, an endpoint's budget) fails no filter, rescues
    nothing and is left out of a weighted mean.
    """
    assert isinstance(rules, Classifiers)
    run = _Run(texts.texts, rules)
    if rules.cascade and rules.combine != "score":
        if rules not in _orders:
            run.all_on(np.arange(len(texts.texts)) < rules.sample)
            _orders[rules] = run.order()
        order = _orders[rules]
    else:
        order = tuple(range(len(rules.models)))
    for model in order:
        run.one_on(model, run.undecided() if rules.cascade else np.ones(len(texts.texts), bool))
    run.write(order)
    tags = {"score": run.score()}
    if not rules.cascade:
        tags |= {model.name: values for model, values in zip(rules.models, run.values, strict=True)}
    return run.edit(tags)


EDITORS = {"classifiers": classifiers}


def files(rules: Rules) -> list[Path]:
    """Local files of the classifiers. Raises UserError with all that cannot be opened, as far as
    that shows cheaply."""
    assert isinstance(rules, Classifiers)
    if not rules.models:
        raise UserError("the stage classifiers needs prepare.classifiers.models")
    out: list[Path] = []
    problems: list[str] = []
    for model in rules.models:
        try:
            out += judges.files(model)
        except UserError as error:
            problems += error.messages
    if problems:
        raise UserError(problems)
    return out


FILES: dict[str, Callable[[Rules], list[Path]]] = {"classifiers": files}


class _Run:
    """The classifiers of one section on one batch: what each gave, and what it cost."""

    def __init__(self, texts: Strings, rules: Classifiers) -> None:
        self.texts, self.rules = texts, rules
        number, size = len(rules.models), len(texts)
        self.values = np.full((number, size), np.nan)
        self.seen = np.zeros((number, size), np.bool_)
        self.bounds = [bounds(model) for model in rules.models]
        self.sentences = sentences(texts)
        self.cuts = np.full(len(self.sentences), number)  # the first classifier that cuts each
        self.seconds = np.zeros(number)
        self.went_on = np.zeros(number, np.int64)

    def one_on(self, number: int, documents: Mask) -> None:
        """Let a classifier see those of these documents that it has not seen."""
        documents = documents & ~self.seen[number]
        if not documents.any():
            return
        model = self.rules.models[number]
        score = judge(model)  # opening it is not part of its cost
        begin = time.perf_counter()
        texts = self.texts.take(documents)
        if model.granularity == "document":
            whole = Spans(texts.offsets[:-1], texts.offsets[1:], np.arange(len(texts) + 1))
            values = score(texts, whole)
        else:
            parts = sentences(texts)
            scores = score(texts, parts)
            values = _statistic(model, scores, parts)
            own = np.flatnonzero(documents[self.sentences.documents])
            cut = np.zeros(len(scores), np.bool_)
            if model.cut_above is not None:
                cut |= scores >= model.cut_above
            if model.cut_below is not None:
                cut |= scores < model.cut_below
            self.cuts[own[cut]] = np.minimum(self.cuts[own[cut]], number)
        self.seconds[number] += time.perf_counter() - begin
        self.values[number, documents] = values
        self.seen[number] |= documents
        every = self.rules.combine == "score"
        on = documents if every else documents & ~self._decides()[number]
        self.went_on[number] += int(on.sum())

    def all_on(self, documents: Mask) -> None:
        """Let all classifiers see the same documents, each as if it were the only one."""
        for number in range(len(self.rules.models)):
            self.one_on(number, documents)

    def order(self) -> tuple[int, ...]:
        """Cheapest first for what it decides: rising cost a document over the share of documents
        that it decides, which is best when classifiers decide independently (Hellerstein and
        Stonebraker 1993, predicate migration)."""
        seen = self.seen.sum(axis=1)
        decides = (self._decides().sum(axis=1) + 1) / (seen + 2)  # never 0
        rank = self.seconds / np.maximum(seen, 1) / decides
        return tuple(np.argsort(rank, kind="stable").tolist())

    def _passes(self) -> NDArray[np.bool_]:
        """Where a score is within its bounds; a missing one is not, [classifiers, D]."""
        low, high = (np.array(side)[:, None] for side in zip(*self.bounds, strict=True))
        return np.asarray((self.values >= low) & (self.values <= high), np.bool_)

    def _decides(self) -> NDArray[np.bool_]:
        """Where a classifier by itself settles a document, [classifiers, D]."""
        known = ~np.isnan(self.values)
        if self.rules.combine == "rescue":
            return self._passes()
        return known & ~self._passes()

    def undecided(self) -> Mask:
        """Documents that further classifiers must see, bool [D]."""
        if self.rules.combine == "score":
            return np.ones(len(self.texts), np.bool_)
        return np.asarray(~self._decides().any(axis=0), np.bool_)

    def score(self) -> NDArray[np.float64]:
        """The combined score, float64 [D]."""
        if self.rules.combine == "filter":
            return (~self._decides().any(axis=0)).astype(np.float64)
        if self.rules.combine == "rescue":
            return self._decides().any(axis=0).astype(np.float64)
        weights = np.array([model.weight for model in self.rules.models])[:, None]
        weights = np.where(np.isnan(self.values), 0.0, weights)
        with np.errstate(invalid="ignore"):
            mean = (weights * np.nan_to_num(self.values)).sum(axis=0) / weights.sum(axis=0)
        return np.asarray(mean, np.float64)

    def edit(self, tags: Tags) -> Edit:
        """Cut sentences of the documents that stay and that every classifier saw."""
        low, high = self.rules.min_score, self.rules.max_score
        # a cascade passes over those that fail a filter, also where min_score lets them stay
        leaves = ~self.undecided()
        if low is not None:
            leaves |= tags["score"] < low
        if high is not None:
            leaves |= tags["score"] > high
        parts = self.sentences
        cut = (self.cuts < len(self.rules.models)) & ~leaves[parts.documents]
        starts, ends = parts.starts[cut], with_space_after(self.texts, parts)[cut]
        document = parts.documents[cut]
        begin = self.texts.offsets[document]
        names = tuple(model.name for model in self.rules.models)
        changes = Changes(names, document, self.cuts[cut], starts - begin, ends - begin)
        return Edit(tags, replaced(self.texts, starts, ends), changes)

    def write(self, order: tuple[int, ...]) -> None:
        """Append what this batch cost to the section's record."""
        if self.rules.record is None:
            return
        names = [model.name for model in self.rules.models]
        line = {
            "order": [names[number] for number in order],
            "documents": len(self.texts),
            "classifiers": {
                name: {
                    "documents": int(self.seen[number].sum()),
                    "seconds": round(float(self.seconds[number]), 6),
                    "went_on": int(self.went_on[number]),
                }
                for number, name in enumerate(names)
            },
        }
        path = Path(self.rules.record)
        path.parent.mkdir(parents=True, exist_ok=True)
        # one write of a short line: processes that append do not mix
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, json.dumps(line).encode() + b"\n")
        finally:
            os.close(file)


def _statistic(model: Section, scores: NDArray[np.float64], parts: Spans) -> NDArray[np.float64]:
    """A score a document from those of its sentences; NaN where none has one."""
    out = np.full(len(parts.first) - 1, np.nan)
    known = ~np.isnan(scores)
    document, scores = parts.documents[known], scores[known]
    sizes = (parts.ends - parts.starts)[known]
    number = np.bincount(document, minlength=len(out))
    some = number > 0
    first = np.searchsorted(document, np.flatnonzero(some))
    if not len(scores):
        return out
    if model.statistic == "max":
        out[some] = np.maximum.reduceat(scores, first)
    elif model.statistic == "min":
        out[some] = np.minimum.reduceat(scores, first)
    elif model.statistic == "mean":
        out[some] = np.bincount(document, scores, len(out))[some] / number[some]
    else:
        counted = sizes * (scores >= model.sentence_score)
        whole = np.bincount(document, sizes, len(out))
        out[some] = np.bincount(document, counted, len(out))[some] / whole[some]
    return out


def summary(record: Path) -> dict[str, Any]:
    """What the batches in a record cost together: for each classifier the documents that it saw,
    seconds a document and the share that went on; and how often each order was taken."""
    total: dict[str, dict[str, float]] = {}
    orders: dict[str, int] = {}
    documents = 0
    for line in record.read_text(encoding="utf-8").splitlines():
        batch = json.loads(line)
        documents += batch["documents"]
        order = ", ".join(batch["order"])
        orders[order] = orders.get(order, 0) + 1
        for name, cost in batch["classifiers"].items():
            own = total.setdefault(name, dict.fromkeys(cost, 0))
            for key, value in cost.items():
                own[key] += value
    return {
        "documents": documents,
        "orders": orders,
        "classifiers": {
            name: {
                "documents": int(cost["documents"]),
                "seconds": round(cost["seconds"], 6),
                "seconds_a_document": cost["seconds"] / max(1, cost["documents"]),
                "went_on": cost["went_on"] / max(1, cost["documents"]),
            }
            for name, cost in total.items()
        },
    }
