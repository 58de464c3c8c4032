"""What a step takes on TPUs and GPUs, compiled without them, beside MaxText and a bare JAX step.

    pip install -c constraints.txt -e ".[planning,cuda12]"
    python benchmarks/aot_vs_maxtext.py [CASE ...] [--json FILE]

The same model, topology, sequences a device, length and types: bf16 products, fp32 parameters and
AdamW, scanned layers, full recomputation, splash attention on TPU and cuDNN's on GPU. The figures
of the others were read from what the same compiler made of their step (MaxText 0.2.5, its
train_compile; the bare step is a scan over layers with jax.grad and optax, its cross-entropy over
all logits at once). Nothing runs, so nothing here depends on the load of the machine; a case takes
one to five minutes on two cores.

The peak is what is in use at once, as the compilers count it on both sides. A gather counts what a
device has after it, a reduction what it had before. "bytes accessed" is XLA's, which counts the
body of a loop once, on both sides. README.md says where the differences come from.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

os.environ["JAX_PLATFORMS"] = "cpu"

from jaxlm.config import load
from jaxlm.errors import UserError
from jaxlm.planning import devices_of, parse_hardware, plan

MODELS = Path(__file__).parents[1] / "configs" / "models"
GIB, GB = 1 << 30, 10**9


class Case(NamedTuple):
    preset: str
    hardware: str
    overrides: tuple[str, ...]
    others: dict[str, dict[str, float]]
    """Figures of each, in UNITS."""
    wanted: dict[str, float]
    """At most this much."""


WIDE = (
    "data.seq_len=2048", "model.layers=16", "model.d_model=2048",
    "model.heads=16", "model.d_mlp=8192", "train.precision=bf16", "train.remat=full",
)  # fmt: skip
FSDP = ("mesh.data=1", "mesh.fsdp=-1")
STAGES = (*WIDE, *FSDP, "mesh.stage=4", "train.batch_size=32", "train.microbatch_size=8")
CASES = {
    "llama2-7b": Case(
        "llama2-7b", "tpu:v5p:4x4x4", (*FSDP, "data.seq_len=2048", "train.batch_size=256"),
        {
            "MaxText": {"peak": 5.525, "accessed": 30.5, "gathers": 450,
                        "gathered": 26.2, "reduced": 13.2},
            "bare step": {"peak": 5.538, "accessed": 32.3, "gathers": 450,
                          "gathered": 26.2, "reduced": 13.2},
        },
        {"peak": 5.0, "accessed": 30.5, "gathered": 26.2, "reduced": 13.2},
    ),
    "llama3-70b": Case(
        "llama3-70b", "tpu:v5p:4x4x8", (*FSDP, "train.batch_size=128"),
        {"MaxText": {"peak": 25.40, "gathered": 276, "reduced": 139}},
        {"peak": 25.40, "gathered": 276, "reduced": 139},
    ),
    # 19 ticks, of which a stage waits for 3, as MaxText's 4 repeats do
    "stages": Case(
        "llama2-7b", "tpu:v5p:2x4x4", (*STAGES, "mesh.schedule=interleaved", "mesh.interleave=4"),
        {"MaxText": {"peak": 2.380}},
        {"peak": 2.380},
    ),
    "stages-1f1b": Case(
        "llama2-7b", "tpu:v5p:2x4x4", STAGES, {"MaxText": {"peak": 2.380}}, {"peak": 2.380}
    ),
    "h100": Case(
        "llama2-7b", "gpu:h100:8", (*WIDE, *FSDP, "train.batch_size=64"),
        {
            "bare step": {"peak": 6.11, "gathers": 162, "gathered": 4.43},
            "bare step, latency hiding": {"gathers": 65},
        },
        {"peak": 6.11, "gathered": 4.43},
    ),
}  # fmt: skip
UNITS = {
    "peak": "GiB", "accessed": "GB", "gathers": "",
    "gathered": "GB", "reduced": "GB",
}  # fmt: skip


def figures(record: dict[str, Any]) -> dict[str, float]:
    """Those of a plan in the units of the table."""

    def total(key: str, *kinds: str) -> float:
        return float(sum(row[key] for row in record["collectives"] if row["kind"] in kinds))

    found = {
        "peak": (record["live_peak_bytes"] or record["peak_bytes"]) / GIB,
        "gathers": total("count", "all-gather"),
        "gathered": total("bytes", "all-gather") / GB,
        "reduced": total("bytes", "all-reduce", "reduce-scatter") / GB,
    }
    if record["bytes_accessed_once"]:
        found["accessed"] = record["bytes_accessed_once"] / GB
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all")
    parser.add_argument("--json", type=Path, help="write the plans there")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    records: dict[str, Any] = {}
    for name in arguments.cases or CASES:
        case = CASES[name]
        hardware = parse_hardware(case.hardware)
        print(f"\n{name}: {case.preset} on {case.hardware}", flush=True)
        try:
            config = load(MODELS / f"{case.preset}.yaml", case.overrides)
            record = plan(config, hardware, devices_of(hardware))
        except UserError as error:
            print(f"not run: {error}")
            continue
        records[name] = record
        ours = figures(record)
        rows = [*case.others, "at most"]
        print(f"{'':12} {'jaxlm':>9} " + " ".join(f"{row:>26}" for row in rows))
        for key, unit in UNITS.items():
            theirs = [case.others[row].get(key) for row in case.others] + [case.wanted.get(key)]
            if key in ours and any(value is not None for value in (*theirs, ours[key])):
                cells = " ".join(f"{'' if v is None else f'{v:.4g}':>26}" for v in theirs)
                limit = case.wanted.get(key)
                # the others' figures are known to three digits
                met = limit is not None and float(f"{ours[key]:.3g}") <= limit
                verdict = "" if limit is None else "  ok" if met else "  MISSED"
                print(f"{key:12} {ours[key]:9.4g} {cells} {unit}{verdict}")
        for row in record["collectives"]:
            print(f"  {row['kind']} over {row['axis']}: {row['count']}, {row['bytes'] / GB:.3f} GB")
        if arguments.json:
            arguments.json.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
