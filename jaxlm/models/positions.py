"""Position encodings as pure functions: rotations and their extensions, decay, sinusoids, biases.

What does not depend on the data is computed in NumPy while a program is traced, so that platforms
whose powers and logarithms are rounded differently turn queries and keys by the same angles.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxlm.config.position import (
    DynamicNtkScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    NtkScaling,
    Rope,
    Xpos,
    YarnScaling,
    rotated_width,
)
from jaxlm.models.masks import Bias

# T queries, S keys, K key-value heads, G query heads a key head, H head width, F = pairs rotated,
# R buckets; `...` before positions are whatever axes the caller has


class Frequencies(NamedTuple):
    """How far each pair of a head turns from one position to the next."""

    inverse_F: np.ndarray
    """Radians a position, fp32."""
    factor: float
    """What cos and sin are multiplied by, so that scores grow by its square; 1 without scaling."""


def frequencies(rope: Rope | Xpos, head_width: int, length: int) -> Frequencies:
    """theta^(-2i/W) over a head's W rotated numbers (Su et al. 2021, eq. 15), after the scaling.

    length: tokens in the row, which dynamic_ntk and longrope depend on and nothing else does.
    Formulas and constants are those of the published code, which every checkpoint was trained with:
    for yarn and dynamic_ntk jquesnelle/yarn, for llama3 meta-llama's, for longrope microsoft's.
    """
    width = rotated_width(rope, head_width)
    if not isinstance(rope, Rope) or rope.scaling is None:
        return Frequencies(_series(rope.theta, width).astype(np.float32), 1.0)
    plain_F, scaling, factor = _series(rope.theta, width), rope.scaling, 1.0
    match scaling:
        case LinearScaling():
            inverse_F = plain_F / scaling.factor
        case NtkScaling():
            inverse_F = _series(_stretched(rope.theta, scaling.factor, width), width)
        case DynamicNtkScaling():
            excess = max(length, scaling.original_length) / scaling.original_length - 1
            inverse_F = _series(_stretched(rope.theta, 1 + scaling.factor * excess, width), width)
        case YarnScaling():
            kept_F = 1 - _yarn_ramp(scaling, rope.theta, width)
            inverse_F = plain_F * kept_F + plain_F / scaling.factor * (1 - kept_F)
            factor = scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1
        case Llama3Scaling():
            turns_F = scaling.original_length * plain_F / (2 * math.pi)
            low, high = scaling.low_freq_factor, scaling.high_freq_factor
            kept_F = np.clip((turns_F - low) / (high - low), 0, 1)
            inverse_F = plain_F * kept_F + plain_F / scaling.factor * (1 - kept_F)
        case LongRopeScaling():
            short = length <= scaling.original_length
            inverse_F = plain_F / np.array(scaling.short_factors if short else scaling.long_factors)
            spread = math.log(scaling.factor) / math.log(scaling.original_length)
            factor = scaling.attention_factor or math.sqrt(1 + spread)
    return Frequencies(inverse_F.astype(np.float32), factor)


def _series(theta: float, width: int) -> np.ndarray:
    """theta^(-2i/width), fp64, of exponents that are rounded to fp32 as in all published code."""
    exponents = -np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    return np.power(theta, exponents.astype(np.float64))


def _stretched(theta: float, factor: float, width: int) -> float:
    """The base at which the slowest pair turns `factor` times slower (bloc97 2023, NTK-aware)."""
    return theta * factor ** (width / (width - 2))


def _yarn_ramp(scaling: YarnScaling, theta: float, width: int) -> np.ndarray:
    """0 for pairs that keep their speed to 1 for those that are interpolated in full.

    Linear in the index of the pair, between the whole indices around those that turn beta_fast and
    beta_slow times over original_length. (Peng et al. 2023, eq. 17 to 18, is linear in the number
    of turns; the published code is not.)
    """

    def index(turns: float) -> float:
        wavelength = scaling.original_length / (2 * math.pi * turns)
        return width * math.log(wavelength) / (2 * math.log(theta))

    first = max(math.floor(index(scaling.beta_fast)), 0)
    last = min(math.ceil(index(scaling.beta_slow)), width - 1)
    # 0.001 where both are one index: a step there
    return np.clip((np.arange(width // 2) - first) / max(last - first, 0.001), 0, 1)


def rotation(positions: jax.Array, frequencies: Frequencies) -> tuple[jax.Array, jax.Array]:
    """cos and sin of each pair's angle, fp32 [..., F], for positions [...] of any number type.

    Angles are fp32 products: at position n one is off by at most n * inverse * 2^-23 radians (at a
    million 0.12 for the fastest pair), as everywhere that rotations are computed in fp32.
    """
    angle = positions[..., None].astype(jnp.float32) * frequencies.inverse_F
    return jnp.cos(angle) * frequencies.factor, jnp.sin(angle) * frequencies.factor


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array, layout: str) -> jax.Array:
    """Turn pairs of the last axis H, in fp32; returns x's shape and dtype.

    cos, sin: [..., F], broadcast against x's other axes. The first 2F numbers are turned, the rest
    kept. layout: "half" pairs (i, i + F) as LLaMA's published weights do, "interleaved" pairs
    (2i, 2i + 1) as GPT-J's do; one is a permutation of the other.
    """
    width = 2 * cos.shape[-1]
    if x.dtype != jnp.float32:
        # heads are moved about, cut and joined in their own type, not in fp32
        x = jax.lax.optimization_barrier(x)
    turning, kept = x[..., :width], x[..., width:]
    if layout == "half":
        halves = jnp.split(turning, 2, axis=-1)
    else:
        halves = [turning[..., 0::2], turning[..., 1::2]]
    first, second = (half.astype(jnp.float32) for half in halves)
    turned = (first * cos - second * sin, second * cos + first * sin)
    parts = [part.astype(x.dtype) for part in turned]
    if layout == "half":
        return jnp.concatenate([*parts, kept], axis=-1)
    return jnp.concatenate([jnp.stack(parts, axis=-1).reshape(turning.shape), kept], axis=-1)


def xpos_decay(positions: jax.Array, xpos: Xpos, head_width: int, length: int) -> jax.Array:
    """What cos and sin of queries are multiplied by and those of keys divided by, fp32 [..., F].

    zeta_i^((n - length/2) / scale_base) with zeta_i = (2i/H + 0.4) / 1.4 (Sun et al. 2022, section
    3.3, with torchscale's gamma of 0.4). Only the difference of two positions is left in a product,
    so any origin gives the same scores; the middle of the row keeps both sides in fp32's range
    twice as long (see `longest` in jaxlm/config/position.py). `length` is that of the row, or
    of the cache: queries and the keys that they meet need the same.
    """
    zeta_F = (np.arange(0, head_width, 2) / head_width + 0.4) / 1.4
    log_F = (np.log(zeta_F) / xpos.scale_base).astype(np.float32)
    return jnp.exp((positions - length // 2)[..., None].astype(jnp.float32) * log_F)


def far_positions(
    positions: jax.Array, window: int, leak: float | None
) -> tuple[jax.Array, jax.Array]:
    """Positions of queries and of keys for pairs at a distance of `window` or more, fp32 [...].

    The distance d then counts as `window` (ReRoPE, Su 2023), or as window + (d - window) / leak
    (leaky ReRoPE); LM-Infinite's limit is the former.
    """
    place = positions.astype(jnp.float32)
    if leak is None:
        return jnp.full_like(place, window), jnp.zeros_like(place)
    return place / leak + window * (1 - 1 / leak), place / leak


def log_length_factor(positions: jax.Array, log_length: int) -> jax.Array:
    """max(1, ln(i + 1) / ln(log_length)), fp32 [...]: what the query at place i is multiplied by.

    It keeps the entropy of attention over more keys than in training (Su 2021, 2023).
    """
    place = positions.astype(jnp.float32)
    return jnp.maximum(jnp.log1p(place) / math.log(log_length), 1)


def sinusoids(positions: jax.Array, width: int) -> jax.Array:
    """sin at 2i and cos at 2i + 1 of position / 10000^(2i / width), fp32 [..., width].

    Interleaved as the paper writes it (Vaswani et al. 2017, section 3.5); its code has all sines
    first, which is the same up to a permutation of the residual stream.
    """
    cos, sin = rotation(positions, Frequencies(_series(1e4, width).astype(np.float32), 1.0))
    return jnp.stack([sin, cos], axis=-1).reshape(*positions.shape, width)


def alibi_slopes(heads: int, max_bias: float) -> np.ndarray:
    """Slope of each head, fp32 [heads]: 2^(-max_bias i / heads) for i from 1 (Press et al. 2022).

    For head counts that are no power of two, as the paper's code and checkpoints have it: the
    slopes of the power of two below, then every other slope, from the first on, of the one above.
    """
    below = 1 << (heads.bit_length() - 1)
    ranks = np.concatenate([np.arange(1, below + 1), np.arange(1, 2 * below + 1, 2) / 2])[:heads]
    return np.exp2(-max_bias * ranks / below).astype(np.float32)


def alibi_bias(slopes_KG: np.ndarray | jax.Array) -> Bias:
    """Scores fall by the head's slope with each token of distance, either way."""
    return Partial(_alibi, jnp.asarray(slopes_KG))


def _alibi(slopes_KG: jax.Array, distance: jax.Array) -> jax.Array:
    return -slopes_KG[..., None, None] * jnp.abs(distance)[..., None, None, :, :]


def relative_bucket(
    distance: jax.Array, *, causal: bool, buckets: int, max_distance: int
) -> jax.Array:
    """T5's bucket of a distance (query place - key place), int32 in 0 to buckets - 1.

    Half of the buckets are single distances, the others grow geometrically up to max_distance, and
    the last holds all beyond. causal: keys behind the query share bucket 0; otherwise they have the
    upper half of the buckets (Raffel et al. 2020, section 2.1, and the published code).
    """
    side = buckets if causal else buckets // 2
    away = jnp.maximum(distance, 0) if causal else jnp.abs(distance)
    place = jnp.sum(away[..., None] >= _bucket_starts(side, max_distance), axis=-1, dtype=jnp.int32)
    return place if causal else jnp.where(distance < 0, place + side, place)


def _bucket_starts(buckets: int, max_distance: int) -> np.ndarray:
    """Least distance of each bucket but the first, int32; no logarithm is left to the device."""
    exact = buckets // 2
    steps = np.arange(buckets - exact) / (buckets - exact)
    wide = np.ceil(exact * (max_distance / exact) ** steps - 1e-6)
    return np.concatenate([np.arange(1, exact), wide]).astype(np.int32)


def relative_bias(table_RKG: jax.Array, causal: bool, max_distance: int) -> Bias:
    """A learned number for each head and bucket of distances (T5)."""
    return Partial(partial(_relative, causal, max_distance), table_RKG)


def _relative(
    causal: bool, max_distance: int, table_RKG: jax.Array, distance: jax.Array
) -> jax.Array:
    buckets = table_RKG.shape[0]
    bucket = relative_bucket(distance, causal=causal, buckets=buckets, max_distance=max_distance)
    # rows and heads may both be split over devices, and so is the result then
    rows, heads = (jax.typeof(a).sharding.spec for a in (bucket, table_RKG))
    split = jax.P(*rows, *heads[1:]) if any((*rows, *heads[1:])) else None
    found = table_RKG.astype(jnp.float32).at[bucket].get(out_sharding=split)
    return jnp.moveaxis(found, (-2, -1), (-4, -3))
