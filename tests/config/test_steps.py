"""Steps and batches of a run: their lengths add up, and ramps grow as they say."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.config.load import validate
from jaxlm.config.steps import Length, Span, spans_of
from jaxlm.config.train import BatchRamp
from jaxlm.errors import UsageError

lengths = st.builds(
    lambda in_steps, count, size, seq_len: Length(
        count if in_steps else None, None if in_steps else count * 37, size, seq_len
    ),
    st.booleans(), st.integers(1, 60), st.integers(1, 12), st.sampled_from([8, 16, 64]),
)  # fmt: skip
ramps = st.none() | st.builds(
    lambda start, increment, times, tokens: (
        BatchRamp(start=start, increment=increment, tokens=tokens), start + increment * times
    ),
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 9000),
)  # fmt: skip


@given(stages=st.lists(lengths, min_size=1, max_size=4), ramp=ramps)
@settings(deadline=None)
def test_spans_are_the_steps_one_by_one(stages: list[Length], ramp: Any) -> None:
    """Against a loop over steps that asks for each how large it is."""
    rule, full = ramp or (None, 1)
    spans = spans_of(stages, rule, full)
    step = tokens = 0
    for number, stage in enumerate(stages):
        begin, first = tokens, step
        while step - first < stage.steps if stage.steps else tokens - begin < (stage.tokens or 0):
            size = stage.batch_size
            if rule is not None and tokens < rule.tokens:
                times = (full - rule.start) // rule.increment
                size = min(size, rule.start + tokens * times // rule.tokens * rule.increment)
            (span,) = [span for span in spans if span.first <= step < span.last]
            assert (span.stage, span.batch_size, span.seq_len) == (number, size, stage.seq_len)
            assert span.tokens + (step - span.first) * span.step_tokens == tokens
            step, tokens = step + 1, tokens + size * stage.seq_len
    assert spans[-1].last == step
    assert all(a.last == b.first for a, b in pairwise(spans))


def test_the_ramp_of_gpt3() -> None:
    """Brown et al. 2020, appendix B and table 2.1: from 32K to 3.2M tokens; over 4 billion here."""
    train = {"batch_size": 1600, "microbatch_size": 16, "tokens": 300_000_000_000,
             "batch_ramp": {"start": 16, "increment": 16, "tokens": 4_000_000_000}}  # fmt: skip
    config = validate({"train": train, "data": {"seq_len": 2048}})
    spans = config.spans
    assert [span.batch_size for span in spans] == [16 * k for k in range(1, 101)]
    assert spans[0].step_tokens == 32_768
    assert spans[-1].step_tokens == 3_276_800
    level = 4_000_000_000 / 99
    for k, span in enumerate(spans):
        # a size begins with the first step behind its share of the tokens
        assert 0 <= span.tokens - k * level < spans[max(k - 1, 0)].step_tokens
    assert spans[-1].tokens + (config.steps - spans[-1].first) * 3_276_800 >= 300_000_000_000


def test_without_a_ramp_a_run_is_one_span() -> None:
    config = validate({"train": {"tokens": 1001, "batch_size": 4}, "data": {"seq_len": 25}})
    assert config.spans == (Span(0, 0, 11, 4, 25, 0),)


RAMP = {"start": 4, "increment": 4, "tokens": 1000}


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"batch_size": 14}, "train: batch_ramp: from 4 sequences by 4 at a time the batch does "
                             "not reach batch_size 14; batch_size - start is to be a multiple of"),
        ({"batch_size": 4}, "train: batch_ramp: from 4 sequences by 4 at a time the batch does"),
        ({"microbatch_size": None},
         "train: batch_ramp: batches grow by whole microbatches; give microbatch_size 4 or a"),
        ({"microbatch_size": 8}, "train: batch_ramp: batches grow by whole microbatches"),
        ({"batch_ramp": {"start": 4, "increment": 0, "tokens": 1}},
         "train.batch_ramp.increment: must be greater than 0"),
    ],
    ids=str,
)  # fmt: skip
def test_ramps_that_do_not_fit(train: dict[str, Any], said: str) -> None:
    plain = {"steps": 10, "batch_size": 16, "microbatch_size": 2, "batch_ramp": RAMP}
    with pytest.raises(UsageError) as caught:
        validate({"train": plain | train})
    (message,) = caught.value.messages
    assert message.startswith(said)


def test_a_ramp_on_pipeline_stages() -> None:
    train = {"steps": 10, "batch_size": 16, "microbatch_size": 2, "batch_ramp": RAMP}
    model = {"layers": 4, "heads": 4, "d_model": 64, "d_mlp": 64}
    validate({"train": train, "mesh": {"data": 1, "stage": 2}, "model": model})
    with pytest.raises(UsageError) as caught:
        validate({"train": train, "mesh": {"data": 1, "stage": 4}, "model": model})
    assert caught.value.messages == [
        "train.microbatch_size: 4 stages need as many microbatches a step, not 2; give 1 or less"
    ]
    with pytest.raises(UsageError, match="gpipe takes the same number of microbatches each step"):
        validate(
            {"train": train, "mesh": {"data": 1, "stage": 2, "schedule": "gpipe"}, "model": model}
        )


def test_decay_by_steps_and_by_tokens_at_once() -> None:
    with pytest.raises(UsageError, match="give either decay_steps or decay_tokens"):
        validate({"optimizer": {"schedule": {"decay_steps": 10, "decay_tokens": 10}}})
