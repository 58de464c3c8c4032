"""What happened to documents: a line of JSON for each that was dropped, changed or unreadable, and
counts of all of them."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from jaxlm.corpus.documents import Documents

EXCERPT_CHARACTERS = 300
MOST_SPANS = 20
BINS = 32

type Action = Literal["drop", "change", "error"]


def entry(
    source: str,
    id: str,
    stage: str,
    rule: str,
    action: Action,
    value: float | str | None,
    threshold: float | None,
    excerpt: str,
    **more: Any,
) -> bytes:
    """A line of the ledger. Further keys: `partner`, the id of the document that a duplicate
    repeats; `spans`, character positions of what was changed; `note`, what a document matched."""
    line: dict[str, object] = {
        "source": source,
        "id": id,
        "stage": stage,
        "rule": rule,
        "action": action,
        "value": value,
        "threshold": threshold,
        "excerpt": excerpt[:EXCERPT_CHARACTERS],
    }
    line |= {key: given for key, given in more.items() if given is not None}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


@dataclass
class Size:
    """A number of documents and the bytes of their text."""

    documents: int = 0
    bytes: int = 0

    def add(self, documents: int, bytes: int) -> None:
        """Count more."""
        self.documents += documents
        self.bytes += bytes


@dataclass
class RuleCount(Size):
    """Documents that a rule dropped or changed; for a threshold also how many it judged and how
    many failed it (dropped by an earlier stage or not), and how its attribute is spread."""

    judged: int = 0
    failed: int = 0
    threshold: float | None = None
    histogram: list[int] = field(default_factory=list)
    """Documents by value in tenths of the threshold (of 1 where that is 0): below 0, 30 bins of a
    tenth from 0 to 3, the rest. The threshold lies between bins 10 and 11."""

    def judge(
        self, threshold: float, values: NDArray[np.float64], failed: NDArray[np.bool_]
    ) -> None:
        """Count a batch."""
        known = values[~np.isnan(values)]
        self.judged += len(known)
        self.failed += int(failed.sum())
        self.threshold = threshold
        # a value that is just the threshold counts as above it, a little rounding or not
        tenths = np.floor(known / (abs(threshold) or 1.0) * 10 + 1e-9)
        bins = np.clip(tenths + 1, 0, BINS - 1).astype(np.int64)
        counts = np.bincount(bins, minlength=BINS)
        old = np.array(self.histogram or [0] * BINS)
        self.histogram = (old + counts).tolist()

    def merge(self, other: "RuleCount") -> None:
        """Add another's counts."""
        self.add(other.documents, other.bytes)
        self.judged += other.judged
        self.failed += other.failed
        if other.threshold is not None:
            self.threshold = other.threshold
            old = np.array(self.histogram or [0] * BINS)
            self.histogram = (old + np.array(other.histogram)).tolist()


@dataclass
class Tally:
    """What happened to one source: its size after each stage, what each rule hit, the CPU time of
    each stage, and the lines."""

    stages: dict[str, Size] = field(default_factory=dict)
    rules: dict[str, RuleCount] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)

    def stage(self, name: str, documents: int, bytes: int) -> None:
        """Count what a stage let through."""
        self.stages.setdefault(name, Size()).add(documents, bytes)

    def rule(self, name: str) -> RuleCount:
        """The counts of a rule."""
        return self.rules.setdefault(name, RuleCount())

    def spent(self, stage: str, seconds: float) -> None:
        """Count the CPU time of a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def hit(
        self,
        documents: Documents,
        index: int,
        stage: str,
        rule: str,
        action: Action,
        value: float | str | None,
        threshold: float | None,
        **more: Any,
    ) -> None:
        """Count one document that a rule hit, and write its line (see `entry`)."""
        self.rule(f"{stage}.{rule}").add(1, int(documents.texts.lengths[index]))
        excerpt = documents.excerpt(index, EXCERPT_CHARACTERS)
        self.lines.append(
            entry(documents.source.name, documents.id(index), stage, rule, action, value, threshold,
                  excerpt, **more)
        )  # fmt: skip

    def merge(self, other: "Tally") -> None:
        """Add another tally's figures (not its lines)."""
        for name, size in other.stages.items():
            self.stage(name, size.documents, size.bytes)
        for name, count in other.rules.items():
            self.rule(name).merge(count)
        for name, seconds in other.seconds.items():
            self.spent(name, seconds)

    def to_json(self) -> dict[str, Any]:
        """All but the lines, as plain data."""
        data = asdict(self)
        del data["lines"]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(
            {name: Size(**size) for name, size in data["stages"].items()},
            {name: RuleCount(**count) for name, count in data["rules"].items()},
            data["seconds"],
        )


def number(value: float) -> float:
    """Whole numbers as int, others to six places: what a person reads in the ledger."""
    return int(value) if float(value).is_integer() else round(float(value), 6)
