"""The stages of a run, each as a config of its own: what everything else works with."""

from typing import Any, NamedTuple

from jaxlm.config.data import Order, Stage
from jaxlm.config.optim import Muon
from jaxlm.config.schema import Config
from jaxlm.config.steps import Span

TAKEN_OUT = ("tokens", "batch_ramp")


class Resolved(NamedTuple):
    """A stage of a run, or the whole of a run without a curriculum."""

    name: str | None
    """None without a curriculum."""
    first: int
    """Steps of the run before it."""
    last: int
    """Number of its last step, from 1: the steps of the run up to its end."""
    config: Config
    """The run's config with the stage's values in their places and no curriculum. Its length is
    that of the run; train.batch_ramp is null where all steps are of one size."""
    order: Order
    """Of its text."""
    spans: tuple[Span, ...]
    """Its steps."""


def stages(config: Config) -> list[Resolved]:
    """The stages of a run in order; there is one without a curriculum.

    Raises UsageError where the config has no length.
    """
    spans = config.spans
    if not config.data.curriculum:
        return [Resolved(None, 0, spans[-1].last, config, "random", spans)]
    found: list[Resolved] = []
    for number, stage in enumerate(config.data.curriculum):
        own = tuple(span for span in spans if span.stage == number)
        first, last = own[0].first, own[-1].last
        of_stage = _config_of(config, stage, own, spans[-1].last)
        found.append(Resolved(stage.name, first, last, of_stage, stage.order, own))
    return found


def config_at(config: Config, step: int) -> Config:
    """The stage's config that step number `step` (from 1) is made with; that of the last stage for
    a step beyond the end."""
    if not config.data.curriculum:
        return config
    found = stages(config)
    return next((stage.config for stage in found if step <= stage.last), found[-1].config)


def _config_of(config: Config, stage: Stage, spans: tuple[Span, ...], steps: int) -> Config:
    grows = len(spans) > 1
    changes: dict[str, dict[str, Any]] = {
        "data": {"curriculum": (), "seq_len": stage.seq_len, "mixture": stage.mixture},
        "train": {
            "steps": steps, "tokens": None,
            "batch_size": max(span.batch_size for span in spans),  # less where a ramp goes on
            "microbatch_size": stage.microbatch_size,
            "batch_ramp": config.train.batch_ramp if grows else None,
        },
        "model": {"position": stage.position},
        "tokenizer": {"specials": config.specials},  # those of all stages, and so the same ids
        "optimizer": _rates(config, stage, spans),
    }  # fmt: skip
    update: dict[str, Any] = {
        name: getattr(config, name).model_copy(
            # null stands for the value of the run, except where the run's own is taken out
            update={k: v for k, v in values.items() if v is not None or k in TAKEN_OUT}
        )
        for name, values in changes.items()
    }
    if stage.objective is not None:
        update["objective"] = stage.objective
    return config.model_copy(update=update)


def _rates(config: Config, stage: Stage, spans: tuple[Span, ...]) -> dict[str, Any]:
    """Keys of the optimizer in a stage with a peak or a schedule of its own."""
    if stage.learning_rate is None and stage.schedule is None:
        return {}
    optimizer = config.optimizer
    peak = stage.learning_rate or optimizer.learning_rate
    schedule = stage.schedule or optimizer.schedule
    first = spans[0].first
    update = {"start": first + schedule.start}
    if schedule.decay_tokens is None:
        in_steps = schedule.warmup_share is None and schedule.warmup_tokens is None
        warmup = schedule.warmup_steps if in_steps else 0
        length = max(spans[-1].last - first - schedule.start, warmup, 1)
        update["decay_steps"] = schedule.decay_steps or length
    rates: dict[str, Any] = {
        "learning_rate": peak, "schedule": schedule.model_copy(update=update)
    }  # fmt: skip
    if isinstance(optimizer, Muon):
        rates["adam_learning_rate"] = optimizer.adam_learning_rate * peak / optimizer.learning_rate
    return rates
