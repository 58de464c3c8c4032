"""One update of the state: gradients of a batch, microbatch by microbatch, and the optimizer."""

from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxlm.config import Config
from jaxlm.models import Mask, Transformer, cross_entropy
from jaxlm.objectives import Batch
from jaxlm.parallel import Part, reduced, spec, specs_of, unreduced
from jaxlm.parallel.context import parts, places
from jaxlm.training.state import State


class Step(Protocol):
    """(state, batch, key of dropout) -> (state, figures)."""

    def __call__(
        self, state: State, batch: Batch[jax.Array], key: jax.Array | None = None
    ) -> tuple[State, dict[str, jax.Array]]: ...


DTYPES = {
    "fp32": jnp.dtype(jnp.float32),
    "bf16": jnp.dtype(jnp.bfloat16),
    "fp16": jnp.dtype(jnp.float16),
}


def make_step(config: Config, optimizer: optax.GradientTransformation) -> Step:
    """The jitted step; it takes the state's memory over.

    Its batch has arrays [M, B, T]: M microbatches; its key is that of dropout, None where there is
    none. The loss, and so the gradient, is the sum over all targets of the batch divided by their
    number, however they fall on microbatches and devices.
    Returns the new state and fp32 scalars: loss (nats a target) and grad_norm (before clipping);
    in fp16 also loss_scale and skipped_steps, those of the run so far that had an infinite norm.
    """

    scaled = config.train.precision == "fp16"

    def lying(params: Transformer, part: Part) -> Any:
        """PartitionSpecs of parameters, gradients or the optimizer's state."""
        return specs_of(params, config.mesh.zero, part)

    def summed_loss(
        params: Transformer, batch: Batch[jax.Array], key: jax.Array | None
    ) -> jax.Array:
        return loss_sum(config, params, batch, key)

    def gradients(
        params: Transformer, batch: Batch[jax.Array], key: jax.Array | None
    ) -> tuple[jax.Array, Transformer]:
        microbatches = batch.tokens_BT.shape[0]
        if microbatches == 1:
            single = jax.tree.map(lambda a: a[0], batch)
            return jax.value_and_grad(summed_loss)(params, single, key)

        def accumulate(total, inputs):  # type: ignore[no-untyped-def]
            part = jax.value_and_grad(summed_loss)(params, *inputs)
            return jax.tree.map(jnp.add, total, part), None

        keys = None if key is None else jax.random.split(key, microbatches)
        apart = jax.tree.map(unreduced, lying(params, "params"))
        zeros = jax.tree.map(
            lambda p, split: jnp.zeros(p.shape, p.dtype, out_sharding=split), params, apart
        )
        return jax.lax.scan(accumulate, (jnp.float32(0), zeros), (batch, keys))[0]

    @partial(jax.jit, donate_argnums=0)
    def step(
        state: State, batch: Batch[jax.Array], key: jax.Array | None = None
    ) -> tuple[State, dict[str, jax.Array]]:
        stored = lying(state.params, "params")
        share = 1.0 / jnp.maximum(jnp.sum(batch.weights_BT), 1.0)
        if scaled:
            share *= state.optimizer.scale
        batch = batch._replace(weights_BT=batch.weights_BT * share)
        loss, grads = gradients(
            jax.reshard(state.params, jax.tree.map(reduced, stored)), batch, key
        )
        # here alone devices add their gradients up
        grads = jax.reshard(grads, lying(grads, "gradients"))
        if scaled:
            loss, grads = jax.tree.map(lambda a: a / state.optimizer.scale, (loss, grads))
        figures = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        grads, params = jax.reshard((grads, state.params), (lying(grads, "optimizer"),) * 2)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, params)
        params = jax.reshard(optax.apply_updates(params, updates), stored)
        if scaled:
            figures["loss_scale"] = state.optimizer.scale
            figures["skipped_steps"] = optimizer_state.skipped_steps.astype(jnp.float32)
        return State(params, optimizer_state), figures

    return step


def loss_sum(
    config: Config, params: Transformer, batch: Batch[jax.Array], key: jax.Array | None = None
) -> jax.Array:
    """Sum over the targets of a batch [B, T] of weight * nats, fp32 scalar.

    Rows are parts where the mesh has a context axis (jaxlm/parallel/context.py).
    key: of dropout; None: nothing is dropped.
    """
    model, dtype = config.model, DTYPES[config.train.precision]
    encoder_key, decoder_key = (None, None) if key is None else jax.random.split(key)
    how: dict[str, Any] = {
        "dtype": dtype, "remat": config.train.remat, "unroll": config.train.unroll_layers,
    }  # fmt: skip
    encoded_MD = None
    if batch.encoder_tokens_BS is not None:
        assert batch.encoder_positions_BS is not None
        assert batch.encoder_segments_BS is not None
        encoded_MD = params.encode(
            model, batch.encoder_tokens_BS, batch.encoder_positions_BS,
            batch.encoder_segments_BS, key=encoder_key,
            length=parts() * batch.encoder_tokens_BS.shape[1],
            places_BS=places(batch.encoder_tokens_BS), **how,
        )  # fmt: skip
    x_ND, _ = params(
        model,
        batch.tokens_BT,
        batch.positions_BT,
        Mask(
            batch.segments_BT,
            batch.segments_BT,
            prefix_BS=batch.prefix_BT,
            places_BT=places(batch.tokens_BT),
        ),
        encoded_MD=encoded_MD,
        encoder_segments_BS=batch.encoder_segments_BS,
        key=decoder_key,
        length=parts() * batch.tokens_BT.shape[1],
        **how,
    )
    targets_N, weights_N = (
        jax.lax.reshape(a, (a.size,), out_sharding=spec("batch"))
        for a in (batch.targets_BT, batch.weights_BT)
    )
    return cross_entropy(
        x_ND, params.output_head(dtype), targets_N, weights_N, config.train.loss_chunk,
        model.logit_softcap,
    )  # fmt: skip
