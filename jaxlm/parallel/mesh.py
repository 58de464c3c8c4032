"""The mesh of a run."""

import math
from collections.abc import Hashable, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType

from jaxlm.config import Config
from jaxlm.config.checks import indivisible
from jaxlm.config.train import AXES
from jaxlm.errors import UserError

SLOW = ("data", "stage", "fsdp")
"""Axes that may go over the network between slices (nodes of GPUs), those that send least first."""


def make_mesh(config: Config, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """A mesh with all five axes, explicit shardings, over all devices (or the ones given).

    Devices of several slices lie so that the axes which send least go from slice to slice. Raises
    UserError when the axes do not multiply to the number of devices, when sizes of the model or
    batch do not divide by the axes they are split over, or when slices would cut a fast axis.
    """
    devices = jax.devices() if devices is None else devices
    wanted = {axis: getattr(config.mesh, axis) for axis in AXES}
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
    explicit = (AxisType.Explicit,) * len(AXES)
    slices: dict[Hashable, list[jax.Device]] = {}
    for device in devices:
        slices.setdefault(slice_of(device), []).append(device)
    outer = across(sizes, len(slices))
    inner = {axis: sizes[axis] // outer[axis] for axis in AXES}
    blocks = np.stack([_placed(list(inner.values()), block) for block in slices.values()])
    # [outer axes, inner axes] -> each inner axis behind the outer one of its name
    apart = blocks.reshape(*outer.values(), *inner.values())
    order = [
        place
        for pair in zip(range(len(AXES)), range(len(AXES), 2 * len(AXES)), strict=True)
        for place in pair
    ]
    placed = apart.transpose(order).reshape(*sizes.values())
    return jax.sharding.Mesh(placed, AXES, axis_types=explicit)


def slice_of(device: jax.Device) -> Hashable:
    """What names the slice of a device, or what NVLink joins: the fast network ends there."""
    index = getattr(device, "slice_index", 0)
    # a compiler for GPUs that are not there counts all of them as one slice
    coords = getattr(device, "coords", None)
    return (index, coords[0]) if device.platform == "gpu" and coords else index


def _placed(sizes: list[int], devices: list[jax.Device]) -> np.ndarray:
    """Devices of one slice, neighbours on the torus as far as they can be: each axis of the mesh
    along whole axes of the torus, else along parts of them, else as the devices are counted."""
    for split in (False, True):
        try:
            return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=split)
        except (NotImplementedError, ValueError, AssertionError):
            continue
    return np.array(devices).reshape(sizes)


def across(sizes: dict[str, int], slices: int) -> dict[str, int]:
    """How many slices each axis goes over; they multiply to all. Raises UserError when the axes
    that may do not divide so."""
    outer = dict.fromkeys(sizes, 1)
    left = slices
    for axis in SLOW:
        outer[axis] = math.gcd(sizes[axis], left)
        left //= outer[axis]
    if left > 1:
        product = " x ".join(f"mesh.{axis} {sizes[axis]}" for axis in SLOW)
        raise UserError(
            f"mesh: {product} cannot be laid over {slices} slices (or nodes), and tensor and "
            "context are not to cross the network between them; make mesh.data a multiple of "
            f"{slices}"
        )
    return outer
