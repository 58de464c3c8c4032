"""The train step of a config, compiled for devices that are not there."""

import math
import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlm.config import Config
from jaxlm.errors import UserError
from jaxlm.parallel import make_mesh
from jaxlm.parallel.flags import Options
from jaxlm.planning.collectives import Layout
from jaxlm.planning.products import products_of
from jaxlm.planning.topology import Hardware
from jaxlm.training.batches import shapes
from jaxlm.training.state import optimizer_of, shapes_of_state
from jaxlm.training.step import make_step

SPLASH_BLOCK = 512


class Memory(NamedTuple):
    """Bytes of one device."""

    arguments: int
    """The state and a batch."""
    temporaries: int
    """What is allocated for all of them, the gaps between them included."""
    peak: int
    """Arguments, results that take no argument's place, and temporaries: what is allocated."""
    live: int | None
    """Most that is in use at once, as the compiler counts it; None where it does not say."""


class Program(NamedTuple):
    """What the compiler made of a step."""

    layout: Layout
    products: float
    """FLOPs of all products of the step on all devices, what is computed again included."""
    memory: Memory
    fits: bool
    """False: the compiler gave up, since the memory does not suffice."""
    text: str
    """Optimised HLO; empty where the compiler gave up."""
    bytes_once: float | None
    """Bytes accessed as XLA counts them, the bodies of loops once; None on a GPU."""
    seconds: float
    """Of tracing and compiling."""


def compile_step(
    config: Config, hardware: Hardware, devices: Sequence[jax.Device], paths: Options
) -> Program:
    """Compile the step of a config without a curriculum, or of a stage's.

    paths: compiler options of this machine, besides those of training.

    Raises UserError for a mesh that the devices do not fit.
    """
    start = time.perf_counter()
    try:
        mesh = make_mesh(config, devices)
    except (NotImplementedError, ValueError, AssertionError) as error:
        line = str(error).strip().partition("\n")[0][:200]
        raise UserError(f"mesh: its axes do not lie on {hardware.name}: {line}") from error
    layout = layout_of(mesh, hardware, devices)
    with jax.set_mesh(mesh):
        state = shapes_of_state(config)
        inputs = (state, shapes(config), _dropout_key(config, mesh))
        step: Any = make_step(config, optimizer_of(config, state.params))
        try:
            traced = step.trace(*inputs)
        except RuntimeError as error:
            if "cuDNN not found" not in str(error):
                raise
            raise UserError(
                "cuDNN, which GPUs' attention is compiled by, is not installed; pip install "
                "'jaxlm[planning,cuda12]', or give model.attention.kernel=xla"
            ) from error
        products = products_of(traced.jaxpr, _computed_share(config))
        try:
            compiled = traced.lower().compile(compiler_options=dict(paths) or None)
        except jax.errors.JaxRuntimeError as error:
            temporaries = temporaries_of(str(error))
            if temporaries is None:
                raise
            arguments = sum(_bytes_on_a_device(leaf) for leaf in jax.tree.leaves(inputs))
            memory = Memory(arguments, temporaries, arguments + temporaries, None)
            return Program(
                layout, products, memory, False, "", None, time.perf_counter() - start
            )  # fmt: skip
    seconds = time.perf_counter() - start
    memory = memory_of(compiled.memory_analysis(), hardware.chip.platform)
    once = (compiled.cost_analysis() or {}).get("bytes accessed")
    return Program(layout, products, memory, True, compiled.as_text(), once, seconds)


def memory_of(analysis: Any, platform: str) -> Memory:
    """From XLA's CompiledMemoryStats.

    Those of the TPU compiler give as temporaries the sum of buffers, some of which lie in the same
    place; what it allocates, one block beside the arguments, is its peak (so the buffer assignment
    that it dumps). Those of the GPU compiler give the block, and as the peak what is in use of it.
    """
    arguments = analysis.argument_size_in_bytes
    live = analysis.peak_memory_in_bytes or None
    if platform == "tpu" and live is not None:
        return Memory(arguments, live - arguments, live, live)
    held = arguments + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    temporaries = analysis.temp_size_in_bytes
    return Memory(arguments, temporaries, held + temporaries, live)


def layout_of(mesh: jax.sharding.Mesh, hardware: Hardware, listed: Sequence[jax.Device]) -> Layout:
    """Where the devices of a mesh stand. listed: all of the hardware, slice after slice."""
    devices = list(mesh.devices.flat)
    coords = [getattr(device, "coords", ()) for device in devices]
    place = {device.id: index for index, device in enumerate(listed)}
    slices = [place[device.id] * hardware.slices // len(listed) for device in devices]
    dims = len(coords[0])
    return Layout(
        mesh.axis_names,
        tuple(mesh.shape.values()),
        np.array(slices),
        np.array(coords, np.int64).reshape(len(devices), dims),
        (*hardware.shape, 1)[:dims] if dims else (),
        (*hardware.wrapped, False)[:dims] if dims else (),
    )


def temporaries_of(message: str) -> int | None:
    """Bytes that the TPU compiler says it would need; None for an error of another kind."""
    found = re.search(r"\(([\d.]+)([KMGT])\) exceeds available|Used ([\d.]+)([KMGT]) of", message)
    if not message.startswith("RESOURCE_EXHAUSTED") or not found:
        return None
    number, unit = found[1] or found[3], found[2] or found[4]
    return int(float(number) * 1024 ** (1 + "KMGT".index(unit)))


def _dropout_key(config: Config, mesh: jax.sharding.Mesh) -> jax.ShapeDtypeStruct | None:
    if not config.model.dropout:
        return None
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=jax.NamedSharding(mesh, jax.P()))


def _computed_share(config: Config) -> float:
    """Pairs that fused attention computes of a causal row: whole blocks on and below the
    diagonal. With a window the kernel's grid says it."""
    if config.model.kind != "decoder" or config.model.attention.window is not None:
        return 1.0
    return min(1.0, (1 + SPLASH_BLOCK / config.data.seq_len) / 2)


def _bytes_on_a_device(leaf: Any) -> int:
    shape = leaf.sharding.shard_shape(leaf.shape) if leaf.sharding else leaf.shape
    return math.prod(shape) * leaf.dtype.itemsize
