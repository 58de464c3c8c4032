"""Functions of each device's own arrays, inside of pipeline stages too."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from jaxlm.parallel.axes import mesh_axes, on_all_stages, shards

DEVICES = ("context", "data", "fsdp", "tensor")
"""Axes of the devices of one stage."""


def on_each_device(local: Callable[..., jax.Array], specs: Any, out_spec: jax.P, *args: Any) -> Any:
    """What `local` makes of each device's parts of args, which the partitioner does not look into.

    specs: how they lie, in the structure of args. out_spec: of the result, split over all axes of
        the mesh but that of stages.
    """
    if shards("layers") > 1:
        return _in_stages(local, specs, out_spec, *args)
    # kernels and custom calls do not say over which axes their results vary
    return jax.shard_map(local, in_specs=specs, out_specs=out_spec, check_vma=False)(*args)


def _in_stages(local: Callable[..., jax.Array], specs: Any, out_spec: jax.P, *args: Any) -> Any:
    """The same inside of a vmap over stages (jaxlm/parallel/pipeline.py).

    JAX would leave the axis of stages to the partitioner there, which kernels and some collectives
    cannot be with. So the function and its gradient say themselves how they are mapped. Between
    them goes what the gradient needs of each device, with an axis of devices in front.
    """
    leaves, tree = jax.tree.flatten(args)
    flat_specs = jax.tree.leaves(specs, is_leaf=lambda spec: isinstance(spec, jax.P))
    floats = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    # of what goes between, by the axes that are manual; known once the function was traced
    structures: dict[tuple[str, ...], Any] = {}

    def forward(*leaves: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        def of_floats(*changed: jax.Array) -> jax.Array:
            every = list(leaves)
            for index, leaf in zip(floats, changed, strict=True):
                every[index] = leaf
            return local(*jax.tree.unflatten(tree, every))

        out, back = jax.vjp(of_floats, *(leaves[i] for i in floats))
        saved, structure = jax.tree.flatten(back)
        structures[_manual()] = structure
        return out, [array[None] for array in saved]

    def backward(dout: jax.Array, *saved: jax.Array) -> tuple[jax.Array, ...]:
        gradients = structures[_manual()].unflatten([array[0] for array in saved])(dout)
        return tuple(
            jax.lax.psum(gradient, tuple({*DEVICES} - mesh_axes(flat_specs[index])))
            for index, gradient in zip(floats, gradients, strict=True)
        )

    run = _mapped(forward, tuple(flat_specs), (out_spec, jax.P(DEVICES)))

    @jax.custom_vjp
    def function(*leaves: jax.Array) -> jax.Array:
        return run(*leaves)[0]

    def gradients(saved: list[jax.Array], dout: jax.Array) -> tuple[jax.Array | None, ...]:
        ins = (out_spec, *(jax.P(DEVICES) for _ in saved))
        outs = tuple(flat_specs[index] for index in floats)
        found = iter(_mapped(backward, ins, outs)(dout, *saved))
        return tuple(next(found) if i in floats else None for i in range(len(leaves)))

    function.defvjp(run, gradients)
    return function(*leaves)


def _manual() -> tuple[str, ...]:
    return tuple(jax.sharding.get_abstract_mesh().manual_axes)


def _mapped(function: Any, ins: Any, outs: Any) -> Any:
    """shard_map of a function over the devices of one stage, and of all where it is mapped."""
    run = custom_vmap(jax.shard_map(function, in_specs=ins, out_specs=outs, check_vma=False))

    def of_stage(*arrays: jax.Array) -> Any:
        return jax.tree.map(lambda a: a[None], function(*(array[0] for array in arrays)))

    def staged(spec: jax.P) -> jax.P:
        return jax.P("stage", *spec.partitions)

    def rule(stages: int, batched: list[bool], *arrays: jax.Array) -> Any:
        every = [a if its else on_all_stages(a) for a, its in zip(arrays, batched, strict=True)]
        is_spec = lambda spec: isinstance(spec, jax.P)  # noqa: E731
        found = jax.shard_map(
            of_stage,
            in_specs=tuple(map(staged, ins)),
            out_specs=jax.tree.map(staged, outs, is_leaf=is_spec),
            check_vma=False,
        )(*every)
        return found, jax.tree.map(lambda _: True, found)

    run.def_vmap(rule)
    return run
