"""The section `prepare.dedup`: removal of what is in the corpus, or in an earlier one, already."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from jaxlm.config.base import Section
from jaxlm.config.rules import PROSE, Kind

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
