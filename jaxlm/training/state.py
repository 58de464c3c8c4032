"""What training changes: parameters and optimizer state."""

from functools import partial
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx

from jaxlm.config import Config
from jaxlm.models import Decoder
from jaxlm.optim import make_optimizer
from jaxlm.parallel import sharding_of


class State(NamedTuple):
    """A pytree; every array is sharded over the mesh that was set when it was made."""

    params: Decoder
    optimizer: Any


def make_params(config: Config) -> Decoder:
    """Fresh parameters from config.seed, each made on the devices that will hold it."""
    build = partial(Decoder, config.model, config.vocab_size)
    key = jax.random.key(config.seed)
    shardings = sharding_of(jax.eval_shape(build, key), jax.sharding.get_mesh())
    return jax.jit(build, out_shardings=shardings)(key)


def make_state(config: Config) -> tuple[State, optax.GradientTransformation]:
    """Fresh state and the update rule that goes with it."""
    params = make_params(config)
    optimizer = make_optimizer(config.optimizer, config.steps, contracted(params))
    return State(params, jax.jit(optimizer.init)(params)), optimizer


def contracted(params: Decoder) -> Any:
    """How many axes of each parameter a product contracts with, in the parameters' structure."""
    return jax.tree.map(
        lambda leaf: leaf.replace(leaf.inputs),
        params,
        is_leaf=lambda leaf: isinstance(leaf, nnx.Variable),
    )
