"""Schedules of pipeline stages: which stage computes which microbatch when.

All arrays of stages have them as their first axis, split over the mesh axis "stage"; a tick
computes all stages at once, each with another microbatch, and what they made goes on to the next.
A stage is a function (weights, x, facts, part) -> x: x is a tree of what has gradients, facts is
one of what has none and goes along with a microbatch, part counts the parts of the model in their
order.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.parallel.axes import no_gradient, on_all_stages, shards

# S stages, M microbatches, R slots of a ring, V parts of the model that a stage has

type Stage = Callable[[Any, Any, Any, jax.Array], Any]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def on_stages(stage: Stage, weights: Any, x: Any, facts: Any, part_S: jax.Array) -> Any:
    """x of all stages behind them."""
    plain, again = _plain(weights)
    return jax.vmap(lambda w, *others: stage(again(w), *others))(plain, x, facts, part_S)


def _kept(stage: Stage, *inputs: Any) -> tuple[Any, Any]:
    return on_stages(stage, *inputs), inputs


def back_on_stages(stage: Stage, inputs: Any, dx: Any) -> tuple[Any, Any, None, None]:
    """Gradients of weights and x, from those of what on_stages gave for these inputs; the stages
    are computed again."""
    weights, x, facts, part_S = inputs
    plain, again = _plain(weights)

    def one(weights: Any, x: Any, facts: Any, part: jax.Array, dx: Any) -> Any:
        return jax.vjp(lambda w, x: stage(w, x, facts, part), again(weights), x)[1](dx)

    return *jax.vmap(one)(plain, x, facts, part_S, dx), None, None


on_stages.defvjp(_kept, back_on_stages)


def _plain(weights: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Weights without the types that say where gradients are added up, which vmap does not take,
    and what gives those of one stage their types again."""
    splits = jax.tree.map(lambda w: jax.typeof(w).sharding.spec, weights)
    one = jax.tree.map(lambda s: jax.P(*s.partitions[1:], reduced=s.reduced), splits)
    plain = jax.tree.map(lambda s: jax.P(*s.partitions), splits)
    return jax.reshard(weights, plain), lambda weights: jax.reshard(weights, one)


def by_turns(
    stage: Stage,
    weights: list[Any],
    feed: Callable[[jax.Array], tuple[Any, Any]],
    microbatches: int,
) -> Any:
    """x of all microbatches behind the last part of the model, [M, ...].

    GPipe (Huang et al. 2019) with one part a stage; with V of them, part v x S + s on stage s, the
    circular or interleaved order (Narayanan et al. 2021, section 2.2): all microbatches go around V
    times, and stages are idle for S - 1 of V x M + S - 1 ticks. Its gradient is by autodiff: what
    enters a stage is kept of all ticks.

    weights: of each of the V parts, [S, ...].
    feed: from the number of a microbatch to its x and facts. M >= S where V > 1.
    """
    S, M, V = shards("layers"), microbatches, len(weights)
    number_S = stage_numbers()
    waits, T = M - S if V > 1 else 0, V * M + S - 1

    # what a turn chooses is chosen again on the way back, and not kept of every tick
    @partial(jax.checkpoint, prevent_cse=False)
    def compute(weights: list[Any], x: Any, facts: Any, t: jax.Array) -> Any:
        turn_S = jnp.clip((t - number_S) // M, 0, V - 1)
        chosen = weights[0]
        for turn in range(1, V):
            chosen = _where(turn_S == turn, weights[turn], chosen)
        return on_stages(stage, chosen, x, facts, turn_S * S + number_S)

    # for stages that have nothing to do: with zeros, or with what has been through all layers, they
    # might give numbers that are not finite, which 0 times is no 0
    something = jax.lax.stop_gradient(jax.tree.map(on_all_stages, feed(jnp.int32(0))))

    def tick(carry: Any, t: jax.Array, fed: bool, over: bool, kept: bool) -> tuple[Any, Any]:
        behind, fifo = carry
        # behind the last stage comes the first, with the next part
        coming = shifted(behind, 1)
        if waits:
            earliest = jax.tree.map(partial(_slot, t % waits), fifo)
            fifo = jax.tree.map(partial(_with_slot, t % waits), fifo, coming)
            coming = _where(number_S == 0, earliest, coming)
        if fed:
            coming = _where(number_S == 0, jax.tree.map(on_all_stages, feed(t)), coming)
        if over:
            coming = _where(number_S == 0, something, coming)
        x, facts = coming
        x = compute(weights, x, facts, t)
        return ((x, facts), fifo), x if kept else None

    fifo = jax.tree.map(partial(_slots, waits), something) if waits else None
    carry: Any = (something, fifo)
    outputs = []
    for start, end in pairwise(sorted({0, M, T - M, V * M, T})):
        kept = start >= T - M
        run = partial(tick, fed=end <= M, over=start >= V * M, kept=kept)
        carry, x = jax.lax.scan(run, carry, jnp.arange(start, end))
        outputs += [x] if kept else []
    x = jax.tree.map(lambda *parts: jnp.concatenate(parts), *outputs)
    return jax.vmap(partial(_of_stage, number_S, S - 1))(x)


def one_forward_one_backward(
    stage: Stage,
    weights: Any,
    feed: Callable[[jax.Array], tuple[Any, Any]],
    loss: Callable[[jax.Array, Any], tuple[jax.Array, Any, Any]],
    back: Callable[[jax.Array, Any], Any],
    gradients: Any,
    microbatches: int | jax.Array,
) -> tuple[jax.Array, Any, Any]:
    """1F1B (Narayanan et al. 2019) in lockstep: the loss, the gradients of the weights, [S, ...],
    and those of the rest.

    A stage gives a microbatch's gradient back 2 (S - 1 - s) ticks after it had it, so it keeps
    2 S - 1 inputs, however many microbatches there are. S - 1 ticks are forward alone, M both, and
    S - 1 backward alone: as with GPipe, stages are idle for (S - 1) / (M + S - 1) of the time.

    feed: as in by_turns.
    loss: from the number of a microbatch and x behind the last stage to its loss, its gradient for
        the rest and that for x.
    back: from the number of a microbatch and the gradient for what feed gave to that for the rest.
    gradients: of the rest, where they begin.
    microbatches: M; one that is known when the program is made gives loops of known length.
    """
    S, M = shards("layers"), microbatches
    number_S, R = stage_numbers(), 2 * S - 1

    def forward(carry: Any, t: jax.Array) -> Any:
        behind, ring = carry
        fresh = jax.tree.map(on_all_stages, feed(jnp.minimum(t, M - 1)))
        x, facts = entering = _where(number_S == 0, fresh, shifted(behind, 1))
        ring = jax.tree.map(partial(_with_slot, t % R), ring, entering)
        return (on_stages(stage, weights, x, facts, number_S), facts), ring

    def backward(carry: Any, t: jax.Array, ring: Any, dlast: Any) -> Any:
        grown, rest, dx = carry
        dx = _where(number_S == S - 1, jax.tree.map(on_all_stages, dlast), shifted(dx, -1))
        x, facts = _slot_of_each(ring, (t - 2 * (S - 1 - number_S)) % R)
        more, dx, _, _ = back_on_stages(stage, (weights, x, facts, number_S), dx)
        grown = jax.tree.map(jnp.add, grown, more)
        first = jnp.maximum(t - 2 * (S - 1), 0)
        rest = jax.tree.map(jnp.add, rest, back(first, _of_stage(number_S, 0, dx)))
        return grown, rest, dx

    def both(t: jax.Array, carry: Any) -> Any:
        ahead, (grown, rest, dx), total = carry
        ahead = forward(ahead, t)
        (x, _), ring = ahead
        nats, more, dlast = loss(t - (S - 1), _of_stage(number_S, S - 1, x))
        rest = jax.tree.map(jnp.add, rest, more)
        return ahead, backward((grown, rest, dx), t, ring, dlast), total + nats

    # not zeros, as in by_turns
    something = jax.tree.map(on_all_stages, feed(jnp.int32(0)))
    ahead = (something, jax.tree.map(partial(_slots, R), something))
    ahead, _ = jax.lax.scan(lambda c, t: (forward(c, t), None), ahead, jnp.arange(S - 1))
    grown = jax.tree.map(no_gradient, weights)
    dx = jax.tree.map(jnp.zeros_like, something[0])
    carry = (ahead, (grown, gradients, dx), jnp.float32(0))
    (_, ring), growing, total = jax.lax.fori_loop(S - 1, M + S - 1, both, carry)
    none = jax.tree.map(jnp.zeros_like, _of_stage(number_S, 0, dx))
    growing, _ = jax.lax.scan(
        lambda c, t: (backward(c, t, ring, none), None), growing,
        M + S - 1 + jnp.arange(S - 1),
    )  # fmt: skip
    return total, growing[0], growing[1]


def stage_numbers() -> jax.Array:
    """[S], each stage's."""
    return jax.lax.broadcasted_iota(jnp.int32, (shards("layers"),), 0, out_sharding=jax.P("stage"))


def shifted(tree: Any, by: int) -> Any:
    """What each stage has, moved to the one behind it (or before it, by -1), in a ring."""
    S = shards("layers")
    around = [(s, (s + by) % S) for s in range(S)]

    def one(tree: Any) -> Any:
        return jax.tree.map(lambda a: jax.lax.ppermute(a, "stage", around), tree)

    return jax.shard_map(
        one, in_specs=jax.P("stage"), out_specs=jax.P("stage"), axis_names={"stage"},
        check_vma=False,
    )(tree)  # fmt: skip


def _slots(count: int, array: jax.Array) -> jax.Array:
    """Arrays [S, ...] in all slots, [S, R, ...]."""
    split = jax.typeof(array).sharding.spec.partitions
    return jax.lax.broadcast_in_dim(
        array,
        (array.shape[0], count, *array.shape[1:]),
        (0, *range(2, array.ndim + 1)),
        out_sharding=jax.P(split[0], None, *split[1:]),
    )


def _slot(number: jax.Array, slots: jax.Array) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(slots, number, 1, keepdims=False)


def _with_slot(number: jax.Array, slots: jax.Array, array: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(slots, array, number, 1)


def _slot_of_each(ring: Any, slot_S: jax.Array) -> Any:
    """[S, ...] of [S, R, ...], from another slot at each stage."""

    def one(ring: Any, slot_1: jax.Array) -> Any:
        return jax.tree.map(partial(_slot, slot_1[0]), ring)

    return jax.shard_map(
        one, in_specs=jax.P("stage"), out_specs=jax.P("stage"), axis_names={"stage"},
        check_vma=False,
    )(ring, slot_S)  # fmt: skip


def _of_stage(number_S: jax.Array, stage: int, tree: Any) -> Any:
    """What one stage has, for all of them."""
    nothing = jax.tree.map(jnp.zeros_like, tree)
    return jax.tree.map(
        lambda a: jnp.sum(a, axis=0, dtype=a.dtype), _where(number_S == stage, tree, nothing)
    )


def _where(these_S: jax.Array, tree: Any, other: Any) -> Any:
    def one(a: jax.Array, b: jax.Array) -> jax.Array:
        # as the arrays lie, which is told to select
        these = jax.lax.broadcast_in_dim(
            these_S, a.shape, (0,), out_sharding=jax.P(*jax.typeof(a).sharding.spec.partitions)
        )
        return jax.lax.select(these, a, b)

    return jax.tree.map(one, tree, other)
