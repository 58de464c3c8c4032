"""The one table from names of array axes to axes of the mesh.

Gradients of parameters are sums over tokens, and devices hold different tokens. So parameters enter
the step with types that JAX calls `reduced` over those mesh axes: what follows is that gradients
are `unreduced` there, each device's own sum, through all layers and microbatches, until the step
adds them up once (JAX's documentation, "Autodiff and sharding").
"""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

RULES: dict[str, tuple[str, ...]] = {
    # activations; a row that is cut over the context axis is as many rows of its parts
    "batch": ("context", "data", "fsdp"),
    "tokens": ("context", "data", "fsdp", "tensor"),  # of the residual stream, norms and dropout
    # parameters and what belongs to them, as mesh.zero says; a layer gathers it where it is used
    "embed": ("fsdp", "context"),
    # both
    "heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("stage", "tensor"),  # no stage computes the embedding and the head alone
    "layers": ("stage",),
}

type Part = Literal["params", "gradients", "optimizer"]

ZERO: dict[Part, int] = {"params": 3, "gradients": 2, "optimizer": 1}
"""The least mesh.zero at which each of them is split over "embed" (Rajbhandari et al. 2020)."""


def spec(*names: str | None) -> jax.P:
    """PartitionSpec of an array whose axes have these logical names (None: not split).

    Raises ValueError when two of its axes would use the same mesh axis.
    """
    parts = [axes_of(name) if name else () for name in names]
    used = [axis for part in parts for axis in part]
    if len(used) != len(set(used)):
        raise ValueError(f"axes {names} use a mesh axis twice: {used}")
    return jax.P(*(None if not p else p[0] if len(p) == 1 else p for p in parts))


def axes_of(name: str) -> tuple[str, ...]:
    """Mesh axes that split an axis of this name, without those that the mesh which is set lacks.

    A run's mesh has all of them. That of proxy models (jaxlm/mixing/proxies.py) has none, since
    JAX cannot `vmap` arrays that are `reduced` or `unreduced`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return tuple(axis for axis in RULES[name] if mesh.empty or axis in mesh.axis_names)


def shards(name: str) -> int:
    """How many parts an axis of this name is cut into on the mesh that is set."""
    shape = jax.sharding.get_abstract_mesh().shape
    return math.prod(shape[axis] for axis in axes_of(name))


def residual(tokens: int) -> jax.P:
    """Of the residual stream [tokens, D] on the mesh that is set: split over the tensor axis too,
    unless they do not divide, as the few tokens that are generated at a time."""
    whole = tokens % shards("tokens") == 0
    return spec("tokens" if whole else "batch", None)


def reduced(split: jax.P) -> jax.P:
    """Of a parameter in the step, whose gradient is `unreduced`."""
    return jax.P(*split, reduced=_over(split))


def unreduced(split: jax.P) -> jax.P:
    """Of a parameter's gradient, each device's sum over its own tokens."""
    return jax.P(*split, unreduced=_over(split))


def no_gradient(param: jax.Array) -> jax.Array:
    """What the gradient of a parameter, as it is in the step, begins from when it is added up."""
    split = jax.typeof(param).sharding.spec
    apart = jax.P(*split.partitions, unreduced=split.reduced)
    return jnp.zeros(param.shape, param.dtype, out_sharding=apart)


def on_all_stages(array: jax.Array) -> jax.Array:
    """The same at every pipeline stage, [S, ...]."""
    split = jax.typeof(array).sharding.spec
    return jax.lax.broadcast_in_dim(
        array,
        (shards("layers"), *array.shape),
        tuple(range(1, array.ndim + 1)),
        out_sharding=jax.P("stage", *split.partitions, reduced=split.reduced),
    )


def _over(split: jax.P) -> set[str]:
    """Mesh axes over which tokens are split and this array is not."""
    return {*axes_of("tokens")} - mesh_axes(split)


def mesh_axes(split: jax.P) -> set[str]:
    """Mesh axes that a PartitionSpec splits over."""
    parts = (part if isinstance(part, tuple) else (part,) for part in split.partitions)
    return {axis for part in parts for axis in part if axis is not None}


def specs_of(module: Any, zero: int, part: Part = "params") -> Any:
    """PartitionSpecs in the structure of a module (or of anything that holds nnx.Param): of its
    parameters, their gradients or their optimizer state.

    A Param names the axes of one layer in its `axes`; a stack of layers has one axis more in front,
    which pipeline stages of the mesh that is set split.
    Leaves that are not Params (counters, scalars) are replicated.
    """

    def of(leaf: Any) -> Any:
        if not isinstance(leaf, nnx.Variable):
            return jax.P()
        whole = zero < ZERO[part]
        names = tuple(None if whole and name == "embed" else name for name in leaf.axes)
        if leaf.get_value().ndim == len(names) + 1:
            # layers that all devices have can be scanned over
            names = ("layers" if shards("layers") > 1 else None, *names)
        return leaf.replace(spec(*names))

    return jax.tree.map(of, module, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))


def without_stages(module: Any) -> Any:
    """The parameters with every layer on all stages, for what goes through them one by one."""

    def whole(leaf: Any) -> Any:
        split = jax.typeof(leaf.get_value()).sharding.spec.partitions
        layers = len(split) > len(leaf.axes)
        return leaf.replace(jax.P(None, *split[1:]) if layers else jax.P(*split))

    return jax.reshard(
        module,
        jax.tree.map(whole, module, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)),
    )


def sharding_of(module: Any, mesh: jax.sharding.Mesh, zero: int = 3) -> Any:
    """NamedShardings of parameters, in the structure of the module that holds them."""
    return jax.tree.map(lambda split: jax.NamedSharding(mesh, split), specs_of(module, zero))
