"""Learning rates against transformers' schedules."""

from pathlib import Path

import jax
import numpy as np
import pytest

from jaxlm.config.optim import Schedule
from jaxlm.optim import make_schedule

REFERENCE = Path(__file__).parents[1] / "reference" / "schedules.npz"
WARMUP, STEPS = 20, 120


def rates(schedule: Schedule, peak: float = 1.0, steps: int = STEPS) -> np.ndarray:
    counts = np.arange(steps + 20)
    return np.asarray(jax.vmap(make_schedule(schedule, peak, steps))(counts))


@pytest.mark.parametrize(
    ("name", "kind", "floor"),
    [
        ("cosine", "cosine", 0.0),
        ("cosine_floor", "cosine", 0.1),
        ("linear", "linear", 0.0),
        ("linear_floor", "linear", 0.1),
        ("inverse_sqrt", "inverse_sqrt", 0.0),
    ],
)
def test_rates_are_those_of_transformers_one_step_on(name: str, kind: str, floor: float) -> None:
    with np.load(REFERENCE, allow_pickle=False) as file:
        theirs = file[name]
    schedule = Schedule.model_validate({"kind": kind, "warmup_steps": WARMUP, "floor": floor})
    # theirs begins with a step at rate 0, which ours leaves out
    np.testing.assert_allclose(rates(schedule)[: STEPS - 1], theirs[1:], atol=1e-6)


@pytest.mark.parametrize("kind", ["cosine", "linear", "inverse_sqrt", "constant"])
@pytest.mark.parametrize("warmup", [0, 1, 20, STEPS])
def test_a_rate_rises_to_the_peak_falls_to_the_floor_and_stays(kind: str, warmup: int) -> None:
    schedule = Schedule.model_validate({"kind": kind, "warmup_steps": warmup, "floor": 0.25})
    found = rates(schedule, peak=0.5)
    assert found.max() <= 0.5 + 1e-7
    assert (found > 0).all(), "no step is wasted on a rate of 0"
    if warmup:
        np.testing.assert_allclose(
            found[: warmup - 1], 0.5 * np.arange(1, warmup) / warmup, rtol=1e-6
        )
        np.testing.assert_allclose(found[warmup - 1], 0.5, rtol=1e-6)
    assert (np.diff(found[max(warmup - 1, 0) :]) <= 1e-9).all()
    if kind in ("cosine", "linear") and warmup < STEPS:
        np.testing.assert_allclose(found[STEPS - 1 :], 0.125, rtol=1e-6)
    if kind == "constant":
        np.testing.assert_allclose(found[warmup:], 0.5, rtol=1e-6)


def test_inverse_sqrt_stops_at_the_floor() -> None:
    schedule = Schedule(kind="inverse_sqrt", warmup_steps=1, floor=0.2)
    np.testing.assert_allclose(rates(schedule)[[3, 24, 30, 100]], [0.5, 0.2, 0.2, 0.2], rtol=1e-6)


def test_the_decay_may_end_before_the_run() -> None:
    schedule = Schedule(kind="linear", warmup_steps=10, floor=0.0, decay_steps=60)
    found = rates(schedule)
    np.testing.assert_allclose(found[34], 0.5, rtol=1e-6)  # step 35 is half of 10..60
    np.testing.assert_allclose(found[59:], 0.0, atol=1e-7)
