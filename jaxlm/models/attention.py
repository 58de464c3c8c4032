"""Attention: one entry point, one description of what a query may see, one table of kernels."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlm.errors import UserError
from jaxlm.parallel import spec

# B batch, T queries, S keys, K key-value heads, G query heads a key head, H head width


class Mask(NamedTuple):
    """What a query sees: keys at its own index or before, in its own document.

    Kernels work from this description.
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
    # the mesh may be of devices that are not here: a program that is compiled for elsewhere
    device = jax.sharding.get_abstract_mesh().abstract_device
    platform = device.platform if device else jax.default_backend()
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


XLA_BLOCK = 64
XLA_MOST_BLOCKS = 16


def _xla(q_BTKGH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, mask: Mask) -> jax.Array:
    """Products by XLA; blocks of queries, each with the keys up to its end, skip half the work."""
    T = q_BTKGH.shape[1]
    block = max(XLA_BLOCK, -(-T // XLA_MOST_BLOCKS))
    if mask.first_B is not None or block >= T:
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
    # T before G: the order in which the product comes out, so that nothing is transposed. A group
    # of one is no axis at all: XLA's CPU products are 4 % of a step slower with it.
    scores, values = "btkgh,bskh->bktgs", "bktgs,bskh->btkgh"
    seen = seen_BTS[:, None, :, None]
    if single := q_BTKGH.shape[3] == 1:
        scores, values = (equation.replace("g", "") for equation in (scores, values))
        q_BTKGH, seen = q_BTKGH[:, :, :, 0], seen[:, :, :, 0]
    s_BKTGS = jnp.einsum(scores, q_BTKGH, k_BSKH, preferred_element_type=jnp.float32)
    # a finite floor: a padding row sees nothing and must give an average, not NaN
    s_BKTGS = jnp.where(seen, s_BKTGS, -1e30)
    p_BKTGS = jax.nn.softmax(s_BKTGS, axis=-1).astype(v_BSKH.dtype)
    o_BTKGH = jnp.einsum(values, p_BKTGS, v_BSKH)
    return o_BTKGH[:, :, :, None] if single else o_BTKGH


def _cudnn(q_BTKGH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, mask: Mask) -> jax.Array:
    """cuDNN's flash attention. It takes documents only as a bias [B, 1, T, S] in q's dtype, which
    is stored: 2 T^2 bytes a row of the batch, once for all heads."""

    def local(
        q_BTKGH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, segments_BT: jax.Array
    ) -> jax.Array:
        B, T, K, G, H = q_BTKGH.shape
        same_B1TS = (segments_BT[:, :, None] == segments_BT[:, None, :])[:, None]
        o_BTNH = jax.nn.dot_product_attention(
            q_BTKGH.reshape(B, T, K * G, H),
            k_BSKH,
            v_BSKH,
            mask=same_B1TS,
            is_causal=True,
            implementation="cudnn",
        )
        return o_BTNH.reshape(q_BTKGH.shape)

    return _on_each_device(local, q_BTKGH, k_BSKH, v_BSKH, mask)


def _cudnn_refuses(q_BTKGH: jax.Array, k_BSKH: jax.Array, mask: Mask) -> str | None:
    T, H = q_BTKGH.shape[1], q_BTKGH.shape[-1]
    if mask.first_B is not None:
        return "does not read a key-value cache"
    if q_BTKGH.dtype not in (jnp.bfloat16, jnp.float16):
        return f"takes bf16 and fp16, not {q_BTKGH.dtype} (train.precision: bf16)"
    if H > 128 or H % 8:
        return f"takes head widths that are multiples of 8 up to 128, not {H}"
    if T % 2:
        return f"takes sequences of even length, not {T}"
    return None


def _splash(
    q_BTKGH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    mask: Mask,
    *,
    interpret: bool = False,
) -> jax.Array:
    """Splash attention, JAX's Pallas kernel for TPU: hidden blocks are skipped, nothing of T x S
    is stored. interpret: run it on any platform, slowly, to test it."""
    # a third of a second that only TPUs need
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    def local(
        q_BTKGH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, segments_BT: jax.Array
    ) -> jax.Array:
        B, T, K, G, H = q_BTKGH.shape
        block = next(size for size in SPLASH_BLOCKS if T % size == 0)
        kernel = splash.make_splash_mha(
            splash.MultiHeadMask([splash.CausalMask((T, T))] * (K * G)),
            block_sizes=splash.BlockSizes(
                block_q=block,
                block_kv=block,
                block_q_dkv=block,
                block_kv_dkv=block,
                use_fused_bwd_kernel=True,
            ),
            head_shards=1,
            q_seq_shards=1,
            interpret=interpret,
        )
        q_BTNH = q_BTKGH.reshape(B, T, K * G, H) * jnp.asarray(H**-0.5, q_BTKGH.dtype)
        o_BNTH = jax.vmap(kernel)(
            *(jnp.swapaxes(a, 1, 2) for a in (q_BTNH, k_BSKH, v_BSKH)),
            splash.SegmentIds(segments_BT, segments_BT),
        )
        return jnp.swapaxes(o_BNTH, 1, 2).reshape(q_BTKGH.shape)

    return _on_each_device(local, q_BTKGH, k_BSKH, v_BSKH, mask)


SPLASH_BLOCKS = (512, 384, 256, 128)


def _splash_refuses(q_BTKGH: jax.Array, k_BSKH: jax.Array, mask: Mask) -> str | None:
    T = q_BTKGH.shape[1]
    if mask.first_B is not None:
        return "does not read a key-value cache"
    if T % SPLASH_BLOCKS[-1]:
        return f"takes sequences that are multiples of {SPLASH_BLOCKS[-1]}, not {T}"
    return None


def _on_each_device(
    local: Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array],
    q_BTKGH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    mask: Mask,
) -> jax.Array:
    """A kernel that the partitioner does not look into, on each device's rows and heads."""
    keys = spec("batch", None, "heads", None)
    queries = spec("batch", None, "heads", None, None)
    return jax.shard_map(
        local,
        in_specs=(queries, keys, keys, spec("batch", None)),
        out_specs=queries,
        check_vma=False,  # Pallas and custom calls do not say over which axes their results vary
    )(q_BTKGH, k_BSKH, v_BSKH, mask.segments_BT)


KERNELS: tuple[Kernel, ...] = (
    Kernel("cudnn", ("gpu",), _cudnn_refuses, _cudnn),
    Kernel("splash", ("tpu",), _splash_refuses, _splash),
    Kernel("xla", (), lambda q, k, m: None, _xla),
)
