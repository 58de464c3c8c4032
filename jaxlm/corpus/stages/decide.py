"""Attributes and thresholds -> which rules each document fails."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.rules import Rules
from jaxlm.corpus.stages.base import Tags


@dataclass(frozen=True)
class Failure:
    """A rule, its threshold, its attribute's values (float64 [D]) and who fails it (bool [D])."""

    rule: str
    threshold: float
    values: NDArray[np.float64]
    failed: NDArray[np.bool_]


def decide(rules: Rules, tags: Tags) -> list[Failure]:
    """Every rule of a set applied to a batch, in the order of its section.

    A field min_X fails documents whose attribute X is below it, max_X those above it; an
    attribute that is NaN fails neither.
    """
    out = []
    for rule in type(rules).model_fields:
        bound, _, attribute = rule.partition("_")
        threshold = getattr(rules, rule)
        if bound in ("min", "max") and threshold is not None:
            values = tags[attribute]
            failed = values < threshold if bound == "min" else values > threshold
            out.append(Failure(rule, threshold, values, failed))
    return out
