"""A config and hardware -> the record that `jaxlm plan` prints."""

from collections.abc import Sequence
from typing import Any

import jax

from jaxlm.config import Config
from jaxlm.config.stages import stages
from jaxlm.models.size import flops_per_token, parameter_count
from jaxlm.parallel.flags import Options, compiler_options
from jaxlm.planning.collectives import collectives
from jaxlm.planning.hlo import memory_traffic, parse, runs
from jaxlm.planning.program import compile_step
from jaxlm.planning.roofline import roofline
from jaxlm.planning.topology import Hardware, cuda_folder


def plan(config: Config, hardware: Hardware, devices: Sequence[jax.Device]) -> dict[str, Any]:
    """Compile the step and read it: memory, collectives, roofline; JSON alone.

    Of a curriculum the stage with the most tokens a microbatch is compiled, the one that needs the
    most memory; its figures hold for all tokens. What needs a program is left out where the
    compiler found that it does not fit.
    """
    stage = max(stages(config), key=lambda stage: _microbatch(stage.config))
    own = stage.config
    options = compiler_options(devices[0])
    paths: Options = (
        {"xla_gpu_cuda_data_dir": cuda_folder()} if hardware.chip.platform == "gpu" else {}
    )
    program = compile_step(own, hardware, devices, paths)
    tokens = own.train.batch_size * own.data.seq_len
    flops = flops_per_token(own, causal=False)
    memory, chip = program.memory, hardware.chip
    record: dict[str, Any] = {
        "fits": program.fits and memory.peak <= chip.hbm_bytes,
        "hardware": hardware.name,
        "devices": hardware.devices,
        "mesh": dict(zip(program.layout.axes, program.layout.sizes, strict=True)),
        "stage": stage.name,
        "parameters": parameter_count(own),
        "tokens_per_step": tokens,
        "flops_per_token": flops,
        "flops_per_step": flops * tokens,
        "executed_flops_per_step": program.products,
        "argument_bytes": memory.arguments,
        "temp_bytes": memory.temporaries,
        "peak_bytes": memory.peak,
        "live_peak_bytes": memory.live,
        "hbm_bytes": chip.hbm_bytes,
        "compile_seconds": program.seconds,
        "compiler_options": options,
    }
    if not program.text:
        return record
    module = parse(program.text)
    how_often = runs(module)
    sent = collectives(module, how_often, program.layout)
    traffic = memory_traffic(module, how_often)
    limits = roofline(
        chip, own.train.precision, program.products / hardware.devices, traffic, sent
    )  # fmt: skip
    peak = chip.flops.get(own.train.precision, chip.flops["bf16"]) * hardware.devices
    total = sum((s.last - s.first) * s.config.train.batch_size * s.config.data.seq_len
                for s in stages(config))  # fmt: skip
    hours = total / tokens * limits.seconds / 3600
    return record | {
        "collectives": [
            {
                "kind": row.kind, "axis": row.axis, "count": row.times, "bytes": row.bytes,
                "group": row.group, "crosses_network": row.slices > 1,
            }
            for row in sent
        ],
        "loops_of_unknown_length": list(how_often.unknown),
        "memory_traffic_bytes": traffic,
        "bytes_accessed_once": program.bytes_once,
        "roofline_seconds": {"compute": limits.compute, "memory": limits.memory} | limits.links,
        "bound": limits.bound,
        "step_seconds_bound": limits.seconds,
        "mfu_bound": flops * tokens / (limits.seconds * peak),
        "tokens_per_second_bound": tokens / limits.seconds,
        "tokens": total,
        "hours": hours,
        "chip_hours": hours * hardware.chips,
    }  # fmt: skip


def _microbatch(config: Config) -> int:
    return (config.train.microbatch_size or config.train.batch_size) * config.data.seq_len
