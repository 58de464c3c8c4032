"""Runs whose batches grow: each step has its size, and stopped runs go on with the same bits."""

import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxlm.config import Config
from jaxlm.parallel import make_mesh
from jaxlm.tokens import open_loader
from jaxlm.training import Stopped
from jaxlm.training.batches import batches
from jaxlm.workdir import Workdir
from tests.training.runs import (
    arrays_of,
    config_of,
    copy_of,
    figures,
    records,
    same_bits,
    train_here,
)
from tests.training.test_loop import stop_at

RAMP = {"start": 8, "increment": 8, "tokens": 96 * 32}
SIZES = [8] * 4 + [16] * 2 + [24] * 2 + [32] * 4


def ramped(folder: Path, **sections: Any) -> Config:
    train = {"batch_size": 32, "microbatch_size": 8, "batch_ramp": RAMP}
    schedule = {"warmup_tokens": 40 * 32, "kind": "linear", "floor": 0.0}
    optimizer = {"learning_rate": 1e-2, "schedule": schedule}
    return config_of(folder, **{"train": train, "optimizer": optimizer} | sections)


@pytest.fixture(scope="module")
def straight(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_of(prepared, tmp_path_factory.mktemp("straight"))
    train_here(ramped(folder))
    return folder


def test_batches_grow_and_the_rate_follows_the_tokens(straight: Path) -> None:
    found = records(ramped(straight))
    assert [r["batch_size"] for r in found] == SIZES
    seen, whole = 0, 32 * sum(SIZES)
    for record, size in zip(found, SIZES, strict=True):
        seen += 32 * size
        wanted = seen / 1280 if seen < 1280 else (whole - seen) / (whole - 1280)
        assert record["learning_rate"] == pytest.approx(1e-2 * wanted, rel=1e-4, abs=1e-8)
        assert sum(record["source_tokens"].values()) == seen


def test_a_step_computes_its_own_microbatches_alone(straight: Path) -> None:
    config = ramped(straight)
    loader = open_loader(config, Workdir(config.workdir))
    with jax.set_mesh(make_mesh(config)):
        for size, ready in zip(SIZES, batches(config, loader, 0, 12), strict=True):
            assert ready.microbatches is not None
            assert int(ready.microbatches) * 8 == size
            assert ready.tokens == size * 32
            assert ready.batch.tokens_BT.shape == (4, 8, 32), "the shape of all"
            assert not np.asarray(ready.batch.weights_BT)[size // 8 :].any()


@pytest.mark.parametrize("step", [2, 6])
def test_a_run_that_is_stopped_on_the_ramp_goes_on_with_the_same_bits(
    prepared: Path, straight: Path, tmp_path: Path, step: int
) -> None:
    config = ramped(copy_of(prepared, tmp_path))
    with pytest.raises(Stopped):
        train_here(config, stop_at(step, signal.SIGTERM))
    train_here(config)
    assert figures(config) == figures(ramped(straight))
    assert same_bits(arrays_of(config, 12), arrays_of(ramped(straight), 12))


def test_stages_end_where_they_say_while_the_batch_grows(prepared: Path, tmp_path: Path) -> None:
    curriculum = [
        {"name": "a", "tokens": 1000},
        {"name": "b", "steps": 3, "seq_len": 64},
        {"name": "c", "steps": 2, "batch_size": 16},
    ]
    data = {"seq_len": 32, "curriculum": curriculum, "validation_fraction": 0.1}
    config = ramped(
        copy_of(prepared, tmp_path), data=data,
        train={"steps": None, "batch_size": 32, "microbatch_size": 8, "batch_ramp": RAMP},
    )  # fmt: skip
    spans = [(s.stage, s.first, s.last, s.batch_size, s.tokens) for s in config.spans]
    assert spans == [
        (0, 0, 4, 8, 0), (1, 4, 5, 16, 1024), (1, 5, 6, 24, 2048), (1, 6, 7, 32, 3584),
        (2, 7, 9, 16, 5632),
    ]  # fmt: skip
    with pytest.raises(Stopped):
        train_here(config, stop_at(5, signal.SIGTERM))
    train_here(config)
    found = records(config)
    assert [r["batch_size"] for r in found] == [8] * 4 + [16, 24, 32] + [16] * 2
    assert [r["stage"] for r in found] == ["a"] * 4 + ["b"] * 3 + ["c"] * 2
