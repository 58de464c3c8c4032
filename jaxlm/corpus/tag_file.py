"""Named rule sets on one file of records, without a corpus: the verb `jaxlm tag`."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.config.corpus import Limits, Source
from jaxlm.corpus import listing
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.ledger import number
from jaxlm.corpus.readers import Bad, Record, read
from jaxlm.corpus.stages import EDITORS, LABELLERS, TAGGERS, Edit, decide
from jaxlm.corpus.stages.sets import SETS, RuleSet
from jaxlm.corpus.statistics import Analysis
from jaxlm.errors import UsageError

BATCH_BYTES = 4 << 20


def tag_file(path: str | Path, sets: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One record a document of a .jsonl file (.gz, .zst), in its order.

    {"id", SET: {"keep", "failed": [names of rules], "values": {name: number}}}; a set that marks
    or rewrites text adds "spans" ([start, end, kind] in characters) and "text", one that finds out
    the language "language". A document that cannot be read is {"id", "error": {"rule", "value"}}.
    A number that does not apply is left out. Raises UsageError for an unknown set, UserError for a
    file that is not there.
    """
    problems = []
    for name in sets:
        if name not in SETS:
            near = difflib.get_close_matches(name, SETS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(SETS))}"
            problems.append(f"--rules: no rule set is named {name!r}; {hint}")
    if problems:
        raise UsageError(problems)
    source = Source(
        name="file", path=str(path), format="jsonl", id_field="id", meta_fields=("url",)
    )
    records: list[Record | Bad] = []
    size = 0
    for file in listing.files(source):
        for record in read(source, file, Limits()):
            if size > BATCH_BYTES:
                yield from _tagged(source, records, sets)
                records, size = [], 0
            records.append(record)
            size += 0 if isinstance(record, Bad) else len(record.text)
    yield from _tagged(source, records, sets)


def _tagged(
    source: Source, records: list[Record | Bad], sets: Sequence[str]
) -> Iterator[dict[str, Any]]:
    good = [record for record in records if isinstance(record, Record)]
    documents = Documents.of(
        source,
        (record.text for record in good),
        (record.id.encode() for record in good),
        (record.meta for record in good),
    )
    analysis = Analysis(documents)
    found = {name: _verdicts(SETS[name], analysis) for name in sets}
    i = 0
    for record in records:
        if isinstance(record, Bad):
            yield {"id": record.id, "error": {"rule": record.rule, "value": record.value}}
        else:
            yield {"id": record.id} | {name: found[name][i] for name in sets}
            i += 1


def _verdicts(chosen: RuleSet, analysis: Analysis) -> list[dict[str, Any]]:
    """What one rule set says of each document."""
    documents, stage, rules = analysis.documents, chosen.stage, chosen.rules
    edited: Edit | None = None
    languages = None
    if stage in TAGGERS:
        tags = TAGGERS[stage](analysis, rules)
    elif stage in LABELLERS:
        languages, tags = LABELLERS[stage](documents, rules)
    else:
        edited = EDITORS[stage](analysis, rules)
        tags = edited.tags
    failures = decide(rules, tags)
    judged = {failure.rule.partition("_")[2] for failure in failures}
    values = {chosen.reasons.get(f.rule, f.rule): f.values for f in failures}
    values |= {name: column for name, column in tags.items() if name not in judged}
    out = []
    for i in range(len(documents)):
        failed = [chosen.reasons.get(f.rule, f.rule) for f in failures if f.failed[i]]
        numbers = {
            name: number(float(column[i])) for name, column in values.items()
            if not np.isnan(column[i])
        }  # fmt: skip
        out.append({"keep": not failed, "failed": failed, "values": numbers})
        if languages is not None:
            out[-1]["language"] = str(languages[i])
    if edited is not None:
        changes = edited.changes
        borders = np.searchsorted(changes.document, np.arange(len(documents) + 1))
        for i, verdict in enumerate(out):
            here = slice(borders[i], borders[i + 1])
            pairs = zip(changes.start[here].tolist(), changes.end[here].tolist(), strict=True)
            spans = documents.characters(i, list(pairs))
            names = [changes.names[name] for name in changes.name[here]]
            verdict["spans"] = [[*span, name] for span, name in zip(spans, names, strict=True)]
            verdict["text"] = edited.texts[i].decode()
    return out
