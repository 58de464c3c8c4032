"""Cross-entropy over a vocabulary whose logits never exist as a whole."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlm.models.layers import all_tokens
from jaxlm.parallel import shards, spec

# N tokens, n tokens of a chunk, D residual width, V vocabulary


class Head(NamedTuple):
    """From hidden states to logits; the matrix is in compute dtype."""

    weights_VD: jax.Array
    bias_V: jax.Array | None = None
    """fp32."""


def logits(x_ND: jax.Array, head: Head, softcap: float | None = None) -> jax.Array:
    """fp32 NV: x head^T + bias, then softcap * tanh(. / softcap) (Gemma 2, section 2)."""
    logits_NV = jnp.einsum(
        "nd,vd->nv", all_tokens(x_ND, "vocab"), head.weights_VD,
        preferred_element_type=jnp.float32, out_sharding=spec("batch", "vocab"),
    )  # fmt: skip
    if head.bias_V is not None:
        logits_NV += jax.lax.broadcast_in_dim(
            head.bias_V, logits_NV.shape, (1,), out_sharding=spec("batch", "vocab")
        )
    return logits_NV if softcap is None else softcap * jnp.tanh(logits_NV / softcap)


def cross_entropy(
    x_ND: jax.Array,
    head: Head,
    targets_N: jax.Array,
    weights_N: jax.Array,
    chunk_tokens: int,
    softcap: float | None = None,
) -> jax.Array:
    """Sum over tokens of weight * -log softmax(logits)[target], in nats, fp32 scalar.

    Logits are made for a chunk of tokens at a time, at most about `chunk_tokens` on a device. The
    gradient is made in the same pass as the loss (as in Liger, Hsu et al. 2024), so that no product
    with the head is computed twice.
    """
    parts = shards("batch")
    local = x_ND.shape[0] // parts
    chunks = next(n for n in range(-(-local // chunk_tokens), local + 1) if local % n == 0)
    return _summed(
        Split(parts, chunks, softcap), all_tokens(x_ND, "vocab"), head, targets_N, weights_N
    )


def nats_of(
    x_ND: jax.Array,
    head: Head,
    targets_N: jax.Array,
    chunk_tokens: int,
    softcap: float | None = None,
) -> jax.Array:
    """-log softmax(logits)[target] of each token, fp32 [N], a chunk of tokens at a time, on one
    device."""
    count = x_ND.shape[0]
    chunks = next(n for n in range(-(-count // chunk_tokens), count + 1) if count % n == 0)
    parts = (x_ND.reshape(chunks, count // chunks, -1), targets_N.reshape(chunks, -1))
    return jax.lax.map(lambda part: _softmax(part[0], head, part[1], softcap)[0], parts).ravel()


class Split(NamedTuple):
    """How the tokens are cut, and the cap of the logits; static."""

    shards: int
    chunks: int
    softcap: float | None


class Gradient(NamedTuple):
    """Of the head, as it is summed up."""

    weights_DV: jax.Array
    bias_V: jax.Array | None


type Carry = tuple[jax.Array, Gradient]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _summed(
    split: Split, x_ND: jax.Array, head: Head, targets_N: jax.Array, weights_N: jax.Array
) -> jax.Array:
    def step(total_s: jax.Array, part: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        x_nD, targets_n, weights_n = (_merge(a) for a in part)
        nll_n = _softmax(x_nD, head, targets_n, split.softcap)[0]
        return total_s + _sums(split, nll_n * weights_n), None

    parts = tuple(_chunks(split, a) for a in (x_ND, targets_N, weights_N))
    return jnp.sum(jax.lax.scan(step, _no_sums(split), parts)[0])


def _forward(
    split: Split, x_ND: jax.Array, head: Head, targets_N: jax.Array, weights_N: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, Head]]:
    """The loss, and its gradients for x and the head."""

    def apart(array: jax.Array, *names: str | None) -> jax.P:
        """Of its gradient: each device's own sum over the mesh axes that the array's type says."""
        return jax.P(*spec(*names), unreduced=jax.typeof(array).sharding.spec.reduced)

    weights_VD, bias_V = head
    weights_split = apart(weights_VD, None, "vocab")
    bias_split = None if bias_V is None else apart(bias_V, "vocab")

    def step(carry: Carry, part: tuple[jax.Array, ...]) -> tuple[Carry, jax.Array]:
        total_s, grown = carry
        x_nD, targets_n, weights_n = (_merge(a) for a in part)
        nll_n, p_nV, hit_nV, slope_nV = _softmax(x_nD, head, targets_n, split.softcap)
        dlogits_nV = (p_nV - hit_nV) * weights_n[:, None]
        if slope_nV is not None:
            dlogits_nV *= slope_nV
        dbias_V = grown.bias_V
        if dbias_V is not None:
            dbias_V += jax.lax.reduce_sum(dlogits_nV, (0,), out_sharding=bias_split)
        dlogits_nV = dlogits_nV.astype(x_nD.dtype)
        dx_nD = jnp.einsum(
            "nv,vd->nd", dlogits_nV, weights_VD, out_sharding=apart(x_ND, "batch", None)
        )
        # the gradient grows transposed: 5 % of a CPU step cheaper than as VD
        dweights_DV = grown.weights_DV + jnp.einsum(
            "nd,nv->dv", x_nD, dlogits_nV,
            preferred_element_type=jnp.float32, out_sharding=weights_split,
        )  # fmt: skip
        total_s += _sums(split, nll_n * weights_n)
        return (total_s, Gradient(dweights_DV, dbias_V)), _split(split.shards, dx_nD)

    parts = tuple(_chunks(split, a) for a in (x_ND, targets_N, weights_N))
    zeros = Gradient(
        jnp.zeros(weights_VD.shape[::-1], jnp.float32, out_sharding=weights_split),
        None if bias_V is None else jnp.zeros(bias_V.shape, out_sharding=bias_split),
    )
    (total_s, grown), dx = jax.lax.scan(step, (_no_sums(split), zeros), parts)
    dx_ND = _reshaped(jnp.moveaxis(dx, 1, 0), x_ND.shape)
    dhead = Head(grown.weights_DV.T.astype(weights_VD.dtype), grown.bias_V)
    return jnp.sum(total_s), (dx_ND, dhead)


def _backward(
    split: Split, gradient: tuple[jax.Array, Head], dloss: jax.Array
) -> tuple[jax.Array, Head, None, None]:
    def times_dloss(g: jax.Array) -> jax.Array:
        summed_later = jax.typeof(g).sharding.spec.unreduced
        return g * jax.reshard(dloss.astype(g.dtype), jax.P(reduced=summed_later))

    dx_ND, dhead = jax.tree.map(times_dloss, gradient)
    return dx_ND, dhead, None, None


_summed.defvjp(_forward, _backward)


def _softmax(
    x_nD: jax.Array, head: Head, targets_n: jax.Array, softcap: float | None
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
    """fp32 -log p of the targets, the probabilities nV, where the targets are, nV, and what a
    softcap multiplies gradients by, nV."""
    logits_nV = logits(x_nD, head, softcap)
    slope_nV = None if softcap is None else 1 - jnp.square(logits_nV / softcap)
    top_n1 = logits_nV.max(axis=-1, keepdims=True)
    exp_nV = jnp.exp(logits_nV - top_n1)
    total_n1 = exp_nV.sum(axis=-1, keepdims=True)
    hit_nV = jnp.arange(logits_nV.shape[1]) == targets_n[:, None]
    picked_n = jnp.sum(jnp.where(hit_nV, logits_nV, 0.0), axis=-1)
    nll_n = (jnp.log(total_n1) + top_n1)[:, 0] - picked_n
    return nll_n, exp_nV / total_n1, hit_nV, slope_nV


def _sums(split: Split, array_n: jax.Array) -> jax.Array:
    """The sum of each device's tokens, [shards]."""
    return jnp.sum(_split(split.shards, array_n), axis=1)


def _no_sums(split: Split) -> jax.Array:
    return jnp.zeros(split.shards, out_sharding=spec("batch"))


def _split(shards: int, array: jax.Array) -> jax.Array:
    """[N, ...] -> [shards, N / shards, ...], each device's tokens staying where they are."""
    shape = (shards, array.shape[0] // shards, *array.shape[1:])
    return _reshaped(array, shape)


def _merge(array: jax.Array) -> jax.Array:
    """[shards, n, ...] -> [shards * n, ...]"""
    shape = (array.shape[0] * array.shape[1], *array.shape[2:])
    return _reshaped(array, shape)


def _chunks(split: Split, array: jax.Array) -> jax.Array:
    """[N, ...] -> [chunks, shards, n, ...]"""
    local = _split(split.shards, array)
    chunks = split.chunks
    shape = (split.shards, chunks, local.shape[1] // chunks, *array.shape[1:])
    return jnp.moveaxis(_reshaped(local, shape), 1, 0)


def _reshaped(array: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The first axis is still the one that the batch is split along."""
    was = jax.typeof(array).sharding.spec
    split = jax.P(
        *spec("batch", *(None,) * (len(shape) - 1)), reduced=was.reduced, unreduced=was.unreduced
    )
    return jax.lax.reshape(array, shape, out_sharding=split)
