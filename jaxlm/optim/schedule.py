"""The learning rate as a function of the step."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlm.config.optim import Schedule
from jaxlm.config.steps import Span


class Course(NamedTuple):
    """What a schedule goes by: steps, or tokens as a share of those up to the floor."""

    at: Callable[[jax.Array], jax.Array]
    """From finished updates, fp32, to where the next one stands behind the schedule's start."""
    warmup: float
    """Where the warm-up ends."""
    end: float
    """Where the floor is reached."""
    step: float
    """The length of a step."""


def make_schedule(
    schedule: Schedule, peak: float, steps: int, spans: Sequence[Span] = ()
) -> optax.Schedule:
    """Learning rate of the update that follows `count` finished updates, fp32.

    With s = count + 1 - schedule.start: 0 up to s = 0, peak * s / warmup_steps while
    s < warmup_steps (with warmup_share that part of decay_steps, rounded), then the decay, which
    reaches floor * peak at s = decay_steps (by default the last of `steps`) and stays there. A
    schedule that goes by tokens takes tokens for steps in all of this; spans: the steps of the run,
    which say how many tokens each has.
    Cosine: floor + (1 - floor) (1 + cos(pi p)) / 2; linear: 1 - (1 - floor) p, with p the share of
    the decay that is done; inverse_sqrt: sqrt(warmup_steps / s), not below the floor (Vaswani et
    al. 2017, section 5.3).
    """
    floor, start = schedule.floor, schedule.start
    at, warmup, end, step = (
        _by_tokens(schedule, steps, spans) if schedule.by_tokens else _by_steps(schedule, steps)
    )

    def rate(count: jax.typing.ArrayLike) -> jax.Array:
        s = at(jnp.asarray(count, jnp.float32))
        done = jnp.clip((s - warmup) / max(end - warmup, step), 0.0, 1.0)
        match schedule.kind:
            case "cosine":
                decay = floor + (1 - floor) * 0.5 * (1 + jnp.cos(jnp.pi * done))
            case "linear":
                decay = 1 - (1 - floor) * done
            case "inverse_sqrt":
                decay = jnp.maximum(floor, jnp.sqrt(max(warmup, step) / s))
            case "constant":
                decay = jnp.ones_like(s)
        share = jnp.where(s < warmup, s / max(warmup, step), decay)
        return peak * (jnp.where(s > 0, share, 0.0) if start else share)

    return rate


def _by_steps(schedule: Schedule, steps: int) -> Course:
    start = schedule.start
    end = schedule.decay_steps or steps - start
    share = schedule.warmup_share
    warmup = schedule.warmup_steps if share is None else round(share * end)
    return Course(lambda count: count + (1.0 - start), warmup, end, 1)


def _by_tokens(schedule: Schedule, steps: int, spans: Sequence[Span]) -> Course:
    start, last = schedule.start, spans[-1]

    def tokens_at(step: int) -> int:
        """Tokens of the run up to the end of a step; all steps behind the run are like its last."""
        span = next((span for span in spans if step <= span.last), last)
        return span.tokens + (step - span.first) * span.step_tokens

    begin = tokens_at(start)
    decay_end = steps if schedule.decay_steps is None else start + schedule.decay_steps
    end = schedule.decay_tokens or max(tokens_at(decay_end) - begin, last.step_tokens)
    if schedule.warmup_share is not None:
        warmup = round(schedule.warmup_share * end)
    else:
        warmup = schedule.warmup_tokens or tokens_at(start + schedule.warmup_steps) - begin
    # in float64 here, since tokens are more than fp32 counts
    first = np.array([span.first for span in spans])
    before = (np.array([span.tokens for span in spans], np.float64) - begin) / end
    each = np.array([span.step_tokens for span in spans], np.float64) / end

    def at(count: jax.Array) -> jax.Array:
        span = jnp.searchsorted(jnp.asarray(first, jnp.float32), count, side="right") - 1
        inside = count + 1.0 - jnp.asarray(first, jnp.float32)[span]
        base, slope = (jnp.asarray(table, jnp.float32)[span] for table in (before, each))
        return base + slope * inside

    return Course(at, warmup / end, 1.0, last.step_tokens / end)
