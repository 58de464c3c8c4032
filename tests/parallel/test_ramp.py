"""A step that computes some of its microbatches gives what a step of these alone does, and it is
compiled once for all numbers of them."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

from jaxlm.parallel import make_mesh
from jaxlm.training.state import State
from jaxlm.training.step import make_step
from tests.models.small import config_of, host_batch, make_params, on_mesh

RULE = optax.sgd(1.0)
RAMP = {"start": 4, "increment": 2, "tokens": 1000}


@pytest.mark.parametrize(
    ("mesh", "dropout"),
    [
        ({}, 0.1),
        ({"fsdp": 2, "tensor": 2}, 0.0),
        ({"stage": 2, "fsdp": 2}, 0.0),
    ],
    ids=str,
)
def test_the_number_of_microbatches_is_a_value(mesh: dict[str, int], dropout: float) -> None:
    train: dict[str, Any] = {"batch_size": 8, "microbatch_size": 2, "batch_ramp": RAMP}
    config = config_of({"dropout": dropout}, train, mesh={"data": 1} | mesh)
    devices = int(np.prod([mesh.get(axis, 1) for axis in ("fsdp", "tensor", "stage", "context")]))
    with jax.set_mesh(make_mesh(config, jax.devices()[:devices])):
        step: Any = make_step(config, RULE)
        whole = host_batch(config)
        key = jax.random.key(0) if dropout else None
        everywhere = jax.NamedSharding(jax.sharding.get_mesh(), jax.P())
        key = None if key is None else jax.device_put(key, everywhere)

        def after(rows: int, count: int | None) -> tuple[list[np.ndarray], float]:
            weights = whole.weights_BT.copy()
            weights[rows:] = 0
            params = make_params(config)
            given = None if count is None else jax.device_put(np.int32(count), everywhere)
            batch = on_mesh(whole._replace(weights_BT=weights), 4)
            state, figures = step(State(params, RULE.init(params)), batch, key, given)
            leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]
            return leaves, float(figures["loss"])

        counted = {count: after(2 * count, count) for count in (2, 3, 4)}
        assert step._cache_size() == 1
        for count, (params, loss) in counted.items():
            wanted, wanted_loss = after(2 * count, None)
            assert loss == pytest.approx(wanted_loss, rel=1e-6)
            for found, want in zip(params, wanted, strict=True):
                np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
        assert counted[2][1] != counted[3][1]
