"""Curves: thinning keeps what stands out, axes carry round numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlm.reports.charts import (
    BUCKETS,
    Series,
    draw,
    linear_marks,
    log_marks,
    path,
    smooth,
    thin,
)


def test_thinning_keeps_ends_and_extremes() -> None:
    steps = np.arange(1.0, 1_000_001.0)
    values = np.random.default_rng(0).normal(size=len(steps))
    values[123_456], values[654_321], values[777_777] = 50.0, -40.0, np.inf
    x, y = thin(steps, values)
    assert len(x) <= 2 * BUCKETS + 2
    assert (np.diff(x) > 0).all()
    assert x[0] == 1
    assert x[-1] == 1_000_000
    assert y[x == 123_457] == [50.0]
    assert y[x == 654_322] == [-40.0]
    assert np.isfinite(y).all()


def test_thinning_keeps_a_gap() -> None:
    values = np.ones(100_000)
    values[20_000:60_000] = np.nan
    x, y = thin(np.arange(100_000.0), values)
    assert np.isnan(y[(x > 21_000) & (x < 59_000)]).all()
    assert path(x / 1e5, y).count("M") == 2


def test_smoothing_leaves_a_line_and_passes_over_gaps() -> None:
    line = np.arange(1000.0)
    np.testing.assert_allclose(smooth(line)[:-20], line[:-20], rtol=1e-12)
    line[500] = np.nan
    assert np.isfinite(smooth(line)).all()
    assert np.isnan(smooth(np.full(3, np.nan))).all()


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_linear_marks_cover_the_range(low: float, width: float) -> None:
    high = low + width
    marks = linear_marks(low, high)
    slack = 1e-9 * max(abs(low), abs(high), 1)
    assert marks[0] <= low + slack
    assert marks[-1] >= high - slack
    assert 2 <= len(marks) <= 8


@given(st.floats(1e-9, 1e9), st.floats(2.001, 1e12))
def test_log_marks_lie_in_the_range(low: float, ratio: float) -> None:
    marks = log_marks(low, low * ratio)
    assert 1 <= len(marks) <= 7
    assert all(low <= mark <= low * ratio for mark in marks)


@pytest.mark.parametrize("values", [[3.0], [0.0, 0.0], [-1.0, 5.0], [math.nan, 2.0, math.inf]])
@pytest.mark.parametrize("log", [False, True])
def test_awkward_values_are_drawn_inside_the_frame(values: list[float], log: bool) -> None:
    series = Series("loss", np.arange(1.0, len(values) + 1), np.array(values))
    chart = draw("Loss", [series], log=log)
    assert chart is not None
    numbers = [float(n) for n in chart.paths[0][2].replace("h0", "").replace("L", " ")
               .replace("M", " ").split()]  # fmt: skip
    assert numbers
    assert all(0 <= n <= 1000 for n in numbers)


def test_nothing_finite_gives_no_chart() -> None:
    assert draw("Loss", [Series("loss", np.arange(3.0), np.full(3, np.nan))]) is None
