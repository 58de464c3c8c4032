"""Tagger: the size of documents."""

from collections.abc import Callable

import numpy as np

from jaxlm.config.rules import Rules
from jaxlm.corpus.stages.base import Tags
from jaxlm.corpus.statistics import Analysis


def length(texts: Analysis, rules: Rules) -> Tags:
    """Size: bytes."""
    return {"bytes": texts.texts.lengths.astype(np.float64)}


TAGGERS: dict[str, Callable[[Analysis, Rules], Tags]] = {"quality.length": length}
