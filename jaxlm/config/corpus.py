"""The sections `sources` and `prepare`: where raw text comes from and how it is cleaned."""

import re
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from jaxlm.config.base import Section

Kind = Literal["web", "book", "wiki", "forum", "code", "science", "docs", "other"]
Format = Literal["auto", "text", "jsonl", "json", "parquet", "html", "pydoc", "metadata"]
Stage = Literal[
    "unicode",
    "quality.length",
    "quality.gopher",
    "quality.repetition",
    "quality.code",
    "dedup.exact",
    "dedup.minhash",
]
PROSE: tuple[Kind, ...] = ("web", "book", "wiki", "forum", "science", "docs", "other")
EVERY: tuple[Kind, ...] = (*PROSE, "code")

Share = Annotated[float, Field(ge=0, le=1)]


class Source(Section):
    """One source of raw text. A recipe fills in every key that is not given here."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    """Name in statistics, file names and the mixture."""
    recipe: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")] | None = None
    """A file data/recipes/NAME.yaml that gives path, format and the keys below."""
    path: Annotated[str, Field(min_length=1)] | None = None
    """Files: a local path or glob (**, {a,b}), hf://, s3://, gs://, https://, package:NAME/GLOB
    (files of an installed distribution), or python:topics, python:stdlib, python:descriptions."""
    format: Format = "auto"
    """How a file is read; auto goes by its name (.txt .md .rst .py ..., .jsonl, .json, .parquet,
    .html; all but parquet also with .gz or .zst). json is one array of records; a .json file that
    holds a record a line is jsonl."""
    weight: PositiveFloat = 1.0
    """Share of this source in the mixture, relative to the other sources' weights."""
    kind: Kind = "web"
    """What sort of text it is; each rule set says which kinds it judges."""
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")] = "en"
    """ISO 639 code; each rule set says which languages it judges."""
    text_field: Annotated[str, Field(min_length=1)] = "text"
    """Field or column with the text; a dot goes into an inner record (content.text). A list of
    strings is joined with newlines, a list of lists with blank lines."""
    id_field: Annotated[str, Field(min_length=1)] | None = None
    """Field or column with the document's id; null: FILE:NUMBER of the record."""
    meta_fields: tuple[str, ...] = ()
    """Further fields that stay with the document."""
    split: str | None = None
    """Regular expression that separates documents inside a text; null: a text is one."""
    max_bytes: PositiveInt | None = None
    """Read no more than this many bytes of text, in the order of the sorted files; null: all."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.recipe is None and self.path is None:
            raise ValueError("a source needs a path or a recipe")
        taken = {"id", "source", "text"} & set(self.meta_fields)
        if taken:
            raise ValueError(f"meta_fields cannot hold {', '.join(sorted(taken))}")
        if self.split is not None:
            try:
                pattern = re.compile(self.split)
            except re.error as error:
                raise ValueError(f"split is not a regular expression: {error}") from None
            if pattern.match(""):
                raise ValueError("split matches the empty string")
        return self


class Limits(Section):
    """What a reader refuses, so that no file can exhaust memory or disk."""

    max_document_bytes: PositiveInt = 16 << 20
    """A longer text goes to the ledger."""
    max_line_bytes: PositiveInt = 64 << 20
    """A longer line of a .jsonl file goes to the ledger, unread; a longer record of a .json file
    is an error, as is a longer text file whose documents `split` separates."""
    max_expansion: PositiveInt = 300
    """A compressed file that grows by more than this factor (plus 64 MiB) is refused."""


class Rules(Section):
    """Thresholds of one rule set. A field min_X or max_X bounds the attribute X; null: no rule."""

    kinds: tuple[Kind, ...] = EVERY
    """Kinds of source that are judged."""
    languages: tuple[str, ...] = ()
    """Languages that are judged; empty: all."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in type(self).model_fields:
            if name.startswith("min_"):
                low, high = getattr(self, name), getattr(self, f"max_{name[4:]}", None)
                if low is not None and high is not None and low > high:
                    raise ValueError(f"{name} ({low}) is above max_{name[4:]} ({high})")
        return self


class Length(Rules):
    """Size of a document."""

    min_bytes: NonNegativeInt | None = 50
    """UTF-8 bytes, at least."""
    max_bytes: NonNegativeInt | None = None
    """UTF-8 bytes, at most."""


class Gopher(Rules):
    """Gopher's quality rules (Rae et al. 2021, arXiv:2112.11446, appendix A.1).

    Words are separated by white space.
    """

    kinds: tuple[Kind, ...] = PROSE
    """Kinds of source that are judged."""
    languages: tuple[str, ...] = ("en",)
    """Languages that are judged; empty: all."""
    min_words: NonNegativeInt | None = 50
    """Words, at least."""
    max_words: NonNegativeInt | None = 100_000
    """Words, at most."""
    min_mean_word_length: NonNegativeFloat | None = 3.0
    """Mean characters a word, at least."""
    max_mean_word_length: NonNegativeFloat | None = 10.0
    """Mean characters a word, at most."""
    max_hash_ratio: NonNegativeFloat | None = 0.1
    """Characters # a word, at most."""
    max_ellipsis_ratio: NonNegativeFloat | None = 0.1
    """Ellipses (... or …) a word, at most."""
    max_bullet_lines: Share | None = 0.9
    """Share of non-blank lines that begin with a bullet (• - *), at most."""
    max_ellipsis_lines: Share | None = 0.3
    """Share of non-blank lines that end in an ellipsis, at most."""
    min_alphabetic_words: Share | None = 0.8
    """Share of words with at least one letter, at least."""
    min_stop_words: NonNegativeInt | None = 2
    """How many of the, be, to, of, and, that, have, with occur, at least."""


class Repetition(Rules):
    """Gopher's repetition rules for whole lines and paragraphs (the same paper, table A1)."""

    kinds: tuple[Kind, ...] = PROSE
    """Kinds of source that are judged."""
    max_duplicate_lines: Share | None = 0.30
    """Share of non-blank lines that occurred before in the document, at most."""
    max_duplicate_line_bytes: Share | None = 0.20
    """Share of the bytes of non-blank lines that are in such lines, at most."""
    max_duplicate_paragraphs: Share | None = 0.30
    """Share of paragraphs that occurred before in the document, at most."""
    max_duplicate_paragraph_bytes: Share | None = 0.20
    """Share of the bytes of paragraphs that are in such paragraphs, at most."""


class Code(Rules):
    """Rules for source files (Chen et al. 2021, arXiv:2107.03374; StarCoder, arXiv:2305.06161)."""

    kinds: tuple[Kind, ...] = ("code",)
    """Kinds of source that are judged."""
    max_mean_line_length: NonNegativeFloat | None = 100.0
    """Mean characters a line, at most."""
    max_line_length: NonNegativeInt | None = 1000
    """Characters of the longest line, at most."""
    min_alphanumeric_share: Share | None = 0.25
    """Share of characters that are letters or digits, at least."""


class Quality(Section):
    """Rule sets that judge a document by its own text."""

    length: Length = Length()
    """Size of a document."""
    gopher: Gopher = Gopher()
    """Words, symbols and lines of prose."""
    repetition: Repetition = Repetition()
    """Lines and paragraphs that occur more than once in a document."""
    code: Code = Code()
    """Source files."""


class MinHash(Section):
    """Near duplicates: MinHash LSH finds candidates, their true Jaccard similarity decides."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Jaccard similarity of the sets of shingles from which a document is a duplicate."""
    ngram: PositiveInt = 5
    """Words a shingle (a CJK character counts as a word)."""
    permutations: Annotated[int, Field(ge=16, le=1024)] = 128
    """Hash values a signature; more find more of the pairs near the threshold."""


class Dedup(Section):
    """Removal of documents that are in the corpus already; the first one stays."""

    minhash: MinHash = MinHash()
    """Near duplicates."""


class Prepare(Section):
    """How raw text becomes the corpus."""

    executor: Literal["local"] = "local"
    """Where the work runs: processes of this machine."""
    workers: PositiveInt | None = None
    """Processes; null: one a core. The output does not depend on it."""
    stages: tuple[Stage, ...] = (
        "unicode",
        "quality.length",
        "quality.gopher",
        "quality.repetition",
        "quality.code",
        "dedup.exact",
        "dedup.minhash",
    )
    """What is done, in this order; a stage that is left out is off."""
    limits: Limits = Limits()
    """What a reader refuses."""
    quality: Quality = Quality()
    """Thresholds of the rule sets."""
    dedup: Dedup = Dedup()
    """Duplicates across the corpus."""
    batch_bytes: Annotated[int, Field(ge=1 << 10, le=1 << 30)] = 4 << 20
    """Text that a worker holds and judges at a time; more for a document that is longer."""
    shard_bytes: Annotated[int, Field(ge=1 << 10)] = 128 << 20
    """Text a shard of the output, about."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.stages)) < len(self.stages):
            raise ValueError("prepare.stages names a stage twice")
        return self
