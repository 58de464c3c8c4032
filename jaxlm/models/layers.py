"""Parts of a block: parameters, norm, rotation, attention, MLP."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxlm.config.model import Model
from jaxlm.models.attention import Mask, attention
from jaxlm.parallel import spec

# B batch, T sequence, N = B x T tokens, S cache slots, D residual width, K key-value heads,
# G query heads a key-value head, H head width, F MLP width


type Axes = tuple[str | None, ...]


def normal(
    key: jax.Array, shape: tuple[int, ...], axes: Axes, std: float, inputs: int
) -> nnx.Param[jax.Array]:
    """An fp32 parameter drawn from N(0, std^2), with a logical name for each axis.

    inputs: how many leading axes a product contracts with; -1: a table that is looked up.
    """
    return nnx.Param(std * jax.random.normal(key, shape, jnp.float32), axes=axes, inputs=inputs)


def constant(value: float, shape: tuple[int, ...], axes: Axes) -> nnx.Param[jax.Array]:
    """An fp32 parameter that starts at one value and is no matrix."""
    return nnx.Param(jnp.full(shape, value, jnp.float32), axes=axes, inputs=0)


def gather(param: nnx.Param[jax.Array], dtype: jnp.dtype) -> jax.Array:
    """The parameter in compute dtype, whole along the axes that only its storage is split over."""
    axes = tuple(None if name == "embed" else name for name in param.axes)
    return jax.reshard(param.get_value().astype(dtype), spec(*axes))


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """Root-mean-square norm over the last axis, in fp32 (Zhang and Sennrich 2019, eq. 4)."""
    x32 = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    return (x32 * inverse * scale).astype(x.dtype)


def rope_tables(
    positions_BT: jax.Array, head_dim: int, theta: float
) -> tuple[jax.Array, jax.Array]:
    """cos and sin, fp32 BT(H/2), of position * theta^(-2i/H) (Su et al. 2021, eq. 15)."""
    inverse_H2 = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angle = positions_BT[..., None].astype(jnp.float32) * inverse_H2
    return jnp.cos(angle), jnp.sin(angle)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotate the pairs (i, i + H/2) of the last axis, the layout of LLaMA's published weights."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


class Cache(NamedTuple):
    """Keys and values of one layer (or, with an axis in front, of all), for generation."""

    k_BSKH: jax.Array
    v_BSKH: jax.Array


class SelfAttention(nnx.Module):
    """Grouped-query attention. Query heads lie grouped by their key-value head, K major."""

    def __init__(self, model: Model, key: jax.Array) -> None:
        D, K, H = model.d_model, model.kv_head_count, model.head_width
        widths = {"query": model.heads * H, "key": K * H, "value": K * H}
        *keys, out_key = jax.random.split(key, 4)
        self.norm = constant(1.0, (D,), (None,))
        for (name, width), its_key in zip(widths.items(), keys, strict=True):
            weight = normal(its_key, (D, width), ("embed", "heads"), model.init_std, inputs=1)
            setattr(self, name, weight)
            if model.qkv_bias:
                setattr(self, f"{name}_bias", constant(0.0, (width,), ("heads",)))
        out_std = model.init_std / (2 * model.layers) ** 0.5
        self.out = normal(out_key, (model.heads * H, D), ("heads", "embed"), out_std, inputs=1)
        if model.qk_norm:
            self.query_norm = constant(1.0, (H,), (None,))
            self.key_norm = constant(1.0, (H,), (None,))

    def __call__(
        self,
        model: Model,
        x_ND: jax.Array,
        rope: tuple[jax.Array, jax.Array],
        mask: Mask,
        cache: Cache | None,
    ) -> tuple[jax.Array, Cache | None]:
        dtype = x_ND.dtype
        B, T = mask.segments_BT.shape
        K, H = model.kv_head_count, model.head_width
        y_ND = rms_norm(x_ND, self.norm.get_value(), model.norm_eps)

        def heads(name: str, *shape: int) -> jax.Array:
            y = y_ND @ gather(getattr(self, name), dtype)
            if model.qkv_bias:
                y += getattr(self, f"{name}_bias").get_value().astype(dtype)
            split = spec("batch", None, "heads", *(None,) * (len(shape) - 1))
            return jax.lax.reshape(y, (B, T, *shape), out_sharding=split)

        q_BTKGH = heads("query", K, model.heads // K, H)
        k_BTKH, v_BTKH = heads("key", K, H), heads("value", K, H)
        if model.qk_norm:
            q_BTKGH = rms_norm(q_BTKGH, self.query_norm.get_value(), model.norm_eps)
            k_BTKH = rms_norm(k_BTKH, self.key_norm.get_value(), model.norm_eps)
        cos, sin = rope
        q_BTKGH = rotate(q_BTKGH, cos[:, :, None, None], sin[:, :, None, None])
        k_BTKH = rotate(k_BTKH, cos[:, :, None], sin[:, :, None])
        if cache is not None:
            assert mask.first_B is not None, "a cached call says where its rows are written"
            put = jax.lax.dynamic_update_slice
            write = jax.vmap(lambda old, new, at: put(old, new, (at, 0, 0)))
            cache = Cache(
                write(cache.k_BSKH, k_BTKH.astype(cache.k_BSKH.dtype), mask.first_B),
                write(cache.v_BSKH, v_BTKH.astype(cache.v_BSKH.dtype), mask.first_B),
            )
            k_BTKH, v_BTKH = cache
        o_BTKGH = attention(q_BTKGH, k_BTKH, v_BTKH, mask, model.attention.kernel)
        o_ND = jax.lax.reshape(
            o_BTKGH, (B * T, model.heads * H), out_sharding=spec("batch", "heads")
        )
        out_ND = jnp.matmul(o_ND, gather(self.out, dtype), out_sharding=spec("batch", None))
        return x_ND + out_ND, cache


class MLP(nnx.Module):
    """Gated (swiglu, geglu) or plain squared-ReLU MLP."""

    def __init__(self, model: Model, key: jax.Array) -> None:
        D, F = model.d_model, model.d_mlp
        up_key, gate_key, down_key = jax.random.split(key, 3)
        self.norm = constant(1.0, (D,), (None,))
        self.up = normal(up_key, (D, F), ("embed", "mlp"), model.init_std, inputs=1)
        if model.mlp != "relu2":
            self.gate = normal(gate_key, (D, F), ("embed", "mlp"), model.init_std, inputs=1)
        out_std = model.init_std / (2 * model.layers) ** 0.5
        self.down = normal(down_key, (F, D), ("mlp", "embed"), out_std, inputs=1)

    def __call__(self, model: Model, x_ND: jax.Array) -> jax.Array:
        dtype = x_ND.dtype
        y_ND = rms_norm(x_ND, self.norm.get_value(), model.norm_eps)
        a_NF = y_ND @ gather(self.up, dtype)
        match model.mlp:
            case "swiglu":
                a_NF *= jax.nn.silu(y_ND @ gather(self.gate, dtype))
            case "geglu":
                a_NF *= jax.nn.gelu(y_ND @ gather(self.gate, dtype))
            case "relu2":
                a_NF = jnp.square(jax.nn.relu(a_NF))
        down_FD = gather(self.down, dtype)
        return x_ND + jnp.matmul(a_NF, down_FD, out_sharding=spec("batch", None))


class Block(nnx.Module):
    """Attention and MLP, each behind its norm and added to the residual stream."""

    def __init__(self, model: Model, key: jax.Array) -> None:
        attention_key, mlp_key = jax.random.split(key)
        self.attention = SelfAttention(model, attention_key)
        self.mlp = MLP(model, mlp_key)

    def __call__(
        self,
        model: Model,
        x_ND: jax.Array,
        rope: tuple[jax.Array, jax.Array],
        mask: Mask,
        cache: Cache | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        x_ND, cache = self.attention(model, x_ND, rope, mask, cache)
        return self.mlp(model, x_ND), cache
