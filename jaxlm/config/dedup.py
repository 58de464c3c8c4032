"""The section `prepare.dedup`: removal of what is in the corpus, or in an earlier one, already."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from jaxlm.config.base import Section
from jaxlm.config.rules import PROSE, Kind, Rules

Share = Annotated[float, Field(gt=0, le=1)]


class Url(Section):
    """Documents with the same address. It is compared without scheme, fragment, default port,
    tracking parameters and final slash, the host in lower case, the query sorted."""

    field: Annotated[str, Field(min_length=1)] = "url"
    """Metadata field with the address; documents without one are not compared."""


class MinHash(Section):
    """Near duplicates: MinHash LSH finds candidates, their true Jaccard similarity decides."""

    threshold: Share = 0.8
    """Jaccard similarity of the sets of shingles from which a document is a duplicate."""
    ngram: PositiveInt = 5
    """Words a shingle."""
    characters: PositiveInt = 8
    """Characters a shingle where most words are single characters of a script without spaces
    (Chinese, Japanese, Thai, ...)."""
    permutations: Annotated[int, Field(ge=16, le=1024)] = 128
    """Hash values a signature; more find more of the pairs near the threshold."""


class Lines(Section):
    """Boilerplate: lines that many documents of one site have are cut out of all of them."""

    max_documents: PositiveInt = 10
    """A line in more documents of the same site than this is cut."""
    site_field: Annotated[str, Field(min_length=1)] | None = None
    """Metadata field with an address whose host is the site, or with the site's name; null, and
    where a document has none: the source."""
    min_characters: PositiveInt = 3
    """Shorter lines stay."""
    kinds: tuple[Kind, ...] = ("web", "forum", "wiki")
    """Kinds of source that are judged."""


class Sentences(Section):
    """Spans of sentences that occurred before, in this document or another, are cut (C4)."""

    span: PositiveInt = 3
    """Sentences a span."""
    min_sentences: Annotated[int, Field(ge=0)] = 3
    """A document of which cuts leave fewer sentences is dropped."""
    kinds: tuple[Kind, ...] = PROSE
    """Kinds of source that are judged."""


class Substring(Section):
    """Stretches of text that occurred before in this document or another; the first one stays."""

    min_bytes: Annotated[int, Field(ge=2, le=1 << 20)] = 200
    """Length in bytes from which a stretch counts; 50 tokens of English text, the length of Lee et
    al. 2022 (arXiv:2107.06499), are about 200."""
    action: Literal["cut", "drop"] = "cut"
    """cut: what occurred before is cut out. drop: documents of which more than max_share occurred
    before are dropped, all others stay as they are."""
    max_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """For drop: share of a document's bytes that may have occurred before."""


class Dedup(Section):
    """Removal of documents, and of parts of them, that are there already."""

    keep: Literal["first", "longest", "source_priority", "oldest", "quality"] = "first"
    """Which of several copies of a document stays (exact, url, minhash): the first in the corpus;
    the longest; that of the source which `sources` names first; the oldest by `date_field`; that
    with the highest attribute `quality`. The first of equals, and of those without a value."""
    sources: tuple[str, ...] = ()
    """For keep: source_priority, names of sources, the best first; others come after them."""
    date_field: Annotated[str, Field(min_length=1)] = "date"
    """For keep: oldest, the metadata field with the date: ISO 8601, or a number of seconds."""
    quality: Annotated[str, Field(pattern=r"^[a-z_0-9]+(\.[a-z_0-9]+)+$")] | None = None
    """For keep: quality, an attribute of a stage that runs between this one and the comparing
    stage before it, such as quality.gopher.mean_word_length."""
    scope: Literal["corpus", "source"] = "corpus"
    """Compare all documents of the corpus with each other, or only those of the same source."""
    against: tuple[str, ...] = ()
    """Folders of indexes of earlier corpora; what they hold is dropped or cut here."""
    index: Annotated[str, Field(min_length=1)] | None = None
    """Folder of an index to which this corpus is added under `name`."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] = "corpus"
    """Name of this corpus in the index. It replaces an earlier one of the same name there, and is
    not compared with it."""
    url: Url = Url()
    """The same address."""
    minhash: MinHash = MinHash()
    """Near duplicates."""
    lines: Lines = Lines()
    """Boilerplate lines of a site."""
    sentences: Sentences = Sentences()
    """Repeated spans of sentences."""
    substring: Substring = Substring()
    """Repeated stretches of text."""

    @model_validator(mode="after")
    def _needs(self) -> Self:
        if self.keep == "quality" and self.quality is None:
            raise ValueError("keep: quality needs the name of an attribute in quality")
        if self.keep == "source_priority" and not self.sources:
            raise ValueError("keep: source_priority needs names in sources")
        return self


class EvaluationSet(Section):
    """Texts on which models are evaluated, read as a source is."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    """Name in the ledger."""
    path: Annotated[str, Field(min_length=1)]
    """Files, as in a source: JSON lines, Parquet, text, ..., each by its name."""
    fields: Annotated[tuple[str, ...], Field(min_length=1)] = ("text",)
    """Fields or columns whose texts are compared, each by itself."""
    id_field: Annotated[str, Field(min_length=1)] | None = None
    """Field or column with the item's id; null: FILE:NUMBER of the record."""
    split: Annotated[str, Field(min_length=1)] | None = None
    """Regular expression that separates the items of a text file ("\\n": a line each)."""


class Decontamination(Rules):
    """Documents with text of evaluation sets: runs of words that an item has too (Brown et al.
    2020, arXiv:2005.14165, appendix C).

    Words are letters and digits in lower case, without punctuation; a character of a script without
    spaces is a word. Attributes: `overlaps`, the places where such a run begins, and `share`, the
    share of a document's words that are in one.
    """

    sets: tuple[EvaluationSet, ...] = ()
    """Evaluation sets."""
    ngram: Annotated[int, Field(ge=2, le=100)] = 13
    """Words a run. GPT-3 takes 8 to 13, by the length of a set's items."""
    shortest: Annotated[int, Field(ge=1)] = 8
    """An item with fewer words than a run is found where a document has all of it, down to so many
    words; a shorter one is not looked for."""
    common_items: PositiveInt = 10
    """A run that more items than this have is a phrase of the sets' prompts and does not count."""
    action: Literal["drop", "cut"] = "drop"
    """drop: documents beyond the thresholds go. cut: so do they, and in all others the runs are
    cut out."""
    max_overlaps: Annotated[int, Field(ge=0)] | None = 0
    """Places with a run, at most; null: no rule."""
    max_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the words in a run, at most; null: no rule."""

    @model_validator(mode="after")
    def _check_sets(self) -> Self:
        names = [each.name for each in self.sets]
        if len(set(names)) < len(names):
            raise ValueError("decontaminate.sets has two sets of the same name")
        if self.shortest > self.ngram:
            raise ValueError(f"shortest ({self.shortest}) is above ngram ({self.ngram})")
        if self.action == "cut" and 0 in (self.max_overlaps, self.max_share):
            raise ValueError(
                "action: cut leaves nothing to cut when max_overlaps or max_share is 0; set it to "
                "null, or to how much is too much"
            )
        if self.action == "drop" and self.max_overlaps is None and self.max_share is None:
            raise ValueError("action: drop needs max_overlaps or max_share")
        return self
