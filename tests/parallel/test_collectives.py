"""What devices send in a compiled step: gradients once, layers gathered once a pass."""

from collections import Counter
from typing import Any

import jax
import pytest

from jaxlm.parallel import make_mesh
from jaxlm.planning.hlo import bytes_of, parse, runs
from jaxlm.training.state import make_state, optimizer_of
from jaxlm.training.step import make_step
from tests.models.small import config_of, host_batch, on_mesh

LAYERS = 2
LAYER = 32 * (32 + 16 + 16 + 32) + 3 * 32 * 64
TABLE = 64 * 32
NORMS = (2 * LAYERS + 1) * 32
FLOAT = 4
FEW = 64
"""Bytes of what is no array: losses, norms of gradients."""


def sent(mesh: dict[str, int], microbatches: int, **train: Any) -> dict[str, tuple[int, int]]:
    """Arrays and bytes of each kind of collective of a step, as often as they run; CPUs have no
    reduce-scatter, and do an all-reduce instead."""
    config = config_of(train={"remat": "full"} | train, mesh={"data": 1} | mesh)
    sizes = config.mesh
    devices = jax.devices()[: sizes.data * sizes.fsdp * sizes.tensor]
    with jax.set_mesh(make_mesh(config, devices)):
        state = make_state(config)
        step: Any = make_step(config, optimizer_of(config, state.params))
        text = step.lower(state, on_mesh(host_batch(config), microbatches)).compile().as_text()
    module = parse(text)
    how_often = runs(module)
    arrays: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for name, instructions in module.computations.items():
        for instruction in instructions.values():
            if instruction.opcode not in ("all-reduce", "all-gather", "all-to-all"):
                assert not instruction.opcode.startswith(("collective", "reduce-scatter"))
                continue
            for part in instruction.type.strip("()").split(", "):
                if bytes_of(part) > FEW:
                    arrays[instruction.opcode] += how_often.times[name]
                    size[instruction.opcode] += how_often.times[name] * bytes_of(part)
    return {kind: (arrays[kind], size[kind]) for kind in arrays}


@pytest.mark.parametrize("mesh", [{"data": 2}, {"fsdp": 2, "zero": 0}])
def test_gradients_are_added_up_once_a_step(mesh: dict[str, int]) -> None:
    once = (12, FLOAT * (LAYERS * LAYER + 2 * TABLE + NORMS))
    for microbatches in (1, 4):
        assert sent(mesh, microbatches) == {"all-reduce": once}


@pytest.mark.parametrize("zero", [1, 2])
def test_parameters_are_gathered_behind_the_update(zero: int) -> None:
    whole = FLOAT * (LAYERS * LAYER + 2 * TABLE)
    found = sent({"fsdp": 2, "zero": zero}, 2)
    assert found == {"all-reduce": (12, whole + FLOAT * NORMS), "all-gather": (9, whole)}


def test_a_layer_is_gathered_once_a_pass_and_its_gradients_scattered_once() -> None:
    found = sent({"data": 2, "fsdp": 2}, 2)
    layers = 2 * LAYERS * 7  # matrices of all layers, for both microbatches
    # and the head; of the embedding no table but ids of tokens, and the rows that are exchanged
    ids, rows = FLOAT * 8 * 16 // 2, 2 * FLOAT * (8 * 16 // 2) * 32 // 2
    gathered = FLOAT * (2 * 2 * LAYERS * LAYER + 2 * TABLE) + ids
    assert found["all-gather"] == (2 * layers + 2 + 2, gathered)
    assert found["all-to-all"][1] == rows
    # over fsdp for each microbatch; over data once a step, and a shard
    scattered = FLOAT * 2 * (LAYERS * LAYER + TABLE)
    once = FLOAT * (LAYERS * LAYER // 2 + TABLE + NORMS)
    assert found["all-reduce"] == (layers + 2 + 9 + 3, scattered + once)


def test_tokens_are_gathered_before_split_products_and_scattered_behind() -> None:
    found = sent({"tensor": 2}, 1)
    stream = FLOAT * 8 * 16 * 32
    # to attention, MLP and head; again when a layer is recomputed; gradients of the outputs of the
    # two and of the embedding
    assert found["all-gather"] == (
        2 * LAYERS + 1 + 2 * LAYERS + 2 * LAYERS + 1,
        (6 * LAYERS + 2) * stream,
    )
    # behind the embedding and both parts, and the first of them recomputed; gradients of the inputs
    # of both and of the head
    reductions = 1 + 2 * LAYERS + LAYERS + 2 * LAYERS + 1
    several = found["all-reduce"][1] - reductions * stream - FLOAT * NORMS
    # the rest are numbers a token of the loss
    assert 0 < several <= 3 * FLOAT * 8 * 16
