"""What each rule did: its shares by source, how its values are spread, marked examples.

Rules are named stage.rule. One whose rule begins with min_ or max_ has a threshold; it "judges" the
documents its attribute applies to, those "fail" it that lie beyond the threshold, and it "drops"
those of them that no earlier stage dropped.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import log1p
from typing import Any

from jaxlm.reports.charts import Tick
from jaxlm.reports.records import (
    BINS,
    CorpusStats,
    Count,
    Example,
    LedgerEntry,
    RuleRecord,
    RuleStats,
    Spans,
    Stage,
)
from jaxlm.reports.units import short, whole

EXAMPLES = 20  # of each rule: so many dropped, so many barely kept
EXAMPLE_CHARACTERS = 500
BEFORE_SPAN = 120  # characters
MARKS = 50  # in one example
WIDTH, HEIGHT = 10 * BINS, 100  # user units of a histogram's SVG


@dataclass(frozen=True)
class Histogram:
    """Bars of the documents by value, as SVG paths in a box of WIDTH x HEIGHT; heights are
    logarithmic, so that few documents near a threshold show beside thousands far from it."""

    passing: str
    failing: str
    threshold: int
    """Where the threshold lies, in user units."""
    ticks: list[Tick]
    """At 0 and 1, 2, 3 times the threshold; the last bar is all from there on."""
    alt: str


@dataclass(frozen=True)
class Shown:
    """An example: its text in pieces, with True by those that are marked."""

    source: str
    id: str
    facts: list[str]
    partner: str | None
    pieces: list[tuple[bool, str]]


@dataclass
class BySource:
    """What a rule did to one source. `of`: documents that it judged, or that reached its stage."""

    count: RuleStats
    of: int
    histogram: Histogram | None


@dataclass
class Rule:
    """One rule over all sources, and examples of what it dropped or changed, and barely kept."""

    name: str
    sources: dict[str, BySource] = field(default_factory=dict)
    actions: list[str] = field(default_factory=list)
    documents: int = 0
    bytes: int | None = None
    of: int = 0
    """Documents that it judged; without a threshold, all that reached its stage."""
    histogram: Histogram | None = None
    dropped: list[Shown] = field(default_factory=list)
    kept: list[Shown] = field(default_factory=list)

    @property
    def judged(self) -> int:
        return sum(source.count.judged for source in self.sources.values())

    @property
    def failed(self) -> int:
        return sum(source.count.failed for source in self.sources.values())

    @property
    def kept_of(self) -> int:
        """Documents that it judged and that do not fail it."""
        return self.judged - self.failed

    @property
    def dropped_by_source(self) -> dict[str, int]:
        """Documents that it dropped or changed."""
        return {name: source.count.documents for name, source in self.sources.items()}

    @property
    def thresholds(self) -> list[float]:
        """The thresholds in use: one, or several where sources and languages differ."""
        found = {source.count.threshold for source in self.sources.values()}
        return sorted(threshold for threshold in found if threshold is not None)

    @property
    def limit(self) -> str:
        """What it asks for: at least 50, at most 0.1, at least 20 to 50."""
        if not (known := self.thresholds):
            return ""
        low, high = number(known[0]), number(known[-1])
        return f"{'at least' if _is_min(self.name) else 'at most'} " + (
            low if low == high else f"{low} to {high}"
        )


def rules(
    corpus: CorpusStats | None,
    ledger: Mapping[str, RuleRecord] | None,
    examples: Mapping[tuple[str, bool], Sequence[Example]] | None,
) -> list[Rule]:
    """Every rule of the records; those that dropped or changed most documents first."""
    found: dict[str, Rule] = {}
    for source, stats in (corpus.sources if corpus else {}).items():
        for name, count in stats.rules.items():
            rule = found.setdefault(name, Rule(name))
            of = count.judged or reached(stats.stages, stage_of(name, stats.stages)).documents
            drawing = histogram(name, [count])
            rule.sources[source] = BySource(count, of, drawing)
            rule.documents += count.documents
            rule.bytes = (rule.bytes or 0) + count.bytes
    for name, record in (ledger or {}).items():
        if name not in found:
            found[name] = Rule(name, documents=record.actions.total())
        found[name].actions = sorted(record.actions)
        found[name].dropped = [of_ledger(entry) for entry in record.examples]
    for (name, fell), some in (examples or {}).items():
        rule = found.setdefault(name, Rule(name))
        if fell:
            rule.dropped = [of_example(one) for one in some]
        else:
            rule.kept = [of_example(one) for one in some]
    everywhere = corpus.sources.values() if corpus else ()
    for rule in found.values():
        rule.of = rule.judged or sum(
            reached(s.stages, stage_of(rule.name, s.stages)).documents for s in everywhere
        )
        rule.histogram = histogram(rule.name, [s.count for s in rule.sources.values()])
    return sorted(found.values(), key=lambda rule: (-rule.documents, -rule.failed, rule.name))


def stage_of(name: str, stages: Sequence[Stage]) -> str:
    """The stage of a rule: stages and rules may both have dots in their names."""
    return max((s.stage for s in stages if name.startswith(f"{s.stage}.")), key=len, default="")


def _is_min(name: str) -> bool:
    return name.rpartition(".")[2].startswith("min_")


def histogram(name: str, counts: Sequence[RuleStats]) -> Histogram | None:
    """The histograms of a rule added up; None without one, or with thresholds of both signs."""
    counts = [c for c in counts if c.threshold is not None and len(c.histogram) == BINS]
    thresholds = sorted({c.threshold for c in counts if c.threshold is not None})
    signs = {(t > 0) - (t < 0) for t in thresholds}
    bins = [sum(c.histogram[i] for c in counts) for i in range(BINS)]
    if len(signs) != 1 or not any(bins):
        return None
    sign = signs.pop()
    failed = sum(c.failed for c in counts)
    border = {1: 11, 0: 1, -1: 0}[sign]
    """The first bin above the threshold; a negative one lies somewhere in the first bin."""
    beyond = set(range(border)) if _is_min(name) else set(range(border, BINS))
    if not _is_min(name) and sum(bins[border + 1 :]) >= failed:
        # what is in the bin just above a maximum has just that value
        beyond.discard(border)
    heights = [round(HEIGHT * log1p(count) / log1p(max(bins))) for count in bins]
    bars = [f"M{10 * i} {HEIGHT}v-{max(h, 4)}h9v{max(h, 4)}z" if h else "" for i, h in
            enumerate(heights)]  # fmt: skip
    scale = abs(thresholds[0]) or 1.0
    labels = ["0", *(number(k * scale) if len(thresholds) == 1 else f"{k} x" for k in (1, 2, 3))]
    labels[-1] += "+"
    return Histogram(
        "".join(bar for i, bar in enumerate(bars) if i not in beyond),
        "".join(bar for i, bar in enumerate(bars) if i in beyond),
        {1: 110, 0: 10, -1: 5}[sign],
        [Tick(100 * (10 + 100 * k) / WIDTH, label) for k, label in enumerate(labels)],
        f"{whole(sum(bins))} documents by value, {whole(failed)} beyond the threshold; "
        + _range(bins, thresholds),
    )


def _range(bins: Sequence[int], thresholds: Sequence[float]) -> str:
    low = next(i for i, count in enumerate(bins) if count)
    high = next(i for i in reversed(range(BINS)) if bins[i])
    start, end = (_bin(i, thresholds) for i in (low, high))
    return f"all {start}" if low == high else f"the lowest {start}, the highest {end}"


def _bin(index: int, thresholds: Sequence[float]) -> str:
    """The values of a bin: in numbers, or in times the threshold where there are several."""
    scale, unit = (abs(thresholds[0]) or 1.0, "") if len(thresholds) == 1 else (1.0, " times it")
    if index == 0:
        return "below 0"
    if index == BINS - 1:
        return f"{number(3 * scale)}{unit} or more"
    return f"{number((index - 1) / 10 * scale)} to {number(index / 10 * scale)}{unit}"


def nearest(rule: Rule) -> str:
    """How near the values of a rule that nothing failed came to its threshold, in words."""
    counts = [s.count for s in rule.sources.values() if len(s.count.histogram) == BINS]
    bins = [sum(c.histogram[i] for c in counts) for i in range(BINS)]
    if not any(bins) or not rule.thresholds or rule.thresholds[0] < 0:
        return ""
    if _is_min(rule.name):
        low = next(i for i, count in enumerate(bins) if count)
        return f"the lowest value is {_bin(low, rule.thresholds)}"
    high = next(i for i in reversed(range(BINS)) if bins[i])
    if high == (11 if rule.thresholds[0] else 1):
        return "the highest value just reaches it"
    return f"the highest value is {_bin(high, rule.thresholds)}"


def of_ledger(entry: LedgerEntry) -> Shown:
    """An example from the ledger: the beginning of the text, with what was changed of it marked."""
    facts = [entry.action]
    if entry.value is not None:
        facts.append(f"value {number(entry.value)}")
    if entry.threshold is not None:
        facts.append(f"threshold {number(entry.threshold)}")
    if entry.note:
        facts.append(entry.note)
    pieces = list(marked(entry.excerpt, entry.spans))
    return Shown(entry.source, entry.id, facts, entry.partner, pieces)


def of_example(one: Example) -> Shown:
    """An example of a threshold: the text around the first place that made the rule bite."""
    first = max(0, one.spans[0][0] - BEFORE_SPAN) if one.spans else 0
    text = one.text[first : first + EXAMPLE_CHARACTERS]
    spans = [(max(a - first, 0), b - first) for a, b in one.spans if b > first]
    inside = [(a, b) for a, b in spans if a < len(text)]
    facts = [f"value {number(one.value)}", f"threshold {number(one.threshold)}"]
    if len(text) < one.characters:
        begin = one.start + first
        facts.append(
            f"characters {whole(begin + 1)} to {whole(begin + len(text))} of "
            f"{whole(one.characters)}"
        )
    if len(inside) > MARKS:
        facts.append(f"the first {MARKS} of {len(inside)} places are marked")
    return Shown(one.source, one.id, facts, None, list(marked(text, inside[:MARKS])))


def marked(text: str, spans: Spans) -> Iterator[tuple[bool, str]]:
    """The text in pieces, with True by those inside a span; spans may touch, overlap and end
    beyond the text."""
    at = 0
    for start, end in sorted(spans):
        start, end = max(start, at), min(end, len(text))
        if start >= end:
            continue
        if start > at:
            yield False, text[at:start]
        yield True, text[start:end]
        at = end
    if at < len(text):
        yield False, text[at:]


def reached(stages: Sequence[Stage], stage: str) -> Count:
    """What a source had left before a stage; before the first, what was read."""
    before: Count = stages[0] if stages else Count(documents=0, bytes=0)
    for one in stages:
        if one.stage == stage:
            break
        before = one
    return before


def number(value: Any) -> str:
    """A value or threshold: numbers short but whole where they are, anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or value.is_integer():
        return whole(value) if abs(value) < 1e6 else short(value)
    return f"{value:.4g}"
