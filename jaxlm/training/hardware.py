"""Peak arithmetic rate of the devices, for MFU."""

import time

import jax
import jax.numpy as jnp

# Dense bf16 FLOP/s of a device as JAX names it (TPU: cloud.google.com/tpu/docs/system-architecture;
# GPU: NVIDIA's data sheets, without sparsity, SXM where there are several).
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU7x": 2307e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA GB200": 2250e12,
}


def peak_flops() -> float | None:
    """FLOP/s of one device: from the table, measured on a CPU, None for a chip that is not in it.

    The measure of a CPU is the best of a few fp32 products of 1024 x 1024 matrices on all cores,
    shared out over the virtual devices.
    """
    device = jax.devices()[0]
    if device.platform == "cpu":
        return _measured() / jax.local_device_count()
    names = [name for name in PEAK_FLOPS if device.device_kind.startswith(name)]
    return PEAK_FLOPS[max(names, key=len)] if names else None


def _measured(size: int = 1024, repeats: int = 5) -> float:
    product = jax.jit(jnp.matmul)
    with jax.set_mesh(jax.make_mesh((), (), devices=jax.devices()[:1])):
        x = jnp.ones((size, size), jnp.float32)
        product(x, x).block_until_ready()
        best = float("inf")
        for _ in range(repeats):
            start = time.perf_counter()
            product(x, x).block_until_ready()
            best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
