"""One line of JSON for each document that was dropped, changed or could not be read."""

import json
from dataclasses import dataclass, field
from typing import Literal

from jaxlm.corpus.documents import Documents

EXCERPT_CHARACTERS = 300


def entry(
    source: str,
    id: str,
    stage: str,
    rule: str,
    action: Literal["drop", "change", "error"],
    value: float | str | None,
    threshold: float | None,
    excerpt: str,
    partner: str | None = None,
) -> bytes:
    """A line of the ledger. `partner` is the id of the document that a duplicate repeats."""
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
    if partner is not None:
        line["partner"] = partner
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
class Tally:
    """What happened to one source: its size after each stage, what each rule hit, and the lines."""

    stages: dict[str, Size] = field(default_factory=dict)
    rules: dict[str, Size] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)

    def stage(self, name: str, documents: int, bytes: int) -> None:
        """Count what a stage let through."""
        self.stages.setdefault(name, Size()).add(documents, bytes)

    def rule(self, name: str, bytes: int) -> None:
        """Count one document that a rule hit."""
        self.rules.setdefault(name, Size()).add(1, bytes)

    def hit(
        self,
        documents: Documents,
        index: int,
        stage: str,
        rule: str,
        action: Literal["drop", "change"],
        value: float,
        threshold: float | None,
        partner: str | None = None,
    ) -> None:
        """Count one document that a rule hit, and write its line."""
        self.rule(f"{stage}.{rule}", int(documents.texts.lengths[index]))
        self.lines.append(
            entry(
                documents.source.name,
                documents.id(index),
                stage,
                rule,
                action,
                value,
                threshold,
                documents.excerpt(index, EXCERPT_CHARACTERS),
                partner,
            )
        )

    def merge(self, other: "Tally") -> None:
        """Add another tally's figures (not its lines)."""
        for mine, theirs in ((self.stages, other.stages), (self.rules, other.rules)):
            for name, size in theirs.items():
                mine.setdefault(name, Size()).add(size.documents, size.bytes)
