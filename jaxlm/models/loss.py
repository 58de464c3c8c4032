"""Cross-entropy over a vocabulary whose logits never exist as a whole."""

import math
from functools import partial

import jax
import jax.numpy as jnp

from jaxlm.parallel import spec

# N tokens, n tokens of a chunk, D residual width, V vocabulary


def cross_entropy(
    x_ND: jax.Array,
    head_VD: jax.Array,
    targets_N: jax.Array,
    weights_N: jax.Array,
    chunk_tokens: int,
) -> jax.Array:
    """Sum over tokens of weight * -log softmax(x head^T)[target], in nats, fp32 scalar.

    Logits are made for a chunk of tokens at a time, at most about `chunk_tokens` on a device. The
    gradient is made in the same pass as the loss (as in Liger, Hsu et al. 2024), so that no product
    with the head is computed twice. head_VD is in compute dtype.
    """
    shards = math.prod(jax.sharding.get_abstract_mesh().shape[a] for a in ("data", "fsdp"))
    local = x_ND.shape[0] // shards
    chunks = next(n for n in range(-(-local // chunk_tokens), local + 1) if local % n == 0)
    return _summed((shards, chunks), x_ND, head_VD, targets_N, weights_N)


type Split = tuple[int, int]
type Carry = tuple[jax.Array, jax.Array]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _summed(
    split: Split, x_ND: jax.Array, head_VD: jax.Array, targets_N: jax.Array, weights_N: jax.Array
) -> jax.Array:
    def step(total: jax.Array, part: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        x_nD, targets_n, weights_n = (_merge(a) for a in part)
        return total + jnp.sum(_softmax(x_nD, head_VD, targets_n)[0] * weights_n), None

    parts = tuple(_chunks(split, a) for a in (x_ND, targets_N, weights_N))
    return jax.lax.scan(step, jnp.float32(0), parts)[0]


def _forward(
    split: Split, x_ND: jax.Array, head_VD: jax.Array, targets_N: jax.Array, weights_N: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """The loss, and its gradients for x and the head."""

    def step(carry: Carry, part: tuple[jax.Array, ...]) -> tuple[Carry, jax.Array]:
        total, dhead_DV = carry
        x_nD, targets_n, weights_n = (_merge(a) for a in part)
        nll_n, p_nV, hit_nV = _softmax(x_nD, head_VD, targets_n)
        dlogits_nV = ((p_nV - hit_nV) * weights_n[:, None]).astype(x_nD.dtype)
        dx_nD = jnp.einsum("nv,vd->nd", dlogits_nV, head_VD, out_sharding=spec("batch", None))
        # the gradient grows transposed: 5 % of a CPU step cheaper than as VD
        dhead_DV += jnp.einsum(
            "nd,nv->dv", x_nD, dlogits_nV,
            preferred_element_type=jnp.float32, out_sharding=spec(None, "vocab"),
        )  # fmt: skip
        return (total + jnp.sum(nll_n * weights_n), dhead_DV), _split(split[0], dx_nD)

    parts = tuple(_chunks(split, a) for a in (x_ND, targets_N, weights_N))
    zeros_DV = jnp.zeros(head_VD.shape[::-1], jnp.float32, out_sharding=spec(None, "vocab"))
    (total, dhead_DV), dx = jax.lax.scan(step, (jnp.float32(0), zeros_DV), parts)
    dx_ND = jax.lax.reshape(jnp.moveaxis(dx, 1, 0), x_ND.shape, out_sharding=spec("batch", None))
    return total, (dx_ND, dhead_DV.T.astype(head_VD.dtype))


def _backward(
    split: Split, gradient: tuple[jax.Array, jax.Array], dloss: jax.Array
) -> tuple[jax.Array, jax.Array, None, None]:
    dx_ND, dhead_VD = gradient
    return dx_ND * dloss.astype(dx_ND.dtype), dhead_VD * dloss.astype(dhead_VD.dtype), None, None


_summed.defvjp(_forward, _backward)


def _softmax(
    x_nD: jax.Array, head_VD: jax.Array, targets_n: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """fp32 -log p of the targets, the probabilities nV, and where the targets are, nV."""
    logits_nV = jnp.einsum(
        "nd,vd->nv", x_nD, head_VD,
        preferred_element_type=jnp.float32, out_sharding=spec("batch", "vocab"),
    )  # fmt: skip
    top_n1 = logits_nV.max(axis=-1, keepdims=True)
    exp_nV = jnp.exp(logits_nV - top_n1)
    total_n1 = exp_nV.sum(axis=-1, keepdims=True)
    hit_nV = jnp.arange(head_VD.shape[0]) == targets_n[:, None]
    picked_n = jnp.sum(jnp.where(hit_nV, logits_nV, 0.0), axis=-1)
    nll_n = (jnp.log(total_n1) + top_n1)[:, 0] - picked_n
    return nll_n, exp_nV / total_n1, hit_nV


def _split(shards: int, array: jax.Array) -> jax.Array:
    """[N, ...] -> [shards, N / shards, ...], each device's tokens staying where they are."""
    shape = (shards, array.shape[0] // shards, *array.shape[1:])
    return jax.lax.reshape(array, shape, out_sharding=spec("batch", *(None,) * array.ndim))


def _merge(array: jax.Array) -> jax.Array:
    """[shards, n, ...] -> [shards * n, ...]"""
    shape = (array.shape[0] * array.shape[1], *array.shape[2:])
    return jax.lax.reshape(array, shape, out_sharding=spec("batch", *(None,) * (array.ndim - 2)))


def _chunks(split: Split, array: jax.Array) -> jax.Array:
    """[N, ...] -> [chunks, shards, n, ...]"""
    shards, chunks = split
    local = _split(shards, array)
    shape = (shards, chunks, local.shape[1] // chunks, *array.shape[1:])
    parts = jax.lax.reshape(local, shape, out_sharding=spec("batch", *(None,) * (array.ndim + 1)))
    return jnp.moveaxis(parts, 1, 0)
