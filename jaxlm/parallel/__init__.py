"""How devices share the work: the mesh and the table from logical axes to mesh axes."""

from jaxlm.parallel.axes import sharding_of, spec
from jaxlm.parallel.mesh import make_mesh

__all__ = ["make_mesh", "sharding_of", "spec"]
