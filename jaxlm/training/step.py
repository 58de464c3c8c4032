"""One update of the state: gradients of a batch, microbatch by microbatch, and the optimizer."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from jaxlm.config import Config
from jaxlm.models import Decoder, Mask, cross_entropy
from jaxlm.objectives import Batch
from jaxlm.parallel import spec
from jaxlm.training.state import State

type Step = Callable[[State, Batch[jax.Array]], tuple[State, dict[str, jax.Array]]]

DTYPES = {"fp32": jnp.dtype(jnp.float32), "bf16": jnp.dtype(jnp.bfloat16)}


def make_step(config: Config, optimizer: optax.GradientTransformation) -> Step:
    """The jitted step; it takes the state's memory over.

    Its batch has arrays [M, B, T]: M microbatches. The loss, and so the gradient, is the sum over
    all targets of the batch divided by their number, however they fall on microbatches and devices.
    Returns the new state and fp32 scalars: loss (nats a target) and grad_norm (before clipping).
    """

    def summed_loss(params: Decoder, batch: Batch[jax.Array]) -> jax.Array:
        return loss_sum(config, params, batch)

    def gradients(params: Decoder, batch: Batch[jax.Array]) -> tuple[jax.Array, Decoder]:
        if batch.tokens_BT.shape[0] == 1:
            single = jax.tree.map(lambda a: a[0], batch)
            return jax.value_and_grad(summed_loss)(params, single)

        def accumulate(total, microbatch):  # type: ignore[no-untyped-def]
            part = jax.value_and_grad(summed_loss)(params, microbatch)
            return jax.tree.map(jnp.add, total, part), None

        zeros = (jnp.float32(0), jax.tree.map(jnp.zeros_like, params))
        return jax.lax.scan(accumulate, zeros, batch)[0]

    @partial(jax.jit, donate_argnums=0)
    def step(state: State, batch: Batch[jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        loss, grads = gradients(state.params, batch)
        scale = 1.0 / jnp.maximum(jnp.sum(batch.weights_BT), 1.0)
        grads = jax.tree.map(lambda g: g * scale, grads)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss * scale, "grad_norm": optax.tree.norm(grads)}
        return State(params, optimizer_state), metrics

    return step


def loss_sum(config: Config, params: Decoder, batch: Batch[jax.Array]) -> jax.Array:
    """Sum over the targets of a batch [B, T] of weight * nats, fp32 scalar."""
    dtype = DTYPES[config.train.precision]
    x_ND, _ = params(
        config.model,
        batch.tokens_BT,
        batch.positions_BT,
        Mask(batch.segments_BT, batch.segments_BT),
        dtype=dtype,
        remat=config.train.remat,
        unroll=config.train.unroll_layers,
    )
    targets_N, weights_N = (
        jax.lax.reshape(a, (a.size,), out_sharding=spec("batch"))
        for a in (batch.targets_BT, batch.weights_BT)
    )
    head_VD = params.output_head(dtype)
    return cross_entropy(x_ND, head_VD, targets_N, weights_N, config.train.loss_chunk)
