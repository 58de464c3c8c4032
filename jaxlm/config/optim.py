"""The `optimizer` section: update rule, schedule, clipping, decay."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from jaxlm.config.base import Section

type Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
type Momentum = Annotated[float, Field(ge=0.0, lt=1.0)]


class Schedule(Section):
    """Linear warm-up to the peak, then decay to a floor at the last step."""

    kind: Literal["cosine", "linear", "inverse_sqrt", "constant"] = "cosine"
    """Shape of the decay after the warm-up."""
    warmup_steps: NonNegativeInt = 100
    """Steps of linear warm-up from 0 to learning_rate."""
    warmup_tokens: PositiveInt | None = None
    """Takes the place of warmup_steps; the schedule then goes by tokens, see decay_tokens."""
    warmup_share: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """Takes the place of warmup_steps: the warm-up as a share of the way to the floor, so that it
    is in proportion however long the run or the stage is."""
    start: NonNegativeInt = 0
    """Steps of the run, or of its stage, before the schedule begins; warmup_steps and decay_steps
    are counted from there, and until then the rate is 0."""
    floor: Fraction = 0.1
    """Lowest rate as a share of learning_rate."""
    decay_steps: PositiveInt | None = None
    """Step at which the floor is reached; null: the last step of the run."""
    decay_tokens: PositiveInt | None = None
    """Takes the place of decay_steps. With this or warmup_tokens the schedule goes by tokens of the
    run, also where keys say steps: a step of a small batch (train.batch_ramp) moves it less."""

    @property
    def by_tokens(self) -> bool:
        """Whether it goes by tokens and not by steps."""
        return self.warmup_tokens is not None or self.decay_tokens is not None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.decay_steps is not None and self.decay_tokens is not None:
            raise ValueError("give either decay_steps or decay_tokens")
        if self.warmup_tokens is not None and self.warmup_share is not None:
            raise ValueError("give either warmup_tokens or warmup_share")
        return self


class _Optimizer(Section):
    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate."""
    weight_decay: NonNegativeFloat = 0.1
    """Decoupled decay, times the learning rate, on matrices only."""
    clip_norm: PositiveFloat | None = 1.0
    """Gradients are scaled down to this global norm; null: no clipping."""
    state_dtype: Literal["fp32", "bf16"] = "fp32"
    """Type in which moments and momentum are kept; they are updated in fp32."""
    schedule: Schedule = Schedule()
    """Learning rate over steps."""


class AdamW(_Optimizer):
    """AdamW (Loshchilov and Hutter 2019) with the constants of GPT-3 and LLaMA."""

    kind: Literal["adamw"] = "adamw"
    """Update rule."""
    b1: Momentum = 0.9
    """Decay of the first moment."""
    b2: Momentum = 0.95
    """Decay of the second moment."""
    eps: PositiveFloat = 1e-8
    """Added to the root of the second moment."""


class Adafactor(_Optimizer):
    """Adafactor (Shazeer and Stern 2018), factored, with momentum of the updates."""

    kind: Literal["adafactor"] = "adafactor"
    """Update rule."""
    momentum: Momentum = 0.9
    """Decay of the momentum of the updates; 0 keeps no momentum."""
    decay_exponent: PositiveFloat = 0.8
    """The second moment decays by 1 - k^-decay_exponent at step k."""
    clip_update: PositiveFloat = 1.0
    """Updates are scaled down to this root mean square, tensor by tensor."""
    min_factored: PositiveInt = 128
    """Tensors whose two largest axes are at least this long keep factored moments."""


class Muon(_Optimizer):
    """Muon (Jordan et al. 2024) on the matrices of the blocks, AdamW on everything else."""

    kind: Literal["muon"] = "muon"
    """Update rule."""
    momentum: Momentum = 0.95
    """Nesterov momentum of the matrices' gradients."""
    newton_schulz_steps: Annotated[int, Field(ge=1, le=10)] = 5
    """Iterations of the quintic orthogonalisation."""
    adam_learning_rate: PositiveFloat = 3e-3
    """Peak rate of the tensors that AdamW updates; `learning_rate` is Muon's."""
    b1: Momentum = 0.9
    """AdamW's decay of the first moment."""
    b2: Momentum = 0.95
    """AdamW's decay of the second moment."""
    eps: PositiveFloat = 1e-8
    """AdamW's addition to the root of the second moment."""


def _adamw_by_default(values: Any) -> Any:
    return {"kind": "adamw", **values} if isinstance(values, dict) else values


type Optimizer = Annotated[
    AdamW | Adafactor | Muon, Field(discriminator="kind"), BeforeValidator(_adamw_by_default)
]
