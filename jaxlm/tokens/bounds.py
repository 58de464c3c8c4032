"""Shares that keep to bounds and sum to one, exactly: the nearest ones to what is wanted."""

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.dynamic import UNITS, in_units


def bounded(
    weights_S: NDArray[np.float64],
    in_force_S: NDArray[np.float64],
    *,
    minimum: float,
    maximum: float,
    max_change: float,
) -> NDArray[np.float64]:
    """The shares nearest to the weights that keep to the bounds, as multiples of 1e-4; float64 [S].

    in_force_S: shares that sum to one and lie between minimum and maximum, so that there is an
    answer. The three bounds are multiples of 1e-4.
    """
    # room for the rounding of a share in float64, far below a unit
    change, slack = in_units(max_change), 1e-6
    low_S = np.ceil(in_force_S * UNITS - change - slack)
    high_S = np.floor(in_force_S * UNITS + change + slack)
    low_S = np.maximum(low_S, in_units(minimum))
    high_S = np.minimum(high_S, in_units(maximum))
    nearest_S = project(weights_S * UNITS, low_S, high_S, float(UNITS))
    return round_to_whole(nearest_S, high_S, UNITS) / UNITS


def project(
    point_S: NDArray[np.float64],
    low_S: NDArray[np.float64],
    high_S: NDArray[np.float64],
    total: float,
) -> NDArray[np.float64]:
    """The nearest point (Euclid) with low <= x <= high and the given sum, float64 [S].

    It is clip(point - t, low, high) for the t at which that sums to the total. The sum falls in t
    and is linear between the values at which an element meets a bound, so t is found exactly.
    low_S.sum() <= total <= high_S.sum().
    """
    meets_K = np.unique(np.concatenate([point_S - high_S, point_S - low_S]))
    sums_K = np.clip(point_S - meets_K[:, None], low_S, high_S).sum(1)
    after = int(np.searchsorted(-sums_K, -total))  # the first whose sum is at most the total
    if after == 0:
        return high_S.copy()
    if after == len(meets_K):
        return low_S.copy()
    above, below = sums_K[after - 1], sums_K[after]
    part = (above - total) / (above - below)
    t = meets_K[after - 1] + part * (meets_K[after] - meets_K[after - 1])
    return np.clip(point_S - t, low_S, high_S)


def round_to_whole(
    values_S: NDArray[np.float64], high_S: NDArray[np.float64], total: int
) -> NDArray[np.float64]:
    """Whole numbers with the same sum, by largest remainder, first come first; float64 [S].

    values_S: their sum is the total but for float64's rounding. A value is rounded to one of the
    whole numbers beside it, so whole bounds still hold; none is raised above high_S.
    """
    whole_S = np.floor(values_S)
    remainder_S = np.where(whole_S < high_S, values_S - whole_S, -1.0)
    first = np.argsort(-remainder_S, kind="stable")
    whole_S[first[: total - int(whole_S.sum())]] += 1
    return whole_S
