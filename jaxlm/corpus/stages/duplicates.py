"""Stages that compare documents with each other, by name. Their protocol is in compare.py."""

from jaxlm.corpus.stages.compare import Batch, Cut, Duplicate, Map, Partner, Signature, Stage
from jaxlm.corpus.stages.exact import Exact, Ids, Url
from jaxlm.corpus.stages.lines import Lines, Sentences
from jaxlm.corpus.stages.minhash import NearDuplicates
from jaxlm.corpus.stages.substring import Substring

DUPLICATES: dict[str, type[Stage]] = {
    "ids": Ids,
    "dedup.exact": Exact,
    "dedup.url": Url,
    "dedup.minhash": NearDuplicates,
    "dedup.lines": Lines,
    "dedup.sentences": Sentences,
    "dedup.substring": Substring,
}

__all__ = [
    "DUPLICATES",
    "Batch",
    "Cut",
    "Duplicate",
    "Map",
    "Partner",
    "Signature",
    "Stage",
]
