"""The sections `sources` and `prepare`: where raw text comes from and how it is cleaned."""

import re
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from jaxlm.config.base import Section
from jaxlm.config.classifiers import Classifiers, Toxicity
from jaxlm.config.dedup import Decontamination, Dedup
from jaxlm.config.privacy import Privacy
from jaxlm.config.quality import Quality
from jaxlm.config.routes import Route, with_value
from jaxlm.config.rules import Kind, Rules
from jaxlm.config.text import Language, Unicode

Format = Literal[
    "auto", "text", "jsonl", "json", "parquet", "html", "markdown", "latex", "notebook", "code",
    "warc", "pydoc", "metadata",
]  # fmt: skip
Stage = Literal[
    "unicode",
    "language",
    "quality.length",
    "quality.gopher",
    "quality.repetition",
    "quality.c4",
    "quality.fineweb",
    "quality.code",
    "quality.dolma_gopher",
    "quality.dolma_c4",
    "quality.chinese",
    "quality.repeats",
    "quality.stop_words",
    "quality.symbols",
    "quality.forum",
    "quality.wiki",
    "quality.lists",
    "quality.perplexity",
    "classifiers",
    "toxicity",
    "dedup.url",
    "dedup.exact",
    "dedup.minhash",
    "dedup.lines",
    "dedup.sentences",
    "dedup.substring",
    "decontaminate",
    "privacy",
]


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
    """How a file is read; auto goes by its name (.txt .rst .py ..., .jsonl, .json, .parquet, .html,
    .md, .tex, .ipynb, .warc, .wet; all but parquet also with .gz or .zst). json is one array of
    records; a .json file that holds a record a line is jsonl. code is a source tree: each file with
    its `programming_language`, without vendored, minified and binary ones."""
    extract: Literal["main", "plain"] = "main"
    """What is taken of HTML: the main content, or all that is text. Of Markdown: the text as it is
    written without front matter, or without its markup."""
    encoding: str = "auto"
    """Encoding of texts, pages and JSON lines; auto: byte order mark, UTF-8, what a page or server
    declares, or (not for JSON) what the bytes suggest. A text that may be wrong goes to the
    ledger."""
    notebook_outputs: bool = False
    """Whether what cells of a notebook printed is kept."""
    weight: NonNegativeFloat = 1.0
    """Share of this source in the mixture, relative to the other sources' weights; 0: it is held
    ready and evaluated, and not trained on."""
    kind: Kind = "web"
    """What sort of text it is; each rule set says which kinds it judges."""
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")] = "en"
    """ISO 639 code; each rule set says which languages it judges."""
    text_field: Annotated[str, Field(min_length=1)] = "text"
    """Field or column with the text; a dot goes into an inner record (content.text). A list of
    strings is joined with newlines, a list of lists with blank lines."""
    id_field: Annotated[str, Field(min_length=1)] | None = None
    """Field or column with the document's id; null: FILE:NUMBER of the record, or WARC-Record-ID.
    A WARC has the fields record_id, url, date, content_type and language."""
    meta_fields: tuple[str, ...] = ()
    """Further fields that stay with the document; url and date of a WARC always do."""
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
        if self.encoding != "auto":
            try:
                "".encode(self.encoding)
            except LookupError:
                raise ValueError(f"encoding {self.encoding!r} is unknown") from None
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
    """A longer line of a .jsonl file goes to the ledger, unread; so do a longer notebook, a longer
    text file whose documents `split` separates, and a .json file from a longer record on."""
    max_expansion: PositiveInt = 300
    """A compressed file that grows by more than this factor (plus 64 MiB) is read no further."""


class Prepare(Section):
    """How raw text becomes the corpus."""

    executor: Literal["local", "ray"] = "local"
    """Where the work runs: processes of this machine, or tasks of a Ray cluster (the one at
    RAY_ADDRESS, else one on this machine) whose machines share the workdir and the inputs."""
    workers: PositiveInt | None = None
    """Tasks at a time; null: one a core. The output does not depend on it."""
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
    routes: tuple[Route, ...] = ()
    """Exceptions for some sources, kinds and languages; a later one wins over an earlier."""
    limits: Limits = Limits()
    """What a reader refuses."""
    unicode: Unicode = Unicode()
    """Mending of encodings and characters."""
    language: Language = Language()
    """Which language a document is in."""
    quality: Quality = Quality()
    """Thresholds of the rule sets."""
    classifiers: Classifiers = Classifiers()
    """Models that judge documents or sentences."""
    toxicity: Toxicity = Toxicity()
    """Toxic or profane text."""
    dedup: Dedup = Dedup()
    """Duplicates across the corpus."""
    decontaminate: Decontamination = Decontamination()
    """Text of evaluation sets."""
    privacy: Privacy = Privacy()
    """Addresses and numbers that lead to a person."""
    keep: tuple[
        Annotated[str, Field(pattern=r"^(language|[a-z0-9_]+\.[A-Za-z0-9_.-]+)$")], ...
    ] = ()
    """What was found of the documents and stays with them as fields, for data.split_by and
    data.sort_by: `language`, or STAGE.ATTRIBUTE as in corpus/tags (classifiers.NAME,
    quality.perplexity.perplexity); a document that the stage did not judge lacks it."""
    batch_bytes: Annotated[int, Field(ge=1 << 10, le=1 << 30)] = 4 << 20
    """Text that a worker holds and judges at a time; more for a document that is longer."""
    shard_bytes: Annotated[int, Field(ge=1 << 10)] = 128 << 20
    """Text a shard of the output, about."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.stages)) < len(self.stages):
            raise ValueError("prepare.stages names a stage twice")
        for name in self.keep:
            if name != "language" and not name.startswith(tuple(f"{s}." for s in self.stages)):
                raise ValueError(
                    f"keep: {name} is no attribute of one of the stages ({', '.join(self.stages)})"
                )
        if "decontaminate" in self.stages and not self.decontaminate.sets:
            raise ValueError("the stage decontaminate needs evaluation sets (decontaminate.sets)")
        if "classifiers" in self.stages and self.workers != 1:
            for model in self.classifiers.models:
                if model.kind == "http" and model.when_spent == "unjudged":
                    raise ValueError(
                        f"classifiers: {model.name} has when_spent: unjudged, which needs "
                        "prepare.workers: 1, or chance would say which texts these are"
                    )
        for number, route in enumerate(self.routes):
            # documents that are compared with each other cannot go different ways
            stages = [stage for stage in get_args(Stage) if not stage.startswith("dedup.")]
            if unknown := sorted(set(route.skip) - set(stages)):
                raise ValueError(
                    f"routes.{number}.skip: {unknown[0]!r} is not one of {', '.join(stages)}"
                )
            for key, value in route.set.items():
                if not key.startswith(tuple(f"{stage}." for stage in stages)):
                    raise ValueError(
                        f"routes.{number}.set: {key!r} does not begin with one of "
                        f"{', '.join(stages)}"
                    )
                try:
                    with_value(self, key, value)
                except ValueError as error:
                    raise ValueError(f"routes.{number}.set: {key}: {error}") from None
        return self

    def section(self, stage: str, source: Source, language: str) -> Rules | None:
        """The section of a stage (quality.gopher -> self.quality.gopher) for a document of this
        source and language, None where the stage does not judge it."""
        config = self
        for route in self.routes:
            if route.matches(source.name, source.kind, language):
                if stage in route.skip:
                    return None
                for key, value in route.set.items():
                    if key.startswith(f"{stage}."):
                        config = with_value(config, key, value)
        found: object = config
        for name in stage.split("."):
            found = getattr(found, name)
        assert isinstance(found, Rules)
        if source.kind not in found.kinds or (found.languages and language not in found.languages):
            return None
        return found
