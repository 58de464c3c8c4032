"""The section `prepare.dedup`: removal of what is in the corpus already."""

from typing import Annotated

from pydantic import Field, PositiveInt

from jaxlm.config.base import Section


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
