"""The sections of a training run: train, mesh, checkpoint, recovery, eval, logging."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from jaxlm.config.base import Section


class BatchRamp(Section):
    """Batches that grow over the first tokens of a run, by the same number of sequences each time
    (GPT-3, Brown et al. 2020, appendix B). Each size lasts for as many tokens as the others."""

    start: PositiveInt
    """Sequences of the first step."""
    increment: PositiveInt
    """Sequences more at a time, until train.batch_size is reached."""
    tokens: PositiveInt
    """Tokens of the run before steps have train.batch_size sequences."""


class Train(Section):
    """How long, in which batches, in which precision."""

    steps: PositiveInt | None = None
    """Optimizer steps; give this or `tokens`."""
    tokens: PositiveInt | None = None
    """Tokens to train on; rounded up to whole steps."""
    from_checkpoint: Annotated[str, Field(min_length=1)] | None = None
    """Parameters to start from: a run's folder (its newest checkpoint) or RUN/checkpoints/STEP.
    Its optimizer state, step and data position are left behind; null: start at random."""
    batch_size: PositiveInt = 8
    """Sequences a step, over all devices."""
    microbatch_size: PositiveInt | None = None
    """Sequences whose activations are held at once; null: the whole batch."""
    batch_ramp: BatchRamp | None = None
    """Smaller batches at the beginning, as more microbatches a step; nothing is compiled anew."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Type of activations and products; parameters stay fp32. fp16 scales the loss, and passes over
    steps whose gradients overflow."""
    remat: Literal["none", "dots", "full"] = "dots"
    """What the backward pass finds stored: everything, products of weights, or blocks' inputs."""
    unroll_layers: bool = False
    """Compile each block by itself: faster steps on a CPU, longer compilation."""
    loss_chunk: PositiveInt = 1024
    """Tokens a device whose logits exist at once in the loss."""

    @model_validator(mode="after")
    def _check_ramp(self) -> Self:
        ramp, size = self.batch_ramp, self.batch_size
        if ramp is None:
            return self
        if ramp.start >= size or (size - ramp.start) % ramp.increment:
            raise ValueError(
                f"batch_ramp: from {ramp.start} sequences by {ramp.increment} at a time the batch "
                f"does not reach batch_size {size}; batch_size - start is to be a multiple of "
                "increment"
            )
        largest = math.gcd(ramp.start, ramp.increment)
        if self.microbatch_size is None or largest % self.microbatch_size:
            raise ValueError(
                f"batch_ramp: batches grow by whole microbatches; give microbatch_size {largest} "
                "or a divisor of it"
            )
        return self


AXES = ("data", "fsdp", "stage", "tensor", "context")
"""Of the mesh."""


class Mesh(Section):
    """Devices along each axis; one axis may be -1 and takes what is left."""

    data: Annotated[int, Field(ge=-1)] = -1
    """Copies of the model that see different sequences."""
    fsdp: Annotated[int, Field(ge=-1)] = 1
    """Shards of what `zero` says; they see different sequences as well."""
    stage: Annotated[int, Field(ge=-1)] = 1
    """Pipeline stages."""
    tensor: Annotated[int, Field(ge=-1)] = 1
    """Shards of heads, MLP width and vocabulary."""
    context: Annotated[int, Field(ge=-1)] = 1
    """Parts of each row, whose length is a multiple of twice as many."""
    zero: Literal[0, 1, 2, 3] = 3
    """What is split over fsdp: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 parameters
    too, which each layer gathers where it is used."""
    schedule: Literal["1f1b", "gpipe", "interleaved"] = "1f1b"
    """Of pipeline stages. 1f1b: activations of a few microbatches, however many there are, for
    models of one stack; gpipe: of all; interleaved: of all too, and less waiting."""
    interleave: PositiveInt = 1
    """Parts of the model that a stage has, for schedule: interleaved."""


class Checkpoint(Section):
    """When recovery checkpoints are written and how many stay."""

    every: PositiveInt = 1000
    """Steps between checkpoints; the last step always writes one."""
    keep: PositiveInt = 3
    """Newest checkpoints that stay."""
    keep_every: PositiveInt | None = None
    """Checkpoints at multiples of this many steps stay for good; null: none."""


class Recovery(Section):
    """What a start finds in its workdir, and what it does with it."""

    resume: bool = True
    """Go on from the newest good checkpoint; false: refuse a workdir that has one."""
    start_timeout: PositiveFloat = 600.0
    """Seconds that the processes of a run wait for each other at the start."""


class Generate(Section):
    """Text made at the end of a run, for the report."""

    prompts: tuple[str, ...] = ()
    """One sample a prompt; an empty prompt starts a document."""
    max_tokens: PositiveInt = 64
    """Longest continuation, in tokens."""
    temperature: NonNegativeFloat = 0.8
    """0 takes the likeliest token."""
    top_k: PositiveInt | None = None
    """Draw from this many likeliest tokens; null: all."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """Draw from the smallest set with at least this probability."""
    special_tokens: bool = False
    """Prompts and texts have special tokens by their names, such as [S2S]."""


class Eval(Section):
    """What is measured on the validation split."""

    every: PositiveInt | None = None
    """Steps between evaluations while training; null: only at the end."""
    batch_size: PositiveInt | None = None
    """Sequences at once; null: train.batch_size."""
    batches: PositiveInt | None = None
    """Batches of each source that are scored while training, at most; null, and at the end: all."""
    generate: Generate = Generate()
    """Samples for the report."""


class Logging(Section):
    """What a run writes about itself."""

    every: PositiveInt = 10
    """Steps between lines in metrics.jsonl."""
    tensorboard: bool = True
    """Also write TensorBoard event files, in WORKDIR/tensorboard."""
    peak_flops: PositiveFloat | None = None
    """FLOP/s of one device, for MFU; null: known chips from the table, a CPU is measured."""
