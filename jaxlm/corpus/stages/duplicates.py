"""Stages that compare documents with each other, by name. Their protocol is in compare.py."""

from jaxlm.config.dedup import Dedup
from jaxlm.corpus.stages.compare import Batch, Cut, Duplicate, Map, Partner, Signature, Stage
from jaxlm.corpus.stages.exact import Exact, Ids, Url
from jaxlm.corpus.stages.minhash import NearDuplicates

DUPLICATES: dict[str, type[Ids] | type[Exact] | type[Url] | type[NearDuplicates]] = {
    "ids": Ids,
    "dedup.exact": Exact,
    "dedup.url": Url,
    "dedup.minhash": NearDuplicates,
}

__all__ = [
    "DUPLICATES",
    "Batch",
    "Cut",
    "Dedup",
    "Duplicate",
    "Map",
    "Partner",
    "Signature",
    "Stage",
]
