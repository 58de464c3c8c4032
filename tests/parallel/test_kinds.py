"""Architectures, each with arrays of its own, give on a mesh what they give on one device."""

import jax
import numpy as np
import pytest

from jaxlm.config import Config
from jaxlm.objectives import Batch
from jaxlm.parallel import make_mesh
from jaxlm.training.loss import loss_sum
from tests.models.small import HostBatch, host_batch, make_params, on_mesh
from tests.models.transformers_names import MODELS, by_name

SQUARE = {"fsdp": 2, "tensor": 2}


def config_on(name: str, mesh: dict[str, int]) -> Config:
    return Config.model_validate(
        {
            "model": MODELS[name] | {"vocab_size": 64},
            "train": {"batch_size": 8, "loss_chunk": 128},
            "data": {"seq_len": 16},
            "mesh": {"data": 1} | mesh,
        }
    )


def batch_for(config: Config) -> HostBatch:
    batch = host_batch(config)
    if config.model.kind != "encoder_decoder":
        return batch
    read = host_batch(config, seed=1)
    encoder = (read.tokens_BT, read.segments_BT, read.positions_BT)
    return Batch(*batch[:5], None, *encoder)


# periods of windows and sink logits; heads of ALiBi and norms with biases; two stacks with tables
# of biases; a head with a layer and a bias of its own
@pytest.mark.parametrize("name", ["gpt_oss", "bloom", "t5", "bert"])
def test_loss_and_gradients_do_not_depend_on_the_mesh(name: str) -> None:
    found = []
    for sizes in ({}, SQUARE):
        config = config_on(name, sizes)
        count = int(np.prod(list(sizes.values())))
        with jax.set_mesh(make_mesh(config, jax.devices()[:count])):
            params, batch = make_params(config), on_mesh(batch_for(config))
            compute = jax.jit(jax.value_and_grad(loss_sum, argnums=1), static_argnums=0)
            loss, gradients = compute(config, params, batch)
            found.append({n: np.asarray(g) for n, g in by_name(gradients).items()})
            found[-1]["loss"] = np.asarray(loss)
    alone, together = found
    for key, wanted in alone.items():
        # biases of keys have gradients of rounding alone
        atol = 1e-5 * np.abs(wanted).max() + 1e-5
        np.testing.assert_allclose(together[key], wanted, rtol=0, atol=atol, err_msg=key)
