"""Curves over training steps: thinned, scaled to a unit square, as SVG paths the template draws.

The plot area is an SVG that stretches to any width (its strokes do not); axis labels are HTML, so
they stay readable on a telephone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxlm.reports.units import short

SIDE = 1000  # user units of the SVG's width and height
BUCKETS = 300


@dataclass(frozen=True)
class Series:
    """One curve: step and value, 1-D arrays of the same length; NaN is a gap."""

    name: str
    steps: np.ndarray
    values: np.ndarray
    style: str = "main"


@dataclass(frozen=True)
class Tick:
    """Percent along the axis, and what to write there."""

    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """What the template needs to draw one figure."""

    title: str
    alt: str
    note: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    paths: list[tuple[str, str, str]]
    """Name, style and SVG path of each curve."""
    readout: dict[str, object]
    """Range of steps and thinned points, for the values under the pointer."""


def draw(
    title: str,
    series: list[Series],
    *,
    from_zero: bool = False,
    log: bool = False,
    write: Callable[[float], str] = short,
) -> Chart | None:
    """Chart of some series, None where no value is finite.

    `log` asks for a logarithmic axis, which values of one sign and more than a factor 2 get.
    """
    thinned = [Series(s.name, *thin(s.steps, s.values), s.style) for s in series]
    finite = np.concatenate([s.values[np.isfinite(s.values)] for s in thinned])
    if not len(finite):
        return None
    steps = np.concatenate([s.steps for s in thinned])
    first, last = float(steps.min()), float(steps.max())
    low, high = float(finite.min()), float(finite.max())
    log = log and low > 0 and high / low > 2
    marks = log_marks(low, high) if log else linear_marks(0.0 if from_zero else low, high)
    scale = np.log if log else np.asarray
    bottom, top = (float(scale(m)) for m in (min(marks[0], low), max(marks[-1], high)))

    def x(step: np.ndarray | float) -> np.ndarray:
        return (np.asarray(step) - first) / max(last - first, 1)

    def y(value: np.ndarray | float) -> np.ndarray:
        return 1 - (scale(np.asarray(value)) - bottom) / ((top - bottom) or 1)

    main = next(s for s in thinned if np.isfinite(s.values).any())
    known = np.flatnonzero(np.isfinite(main.values))
    least, most = (known[f(main.values[known])] for f in (np.argmin, np.argmax))
    return Chart(
        title=title,
        alt=(
            f"{title}, steps {first:,.0f} to {last:,.0f}: {main.name} starts at "
            f"{write(main.values[known[0]])}, ends at {write(main.values[known[-1]])}; lowest "
            f"{write(main.values[least])} at step {main.steps[least]:,.0f}, highest "
            f"{write(main.values[most])} at step {main.steps[most]:,.0f}"
        ),
        note="logarithmic axis" if log else "",
        x_ticks=[
            Tick(100 * float(x(m)), short(m))
            for m in linear_marks(first, last)
            if first <= m <= last and m == int(m)
        ],
        y_ticks=[Tick(100 * float(y(m)), write(m)) for m in marks],
        paths=[(s.name, s.style, path(x(s.steps), y(s.values))) for s in thinned],
        readout={
            "steps": [first, last],
            "series": [[s.name, _readings(s, write)] for s in thinned],
        },
    )


def _readings(series: Series, write: Callable[[float], str]) -> list[tuple[int, str]]:
    points = zip(series.steps.tolist(), series.values.tolist(), strict=True)
    return [(int(step), write(value)) for step, value in points if math.isfinite(value)]


def thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most 2 BUCKETS + 2 points that keep the first, the last and every bucket's extremes."""
    if len(steps) <= 2 * BUCKETS:
        return steps, np.where(np.isfinite(values), values, np.nan)
    keep = {0, len(steps) - 1}
    for bucket in np.array_split(np.arange(len(steps)), BUCKETS):
        finite = bucket[np.isfinite(values[bucket])]
        # a bucket without a finite value stays as a gap
        chosen = (
            (finite[values[finite].argmin()], finite[values[finite].argmax()])
            if len(finite)
            else (bucket[0],)
        )
        keep.update(int(index) for index in chosen)
    order = np.array(sorted(keep))
    return steps[order], np.where(np.isfinite(values[order]), values[order], np.nan)


def smooth(values: np.ndarray) -> np.ndarray:
    """Mean over some 4% of the points around each one; fewer at the start, where curves are steep,
    and only the past at the end. Values that are not finite do not count."""
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    index = np.arange(len(values))
    reach = np.minimum(index, len(values) // 50)
    low, high = index - reach, np.minimum(index + reach + 1, len(values))
    with np.errstate(invalid="ignore"):
        return (sums[high] - sums[low]) / (counts[high] - counts[low])


def path(x: np.ndarray, y: np.ndarray) -> str:
    """SVG path through points of the unit square; a lone point becomes a dot."""
    parts, drawing = [], False
    for px, py in zip((x * SIDE).tolist(), (y * SIDE).tolist(), strict=True):
        if not math.isfinite(py):
            drawing = False
            continue
        parts.append(f"{'L' if drawing else 'M'}{px:.1f} {py:.1f}")
        if not drawing:
            parts.append("h0")
        drawing = True
    return "".join(parts)


def linear_marks(low: float, high: float) -> list[float]:
    """Three to six round numbers whose range covers [low, high]."""
    if high <= low:
        spread = abs(low) / 2 or 1.0
        low, high = low - spread, high + spread
    power = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power * 5 >= high - low)
    return [i * step for i in range(math.floor(low / step), math.ceil(high / step) + 1)]


def log_marks(low: float, high: float) -> list[float]:
    """At most seven round numbers inside [low, high], evenly spread on a logarithmic axis."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside: list[float] = []
    for digits in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,)):
        marks = [digit * 10.0**power for power in powers for digit in digits]
        inside = [mark for mark in marks if low <= mark <= high]
        if len(inside) <= 7:
            return inside
    return inside[:: -(-len(inside) // 7)]
