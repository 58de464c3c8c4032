"""Batches are ready before they are asked for, and errors of the thread reach the loop."""

import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxlm.config.objective import Objective
from jaxlm.errors import UserError
from jaxlm.objectives import Batch
from jaxlm.parallel import make_mesh, spec
from jaxlm.tokens import Loader, open_loader
from jaxlm.training.batches import AHEAD, batches, shapes
from jaxlm.workdir import Workdir
from tests.models import small
from tests.objectives.streams import prepare
from tests.objectives.test_prepared import PAIRS, B, T, call
from tests.training.runs import config_of


class Watched:
    """A loader that tells which steps were made, and can fail at one."""

    def __init__(self, loader: Loader, fails_at: int | None = None) -> None:
        self._loader, self._fails_at = loader, fails_at
        self.made: list[int] = []
        self.changed = threading.Condition()

    def batch_at(self, step: int) -> Batch[Any]:
        if step == self._fails_at:
            raise UserError(f"step {step} is damaged")
        batch = self._loader.batch_at(step)
        with self.changed:
            self.made.append(step)
            self.changed.notify()
        return batch

    def read_at(self, step: int) -> Any:
        return self._loader.read_at(step)


@pytest.fixture
def loader(prepared: Path) -> Loader:
    config = config_of(prepared)
    return open_loader(config, Workdir(config.workdir))


@pytest.mark.parametrize("microbatches", [1, 4])
def test_batches_are_the_loaders_cut_and_spread(
    prepared: Path, loader: Loader, microbatches: int
) -> None:
    config = config_of(
        prepared,
        mesh={"data": 1, "fsdp": 2, "tensor": 1},
        train={"microbatch_size": 8 // microbatches},
    )
    mesh = make_mesh(config, jax.devices()[:2])
    with jax.set_mesh(mesh):
        for step, ready in enumerate(batches(config, loader, 5, 9), 5):
            host = loader.batch_at(step)
            assert ready.targets == host.weights_BT.sum()
            assert ready.places == 8 * 32
            np.testing.assert_array_equal(ready.read_S, loader.read_at(step))
            assert ready.read_S.sum() == 8 * 32
            for found, wanted in zip(ready.batch, host, strict=True):
                if wanted is None:
                    assert found is None
                    continue
                assert found is not None
                assert found.shape == (microbatches, 8 // microbatches, 32)
                rows = jax.NamedSharding(mesh, spec(None, "batch", None))
                assert found.sharding == rows
                np.testing.assert_array_equal(np.asarray(found).reshape(8, 32), wanted)
    assert step == 8


def test_the_next_batches_are_made_while_one_is_used(prepared: Path, loader: Loader) -> None:
    watched = Watched(loader)
    config = config_of(prepared)
    with jax.set_mesh(make_mesh(config)):
        coming = batches(config, watched, 0, 10)  # type: ignore[arg-type]
        next(coming)
        with watched.changed:
            ready = watched.changed.wait_for(lambda: len(watched.made) > AHEAD, timeout=60)
        assert ready, "made without being asked for"
        assert watched.made == list(range(1 + AHEAD)), "and no more of them than wanted"
        coming.close()  # type: ignore[attr-defined]


def test_damaged_tokens_reach_the_loop_at_their_step(prepared: Path, loader: Loader) -> None:
    watched = Watched(loader, fails_at=2)
    config = config_of(prepared)
    with jax.set_mesh(make_mesh(config)):
        coming = batches(config, watched, 0, 10)  # type: ignore[arg-type]
        next(coming)
        next(coming)
        with pytest.raises(UserError, match="step 2 is damaged"):
            next(coming)


@pytest.mark.parametrize(("objective", "kind"), PAIRS)
def test_shapes_are_those_of_what_the_objectives_make(objective: Objective, kind: str) -> None:
    made = call(prepare(objective, kind, T))
    config = small.config_of(train={"batch_size": B}, mesh={"data": 1})
    model = config.model.model_copy(update={"kind": kind})
    data = config.data.model_copy(update={"seq_len": T})
    config = config.model_copy(update={"objective": objective, "model": model, "data": data})
    with jax.set_mesh(make_mesh(config, jax.devices()[:1])):
        found = shapes(config)
    for shape, array in zip(found, made, strict=True):
        assert (shape is None) == (array is None)
        if shape is not None and array is not None:
            assert (shape.shape, shape.dtype) == ((1, *array.shape), array.dtype)
