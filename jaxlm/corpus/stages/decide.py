"""Attributes and thresholds -> which rules each document fails."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.corpus import Rules, Source

type Tags = dict[str, NDArray[np.float64]]
"""Attribute -> its value for each document, float64 [D]."""


@dataclass(frozen=True)
class Failure:
    """A rule, its threshold, its attribute's values (float64 [D]) and who fails it (bool [D])."""

    rule: str
    threshold: float
    values: NDArray[np.float64]
    failed: NDArray[np.bool_]


def decide(rules: Rules, tags: Tags, source: Source) -> list[Failure]:
    """Every rule of a set applied to a batch; none where the set does not judge this source."""
    if source.kind not in rules.kinds:
        return []
    if rules.languages and source.language not in rules.languages:
        return []
    out = []
    for rule in type(rules).model_fields:
        bound, _, attribute = rule.partition("_")
        threshold = getattr(rules, rule)
        if bound in ("min", "max") and threshold is not None:
            values = tags[attribute]
            failed = values < threshold if bound == "min" else values > threshold
            out.append(Failure(rule, threshold, values, failed))
    return out
