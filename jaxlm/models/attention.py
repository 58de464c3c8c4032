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
    """Products by XLA; blocks of queries, each with the keys up to its end, skip half the work.

    Heads come first and the queries of a group follow each other, R = T x G, so that every product
    is one of plain matrices whatever G is, and is transposed once and not in each block.
    """
    B, T, K, G, H = q_BTKGH.shape
    q_BKTGH = jnp.swapaxes(q_BTKGH * jnp.asarray(H**-0.5, q_BTKGH.dtype), 1, 2)
    split = jax.typeof(q_BKTGH).sharding.spec[:2]  # how rows and heads lie on the mesh
    q_BKRH = jax.lax.reshape(q_BKTGH, (B, K, T * G, H), out_sharding=jax.P(*split, None, None))
    k_BKSH, v_BKSH = jnp.swapaxes(k_BSKH, 1, 2), jnp.swapaxes(v_BSKH, 1, 2)
    block = max(XLA_BLOCK, -(-T // XLA_MOST_BLOCKS))
    if mask.first_B is not None or block >= T:
        o_BKRH = _xla_block(q_BKRH, k_BKSH, v_BKSH, visible(mask, slice(None), slice(None)))
    else:
        outputs = []
        for start in range(0, T, block):
            end = min(start + block, T)
            q_BKrH = q_BKRH[:, :, start * G : end * G]
            seen = visible(mask, slice(start, end), slice(0, end))
            outputs.append(_xla_block(q_BKrH, k_BKSH[:, :, :end], v_BKSH[:, :, :end], seen))
        o_BKRH = jnp.concatenate(outputs, axis=2)
    o_BKTGH = jax.lax.reshape(o_BKRH, q_BKTGH.shape, out_sharding=jax.P(*split, None, None, None))
    return jnp.swapaxes(o_BKTGH, 1, 2)


def _xla_block(
    q_BKRH: jax.Array, k_BKSH: jax.Array, v_BKSH: jax.Array, seen_BTS: jax.Array
) -> jax.Array:
    B, T, S = seen_BTS.shape
    R = q_BKRH.shape[2]
    seen_BTGS = jnp.broadcast_to(seen_BTS[:, :, None], (B, T, R // T, S))
    rows = jax.typeof(seen_BTS).sharding.spec[0]
    seen_BRS = jax.lax.reshape(seen_BTGS, (B, R, S), out_sharding=jax.P(rows, None, None))
    s_BKRS = jnp.einsum("bkrh,bksh->bkrs", q_BKRH, k_BKSH, preferred_element_type=jnp.float32)
    # a finite floor: a padding row sees nothing and must give an average, not NaN
    s_BKRS = jnp.where(seen_BRS[:, None], s_BKRS, -1e30)
    p_BKRS = jax.nn.softmax(s_BKRS, axis=-1).astype(v_BKSH.dtype)
    return jnp.einsum("bkrs,bksh->bkrh", p_BKRS, v_BKSH)


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
