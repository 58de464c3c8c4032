"""The update rule of a config."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxlm.config.optim import Adafactor, AdamW, Muon
from jaxlm.config.steps import Span
from jaxlm.optim.muon import scale_by_muon
from jaxlm.optim.schedule import make_schedule


def make_optimizer(
    optimizer: AdamW | Adafactor | Muon, steps: int, inputs: Any, spans: Sequence[Span] = ()
) -> optax.GradientTransformation:
    """Clipping, the rule, decoupled weight decay on matrices, the learning rate, in this order.

    steps: length of the run, for the schedule; spans: its batches, where that goes by tokens.
    inputs: a tree in the structure of the parameters that holds, for each, how many of its axes
    (those before the last outputs) a product contracts with; 0 for what is no matrix (norms,
    biases) and gets no decay, and -1 for tables that are looked up and the head: they decay under
    AdamW and Adafactor; Muon leaves them to Adam.
    """
    kept = partial(_kept_in, optimizer.state_dtype)
    matrices = jax.tree.map(lambda count: count != 0, inputs)
    schedule = make_schedule(optimizer.schedule, optimizer.learning_rate, steps, spans)
    decay = optax.add_decayed_weights(optimizer.weight_decay, mask=matrices)
    match optimizer:
        case AdamW():
            rule = optax.chain(
                kept(optax.scale_by_adam(optimizer.b1, optimizer.b2, optimizer.eps)),
                decay,
                optax.scale_by_learning_rate(schedule),
            )
        case Adafactor():
            # optax.adafactor's own decay is not multiplied by the learning rate; this one is
            rule = optax.chain(
                optax.scale_by_factored_rms(
                    decay_rate=optimizer.decay_exponent,
                    min_dim_size_to_factor=optimizer.min_factored,
                ),
                optax.clip_by_block_rms(optimizer.clip_update),
                # a momentum of 0 would still hold an array for every parameter
                kept(optax.ema(optimizer.momentum, debias=False))
                if optimizer.momentum
                else optax.identity(),
                decay,
                optax.scale_by_learning_rate(schedule),
            )
        case Muon():
            adam_schedule = make_schedule(
                optimizer.schedule, optimizer.adam_learning_rate, steps, spans
            )
            adam = optax.chain(
                kept(optax.scale_by_adam(optimizer.b1, optimizer.b2, optimizer.eps)),
                optax.scale_by_learning_rate(adam_schedule),
            )
            muon = optax.chain(
                kept(scale_by_muon(optimizer.momentum, optimizer.newton_schulz_steps)),
                optax.add_decayed_weights(optimizer.weight_decay),
                optax.scale_by_learning_rate(schedule),
            )
            labels = jax.tree.map(lambda count: "muon" if count > 0 else "adam", inputs)
            # a function, for a module of labels would itself be taken for one
            rule = optax.partition({"muon": muon, "adam": adam}, lambda params: labels)
    if optimizer.clip_norm is None:
        return rule
    return optax.chain(optax.clip_by_global_norm(optimizer.clip_norm), rule)


def _kept_in(
    dtype: Literal["fp32", "bf16"], rule: optax.GradientTransformation
) -> optax.GradientTransformation:
    """The rule with its fp32 state rounded to `dtype` between updates."""
    if dtype == "fp32":
        return rule

    def cast(state: Any, was: Any, to: Any) -> Any:
        return jax.tree.map(lambda a: a.astype(to) if a.dtype == was else a, state)

    def init(params: Any) -> Any:
        return cast(rule.init(params), jnp.float32, jnp.bfloat16)

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        state = cast(state, jnp.bfloat16, jnp.float32)
        updates, state = rule.update(gradients, state, params)
        return updates, cast(state, jnp.float32, jnp.bfloat16)

    return optax.GradientTransformation(init, update)
