"""What training changes: parameters and optimizer state."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx

from jaxlm.config import Config
from jaxlm.config.steps import Span
from jaxlm.models import Transformer
from jaxlm.optim import make_optimizer, skip_overflows
from jaxlm.parallel import sharding_of, specs_of


class State(NamedTuple):
    """A pytree; every array is sharded over the mesh that was set when it was made."""

    params: Transformer
    optimizer: Any


def make_state(config: Config, params: Transformer | None = None) -> State:
    """Parameters, fresh from config.seed unless they are given, and fresh optimizer state, made on
    the devices that hold them."""
    shapes = shapes_of_params(config)
    if params is None:
        shardings = jax.tree.map(lambda shape: shape.sharding, shapes)
        params = jax.jit(_builder(config), out_shardings=shardings)(jax.random.key(config.seed))
    return State(params, jax.jit(_fresh(config, shapes))(params))


def shapes_of_state(config: Config) -> State:
    """Shape, type and sharding of every array of the state; nothing is computed."""
    params = shapes_of_params(config)
    optimizer = jax.eval_shape(_fresh(config, params), params)
    mesh = jax.sharding.get_mesh()

    def placed(shape: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = shape.sharding.spec if shape.sharding else jax.P()
        sharding = jax.NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

    return State(params, jax.tree.map(placed, optimizer))


def shapes_of_params(config: Config) -> Transformer:
    """Shape, type and sharding of every parameter; nothing is computed."""
    # the key inside: a mesh of devices that are not there cannot hold one
    params = jax.eval_shape(lambda: _builder(config)(jax.random.key(0)))
    return jax.tree.map(
        lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding),
        params,
        sharding_of(params, jax.sharding.get_mesh(), config.mesh.zero),
    )


def optimizer_of(
    config: Config, params: Transformer, spans: tuple[Span, ...] | None = None
) -> optax.GradientTransformation:
    """The update rule of a config; params may be shapes.

    spans: the steps of the run, where the config is that of one of its stages.
    """
    spans = spans or config.spans
    contracted = jax.tree.map(
        lambda leaf: leaf.replace(leaf.inputs),
        params,
        is_leaf=lambda leaf: isinstance(leaf, nnx.Variable),
    )
    rule = make_optimizer(config.optimizer, spans[-1].last, contracted, spans)
    return skip_overflows(rule) if config.train.precision == "fp16" else rule


def _fresh(config: Config, shapes: Transformer) -> Callable[[Transformer], Any]:
    """From parameters to a new optimizer's state, where mesh.zero wants it."""
    init, split = optimizer_of(config, shapes).init, specs_of(shapes, config.mesh.zero, "optimizer")
    return lambda params: init(jax.reshard(params, split))


def _builder(config: Config) -> Any:
    return partial(Transformer, config.model, config.vocab_size)
