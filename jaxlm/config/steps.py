"""How many steps a run has, and the size of the batch of each."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import accumulate
from typing import NamedTuple

from jaxlm.config.train import BatchRamp


class Length(NamedTuple):
    """What a stage says of its length and its batches; one of steps, tokens and until is given."""

    steps: int | None
    tokens: int | None
    batch_size: int
    seq_len: int
    until: int | None = None
    """Tokens of the run at the stage's end."""


class Span(NamedTuple):
    """Consecutive steps with batches of one size."""

    stage: int
    """Number of their stage."""
    first: int
    """Steps of the run before them."""
    last: int
    """Number of the last, from 1."""
    batch_size: int
    """Sequences of a step."""
    seq_len: int
    tokens: int
    """Tokens of the run before them: places of rows, whether they are targets or not."""

    @property
    def step_tokens(self) -> int:
        """Tokens of one step."""
        return self.batch_size * self.seq_len


def borders(shares: Sequence[float], tokens: int) -> list[int]:
    """Tokens of a run of so many at the end of each stage; shares in any unit, one a stage.

    Rounded (half to even) to whole tokens from the exact sums of the shares, read as the decimals
    that they are written as, so that no rounding adds up.
    """
    sums = list(accumulate(Fraction(repr(share)) for share in shares))
    return [round(part * tokens / sums[-1]) for part in sums]


def spans_of(stages: list[Length], ramp: BatchRamp | None, full: int) -> tuple[Span, ...]:
    """The steps of a run in order.

    A stage given in tokens ends with the step that reaches them; one whose end the stage before
    has reached already has no span. While the ramp lasts, a step has
    its number of sequences, or the stage's where that is less. full: where the ramp ends.
    """
    spans: list[Span] = []
    step = tokens = 0
    for number, stage in enumerate(stages):
        goal = stage.until if stage.tokens is None else tokens + stage.tokens
        left = stage.steps
        while (left is None or left > 0) and (goal is None or tokens < goal):
            size, until = stage.batch_size, None
            if ramp is not None and tokens < ramp.tokens:
                size, until = _on_ramp(ramp, full, tokens)
                size = min(size, stage.batch_size)
            each = size * stage.seq_len
            ends = [-(-(end - tokens) // each) for end in (goal, until) if end is not None]
            count = min([*ends, *([left] if left is not None else [])])
            spans.append(Span(number, step, step + count, size, stage.seq_len, tokens))
            step, tokens = step + count, tokens + count * each
            left = None if left is None else left - count
    return tuple(_joined(spans))


def _on_ramp(ramp: BatchRamp, full: int, tokens: int) -> tuple[int, int]:
    """Sequences of a step that so many tokens precede, and the tokens at which there are more."""
    levels = (full - ramp.start) // ramp.increment
    level = tokens * levels // ramp.tokens
    return ramp.start + level * ramp.increment, -(-(level + 1) * ramp.tokens // levels)


def _joined(spans: list[Span]) -> Iterator[Span]:
    """Neighbours in one stage whose steps are of one size, as one."""
    held: Span | None = None
    for span in spans:
        if held and (held.stage, held.batch_size) == (span.stage, span.batch_size):
            held = held._replace(last=span.last)
            continue
        if held:
            yield held
        held = span
    if held:
        yield held
