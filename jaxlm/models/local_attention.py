"""Attention on each device's own rows and heads, and on its own part of each row."""

from collections.abc import Callable
from typing import Any

import jax

from jaxlm.config.kernels import Pattern
from jaxlm.models.masks import Mask
from jaxlm.parallel import spec
from jaxlm.parallel.context import whole_rows
from jaxlm.parallel.local import on_each_device

# B batch, T queries, S keys, K key-value heads, G query heads a key head, H head width


def of_own(
    local: Callable[..., jax.Array],
    q_BTKGH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    mask: Mask,
    **extras: Any,
) -> jax.Array:
    """What a function that the partitioner does not look into makes of each device's arrays.

    extras: as `attention` has them, but for `own`; local takes them as one dict. Inside of a
    shard_map arrays are a device's already.
    """
    if jax.sharding.get_abstract_mesh().manual_axes:
        return local(q_BTKGH, k_BSKH, v_BSKH, mask, extras)

    def of_tokens(a: jax.Array) -> jax.P:
        return spec(*("batch", None, "heads", None, None)[: a.ndim])

    def of_heads(a: jax.Array) -> jax.P:
        return spec(*(None,) * (a.ndim - 2), "heads", None)

    specs = (
        *map(of_tokens, (q_BTKGH, k_BSKH, v_BSKH)),
        jax.tree.map(of_tokens, mask),
        {n: jax.tree.map(of_tokens if n == "far" else of_heads, x) for n, x in extras.items()},
    )
    return on_each_device(local, specs, of_tokens(q_BTKGH), q_BTKGH, k_BSKH, v_BSKH, mask, extras)


def of_parts(
    run: Callable[..., jax.Array],
    q_BTKGH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    mask: Mask,
    pattern: Pattern,
    **extras: Any,
) -> jax.Array:
    """A kernel's attention where rows are cut over the context axis (jaxlm/parallel/context.py).

    Every device gathers the keys and values of its rows, and has the queries of its parts. Going
    back, gradients of keys are added up and scattered.
    """

    def local(
        q_BTKGH: jax.Array,
        k_BSKH: jax.Array,
        v_BSKH: jax.Array,
        mask: Mask,
        extras: dict[str, Any],
    ) -> jax.Array:
        k_BSKH, v_BSKH, segments_BS, prefix_BS = jax.tree.map(
            whole_rows, (k_BSKH, v_BSKH, mask.segments_BS, mask.prefix_BS)
        )
        mask = mask._replace(segments_BS=segments_BS, prefix_BS=prefix_BS)
        if "far" in extras:
            far = extras["far"]
            extras |= {"far": far._replace(k_BSKH=whole_rows(far.k_BSKH))}
        return run(q_BTKGH, k_BSKH, v_BSKH, mask, pattern, **extras)

    return of_own(local, q_BTKGH, k_BSKH, v_BSKH, mask, **extras)
