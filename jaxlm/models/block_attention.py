"""Attention of some queries to some keys, which XLA compiles: scores, softmax and average."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlm.config.kernels import Pattern
from jaxlm.models.masks import Bias, Far, Mask, Own

# B batch, T queries, S keys, K key-value heads, G query heads a key head, H head width, R = T x G
# rows of scores of one key head, P keys of a single query head; `b` is B, or 1 for what is the same
# in all rows of the batch


class Queries(NamedTuple):
    """Scaled queries. Heads come first and those of a group follow each other, so that every
    product is one of plain matrices whatever G is, and is transposed once and not in each block."""

    q_BKRH: jax.Array
    far_BKRH: jax.Array | None
    places_bT: jax.Array
    segments_BT: jax.Array
    own_k_BKRPH: jax.Array | None = None
    own_v_BKRPH: jax.Array | None = None
    own_seen_BTP: jax.Array | None = None


class Keys(NamedTuple):
    """Keys and values, heads first. A segment of -1 is seen by no query."""

    k_BKSH: jax.Array
    v_BKSH: jax.Array
    far_BKSH: jax.Array | None
    places_bS: jax.Array
    segments_BS: jax.Array
    prefix_BS: jax.Array | None
    sinks_BS: jax.Array | None


def queries_of(
    q_BTKGH: jax.Array, mask: Mask, pattern: Pattern, far: Far | None, own: Own | None
) -> Queries:
    B, T, K, G, H = q_BTKGH.shape
    scale = H**-0.5 if pattern.scale is None else pattern.scale

    def rows(x_BTKG: jax.Array) -> jax.Array:
        x_BKTG = jnp.swapaxes(x_BTKG, 1, 2)
        split = jax.typeof(x_BKTG).sharding.spec[:2]  # how rows and heads lie on the mesh
        behind = x_BTKG.shape[4:]
        names = jax.P(*split, None, *(None for _ in behind))
        return jax.lax.reshape(x_BKTG, (B, K, T * G, *behind), out_sharding=names)

    def scaled(q_BTKGH: jax.Array) -> jax.Array:
        return rows(q_BTKGH * jnp.asarray(scale, q_BTKGH.dtype))

    places_bT = jnp.arange(T)[None]
    if mask.first_B is not None:
        places_bT = mask.first_B[:, None] + places_bT
    if mask.places_BT is not None:
        places_bT = mask.places_BT[:1]  # a device has one part of all its rows
    far_BKRH = None if far is None else scaled(far.q_BTKGH)
    queries = Queries(scaled(q_BTKGH), far_BKRH, places_bT, mask.segments_BT)
    if own is None:
        return queries
    return queries._replace(
        own_k_BKRPH=rows(own.k_BTKGPH),
        own_v_BKRPH=rows(own.v_BTKGPH),
        own_seen_BTP=own.seen_BTP,
    )


def keys_of(
    k_BSKH: jax.Array, v_BSKH: jax.Array, mask: Mask, pattern: Pattern, far: Far | None
) -> Keys:
    S, segments_BS = k_BSKH.shape[1], mask.segments_BS
    sinks_BS = None
    if mask.places_BS is None:
        places_bS = jnp.arange(S)[None]
        if pattern.sinks:
            # the number of the document that many tokens before is another
            before = jnp.pad(segments_BS, ((0, 0), (pattern.sinks, 0)), constant_values=-1)
            sinks_BS = segments_BS != before[:, :S]
    else:
        places_bS = mask.places_BS
        segments_BS = jnp.where(places_bS < 0, -1, segments_BS)
        if pattern.sinks:
            sinks_BS = places_bS < pattern.sinks
    return Keys(
        jnp.swapaxes(k_BSKH, 1, 2),
        jnp.swapaxes(v_BSKH, 1, 2),
        None if far is None else jnp.swapaxes(far.k_BSKH, 1, 2),
        places_bS,
        segments_BS,
        None if mask.prefix_BS is None else mask.prefix_BS != 0,
        sinks_BS,
    )


def attend(
    pattern: Pattern,
    bias: Bias | None,
    sink_logits_KG: jax.Array | None,
    queries: Queries,
    keys: Keys,
) -> jax.Array:
    """Attention of these queries to these keys, BKRH in v's dtype."""
    rows = queries.q_BKRH.shape[2]
    s_BKRS = _products(queries.q_BKRH, keys.k_BKSH)
    distance_bTS = queries.places_bT[:, :, None] - keys.places_bS[:, None, :]
    if queries.far_BKRH is not None and keys.far_BKSH is not None:
        assert pattern.near is not None
        distant_bRS = _of_rows(distance_bTS >= pattern.near, rows)
        far_BKRS = _products(queries.far_BKRH, keys.far_BKSH)
        s_BKRS = jnp.where(_of_heads(distant_bRS, s_BKRS), far_BKRS, s_BKRS)
    if queries.own_k_BKRPH is not None:
        q_BKRH = queries.q_BKRH if queries.far_BKRH is None else queries.far_BKRH
        own_BKRP = jnp.einsum(
            "bkrh,bkrph->bkrp", q_BKRH, queries.own_k_BKRPH, preferred_element_type=jnp.float32
        )
        s_BKRS = jnp.concatenate([s_BKRS, own_BKRP], axis=-1)
    if pattern.softcap is not None:
        s_BKRS = pattern.softcap * jnp.tanh(s_BKRS / pattern.softcap)
    if bias is not None:
        s_BKRS += _bias_of_rows(bias(distance_bTS), s_BKRS)
    seen_BTS = visible(pattern, queries, keys)
    if queries.own_seen_BTP is not None:
        assert bias is None
        seen_BTS = jnp.concatenate([seen_BTS, queries.own_seen_BTP], axis=-1)
    seen_BRS = _of_rows(seen_BTS, rows)
    # a finite floor: a padding row sees nothing and must give an average, not NaN
    s_BKRS = jnp.where(_of_heads(seen_BRS, s_BKRS), s_BKRS, -1e30)
    if sink_logits_KG is None:
        p_BKRS = jax.nn.softmax(s_BKRS, axis=-1)
    else:
        p_BKRS = _softmax_with_sink(s_BKRS, sink_logits_KG)
    p_BKRS = p_BKRS.astype(keys.v_BKSH.dtype)
    if queries.own_v_BKRPH is None:
        return jnp.einsum("bkrs,bksh->bkrh", p_BKRS, keys.v_BKSH)
    p_BKRS, p_BKRP = jnp.split(p_BKRS, [keys.v_BKSH.shape[2]], axis=-1)
    o_BKRH = jnp.einsum("bkrs,bksh->bkrh", p_BKRS, keys.v_BKSH)
    return o_BKRH + jnp.einsum("bkrp,bkrph->bkrh", p_BKRP, queries.own_v_BKRPH)


def _products(q_BKRH: jax.Array, k_BKSH: jax.Array) -> jax.Array:
    return jnp.einsum("bkrh,bksh->bkrs", q_BKRH, k_BKSH, preferred_element_type=jnp.float32)


def visible(pattern: Pattern, queries: Queries, keys: Keys) -> jax.Array:
    """The description as booleans BTS; XLA fuses it into its use."""
    place_T, place_S = queries.places_bT[:, :, None], keys.places_bS[:, None, :]
    seen = queries.segments_BT[:, :, None] == keys.segments_BS[:, None, :]
    if pattern.causal:
        order = place_T >= place_S
        if keys.prefix_BS is not None:
            order = order | keys.prefix_BS[:, None, :]
        seen = order & seen
    if pattern.window is not None:
        distance = place_T - place_S
        inside = jnp.abs(distance) < pattern.window
        if keys.sinks_BS is not None:
            inside = inside | keys.sinks_BS[:, None, :]
        seen = inside & seen
    return seen


def _of_rows(x_bTS: jax.Array, rows: int) -> jax.Array:
    """The same number for all query heads of a group: bRS."""
    b, T, S = x_bTS.shape
    x_bTGS = jnp.broadcast_to(x_bTS[:, :, None], (b, T, rows // T, S))
    batch = jax.typeof(x_bTS).sharding.spec[0]
    return jax.lax.reshape(x_bTGS, (b, rows, S), out_sharding=jax.P(batch, None, None))


def _of_heads(x_bRS: jax.Array, like_BKRS: jax.Array) -> jax.Array:
    """The same number for all key heads, b1RS. Axes of one that are not spread to more must lie on
    the mesh as those of what they meet."""
    b, (B, K) = x_bRS.shape[0], like_BKRS.shape[:2]
    batch, heads = jax.typeof(like_BKRS).sharding.spec[:2]
    split = jax.P(batch if b == B else None, heads if K == 1 else None, None, None)
    return jax.reshard(x_bRS[:, None], split)


def _bias_of_rows(bias_bKGTS: jax.Array, like_BKRS: jax.Array) -> jax.Array:
    """The numbers of a bias in the order of rows, with the heads where the scores have them."""
    b, K, G, T, S = bias_bKGTS.shape
    batch, heads = jax.typeof(like_BKRS).sharding.spec[:2]
    split = jax.P(batch if b == like_BKRS.shape[0] else None, heads, None, None)
    bias_bKTGS = jnp.swapaxes(jax.reshard(bias_bKGTS, jax.P(*split, None)), 2, 3)
    return jax.lax.reshape(bias_bKTGS, (b, K, T * G, S), out_sharding=split)


def _softmax_with_sink(s_BKRS: jax.Array, sink_logits_KG: jax.Array) -> jax.Array:
    """Softmax over scores and one logit more, whose share is left out."""
    _, K, R, _ = s_BKRS.shape
    G = sink_logits_KG.shape[1]
    heads = jax.typeof(s_BKRS).sharding.spec[1]
    sink_KTG = jnp.broadcast_to(sink_logits_KG.astype(jnp.float32)[:, None], (K, R // G, G))
    sink_KR1 = jax.lax.reshape(sink_KTG, (K, R, 1), out_sharding=jax.P(heads, None, None))
    most_BKR1 = jnp.maximum(jnp.max(s_BKRS, axis=-1, keepdims=True), sink_KR1)
    most_BKR1 = jax.lax.stop_gradient(most_BKR1)
    e_BKRS = jnp.exp(s_BKRS - most_BKR1)
    return e_BKRS / (jnp.sum(e_BKRS, axis=-1, keepdims=True) + jnp.exp(sink_KR1 - most_BKR1))
