"""Attention: one entry point, one description of what a query may see, one table of kernels."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlm.errors import UserError

# B batch, T queries, S keys, K key-value heads, G query heads a key head, H head width


class Mask(NamedTuple):
    """What a query sees: keys at its own index or before, in its own document.

    Arrays of T x S are never stored; kernels work from this description.
    """

    segments_BT: jax.Array
    """Document number of each query in its row, int32; 0 is padding."""
    segments_BS: jax.Array
    """Document number of each key, int32."""
    first_B: jax.Array | None = None
    """Index, among the keys, of each row's first query, int32; None: queries and keys coincide."""


class Kernel(NamedTuple):
    """A row of the table: where it runs, why it would refuse a call, and the function."""

    name: str
    platforms: tuple[str, ...]
    refuses: Callable[[jax.Array, jax.Array, Mask], str | None]
    run: Callable[[jax.Array, jax.Array, jax.Array, Mask], jax.Array]


def attention(
    q_BTKGH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, mask: Mask, kernel: str = "auto"
) -> jax.Array:
    """Softmax attention of grouped queries; scores in fp32, scaled by head width ** -0.5.

    kernel: a name of the table, or "auto" for the first one that this platform has and that
    accepts the call. Returns BTKGH in v's dtype. Raises UserError when the kernel that was asked
    for refuses.
    """
    platform = jax.default_backend()
    reasons = []
    for row in KERNELS:
        if kernel not in ("auto", row.name):
            continue
        if platform not in row.platforms and row.platforms:
            reasons.append(f"{row.name}: runs on {', '.join(row.platforms)}, this is {platform}")
        elif reason := row.refuses(q_BTKGH, k_BSKH, mask):
            reasons.append(f"{row.name}: {reason}")
        else:
            return row.run(q_BTKGH, k_BSKH, v_BSKH, mask)
    raise UserError([f"model.attention.kernel: {reason}" for reason in reasons])


def visible(mask: Mask, queries: slice, keys: slice) -> jax.Array:
    """The description as booleans BTS for some queries and keys; XLA fuses it into its use."""
    index_T = jnp.arange(mask.segments_BT.shape[1])[queries]
    index_S = jnp.arange(mask.segments_BS.shape[1])[keys]
    if mask.first_B is None:
        causal = (index_T[:, None] >= index_S)[None]
    else:
        causal = (mask.first_B[:, None] + index_T)[:, :, None] >= index_S
    same = mask.segments_BT[:, queries, None] == mask.segments_BS[:, None, keys]
    return causal & same


XLA_BLOCK = 128
XLA_MOST_BLOCKS = 16


def _xla(q_BTKGH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, mask: Mask) -> jax.Array:
    """Products by XLA; blocks of queries, each with the keys up to its end, skip half the work."""
    T = q_BTKGH.shape[1]
    block = max(XLA_BLOCK, -(-T // XLA_MOST_BLOCKS))
    if mask.first_B is not None or T <= block:
        return _xla_block(q_BTKGH, k_BSKH, v_BSKH, visible(mask, slice(None), slice(None)))
    outputs = []
    for start in range(0, T, block):
        rows, keys = slice(start, start + block), slice(0, start + block)
        seen = visible(mask, rows, keys)
        outputs.append(_xla_block(q_BTKGH[:, rows], k_BSKH[:, keys], v_BSKH[:, keys], seen))
    return jnp.concatenate(outputs, axis=1)


def _xla_block(
    q_BTKGH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, seen_BTS: jax.Array
) -> jax.Array:
    q_BTKGH = q_BTKGH * jnp.asarray(q_BTKGH.shape[-1] ** -0.5, q_BTKGH.dtype)
    s_BKGTS = jnp.einsum(
        "btkgh,bskh->bkgts", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32
    )
    # a finite floor: a padding row sees nothing and must give an average, not NaN
    s_BKGTS = jnp.where(seen_BTS[:, None, None], s_BKGTS, -1e30)
    p_BKGTS = jax.nn.softmax(s_BKGTS, axis=-1).astype(v_BSKH.dtype)
    return jnp.einsum("bkgts,bskh->btkgh", p_BKGTS, v_BSKH)


KERNELS: tuple[Kernel, ...] = (Kernel("xla", (), lambda q, k, m: None, _xla),)
