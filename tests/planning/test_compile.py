"""The real compilers of TPUs and GPUs, which need the extra `planning` and no hardware."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PACKAGES = {"tpu": ("libtpu",), "gpu": ("jax_plugins.xla_cuda12", "nvidia.cuda_nvcc")}
CONFIG = """
tokenizer: {kind: byte}
data: {seq_len: 256}
model: {layers: 2, d_model: 256, heads: 2, d_mlp: 512, vocab_size: 1024}
train: {steps: 100, batch_size: 8, precision: bf16, remat: full}
mesh: {data: 1, fsdp: -1}
"""
LAYERS, LAYER, TABLE = 2, 4 * 256 * 256 + 3 * 256 * 512, 1024 * 256
TOKENS = 8 * 256
PARAMETERS = LAYERS * LAYER + 2 * TABLE + (2 * LAYERS + 1) * 256
ROOT = Path(__file__).parents[2]


def plan(config: Path, hardware: str, *overrides: str, status: int = 0) -> dict[str, Any]:
    """What the verb prints; in a process of its own, since a compiler that fails ends it."""
    for package in PACKAGES[hardware[:3]]:
        pytest.importorskip(package, reason="pip install 'jaxlm[planning]'")
    command = [sys.executable, "-m", "jaxlm", "plan", str(config), "--hardware", hardware]
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    done = subprocess.run(
        [*command, "--quiet", "--json", "-", *overrides],
        capture_output=True, text=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    record: dict[str, Any] = json.loads(done.stdout)
    assert record["fits"] == (status == 0)
    return record


def by_kind(record: dict[str, Any]) -> dict[str, tuple[int, int]]:
    assert all(row["axis"] == "fsdp" for row in record["collectives"])
    return {row["kind"]: (row["count"], row["bytes"]) for row in record["collectives"]}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(CONFIG)
    return tmp_path / "small.yaml"


def check_memory(record: dict[str, Any]) -> None:
    devices = record["devices"]
    assert record["parameters"] == PARAMETERS
    batch = 5 * (8 // devices) * 256 * 4
    held = PARAMETERS * 12 // devices + batch
    assert held < record["argument_bytes"] < 1.01 * held
    assert record["peak_bytes"] < 16 << 20


def check_lookup(found: dict[str, tuple[int, int]], devices: int) -> None:
    """What is looked up goes to the tokens in bf16, and its gradient comes back."""
    assert found.pop("all-to-all") == (2, 2 * (TOKENS // devices) * 256 * 2)


def test_a_tpu_gathers_a_layer_once_a_pass_and_scatters_gradients_once(small: Path) -> None:
    record = plan(small, "tpu:v5e:2x2")
    check_memory(record)
    found = by_kind(record)
    # seven matrices a layer, forward and backward, and the head, all in bf16; the tokens
    assert found.pop("all-gather") == (
        2 * LAYERS * 7 + 2, 2 * (2 * LAYERS * LAYER + TABLE) + TOKENS * 4,
    )  # fmt: skip
    assert found.pop("reduce-scatter") == (LAYERS + 1, 2 * LAYERS * LAYER + 2 * TABLE)
    check_lookup(found, 4)
    # the loss, norms of gradients, and the gradients of the norms, which every device holds
    assert found.pop("all-reduce")[1] < 4 * (PARAMETERS - LAYERS * LAYER - 2 * TABLE) + 64
    assert not found


def test_gpus_gather_a_layer_once_a_pass_and_scatter_gradients_once(small: Path) -> None:
    record = plan(small, "gpu:h100:8", "model.attention.kernel=xla")  # no cuDNN needed
    check_memory(record)
    found = by_kind(record)
    # all matrices of a layer at once
    assert found.pop("all-gather") == (
        2 * LAYERS + 2, 2 * (2 * LAYERS * LAYER + TABLE) + TOKENS * 4,
    )  # fmt: skip
    assert found.pop("reduce-scatter") == (LAYERS + 1, 2 * LAYERS * LAYER + 2 * TABLE)
    check_lookup(found, 8)
    assert found.pop("all-reduce")[1] < 4 * (PARAMETERS - LAYERS * LAYER - 2 * TABLE) + 64
    assert not found


def test_only_gradients_cross_the_network_between_slices_once_a_step(small: Path) -> None:
    mesh = ("mesh.data=2", "mesh.fsdp=4", "train.batch_size=16")
    crossing = []
    for microbatch in (16, 8):
        rows = plan(small, "tpu:v5e:2x2:2", *mesh, f"train.microbatch_size={microbatch}")
        crossing.append([row for row in rows["collectives"] if row["crosses_network"]])
    once, again = crossing
    assert once == again
    assert {(row["kind"], row["axis"]) for row in once} == {("all-reduce", "data")}
    # of what a device has of the gradients, in fp32, and the loss
    shard = 4 * ((LAYERS * LAYER + 2 * TABLE) // 4 + (2 * LAYERS + 1) * 256)
    assert abs(sum(row["bytes"] for row in once) - shard) < 4096


def test_tokens_are_split_over_the_tensor_axis_between_products(small: Path) -> None:
    record = plan(small, "tpu:v5e:2x2", "mesh.fsdp=1", "mesh.tensor=2", "mesh.data=2")
    stream = 2 * (8 // 2) * 256 * 256  # a microbatch's residual stream on a device, in bf16
    for row in record["collectives"]:
        if row["axis"] == "tensor" and row["kind"] == "all-reduce":
            assert row["bytes"] < stream // 16, "numbers a token of the loss, and norms"


def test_a_context_axis_gathers_keys_once_a_pass_and_scatters_their_gradients(small: Path) -> None:
    record = plan(small, "tpu:v5e:2x2", "mesh.fsdp=2", "mesh.context=2")
    found = {row["kind"]: row["bytes"] for row in record["collectives"] if row["axis"] == "context"}
    keys = 2 * (8 // 2) * 256 * 256  # of a device's whole rows, in bf16; values are as many
    segments = 4 * (8 // 2) * 256
    assert found.pop("reduce-scatter") == LAYERS * 2 * keys
    assert 0 <= found.pop("all-gather") - LAYERS * 2 * 2 * keys <= LAYERS * 2 * segments
    assert sum(found.values()) < keys


def test_what_does_not_fit_says_by_how_much(small: Path) -> None:
    record = plan(
        small, "tpu:v5e:1x1", "train.batch_size=4096", "data.seq_len=2048", "train.remat=none",
        status=1,
    )  # fmt: skip
    assert record["peak_bytes"] > record["hbm_bytes"] == 16 << 30


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "hardware", "overrides"),
    [
        ("llama2-7b", "tpu:v5e:16x16", ["train.microbatch_size=256"]),
        ("llama2-7b", "tpu:v5p:4x4x4", ["train.microbatch_size=256"]),
        ("llama2-7b", "gpu:h100:8", ["train.microbatch_size=8"]),
        ("llama3-8b", "tpu:v5p:4x4x8", ["data.seq_len=32768", "train.batch_size=128"]),
        (
            "llama3-8b",
            "tpu:v5p:4x4x8",
            ["data.seq_len=32768", "train.batch_size=16", "mesh.fsdp=16", "mesh.context=8"],
        ),
        ("llama3-70b", "tpu:v5p:8x8x8", []),
        (
            "gpt3-175b",
            "tpu:v5p:8x8x16",
            [
                "train.batch_ramp=null",
                "train.batch_size=1536",
                "model.vocab_size=50304",
                "mesh.stage=8",
                "mesh.tensor=8",
                "mesh.fsdp=16",
                "train.microbatch_size=64",
                "train.remat=dots",
            ],
        ),
        ("t5-11b", "tpu:v5p:4x4x4", ["mesh.data=1", "mesh.fsdp=-1"]),
    ],
)
def test_presets_fit(preset: str, hardware: str, overrides: list[str]) -> None:
    plan(ROOT / "configs" / "models" / f"{preset}.yaml", hardware, *overrides)
