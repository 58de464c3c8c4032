"""Parts of a block: parameters, norms, attention, MLP, and how a block joins them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxlm.config.model import Model
from jaxlm.models.attention import Far, Own, attention
from jaxlm.models.sight import Sight
from jaxlm.parallel import axes_of, mesh_axes, reduced, residual, spec

# B batch, T sequence, S keys or cache slots, N = B x T tokens, M = B x S tokens of an encoder,
# D residual width, K key-value heads, G query heads a key-value head, H head width, F MLP width


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


def gather(param: nnx.Variable[jax.Array], dtype: jnp.dtype) -> jax.Array:
    """The parameter in compute dtype, whole along the axes that only its storage is split over."""
    axes = tuple(None if name == "embed" else name for name in param.axes)
    value = param.get_value()
    if dtype == jnp.bfloat16:
        # rounded first: a cast alone the TPU compiler does for all layers before the loop over
        # them, and keeps the copies
        value = jax.lax.reduce_precision(value, exponent_bits=8, mantissa_bits=7)
    return jax.reshard(value.astype(dtype), reduced(spec(*axes)))


def spread(param: jax.Array, like: jax.Array) -> jax.Array:
    """A parameter of the last axes as `like` is, for what is done number by number.

    A product with an array that lies otherwise would have its gradient summed over devices there
    and then; this one is summed with all others (jaxlm/parallel/axes.py).
    """
    axes = tuple(range(like.ndim - param.ndim, like.ndim))
    split = jax.typeof(like).sharding
    param = beside(param.astype(like.dtype), like)
    wide = jax.lax.broadcast_in_dim(param, like.shape, axes, out_sharding=split)
    # says again where the gradient lies: the partitioner may have moved what is summed, and would
    # take each device's sum of all tokens for one of its own
    return jax.reshard(wide, split)


def beside(param: jax.Array, x: jax.Array) -> jax.Array:
    """The parameter for work with x: where x is split over fewer mesh axes than tokens mostly are,
    fewer have parts of the gradient."""
    split = jax.typeof(param).sharding.spec
    apart = split.reduced & mesh_axes(jax.typeof(x).sharding.spec)
    return jax.reshard(param, jax.P(*split.partitions, reduced=apart))


def all_tokens(x_ND: jax.Array, outputs: str = "mlp") -> jax.Array:
    """The residual stream for products whose outputs are split, by the axis of this name.

    Going back, what they give is added up and split again once, behind the last of them.
    """
    return jax.reshard(x_ND, jax.P(*spec("batch", None), reduced={*axes_of(outputs)}))


def back(a_NF: jax.Array, weights_FD: jax.Array) -> jax.Array:
    """A product over an axis that is split over the tensor axis, as the residual stream lies."""
    apart = jax.P(*spec("batch", None), unreduced={*axes_of("mlp")})
    out_ND = jnp.matmul(a_NF, weights_FD, out_sharding=apart)
    return jax.reshard(out_ND, residual(out_ND.shape[0]))


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """Root-mean-square norm over the last axis, in fp32 (Zhang and Sennrich 2019, eq. 4)."""
    x32 = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    return (x32 * inverse * spread(scale, x32)).astype(x.dtype)


class Norm(nnx.Module):
    """RMSNorm, or LayerNorm (Ba et al. 2016) with or without a bias, in fp32."""

    def __init__(self, model: Model) -> None:
        self.scale = constant(1.0, (model.d_model,), (None,))
        if model.norm_bias:
            self.bias = constant(0.0, (model.d_model,), (None,))

    def __call__(self, model: Model, x_ND: jax.Array) -> jax.Array:
        if model.norm == "rms":
            return rms_norm(x_ND, self.scale.get_value(), model.norm_eps)
        x32_ND = x_ND.astype(jnp.float32)
        x32_ND -= jnp.mean(x32_ND, axis=-1, keepdims=True)
        variance_N1 = jnp.mean(x32_ND * x32_ND, axis=-1, keepdims=True)
        y_ND = x32_ND * jax.lax.rsqrt(variance_N1 + model.norm_eps)
        y_ND *= spread(self.scale.get_value(), y_ND)
        if model.norm_bias:
            y_ND += spread(self.bias.get_value(), y_ND)
        return y_ND.astype(x_ND.dtype)


def dropout(x_ND: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zeros for a share `rate` of the numbers, the others scaled up (Srivastava et al. 2014).

    key: None outside of training, where nothing is dropped.
    """
    if key is None or rate == 0:
        return x_ND
    split = residual(x_ND.shape[0])
    kept_ND = jax.random.bernoulli(key, 1 - rate, x_ND.shape, out_sharding=split)
    return jnp.where(kept_ND, x_ND / (1 - rate), 0)


class Cache(NamedTuple):
    """Keys and values of one layer, for generation, heads first as their products want them.

    Keys lie as they are scored; where distant pairs are scored otherwise, they lie unrotated.
    """

    k_BKSH: jax.Array
    v_BKSH: jax.Array
    cross_k_BKSH: jax.Array | None = None
    """Keys of what the encoder read; never written by the decoder."""
    cross_v_BKSH: jax.Array | None = None


class Attention(nnx.Module):
    """Grouped-query attention. Query heads lie grouped by their key-value head, K major."""

    def __init__(self, model: Model, key: jax.Array) -> None:
        D, K, H = model.d_model, model.kv_head_count, model.head_width
        widths = {"query": model.heads * H, "key": K * H, "value": K * H}
        *keys, out_key = jax.random.split(key, 4)
        # scores that are not divided by the root of the width get queries that are (T5)
        query_std = model.init_std / ((model.attention.scale or H**-0.5) * H**0.5)
        for (name, width), its_key in zip(widths.items(), keys, strict=True):
            std = query_std if name == "query" else model.init_std
            setattr(self, name, normal(its_key, (D, width), ("embed", "heads"), std, inputs=1))
            if model.qkv_bias:
                setattr(self, f"{name}_bias", constant(0.0, (width,), ("heads",)))
        out_std = model.init_std / (2 * model.layers) ** 0.5
        self.out = normal(out_key, (model.heads * H, D), ("heads", "embed"), out_std, inputs=1)
        if model.out_bias:
            self.out_bias = constant(0.0, (D,), (None,))
        if model.qk_norm:
            self.query_norm = constant(1.0, (H,), (None,))
            self.key_norm = constant(1.0, (H,), (None,))
        if model.attention.sink_logits:
            self.sink_logits = constant(0.0, (model.heads,), ("heads",))

    def _heads(self, model: Model, name: str, x_ND: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """One projection as [B, T, heads..., H], shape without H."""
        y = x_ND @ gather(getattr(self, name), x_ND.dtype)
        if model.qkv_bias:
            y += spread(getattr(self, f"{name}_bias").get_value(), y)
        split = spec("batch", None, "heads", *(None,) * (len(shape) - 2))
        y = jax.lax.reshape(y, (*shape, model.head_width), out_sharding=split)
        if model.qk_norm and name != "value":
            y = rms_norm(y, getattr(self, f"{name}_norm").get_value(), model.norm_eps)
        return y

    def queries(self, model: Model, y_ND: jax.Array, batch: int) -> jax.Array:
        """BTKGH, not rotated."""
        K = model.kv_head_count
        shape = (batch, y_ND.shape[0] // batch, K, model.heads // K)
        return self._heads(model, "query", y_ND, shape)

    def keys_and_values(
        self, model: Model, x_MD: jax.Array, batch: int
    ) -> tuple[jax.Array, jax.Array]:
        """BSKH each, not rotated."""
        shape = (batch, x_MD.shape[0] // batch, model.kv_head_count)
        return self._heads(model, "key", x_MD, shape), self._heads(model, "value", x_MD, shape)

    def __call__(
        self, model: Model, y_ND: jax.Array, sight: Sight, cache: Cache | None
    ) -> tuple[jax.Array, Cache | None]:
        """Attention of y (behind the norm) to itself and, where sight.mask.first_B says that there
        are tokens before it, to what the cache holds."""
        B, turn = sight.mask.segments_BT.shape[0], sight.rotations
        q_BTKGH = self.queries(model, y_ND, B)
        k_BSKH, v_BSKH = self.keys_and_values(model, y_ND, B)
        q_near = turn.queries(q_BTKGH) if turn else q_BTKGH
        if turn and turn.far is None:
            k_BSKH = turn.keys(k_BSKH)
        if cache is not None:
            cache = _written(cache, k_BSKH, v_BSKH, sight)
            if sight.mask.first_B is not None:
                k_BSKH, v_BSKH = (jnp.swapaxes(a, 1, 2) for a in (cache.k_BKSH, cache.v_BKSH))
        far = None
        if turn and turn.far is not None:
            # keys are turned both ways where they are read
            far = Far(turn.far.queries(q_BTKGH), turn.far.keys(k_BSKH))
            k_BSKH = turn.keys(k_BSKH)
        return self.attend(model, sight, q_near, k_BSKH, v_BSKH, far), cache

    def across(self, model: Model, y_ND: jax.Array, sight: Sight, cache: Cache | None) -> jax.Array:
        """Attention of y to what an encoder made; its keys are never rotated."""
        B = sight.mask.segments_BT.shape[0]
        q_BTKGH = self.queries(model, y_ND, B)
        if sight.encoded_MD is not None:
            k_BSKH, v_BSKH = self.keys_and_values(model, all_tokens(sight.encoded_MD), B)
        else:
            assert cache is not None
            assert cache.cross_k_BKSH is not None
            assert cache.cross_v_BKSH is not None
            k_BSKH = jnp.swapaxes(cache.cross_k_BKSH, 1, 2)
            v_BSKH = jnp.swapaxes(cache.cross_v_BKSH, 1, 2)
        return self.attend(model, sight, q_BTKGH, k_BSKH, v_BSKH, None)

    def attend(
        self,
        model: Model,
        sight: Sight,
        q_BTKGH: jax.Array,
        k_BSKH: jax.Array,
        v_BSKH: jax.Array,
        far: Far | None,
        own: Own | None = None,
    ) -> jax.Array:
        """What queries find among keys, projected back to the residual stream: ND."""
        B, T, K, G, _ = q_BTKGH.shape
        sink_logits_KG = None
        if model.attention.sink_logits:
            logits_N = jax.reshard(self.sink_logits.get_value(), spec("heads"))
            sink_logits_KG = jax.lax.reshape(logits_N, (K, G), out_sharding=spec("heads", None))
        o_BTKGH = attention(
            q_BTKGH, k_BSKH, v_BSKH, sight.mask, sight.pattern,
            bias=sight.bias, far=far, sink_logits_KG=sink_logits_KG, own=own,
            kernel=model.attention.kernel,
        )  # fmt: skip
        o_ND = jax.lax.reshape(
            o_BTKGH, (B * T, model.heads * model.head_width), out_sharding=spec("batch", "heads")
        )
        out_ND = back(o_ND, gather(self.out, o_ND.dtype))
        if model.out_bias:
            out_ND += spread(self.out_bias.get_value(), out_ND)
        return out_ND


def _written(cache: Cache, k_BTKH: jax.Array, v_BTKH: jax.Array, sight: Sight) -> Cache:
    """The cache with the keys and values of new tokens in their slots."""
    first_B, slots_BT = sight.mask.first_B, sight.slots_BT

    def write(old_BKSH: jax.Array, new_BTKH: jax.Array) -> jax.Array:
        new_BKTH = jnp.swapaxes(new_BTKH, 1, 2).astype(old_BKSH.dtype)
        put = jax.lax.dynamic_update_slice
        if slots_BT is None and first_B is None:
            return put(old_BKSH, new_BKTH, (0, 0, 0, 0))
        if slots_BT is None:
            return jax.vmap(lambda old, new, at: put(old, new, (0, at, 0)))(
                old_BKSH, new_BKTH, first_B
            )
        return jax.vmap(lambda old, new, at: old.at[:, at].set(new, mode="drop"))(
            old_BKSH, new_BKTH, slots_BT
        )

    return cache._replace(k_BKSH=write(cache.k_BKSH, k_BTKH), v_BKSH=write(cache.v_BKSH, v_BTKH))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "swiglu": jax.nn.silu,
    "geglu": lambda x: jax.nn.gelu(x, approximate=False),
    "geglu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
}
GATED = ("swiglu", "geglu", "geglu_tanh")


class MLP(nnx.Module):
    """Gated or plain MLP."""

    def __init__(self, model: Model, key: jax.Array) -> None:
        D, F = model.d_model, model.d_mlp
        up_key, gate_key, down_key = jax.random.split(key, 3)
        self.up = normal(up_key, (D, F), ("embed", "mlp"), model.init_std, inputs=1)
        if model.mlp in GATED:
            self.gate = normal(gate_key, (D, F), ("embed", "mlp"), model.init_std, inputs=1)
        out_std = model.init_std / (2 * model.layers) ** 0.5
        self.down = normal(down_key, (F, D), ("mlp", "embed"), out_std, inputs=1)
        if model.mlp_bias:
            self.up_bias = constant(0.0, (F,), ("mlp",))
            if model.mlp in GATED:
                self.gate_bias = constant(0.0, (F,), ("mlp",))
            self.down_bias = constant(0.0, (D,), (None,))

    def __call__(self, model: Model, y_ND: jax.Array) -> jax.Array:
        dtype, activation = y_ND.dtype, ACTIVATIONS[model.mlp]

        def hidden(name: str) -> jax.Array:
            a_NF = y_ND @ gather(getattr(self, name), dtype)
            if model.mlp_bias:
                a_NF += spread(getattr(self, f"{name}_bias").get_value(), a_NF)
            return a_NF

        a_NF = hidden("up")
        a_NF = a_NF * activation(hidden("gate")) if model.mlp in GATED else activation(a_NF)
        out_ND = back(a_NF, gather(self.down, dtype))
        if model.mlp_bias:
            out_ND += spread(self.down_bias.get_value(), out_ND)
        return out_ND


class Block(nnx.Module):
    """Attention, attention to an encoder where there is one, and MLP around the residual stream."""

    def __init__(self, model: Model, crosses: bool, key: jax.Array) -> None:
        attention_key, mlp_key = jax.random.split(key)
        self.attention = Attention(model, attention_key)
        self.attention_norm = Norm(model)
        if crosses:
            self.cross = Attention(model, jax.random.fold_in(key, 2))
            self.cross_norm = Norm(model)
        self.mlp = MLP(model, mlp_key)
        if model.residual != "parallel_one_norm":
            self.mlp_norm = Norm(model)
        if model.norm_placement == "sandwich":
            self.attention_out_norm = Norm(model)
            self.mlp_out_norm = Norm(model)
            if crosses:
                self.cross_out_norm = Norm(model)

    def __call__(
        self,
        model: Model,
        x_ND: jax.Array,
        sight: Sight,
        cache: Cache | None = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """key: draws what dropout drops; None: nothing is dropped."""
        new = cache

        def attend(y_ND: jax.Array) -> jax.Array:
            nonlocal new
            out_ND, new = self.attention(model, y_ND, sight, cache)
            return out_ND

        def across(y_ND: jax.Array) -> jax.Array:
            assert sight.cross is not None
            return self.cross.across(model, y_ND, sight.cross, cache)

        x_ND = self.around(model, x_ND, attend, None if sight.cross is None else across, key)
        return x_ND, new

    def attention_input(self, model: Model, x_ND: jax.Array) -> jax.Array:
        """What `around` hands to attention."""
        if model.norm_placement != "post":
            x_ND = self.attention_norm(model, x_ND)
        return all_tokens(x_ND)

    def around(
        self,
        model: Model,
        x_ND: jax.Array,
        attend: Callable[[jax.Array], jax.Array],
        across: Callable[[jax.Array], jax.Array] | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """The block with its attention given as functions, that to an encoder by `across`."""
        keys = [None] * 3 if key is None else list(jax.random.split(key, 3))

        def add(
            x_ND: jax.Array, name: str, number: int, part: Callable[[jax.Array], jax.Array]
        ) -> jax.Array:
            norm = getattr(self, f"{name}_norm")
            y_ND = x_ND if model.norm_placement == "post" else norm(model, x_ND)
            y_ND = part(all_tokens(y_ND))
            if model.norm_placement == "sandwich":
                y_ND = getattr(self, f"{name}_out_norm")(model, y_ND)
            y_ND = dropout(y_ND, model.dropout, keys[number])
            x_ND = _scaled(x_ND, model.residual_scale) + y_ND
            return norm(model, x_ND) if model.norm_placement == "post" else x_ND

        if model.residual == "sequential":
            x_ND = add(x_ND, "attention", 0, attend)
            if across is not None:
                x_ND = add(x_ND, "cross", 1, across)
            return add(x_ND, "mlp", 2, lambda y_ND: self.mlp(model, y_ND))
        y_ND = self.attention_input(model, x_ND)
        one_norm = model.residual == "parallel_one_norm"
        z_ND = y_ND if one_norm else all_tokens(self.mlp_norm(model, x_ND))
        out_ND = dropout(attend(y_ND), model.dropout, keys[0])
        out_ND += dropout(self.mlp(model, z_ND), model.dropout, keys[2])
        return _scaled(x_ND, model.residual_scale) + out_ND


def _scaled(x: jax.Array, factor: float) -> jax.Array:
    return x if factor == 1.0 else x * jnp.asarray(factor, x.dtype)
