"""The one table from names of array axes to axes of the mesh."""

from typing import Any

import jax
from flax import nnx

MESH_AXES = ("data", "fsdp", "stage", "tensor", "context")

RULES: dict[str, tuple[str, ...]] = {
    # activations
    "batch": ("data", "fsdp"),
    "sequence": (),  # whole on every device until the context axis splits it
    # parameters; a layer gathers "embed" where it is used, which is ZeRO-3
    "embed": ("fsdp",),
    # both
    "heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "layers": (),  # whole on every device until pipeline stages split the stack
}


def spec(*names: str | None) -> jax.P:
    """PartitionSpec of an array whose axes have these logical names (None: not split).

    Raises ValueError when two of its axes would use the same mesh axis.
    """
    parts = [RULES[name] if name else () for name in names]
    used = [axis for part in parts for axis in part]
    if len(used) != len(set(used)):
        raise ValueError(f"axes {names} use a mesh axis twice: {used}")
    return jax.P(*(None if not p else p[0] if len(p) == 1 else p for p in parts))


def sharding_of(module: Any, mesh: jax.sharding.Mesh) -> Any:
    """NamedShardings in the structure of a module (or of anything that holds nnx.Param).

    A Param names the axes of one layer in its `axes`; a stack of layers has one axis more in front.
    Leaves that are not Params (counters, scalars) are replicated.
    """

    def of(leaf: Any) -> Any:
        if not isinstance(leaf, nnx.Variable):
            return jax.NamedSharding(mesh, jax.P())
        names = leaf.axes
        if leaf.get_value().ndim == len(names) + 1:
            names = ("layers", *names)
        return leaf.replace(jax.NamedSharding(mesh, spec(*names)))

    return jax.tree.map(of, module, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
