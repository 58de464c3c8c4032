"""Attention: one entry point, one description of what a query may see, one table of kernels."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax

from jaxlm.config.kernels import Call, Pattern, refusal
from jaxlm.errors import UserError
from jaxlm.models.fused_attention import cudnn, splash
from jaxlm.models.local_attention import of_parts
from jaxlm.models.masks import Bias, Far, Mask, Own
from jaxlm.models.xla_attention import xla
from jaxlm.parallel.context import parts

__all__ = ["KERNELS", "Bias", "Far", "Kernel", "Mask", "Own", "Pattern", "attention"]

# B batch, T queries, S keys, K key-value heads, G query heads a key head, H head width


class Kernel(NamedTuple):
    """A row of the table. What it refuses stands under its name in jaxlm/config/kernels.py."""

    name: str
    platforms: tuple[str, ...]
    """Where it runs; none: everywhere."""
    run: Callable[..., jax.Array]
    """Takes what `attention` takes but for the kernel's name; an argument that the kernel refuses
    may be missing. Where mask.places_BT says that rows are parts, it is called on each device, with
    keys of whole rows."""


KERNELS: tuple[Kernel, ...] = (
    Kernel("cudnn", ("gpu",), cudnn),
    Kernel("splash", ("tpu",), splash),
    Kernel("xla", (), xla),
)


def attention(
    q_BTKGH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    mask: Mask,
    pattern: Pattern = Pattern(),  # noqa: B008 - frozen
    *,
    bias: Bias | None = None,
    far: Far | None = None,
    sink_logits_KG: jax.Array | None = None,
    own: Own | None = None,
    kernel: str = "auto",
) -> jax.Array:
    """Softmax attention of grouped queries, scores in fp32. Returns BTKGH in v's dtype.

    A score is (q k) * scale, capped, plus the bias; far gives q and k for distant pairs and must be
    there if `pattern.near` is. sink_logits_KG, fp32, take part in the softmax and have no value.
    own: keys of single query heads besides; not with a bias, nor for parts of rows. A query that
    sees nothing (padding) gives some finite average. Attention to an encoder is
    Pattern(causal=False) with the encoder's segments as those of the keys.

    kernel: a name of the table, or "auto" for the first one that this platform has and that
    accepts the call. Raises UserError when the kernel that was asked for refuses.
    """
    assert (far is None) == (pattern.near is None)
    assert own is None or mask.places_BT is None
    call = Call(
        pattern,
        queries=q_BTKGH.shape[1],
        keys=k_BSKH.shape[1] * (1 if mask.places_BT is None else parts()),
        head_width=q_BTKGH.shape[-1],
        dtype=q_BTKGH.dtype.name,
        cached=mask.first_B is not None,
        prefix=mask.prefix_BS is not None,
        bias=bias is not None,
        sink_logits=sink_logits_KG is not None,
        own=own is not None,
    )
    # the mesh may be of devices that are not here: a program that is compiled for elsewhere
    device = jax.sharding.get_abstract_mesh().abstract_device
    platform = device.platform if device else jax.default_backend()
    extras = {"bias": bias, "far": far, "sink_logits_KG": sink_logits_KG, "own": own}
    given = {name: extra for name, extra in extras.items() if extra is not None}
    reasons = []
    for row in KERNELS:
        if kernel not in ("auto", row.name):
            continue
        if platform not in row.platforms and row.platforms:
            reasons.append(f"{row.name}: runs on {', '.join(row.platforms)}, this is {platform}")
        elif reason := refusal(row.name, call):
            reasons.append(f"{row.name}: {reason}")
        else:
            run = row.run if mask.places_BT is None else partial(of_parts, row.run)
            return run(q_BTKGH, k_BSKH, v_BSKH, mask, pattern, **given)
    raise UserError([f"model.attention.kernel: {reason}" for reason in reasons])
