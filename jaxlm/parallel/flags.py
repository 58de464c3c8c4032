"""Options of the XLA compiler for training, by platform and generation: the one place."""

import jax

from jaxlm.parallel.chips import CHIPS, chip_of

type Options = dict[str, bool | int | str]

PLATFORMS: dict[str, Options] = {
    # collectives are moved away from what needs them (docs.jax.dev, GPU performance tips), in the
    # loop over layers also from one layer to the one before; larger thresholds for joining gathers
    # give one a layer, which nothing is left to run beside
    "gpu": {
        "xla_gpu_enable_latency_hiding_scheduler": True,
        "xla_gpu_enable_while_loop_double_buffering": True,
    },
}

GENERATIONS: dict[str, Options] = {
    # gathers run inside products, over several where one is too short; other TPUs refuse it
    "v5e": {
        "xla_tpu_enable_async_collective_fusion_fuse_all_gather": True,
        "xla_tpu_enable_async_collective_fusion_multiple_steps": True,
        "xla_tpu_overlap_compute_collective_tc": True,
    },
    # scratch memory for larger tiles: 96 of 128 MiB
    "v6e": {"xla_tpu_scoped_vmem_limit_kib": 98304},
}
"""Of Google's published training recipes (AI-Hypercomputer/maxtext,
benchmarks/xla_flags_library.py) those that the compiler takes here."""


def compiler_options(device: jax.Device) -> Options:
    """Options for programs of this device; none where nothing better than the default is known."""
    chip = chip_of(device.device_kind)
    if chip is None:
        return {}
    generation = next(name for name, row in CHIPS.items() if row == chip)
    return PLATFORMS.get(chip.platform, {}) | GENERATIONS.get(generation, {})
