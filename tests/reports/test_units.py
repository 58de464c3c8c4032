import pytest

from jaxlm.reports import units


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (0.0003, "0.0003"), (7.512, "7.51"), (999, "999"), (999.6, "1k"),
     (1234, "1.23k"), (999_960, "1M"), (7_345_408, "7.35M"), (1e12, "1T"), (float("nan"), "nan")],
)  # fmt: skip
def test_short(number: float, text: str) -> None:
    assert units.short(number) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (999_999, "1.00 MB"), (46_300_000, "46.3 MB"),
     (123_456_789, "123 MB"), (5e12, "5.00 TB")],
)  # fmt: skip
def test_size(size: int, text: str) -> None:
    assert units.size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (9.87, "9.9s"), (45.4, "45s"), (59.7, "1m00s"), (192, "3m12s"),
     (43_380, "12h03m"), (352_800, "4d02h"), (float("inf"), "?")],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("part", "of", "text"), [(1, 3, "33.3%"), (0, 5, "0.0%"), (3, 10_000, "0.03%"), (1, 0, "-")]
)
def test_percent(part: float, of: float, text: str) -> None:
    assert units.percent(part, of) == text


def test_rates_and_amounts() -> None:
    assert units.rate(12.34e6, "B") == "12.3 MB/s"
    assert units.rate(118_000, "tokens") == "118k/s"
    assert units.amount(12_345, "documents") == "12,345 documents"
    assert units.amount(16.4e6, "tokens") == "16.4M tokens"
    assert units.amount(2e6, "B") == "2.00 MB"
