"""The mesh of a run."""

import math
from collections.abc import Sequence

import jax
from jax.sharding import AxisType

from jaxlm.config import Config
from jaxlm.config.checks import indivisible
from jaxlm.errors import UserError
from jaxlm.parallel.axes import MESH_AXES


def make_mesh(config: Config, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """A mesh with all five axes, explicit shardings, over all devices (or the ones given).

    Raises UserError when the axes do not multiply to the number of devices, or when sizes of the
    model or batch do not divide by the axes they are split over.
    """
    devices = jax.devices() if devices is None else devices
    wanted = {axis: getattr(config.mesh, axis) for axis in MESH_AXES}
    fixed = math.prod(size for size in wanted.values() if size > 0)
    rest = len(devices) // fixed
    sizes = {axis: rest if size == -1 else size for axis, size in wanted.items()}
    if math.prod(sizes.values()) != len(devices):
        product = " x ".join(f"{axis} {size}" for axis, size in wanted.items())
        raise UserError(
            f"mesh: {product} does not multiply to the {len(devices)} devices found; "
            "set one axis to -1 to take what is left"
        )
    if found := indivisible(config, sizes):
        raise UserError([message for _, message in found])
    return jax.make_mesh(
        tuple(sizes.values()),
        MESH_AXES,
        axis_types=(AxisType.Explicit,) * len(MESH_AXES),
        devices=devices,
    )
