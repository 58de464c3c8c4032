"""Peak arithmetic rate of the devices, for MFU."""

import time

import jax
import jax.numpy as jnp

from jaxlm.parallel.chips import chip_of


def peak_flops() -> float | None:
    """FLOP/s of one device: bf16 of the table, measured on a CPU, None for a chip it has not.

    The measure of a CPU is the best of a few fp32 products of 1024 x 1024 matrices on all cores,
    shared out over the virtual devices.
    """
    device = jax.devices()[0]
    if device.platform == "cpu":
        return _measured() / jax.local_device_count()
    chip = chip_of(device.device_kind)
    return chip.flops["bf16"] if chip else None


def _measured(size: int = 1024, repeats: int = 5) -> float:
    product = jax.jit(jnp.matmul)
    with jax.set_mesh(jax.make_mesh((), (), devices=jax.local_devices()[:1])):
        x = jnp.ones((size, size), jnp.float32)
        product(x, x).block_until_ready()
        best = float("inf")
        for _ in range(repeats):
            start = time.perf_counter()
            product(x, x).block_until_ready()
            best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
