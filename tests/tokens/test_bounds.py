"""Shares within bounds: whole units that sum to one, and the nearest point of all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.config.dynamic import UNITS
from jaxlm.tokens.bounds import bounded, project, round_to_whole

weights = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12).filter(lambda w: sum(w) > 1e-3)


def units(values: list[float]) -> np.ndarray:
    """Shares in these proportions, as whole units."""
    values_S = np.array(values) / sum(values) * UNITS
    return round_to_whole(values_S, np.full(len(values), float(UNITS)), UNITS)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_shares_keep_to_every_bound_and_sum_to_one(data: st.DataObject) -> None:
    in_force = units(data.draw(weights))
    S = len(in_force)
    wanted = np.array(data.draw(st.lists(st.floats(0, 1e6), min_size=S, max_size=S)))
    wanted = wanted / wanted.sum() if wanted.sum() > 0 else np.full(S, 1 / S)
    low = data.draw(st.integers(0, int(in_force.min())))
    high = data.draw(st.integers(int(in_force.max()), UNITS))
    change = data.draw(st.integers(1, UNITS))
    shares = bounded(
        wanted,
        in_force / UNITS,
        minimum=low / UNITS,
        maximum=high / UNITS,
        max_change=change / UNITS,
    )
    whole = shares * UNITS
    np.testing.assert_allclose(whole, np.round(whole), atol=1e-9)
    whole = np.round(whole).astype(int)
    assert whole.sum() == UNITS
    assert low <= whole.min()
    assert whole.max() <= high
    assert (np.abs(whole - in_force) <= change).all()


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_the_projection_is_the_nearest_point(data: st.DataObject) -> None:
    S = data.draw(st.integers(1, 8))
    numbers = st.lists(st.floats(-2, 2), min_size=S, max_size=S)
    point, a, b = (np.array(data.draw(numbers)) for _ in range(3))
    low, high = np.minimum(a, b), np.maximum(a, b)
    total = low.sum() + data.draw(st.floats(0, 1)) * (high.sum() - low.sum())
    x = project(point, low, high, total)
    assert (x == np.clip(x, low, high)).all()
    assert x.sum() == pytest.approx(total, abs=1e-9)
    # what makes a point of a convex set the nearest one: no way within the set leads nearer
    gap = point - x
    for i in range(S):
        for j in range(S):
            if x[i] < high[i] - 1e-9 and x[j] > low[j] + 1e-9:
                assert gap[i] <= gap[j] + 1e-6
    np.testing.assert_allclose(project(x, low, high, total), x, atol=1e-9)


def test_the_projection_by_hand() -> None:
    # onto the simplex: what is above 1 is taken off alike, and who would fall below 0 leaves
    ones, zeros = np.ones(3), np.zeros(3)
    np.testing.assert_allclose(project(np.array([0.9, 0.5, -0.4]), zeros, ones, 1.0), [0.7, 0.3, 0])
    # with a ceiling of 0.6, what is over goes to the others alike
    np.testing.assert_allclose(
        project(np.array([0.8, 0.1, 0.1]), zeros, 0.6 * ones, 1.0), [0.6, 0.2, 0.2]
    )


@given(weights)
@settings(deadline=None)
def test_rounding_takes_a_number_beside(values: list[float]) -> None:
    values_S = np.array(values) / sum(values) * UNITS
    whole = round_to_whole(values_S, np.full(len(values), float(UNITS)), UNITS)
    assert whole.sum() == UNITS
    assert (np.abs(whole - values_S) < 1 + 1e-6).all()


def test_the_largest_remainder_is_rounded_up_first() -> None:
    high = np.full(3, 10.0)
    assert round_to_whole(np.array([3.3, 3.3, 3.4]), high, 10).tolist() == [3, 3, 4]
    assert round_to_whole(np.array([10 / 3] * 3), high, 10).tolist() == [4, 3, 3]
