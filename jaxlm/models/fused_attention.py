"""Fused attention kernels of accelerators: cuDNN's on NVIDIA GPUs, splash on TPUs."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxlm.config.kernels import SPLASH_BLOCKS, Pattern
from jaxlm.models.local_attention import of_own
from jaxlm.models.masks import Mask
from jaxlm.parallel.context import order as order_of_parts
from jaxlm.parallel.context import parts

# B batch, T queries, S keys, K key-value heads, G query heads a key head, H head width, N = K x G


def cudnn(
    q_BTKGH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    mask: Mask,
    pattern: Pattern,
    *,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """cuDNN's flash attention. It takes documents, and the order of parts of rows, only as a bias
    [B, 1, T, S] in q's dtype, which is stored: 2 T S bytes a row of the batch, once for all heads.

    implementation: "xla" computes the same call on any platform, to test it.
    """

    def local(
        q_BTKGH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, mask: Mask, _: dict[str, Any]
    ) -> jax.Array:
        B, T, K, G, H = q_BTKGH.shape
        seen_BTS = mask.segments_BT[:, :, None] == mask.segments_BS[:, None, :]
        by_index = mask.places_BT is None and mask.prefix_BS is None  # as the kernel has order
        if pattern.causal and not by_index:
            place_T = jnp.arange(T) if mask.places_BT is None else mask.places_BT[0]
            distance_TS = place_T[:, None] - jnp.arange(k_BSKH.shape[1])
            order_BTS = (distance_TS >= 0)[None]
            if mask.prefix_BS is not None:
                order_BTS |= (mask.prefix_BS != 0)[:, None, :]
            if pattern.window is not None:
                order_BTS &= distance_TS < pattern.window
            seen_BTS &= order_BTS
        o_BTNH = jax.nn.dot_product_attention(
            q_BTKGH.reshape(B, T, K * G, H),
            k_BSKH,
            v_BSKH,
            mask=seen_BTS[:, None],
            is_causal=pattern.causal and by_index,
            local_window_size=(
                (pattern.window - 1, 0) if by_index and pattern.window is not None else None
            ),
            scale=pattern.scale,
            implementation=implementation,
        )
        return o_BTNH.reshape(q_BTKGH.shape)

    return of_own(local, q_BTKGH, k_BSKH, v_BSKH, mask)


def splash(
    q_BTKGH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    mask: Mask,
    pattern: Pattern,
    *,
    sink_logits_KG: jax.Array | None = None,
    interpret: bool = False,
) -> jax.Array:
    """Splash attention, JAX's Pallas kernel for TPU: hidden blocks are skipped, nothing of T x S
    is stored.

    It knows no prefix. Queries behind one see just what causal attention shows them; those inside
    see the prefix, which is what a pass without order shows when nothing else of the document is in
    it: two passes, and each query takes its own.

    interpret: run it on any platform, slowly, to test it.
    """
    # a third of a second that only TPUs need
    from jax.experimental.pallas.ops.tpu import splash_attention as kernels

    def local(
        q_BTKGH: jax.Array,
        k_BSKH: jax.Array,
        v_BSKH: jax.Array,
        mask: Mask,
        extras: dict[str, Any],
    ) -> jax.Array:
        B, T, K, G, H = q_BTKGH.shape
        S = k_BSKH.shape[1]
        sink_logits_KG = extras.get("sink_logits_KG")
        count = 1 if mask.places_BT is None else parts()
        scale = H**-0.5 if pattern.scale is None else pattern.scale
        q_BTNH = q_BTKGH.reshape(B, T, K * G, H) * jnp.asarray(scale, q_BTKGH.dtype)
        heads = tuple(jnp.swapaxes(a, 1, 2) for a in (q_BTNH, k_BSKH, v_BSKH))
        sinks_N = None if sink_logits_KG is None else sink_logits_KG.reshape(K * G)

        def run(causal: bool, segments_BT: jax.Array, segments_BS: jax.Array) -> jax.Array:
            order: kernels.LocalMask | kernels.CausalMask | kernels.FullMask
            shape = (count * T, S)
            if pattern.window is not None:
                back = pattern.window - 1
                order = kernels.LocalMask(shape, (back, 0 if causal else back), offset=0)
            else:
                order = kernels.CausalMask(shape) if causal else kernels.FullMask((T, S))
            shards = 1
            if not isinstance(order, kernels.FullMask):
                shards, order.q_sequence = count, order_of_parts(count * T, count)
            # no block of queries in both chunks of a part, or it would have the keys of both
            chunk = T // 2 if count > 1 and T // 2 % SPLASH_BLOCKS[-1] == 0 else T
            block_q, block_kv = (
                next(size for size in SPLASH_BLOCKS if length % size == 0) for length in (chunk, S)
            )
            kernel = kernels.make_splash_mha(
                kernels.MultiHeadMask([order] * (K * G)),
                block_sizes=kernels.BlockSizes(
                    block_q=block_q,
                    block_kv=block_kv,
                    block_q_dkv=block_q,
                    block_kv_dkv=block_kv,
                    use_fused_bwd_kernel=True,
                ),
                head_shards=1,
                q_seq_shards=shards,
                attn_logits_soft_cap=pattern.softcap,
                interpret=interpret,
            )
            if shards > 1:
                kernel = jax.tree.map(_of_this_part, kernel)
            ids = kernels.SegmentIds(segments_BT, segments_BS)
            rows = jax.vmap(kernel, in_axes=(0, 0, 0, 0, None))
            o_BNTH = _at_once(rows)(*heads, ids, sinks_N)
            return jnp.swapaxes(o_BNTH, 1, 2).reshape(q_BTKGH.shape)

        out = run(pattern.causal, mask.segments_BT, mask.segments_BS)
        if mask.prefix_BS is None or not pattern.causal:
            return out
        inside_BS = inside_BT = mask.prefix_BS != 0
        if mask.places_BT is not None:
            inside_BT = jnp.take_along_axis(inside_BS, mask.places_BT, axis=1)
        only_BT = jnp.where(inside_BT, mask.segments_BT, 0)
        only_BS = jnp.where(inside_BS, mask.segments_BS, 0)
        inside = run(False, only_BT, only_BS)
        return jnp.where(inside_BT[:, :, None, None, None], inside, out)

    extras = {} if sink_logits_KG is None else {"sink_logits_KG": sink_logits_KG}
    return of_own(local, q_BTKGH, k_BSKH, v_BSKH, mask, **extras)


def _at_once(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The function, with what it keeps for its gradient made before anything follows: splash writes
    each sum of exponentials 128 times, and they are not to wait for each other as that."""

    def forward(*inputs: Any) -> tuple[jax.Array, Any]:
        kept: tuple[jax.Array, Any] = jax.lax.optimization_barrier(jax.vjp(function, *inputs))
        return kept

    together = jax.custom_vjp(function)
    together.defvjp(forward, lambda backward, gradient: backward(gradient))
    return together


def _of_this_part(info: jax.Array) -> jax.Array:
    """What a splash kernel knows of its mask, for this device's queries: lists by blocks of queries
    [heads, blocks, ...], and the queries' places [T]."""
    axis, count = (0, 1)[info.ndim > 1], parts()
    length = info.shape[axis] // count
    start = jax.lax.axis_index("context") * length
    return jax.lax.dynamic_slice_in_dim(info, start, length, axis)
