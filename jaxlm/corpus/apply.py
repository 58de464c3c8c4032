"""Stages applied to a batch of documents: tag, decide, rewrite, and note all of it."""

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.corpus import Prepare
from jaxlm.config.rules import Rules
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.ledger import MOST_SPANS, Tally, number
from jaxlm.corpus.stages import EDITORS, LABELLERS, TAGGERS, Edit, Failure, Tags, decide
from jaxlm.corpus.statistics import Analysis

KEPT = -1


@dataclass(frozen=True)
class Tagged:
    """What a group of stages found of D documents, those that it dropped included."""

    stages: tuple[str, ...]
    documents: Documents
    dropped: NDArray[np.int64]
    """Number of the stage that dropped each document, KEPT where none did, [D]."""
    columns: Tags
    """stage.attribute -> values, float64 [D]; NaN where a stage did not judge the document."""


def groups(stages: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Neighbouring taggers together, so that they share their analysis; all others alone."""
    for tags, names in itertools.groupby(stages, lambda stage: stage in TAGGERS):
        found = tuple(names)
        yield from [found] if tags else [(name,) for name in found]


def apply(
    documents: Documents, stages: tuple[str, ...], config: Prepare, tally: Tally
) -> tuple[Documents, Tags, list[Tagged]]:
    """The documents that are left after all stages, their attributes, and what each group found."""
    tags: Tags = {}
    found = []
    for group in groups(stages):
        if group[0] in TAGGERS:
            after, tagged = judge(documents, group, config, tally)
        elif group[0] in LABELLERS:
            after, tagged = label(documents, group[0], config, tally)
        else:
            after, tagged = edit(documents, group[0], config, tally)
        keep = tagged.dropped == KEPT
        tags = {name: values[keep] for name, values in (tags | tagged.columns).items()}
        documents = after
        found.append(tagged)
    return documents, tags, found


def judge(
    documents: Documents, stages: tuple[str, ...], config: Prepare, tally: Tally
) -> tuple[Documents, Tagged]:
    """Tag a batch for all these rule sets, then decide one set after the other.

    A document falls at the first set that it fails; every rule of that set which it fails is
    counted and has a line in the ledger.
    """
    columns: Tags = {}
    failures: list[list[tuple[NDArray[np.int64], list[Failure]]]] = [[] for _ in stages]
    for sections, where in _ways(documents, stages, config):
        analysis = Analysis(documents.at(where))
        for k, (stage, section) in enumerate(zip(stages, sections, strict=True)):
            if section is not None:
                begin = time.process_time()
                tags = TAGGERS[stage](analysis, section)
                tally.spent(stage, time.process_time() - begin)
                _scatter(columns, stage, tags, where, len(documents))
                failures[k].append((where, decide(section, tags)))
    dropped = np.full(len(documents), KEPT, np.int64)
    for k, stage in enumerate(stages):
        _drop(documents, stage, k, failures[k], dropped, tally)
        left = dropped == KEPT
        tally.stage(stage, int(left.sum()), int(documents.texts.lengths[left].sum()))
    return documents.take(dropped == KEPT), Tagged(stages, documents, dropped, columns)


def label(
    documents: Documents, stage: str, config: Prepare, tally: Tally
) -> tuple[Documents, Tagged]:
    """Find out the documents' languages, then decide."""
    columns: Tags = {}
    failures = []
    languages = documents.languages.copy()
    for (section,), where in _ways(documents, (stage,), config):
        if section is not None:
            begin = time.process_time()
            languages[where], tags = LABELLERS[stage](documents.at(where), section)
            tally.spent(stage, time.process_time() - begin)
            _scatter(columns, stage, tags, where, len(documents))
            failures.append((where, decide(section, tags)))
    documents = replace(documents, languages=languages)
    dropped = np.full(len(documents), KEPT, np.int64)
    _drop(documents, stage, 0, failures, dropped, tally)
    left = documents.take(dropped == KEPT)
    tally.stage(stage, len(left), int(left.texts.offsets[-1]))
    return left, Tagged((stage,), documents, dropped, columns)


def edit(
    documents: Documents, stage: str, config: Prepare, tally: Tally
) -> tuple[Documents, Tagged]:
    """Tag, decide and rewrite; each rule that changed a document that stays is in the ledger."""
    columns: Tags = {}
    failures, edits = [], []
    for (section,), where in _ways(documents, (stage,), config):
        if section is not None:
            begin = time.process_time()
            result = EDITORS[stage](Analysis(documents.at(where)), section)
            tally.spent(stage, time.process_time() - begin)
            _scatter(columns, stage, result.tags, where, len(documents))
            failures.append((where, decide(section, result.tags)))
            edits.append((where, result))
    dropped = np.full(len(documents), KEPT, np.int64)
    notes = {int(where[i]): note for where, e in edits for i, note in e.notes.items()}
    _drop(documents, stage, 0, failures, dropped, tally, notes)
    texts = documents.texts
    for where, result in edits:
        _changes(documents, stage, where, result, dropped, notes, tally)
        if len(where) == len(documents):
            texts = result.texts
        else:
            indexes = np.unique(result.changes.document).tolist()
            texts = texts.replace({int(where[i]): result.texts[i] for i in indexes})
    for index in map(int, np.flatnonzero((texts.lengths == 0) & (dropped == KEPT))):
        tally.hit(documents, index, stage, "empty", "drop", 0, None)
        dropped[index] = 0
    left = replace(documents, texts=texts).take(dropped == KEPT)
    tally.stage(stage, len(left), int(left.texts.offsets[-1]))
    return left, Tagged((stage,), documents, dropped, columns)


def _ways(
    documents: Documents, stages: tuple[str, ...], config: Prepare
) -> Iterator[tuple[list[Rules | None], NDArray[np.int64]]]:
    """Documents with the same sections for these stages: the sections, and the indexes."""
    ways: list[tuple[list[Rules | None], list[str]]] = []
    for language in map(str, np.unique(documents.languages)):
        sections = [config.section(stage, documents.source, language) for stage in stages]
        for known, languages in ways:
            if known == sections:
                languages.append(language)
                break
        else:
            ways.append((sections, [language]))
    for sections, languages in ways:
        yield sections, np.flatnonzero(np.isin(documents.languages, languages))


def _scatter(
    columns: Tags, stage: str, tags: Tags, where: NDArray[np.int64], documents: int
) -> None:
    for attribute, values in tags.items():
        column = columns.setdefault(f"{stage}.{attribute}", np.full(documents, np.nan))
        column[where] = values


def _drop(
    documents: Documents,
    stage: str,
    k: int,
    found: list[tuple[NDArray[np.int64], list[Failure]]],
    dropped: NDArray[np.int64],
    tally: Tally,
    notes: Mapping[int, str] = {},
) -> None:
    """Mark the documents that fail as dropped by stage k; count and note those that were there."""
    hits: list[tuple[int, int, Failure, float]] = []
    for where, failures in found:
        for order, failure in enumerate(failures):
            name = f"{stage}.{failure.rule}"
            tally.rule(name).judge(failure.threshold, failure.values, failure.failed)
            for i in np.flatnonzero(failure.failed & (dropped[where] == KEPT)).tolist():
                hits.append((int(where[i]), order, failure, float(failure.values[i])))
    for index, _, failure, value in sorted(hits, key=lambda hit: hit[:2]):
        tally.hit(documents, index, stage, failure.rule, "drop", number(value), failure.threshold,
                  note=notes.get(index))  # fmt: skip
        dropped[index] = k


def _changes(
    documents: Documents,
    stage: str,
    where: NDArray[np.int64],
    result: Edit,
    dropped: NDArray[np.int64],
    notes: Mapping[int, str],
    tally: Tally,
) -> None:
    """Note what was changed in documents that stay: the number of pieces of each name, where."""
    changes = result.changes
    pieces: dict[tuple[int, int], list[int]] = {}
    for c, (i, name) in enumerate(
        zip(where[changes.document].tolist(), changes.name.tolist(), strict=True)
    ):
        if dropped[i] == KEPT:
            pieces.setdefault((i, name), []).append(c)
    for (i, name), numbers in sorted(pieces.items()):
        shown = [(int(changes.start[c]), int(changes.end[c])) for c in numbers[:MOST_SPANS]]
        tally.hit(documents, i, stage, changes.names[name], "change", len(numbers), None,
                  spans=documents.characters(i, shown), note=notes.get(i))  # fmt: skip
