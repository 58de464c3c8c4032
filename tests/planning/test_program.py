"""What is read from a compiled step."""

from types import SimpleNamespace

import pytest

from jaxlm.planning.program import memory_of, temporaries_of


def test_memory_of_each_platform() -> None:
    analysis = SimpleNamespace(
        argument_size_in_bytes=100, output_size_in_bytes=60, alias_size_in_bytes=50,
        temp_size_in_bytes=400, peak_memory_in_bytes=300,
    )  # fmt: skip
    assert memory_of(analysis, "tpu") == (100, 200, 300, 300)
    assert memory_of(analysis, "gpu") == (100, 400, 510, 300)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Used 2.50G of 16.00G hbm.", 5 << 29),
        ("INVALID_ARGUMENT: Used 2.50G of 16.00G", None),
    ],
)
def test_the_compiler_says_what_it_would_need(message: str, expected: int | None) -> None:
    assert temporaries_of(message) == expected
