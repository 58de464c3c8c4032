"""One update of the state: gradients of a batch, microbatch by microbatch, and the optimizer."""

from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxlm.config import Config
from jaxlm.models import Transformer
from jaxlm.objectives import Batch
from jaxlm.parallel import Part, no_gradient, reduced, shards, specs_of
from jaxlm.parallel.flags import compiler_options
from jaxlm.training.loss import loss_sum
from jaxlm.training.pipeline import loss_by_turns, loss_one_by_one, microbatch
from jaxlm.training.state import State


class Step(Protocol):
    """(state, batch, key of dropout, microbatches) -> (state, figures)."""

    def __call__(
        self,
        state: State,
        batch: Batch[jax.Array],
        key: jax.Array | None = None,
        microbatches: jax.Array | None = None,
    ) -> tuple[State, dict[str, jax.Array]]: ...


def make_step(config: Config, optimizer: optax.GradientTransformation) -> Step:
    """`make_update`, jitted for the mesh that is set; it takes the state's memory over."""
    mesh = jax.sharding.get_mesh()
    options = {} if mesh.empty else compiler_options(mesh.devices.flat[0])
    return jax.jit(
        make_update(config, optimizer), donate_argnums=0, compiler_options=options or None
    )


def make_update(config: Config, optimizer: optax.GradientTransformation) -> Step:
    """The step as a function to be traced on the mesh that is set.

    Its batch has arrays [M, B, T]: M microbatches, of which the first `microbatches` (int32) are
    computed, all where that is None; its key is that of dropout, None where there is none. The
    loss, and so the gradient, is the sum over all targets of the batch divided by their number,
    however they fall on microbatches and devices.
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
        params: Transformer,
        batch: Batch[jax.Array],
        key: jax.Array | None,
        microbatches: jax.Array | None,
    ) -> tuple[jax.Array, Transformer]:
        M = batch.tokens_BT.shape[0]
        if shards("layers") > 1:
            if config.mesh.schedule == "1f1b":
                return loss_one_by_one(config, params, batch, key, microbatches)
            assert microbatches is None, "jaxlm/config/checks.py refuses a ramp"
            by_turns = partial(loss_by_turns, config, turns=config.mesh.interleave)
            return jax.value_and_grad(by_turns)(params, batch, key)
        if M == 1:
            single = jax.tree.map(lambda a: a[0], batch)
            return jax.value_and_grad(summed_loss)(params, single, key)

        def accumulate(m: jax.Array, total: Any) -> Any:
            own = None if keys is None else keys[m]
            part = jax.value_and_grad(summed_loss)(params, microbatch(batch, m), own)
            return jax.tree.map(jnp.add, total, part)

        keys = None if key is None else jax.random.split(key, M)
        zeros = jax.tree.map(no_gradient, params)
        # a number that is known gives a loop whose length the compiler knows
        last = M if microbatches is None else microbatches
        return jax.lax.fori_loop(0, last, accumulate, (jnp.float32(0), zeros))

    def step(
        state: State,
        batch: Batch[jax.Array],
        key: jax.Array | None = None,
        microbatches: jax.Array | None = None,
    ) -> tuple[State, dict[str, jax.Array]]:
        stored = lying(state.params, "params")
        share = 1.0 / jnp.maximum(jnp.sum(batch.weights_BT), 1.0)
        if scaled:
            share *= state.optimizer.scale
        batch = batch._replace(weights_BT=batch.weights_BT * share)
        loss, grads = gradients(
            jax.reshard(state.params, jax.tree.map(reduced, stored)), batch, key, microbatches
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
