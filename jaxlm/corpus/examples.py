"""Examples for people: documents that each rule dropped, and documents that it barely kept."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.corpus import Prepare, Source
from jaxlm.corpus.apply import KEPT
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.ledger import number
from jaxlm.corpus.stages import SPANS, decide
from jaxlm.corpus.statistics import mix
from jaxlm.corpus.tags import TagTable, read_tags

EXAMPLES = 20
TEXT_CHARACTERS = 1500


type Verdict = tuple[str, str, float, NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]
"""Stage, rule, threshold; rows that it judged (rising), their values, which of them failed."""


@dataclass(frozen=True, order=True)
class Pick:
    """A document that is shown for a rule. The smallest `rank` are taken."""

    rank: tuple[float, int]
    batch: int
    row: int
    id: str
    language: str
    rule: str
    dropped: bool
    value: float
    threshold: float


def pick(path: Path, source: Source, config: Prepare) -> list[tuple[str, Pick]]:
    """For each rule of a file of tags EXAMPLES documents that it dropped, at random, and EXAMPLES
    that it kept whose values come nearest to the threshold; each with its stage."""
    best: dict[tuple[str, str, bool], list[Pick]] = defaultdict(list)
    first = 0
    for batch, table in enumerate(read_tags(path)):
        chance = mix(np.arange(first, first + len(table.ids), dtype=np.uint64) + np.uint64(1))
        first += len(table.ids)
        for stage, rule, threshold, where, values, failed in judged(table, source, config):
            k = table.stages.index(stage)
            fell = failed & (table.dropped[where] == k)
            stays = ~failed & (table.dropped[where] == KEPT) & ~np.isnan(values)
            distance = np.abs(values - threshold)
            for dropped, mask, order in (
                (True, fell, chance[where].astype(np.float64)),
                (False, stays, distance),
            ):
                rows = np.flatnonzero(mask)
                rows = rows[np.lexsort((chance[where][rows], order[rows]))[:EXAMPLES]]
                found = best[stage, rule, dropped]
                for i in rows.tolist():
                    row = int(where[i])
                    found.append(
                        Pick((float(order[i]), int(chance[row])), batch, row, table.ids[row],
                             str(table.languages[row]), rule, dropped, float(values[i]), threshold)
                    )  # fmt: skip
                found.sort()
                del found[EXAMPLES:]
    return [(stage, one) for (stage, _, _), found in best.items() for one in found]


def judged(table: TagTable, source: Source, config: Prepare) -> Iterator[Verdict]:
    """Every rule over the rows of a table."""
    for language in map(str, np.unique(table.languages)):
        where = np.flatnonzero(table.languages == language)
        for stage in table.stages:
            section = config.section(stage, source, language)
            if section is None:
                continue
            prefix = f"{stage}."
            tags = {
                name.removeprefix(prefix): values[where]
                for name, values in table.columns.items()
                if name.startswith(prefix)
            }
            if tags:
                for failure in decide(section, tags):
                    yield (stage, failure.rule, failure.threshold, where, failure.values,
                           failure.failed)  # fmt: skip


def show(
    source: Source,
    picks: Sequence[tuple[str, Pick]],
    tags: Path,
    dropped: Path,
    kept: Path | None,
    config: Prepare,
) -> Iterator[bytes]:
    """The lines of picks that are in one batch: texts from the folder of the documents that the
    group dropped, or from that of what is left of the batch at the end (None: nothing). One that
    a later stage dropped is left out."""
    fell = stays = None
    if any(one.dropped for _, one in picks):
        (table,) = read_tags(tags, [])
        fell = Documents.load(source, dropped)
        ranks = np.cumsum(table.dropped != KEPT) - 1
    if kept is not None:
        stays = Documents.load(source, kept)
        places = {stays.ids[i]: i for i in range(len(stays))}
    for stage, one in picks:
        if one.dropped and fell is not None:
            text = fell.texts[int(ranks[one.row])].decode()
        elif stays is not None and one.id.encode() in places:
            text = stays.texts[places[one.id.encode()]].decode()
        else:
            continue
        section = config.section(stage, source, one.language)
        spans = SPANS[stage](text, section).get(one.rule, []) if stage in SPANS and section else []
        start = max(0, spans[0][0] - TEXT_CHARACTERS // 4) if spans else 0
        end = start + TEXT_CHARACTERS
        line = {
            "source": source.name,
            "id": one.id,
            "stage": stage,
            "rule": one.rule,
            "dropped": one.dropped,
            "value": number(one.value),
            "threshold": one.threshold,
            "text": text[start:end],
            "from": start,
            "characters": len(text),
            "spans": [
                [max(a, start) - start, min(b, end) - start]
                for a, b in spans
                if a < end and b > start
            ],
        }
        yield json.dumps(line, ensure_ascii=False).encode() + b"\n"
