"""How devices share the work: the mesh and the table from logical axes to mesh axes."""

from jaxlm.parallel.axes import (
    Part,
    axes_of,
    mesh_axes,
    no_gradient,
    on_all_stages,
    reduced,
    residual,
    sharding_of,
    shards,
    spec,
    specs_of,
    unreduced,
    without_stages,
)
from jaxlm.parallel.mesh import make_mesh

__all__ = [
    "Part",
    "axes_of",
    "make_mesh",
    "mesh_axes",
    "no_gradient",
    "on_all_stages",
    "reduced",
    "residual",
    "sharding_of",
    "shards",
    "spec",
    "specs_of",
    "unreduced",
    "without_stages",
]
