"""Muon: momentum whose matrices are replaced by the nearest orthogonal ones."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

# Coefficients of the quintic iteration, from Keller Jordan's "Muon: An optimizer for hidden layers
# in neural networks" (2024): steepest slope at 0 while values stay within [0.7, 1.2].
A, B, C = 3.4445, -4.7750, 2.0315


class MuonState(NamedTuple):
    momentum: Any


def scale_by_muon(momentum: float, iterations: int) -> optax.GradientTransformation:
    """Nesterov momentum, orthogonalised, times max(1, outputs / inputs)^0.5 (Jordan 2024).

    The last two axes are inputs and outputs; matrices may be stacked in front of them.
    """

    def init(params: Any) -> MuonState:
        return MuonState(jax.tree.map(jnp.zeros_like, params))

    def update(gradients: Any, state: MuonState, params: Any = None) -> tuple[Any, MuonState]:
        new = jax.tree.map(lambda m, g: momentum * m + g, state.momentum, gradients)
        nesterov = jax.tree.map(lambda m, g: momentum * m + g, new, gradients)
        return jax.tree.map(_orthogonal, nesterov), MuonState(new)

    def _orthogonal(update: jax.Array) -> jax.Array:
        # rows and columns of one matrix may lie on several devices: the products want it whole
        split = jax.typeof(update).sharding.spec
        whole = jax.reshard(update, jax.P(*split.partitions[:-2]))
        inputs, outputs = update.shape[-2:]
        scale = max(1.0, outputs / inputs) ** 0.5
        return jax.reshard(scale * orthogonalise(whole, iterations), split)

    return optax.GradientTransformation(init, update)


def orthogonalise(matrix: jax.Array, iterations: int) -> jax.Array:
    """About U V^T of each matrix U S V^T in [..., rows, columns], by Newton-Schulz iterations."""
    x = matrix.astype(jnp.float32)
    wide = x.shape[-2] <= x.shape[-1]
    if not wide:
        x = jnp.swapaxes(x, -1, -2)
    x = x / (jnp.linalg.norm(x, axis=(-2, -1), keepdims=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ jnp.swapaxes(x, -1, -2)
        x = A * x + (B * gram + C * gram @ gram) @ x
    if not wide:
        x = jnp.swapaxes(x, -1, -2)
    return x.astype(matrix.dtype)
