"""Counts of parameters and FLOPs against hand counts."""

from typing import Any

import pytest

from jaxlm.models import flops_per_token, parameter_count
from jaxlm.models.size import summary_lines
from tests.models.small import config_of

# d 32, 4 heads of 8, 2 key heads, mlp 64, 2 layers, vocabulary 64
ATTENTION = 32 * 32 + 2 * 32 * 16 + 32 * 32
GATED = 3 * 32 * 64
NORMS = 2 * 32


@pytest.mark.parametrize(
    ("model", "parameters", "products"),
    [
        ({}, 2 * 64 * 32 + 2 * (ATTENTION + GATED + NORMS) + 32, 2 * (ATTENTION + GATED)),
        ({"tied": True}, 64 * 32 + 2 * (ATTENTION + GATED + NORMS) + 32, 2 * (ATTENTION + GATED)),
        (
            {"mlp": "relu2", "qk_norm": True, "qkv_bias": True},
            2 * 64 * 32 + 2 * (ATTENTION + 2 * 32 * 64 + NORMS + 2 * 8 + 32 + 16 + 16) + 32,
            2 * (ATTENTION + 2 * 32 * 64),
        ),
        (
            {"ngram_embedding": {"orders": (2, 3, 4), "buckets": 10}, "tied": True},
            64 * 32 + 3 * 10 * 32 + 2 * (ATTENTION + GATED + NORMS) + 32,
            2 * (ATTENTION + GATED),
        ),
    ],
)
def test_counts(model: dict[str, Any], parameters: int, products: int) -> None:
    config = config_of(model)
    assert parameter_count(config) == parameters
    # scores and averages, forward and twice backward: 3 x 2 products x 2 x seq x heads x width
    attention = 2 * (3 * 2 * 2 * 16 * 4 * 8)
    assert flops_per_token(config, causal=False) == 6 * (products + 64 * 32) + attention
    assert flops_per_token(config, causal=True) == 6 * (products + 64 * 32) + attention / 2


def test_the_summary_adds_up() -> None:
    *arrays, total, flops, _ = summary_lines(config_of())[1:]
    assert sum(int(line.split()[-1]) for line in arrays) == int(total.split()[-1])
    assert int(total.split()[-1]) == parameter_count(config_of())
    assert int(flops.split()[-1]) == flops_per_token(config_of(), causal=False)
