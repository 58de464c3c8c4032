"""What a layer's attention needs besides the residual stream, from the config of positions and
windows: the one place where the two meet."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxlm.config.model import Model
from jaxlm.config.position import Alibi, RelativeBias, Rope, Xpos
from jaxlm.models.attention import Bias, Mask, Pattern
from jaxlm.models.positions import (
    alibi_bias,
    alibi_slopes,
    far_positions,
    frequencies,
    log_length_factor,
    relative_bias,
    rotate,
    rotation,
    xpos_decay,
)
from jaxlm.parallel import spec

# B batch, T queries, S keys, F rotated pairs, R buckets, K key-value heads, G query heads of each


class Turn(NamedTuple):
    """Turns heads by the positions of their tokens."""

    cos_BTF: jax.Array
    sin_BTF: jax.Array
    layout: str
    scale_BTF: jax.Array | None = None
    """What pairs are multiplied by besides (xPos)."""
    factor_BT: jax.Array | None = None
    """What whole heads are multiplied by besides (ReRoPE)."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """x: [B, T, heads..., H]."""
        between = tuple(range(2, x.ndim - 1))
        cos, sin = (jnp.expand_dims(a, between) for a in (self.cos_BTF, self.sin_BTF))
        if self.scale_BTF is not None:
            scale = jnp.expand_dims(self.scale_BTF, between)
            cos, sin = cos * scale, sin * scale
        if self.factor_BT is not None:
            x = x * jnp.expand_dims(self.factor_BT, (*between, x.ndim - 1)).astype(x.dtype)
        return rotate(x, cos, sin, self.layout)


class Rotations(NamedTuple):
    """How queries and keys are turned, and how for distant pairs where that differs."""

    queries: Turn
    keys: Turn
    far: "Rotations | None" = None


class Sight(NamedTuple):
    """What the attention of a layer works with."""

    mask: Mask
    pattern: Pattern
    rotations: Rotations | None = None
    bias: Bias | None = None
    slots_BT: jax.Array | None = None
    """Where in the cache the tokens are written (one that it does not have: nowhere); None: one
    after another from mask.first_B, or from the first on."""
    cross: "Sight | None" = None
    """The same for attention to an encoder."""
    encoded_MD: jax.Array | None = None
    """What the encoder made; None: its keys and values are in the cache."""


def in_cache(sight: Sight, slots: int) -> tuple[Sight, jax.Array | None]:
    """The same for a layer whose cache has so many slots, of one document a row, and positions of
    what is in them, BS (None: a first pass, which meets its own tokens alone).

    With a window the cache rolls: the sinks keep the first slots, and the others hold the last
    tokens, each in the slot of the one that many places before.
    """
    mask, pattern = sight.mask, sight.pattern
    first_B, (B, T) = mask.first_B, mask.segments_BT.shape
    slot_S = jnp.arange(slots)
    if first_B is None:
        place_BT, last_B = jnp.arange(T)[None], jnp.sum(mask.segments_BT != 0, axis=1) - 1
    else:
        place_BT, last_B = first_B[:, None] + jnp.arange(T), first_B + T - 1
        ones_BS = jnp.ones((B, slots), jnp.int32, out_sharding=spec("batch", None))
        sight = sight._replace(mask=mask._replace(segments_BS=ones_BS))
    if pattern.window is None:
        return sight, None if first_B is None else slot_S[None]
    sinks, around = pattern.sinks, slots - pattern.sinks
    slot_BT = jnp.where(place_BT < sinks, place_BT, sinks + (place_BT - sinks) % around)
    kept_BT = (place_BT < sinks) | (place_BT > last_B[:, None] - around)
    kept_BT = kept_BT & (place_BT <= last_B[:, None])
    sight = sight._replace(slots_BT=jnp.where(kept_BT, slot_BT, slots))
    if first_B is None:
        return sight, None
    place_BS = last_B[:, None] - (last_B[:, None] - slot_S) % around
    place_BS = jnp.where(slot_S < sinks, slot_S, jnp.where(place_BS < sinks, -1, place_BS))
    return sight._replace(mask=sight.mask._replace(places_BS=place_BS)), place_BS


def bias_of(model: Model, pattern: Pattern, table_RN: jax.Array | None) -> Bias | None:
    """What is added to scores by distance: ALiBi's slopes or the buckets of T5's table."""
    K, position = model.kv_head_count, model.position
    bias: Bias
    match position:
        case Alibi():
            slopes_KG = np.reshape(alibi_slopes(model.heads, position.max_bias), (K, -1))
            bias = alibi_bias(jax.reshard(slopes_KG, spec("heads", None)))
        case RelativeBias():
            assert table_RN is not None
            table_RKG = jnp.reshape(table_RN, (table_RN.shape[0], K, -1))
            bias = relative_bias(table_RKG, pattern.causal, position.max_distance)
        case _:
            return None
    sinks = model.attention.sinks
    if not pattern.sinks or sinks is None or sinks.distance == "true":
        return bias
    assert pattern.window is not None
    limit = sinks.limit or pattern.window  # distances stop growing there (LM-Infinite, section 4.2)
    return Partial(partial(_limited, limit), bias)


def _limited(limit: int, bias: Bias, distance: jax.Array) -> jax.Array:
    return bias(jnp.minimum(distance, limit))


def rotations_of(
    model: Model,
    pattern: Pattern,
    positions_BT: jax.Array,
    key_positions_BS: jax.Array,
    length: int,
) -> Rotations | None:
    """Turns of queries and keys; None where positions are not rotary.

    positions_BT: places of the queries in their documents, int32.
    key_positions_BS: places of the keys that a query meets: the same without a cache.
    length: of the rows, for extensions that depend on it.
    """
    position = model.position
    if not isinstance(position, Rope | Xpos):
        return None
    table = frequencies(position, model.head_width, length)
    layout = position.layout if isinstance(position, Rope) else "interleaved"
    truncation = position.truncation if isinstance(position, Rope) else None
    factor_BT = None
    if truncation is not None and truncation.log_length is not None:
        factor_BT = log_length_factor(positions_BT, truncation.log_length)

    def turn(places: jax.Array, *, queries: bool) -> Turn:
        cos, sin = rotation(places, table)
        scale = None
        if isinstance(position, Xpos):
            decay = xpos_decay(places, position, model.head_width, length)
            scale = decay if queries else 1 / decay
        return Turn(cos, sin, layout, scale, factor_BT if queries else None)

    near = Rotations(
        turn(positions_BT, queries=True),
        turn(key_positions_BS if pattern.near else positions_BT, queries=False),
    )
    if pattern.near is None:
        return near
    sinks = model.attention.sinks
    if sinks is not None and sinks.distance == "slot":
        last = sinks.tokens + (model.attention.window or 0) - 1
        far_BT, far_BS = jnp.minimum(positions_BT, last), key_positions_BS
    else:
        leak = truncation.leak if truncation is not None else None
        far_BT, _ = far_positions(positions_BT, pattern.near, leak)
        _, far_BS = far_positions(key_positions_BS, pattern.near, leak)
    return near._replace(far=Rotations(turn(far_BT, queries=True), turn(far_BS, queries=False)))
