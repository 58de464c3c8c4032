"""The loss of a batch and its gradients where layers lie on pipeline stages."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxlm.config import Config
from jaxlm.models import Mask, Transformer
from jaxlm.models.transformer import Stack, seen_by
from jaxlm.objectives import Batch
from jaxlm.parallel import no_gradient, on_all_stages, shards
from jaxlm.parallel.context import parts as cuts
from jaxlm.parallel.context import places
from jaxlm.parallel.pipeline import Stage, by_turns, one_forward_one_backward
from jaxlm.training.loss import DTYPES, loss_of

# M microbatches, N tokens of one, S stages, V parts of the model that a stage has, L layers

type Which = Literal["encoder", "decoder"]
type Feed = Callable[[jax.Array], tuple[Any, Any]]


class Facts(NamedTuple):
    """What goes along with a microbatch."""

    mask: Mask
    positions_BT: jax.Array
    encoder_segments_BS: jax.Array | None
    key: jax.Array | None
    """Of dropout in the layers, as numbers."""


def loss_by_turns(
    config: Config,
    params: Transformer,
    batch: Batch[jax.Array],
    key: jax.Array | None = None,
    *,
    turns: int,
) -> jax.Array:
    """loss_sum of all microbatches [M, B, T]: all go forward, then all go back.

    turns: parts of the model that a stage has, as `by_turns` takes them.
    """
    M, keys = batch.tokens_BT.shape[0], _keys(key, batch.tokens_BT.shape[0])
    encoded_MND = None
    if batch.encoder_tokens_BS is not None:
        feed = _feed(config, params, "encoder", batch, keys)
        stage = _stage(config, params, "encoder", turns)
        encoded_MND = by_turns(stage, _turns(params.encoder, turns), feed, M)[0]
    which = _last(config)
    stack, feed = getattr(params, which), _feed(config, params, which, batch, keys, encoded_MND)
    x_MND, _ = by_turns(_stage(config, params, which, turns), _turns(stack, turns), feed, M)
    # all at once, tokens of all microbatches side by side on the devices that have them
    N, D = x_MND.shape[1:]
    split = jax.typeof(x_MND).sharding.spec.partitions[1:]
    x_ND = jax.lax.reshape(jnp.swapaxes(x_MND, 0, 1), (N * M, D), out_sharding=jax.P(*split))
    targets, weights = (jnp.moveaxis(a, 0, 2) for a in (batch.targets_BT, batch.weights_BT))
    x_ND = params.for_head(config.model, stack.behind(config.model, x_ND))
    return loss_of(config, params, x_ND, targets, weights)


def loss_one_by_one(
    config: Config,
    params: Transformer,
    batch: Batch[jax.Array],
    key: jax.Array | None = None,
    microbatches: jax.Array | None = None,
) -> tuple[jax.Array, Transformer]:
    """The same, and its gradients, where a microbatch goes back as soon as it can; of one stack.

    microbatches: how many are computed, S at least; None: all.
    """
    which, M = _last(config), batch.tokens_BT.shape[0]
    keys, stack = _keys(key, M), getattr(params, which)
    rest = _apart(params, which)
    gradients = jax.tree.map(no_gradient, rest)

    def feed(rest: Transformer, m: jax.Array) -> tuple[Any, Any]:
        return _feed(config, rest, which, batch, keys)(m)

    def behind(rest: Transformer, x: Any, m: jax.Array) -> jax.Array:
        one = microbatch(batch, m)
        x_ND = rest.for_head(config.model, getattr(rest, which).behind(config.model, x[0]))
        return loss_of(config, rest, x_ND, one.targets_BT, one.weights_BT)

    def loss(m: jax.Array, x: Any) -> tuple[jax.Array, Any, Any]:
        nats, (drest, dx) = jax.value_and_grad(behind, argnums=(0, 1))(rest, x, m)
        return nats, drest, dx

    def back(m: jax.Array, dx: Any) -> Any:
        return jax.vjp(lambda rest: feed(rest, m)[0], rest)[1](dx)[0]

    [weights], unfold = jax.vjp(lambda stack: _turns(stack, 1), stack)
    total, grown, others = one_forward_one_backward(
        _stage(config, params, which, 1), weights, lambda m: feed(rest, m), loss, back, gradients,
        M if microbatches is None else microbatches,
    )  # fmt: skip
    [layers] = unfold([grown])
    both = jax.tree.map(
        lambda a, b: b if a is None else a, getattr(others, which), layers,
        is_leaf=lambda a: a is None,
    )  # fmt: skip
    setattr(others, which, both)
    return total, others


def _last(config: Config) -> Which:
    return "encoder" if config.model.kind == "encoder" else "decoder"


def _stage(config: Config, params: Transformer, which: Which, turns: int) -> Stage:
    """The layers of one part of a stack, for the schedules."""
    model, causal = config.model, which == "decoder"
    whole = jax.tree.leaves(getattr(params, which).blocks)[0].shape[0]
    parts = shards("layers") * turns

    def stage(part: Stack, x: Any, facts: Facts, number: jax.Array) -> Any:
        x_ND, encoded_MD = x
        sight = seen_by(model, facts.mask, causal, facts.encoder_segments_BS, encoded_MD)
        length = cuts() * facts.positions_BT.shape[1]
        key = None if facts.key is None else jax.random.wrap_key_data(facts.key)
        x_ND = part.through(
            model, x_ND, part.sights(model, sight, (facts.positions_BT, None, length)),
            remat=config.train.remat, unroll=config.train.unroll_layers,
            key=key, first=number * (whole // parts),
        )  # fmt: skip
        return x_ND, encoded_MD

    return stage


def _turns(stack: Stack, turns: int) -> list[Stack]:
    """What stages need of a stack, [S, ...]; turn v holds parts v x S to v x S + S - 1."""
    stages = shards("layers")

    def of_each_turn(path: Any, array: jax.Array) -> list[Any]:
        match path[0].name:
            case "blocks":
                dealt = _dealt(array, stages, turns)
                return [dealt[turn] for turn in range(turns)]
            case "bias":
                return [on_all_stages(array)] * turns
        return [None] * turns

    leaves, tree = jax.tree_util.tree_flatten_with_path(stack)
    found = [of_each_turn(*leaf) for leaf in leaves]
    return [jax.tree.unflatten(tree, each) for each in zip(*found, strict=True)]


def _dealt(array: jax.Array, stages: int, turns: int) -> jax.Array:
    """[L, ...], of which each stage holds layers one after another, as [V, S, L / (V x S), ...], of
    which it has those of its parts."""
    split = jax.typeof(array).sharding.spec

    def over(*axes: str | None) -> jax.P:
        return jax.P(*axes, *split.partitions[1:], reduced=split.reduced)

    shape = (turns, stages, array.shape[0] // (turns * stages), *array.shape[1:])
    if turns % stages == 0:  # whole turns are on a stage: they are exchanged
        array = jax.lax.reshape(array, shape, out_sharding=over("stage", None, None))
        return jax.reshard(array, over(None, "stage", None))
    if turns > 1:
        array = jax.reshard(array, over(None))
    return jax.lax.reshape(array, shape, out_sharding=over(None, "stage", None))


def _feed(
    config: Config,
    params: Transformer,
    which: Which,
    batch: Batch[jax.Array],
    keys: jax.Array | None,
    encoded_MND: jax.Array | None = None,
) -> Feed:
    """From the number of a microbatch to its embeddings, with what an encoder made, and its facts.

    keys: [M, 4] of each, of embedding and layers of the encoder and of the decoder.
    """
    model, dtype = config.model, DTYPES[config.train.precision]

    def feed(m: jax.Array) -> tuple[Any, Facts]:
        one = microbatch(batch, m)
        first = 2
        if which == "encoder" and one.encoder_tokens_BS is not None:
            assert one.encoder_segments_BS is not None
            assert one.encoder_positions_BS is not None
            first = 0
            one = Batch(
                one.encoder_tokens_BS, *one[1:3], one.encoder_segments_BS, one.encoder_positions_BS
            )
        mask = Mask(
            one.segments_BT,
            one.segments_BT,
            prefix_BS=one.prefix_BT,
            places_BT=places(one.tokens_BT),
        )
        embed_key = layers_key = None
        if keys is not None:
            embed_key, layers_key = keys[m, first], jax.random.key_data(keys[m, first + 1])
        x_ND = params.embed(model, one.tokens_BT, one.positions_BT, dtype, embed_key, None, None)
        encoded_MD = None
        if encoded_MND is not None:
            found_MD = jax.lax.dynamic_index_in_dim(encoded_MND, m, keepdims=False)
            encoded_MD = params.encoder.behind(model, found_MD)
        return (x_ND, encoded_MD), Facts(
            mask, one.positions_BT, one.encoder_segments_BS, layers_key
        )

    return feed


def microbatch(batch: Batch[jax.Array], m: jax.Array) -> Batch[jax.Array]:
    """Number m of a batch [M, B, T]."""
    return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, m, keepdims=False), batch)


def _keys(key: jax.Array | None, microbatches: int) -> jax.Array | None:
    """[M, 4], the draws of which are those of the layers in one place."""
    if key is None:
        return None
    keys = jax.random.split(key, microbatches) if microbatches > 1 else key[None]
    four = jax.vmap(lambda key: jax.vmap(jax.random.split)(jax.random.split(key)))
    return jnp.reshape(four(keys), (microbatches, 4))


def _apart(params: Transformer, which: Which) -> Transformer:
    """The parameters without those that stages have."""

    def leaf(path: Any, array: jax.Array) -> Any:
        staged = path[0].name == which and path[1].name in ("blocks", "bias")
        return None if staged else array

    return jax.tree_util.tree_map_with_path(leaf, params)
