"""Layers on pipeline stages give what they give in one place."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import Config
from jaxlm.config.checks import indivisible
from jaxlm.config.kernels import REFUSALS
from jaxlm.config.train import AXES
from jaxlm.evaluation.perplexity import sum_of_nats
from jaxlm.models import attention
from jaxlm.models.fused_attention import cudnn, splash
from jaxlm.parallel import make_mesh
from jaxlm.training.batches import shapes
from jaxlm.training.state import State, make_state, optimizer_of, shapes_of_state
from jaxlm.training.step import make_step
from tests.models.small import config_of, host_batch, make_params, on_mesh
from tests.parallel.test_context import one_step
from tests.parallel.test_step import PLAIN, Result, check

LAYERS = {"layers": 4}


@pytest.fixture(scope="module")
def alone() -> Result:
    return one_step({}, 4, LAYERS)


@pytest.mark.parametrize(
    "mesh",
    [
        {"stage": 4},
        {"stage": 2, "fsdp": 2, "tensor": 2},
        {"stage": 2, "data": 2, "tensor": 2, "zero": 1},
        {"stage": 2, "context": 2, "tensor": 2},
        {"stage": 2, "schedule": "gpipe"},
        {"stage": 2, "data": 2, "context": 2, "schedule": "gpipe"},
        {"stage": 4, "fsdp": 2, "schedule": "gpipe"},
        {"stage": 2, "fsdp": 2, "tensor": 2, "schedule": "interleaved", "interleave": 2},
    ],
)
def test_gradients_do_not_depend_on_stages(mesh: dict[str, Any], alone: Result) -> None:
    check(one_step(mesh, 4, LAYERS, remat="full"), alone)


@pytest.mark.parametrize(
    ("mesh", "layers"),
    [
        ({"stage": 4, "interleave": 2}, 8),  # no microbatch waits for its next turn
        ({"stage": 2, "interleave": 3}, 6),  # turns that are no multiple of the stages
    ],
)
def test_microbatches_go_around_several_times(mesh: dict[str, Any], layers: int) -> None:
    found = one_step(mesh | {"schedule": "interleaved"}, 4, {"layers": layers})
    check(found, one_step({}, 4, {"layers": layers}))


TWO_STACKS = {"kind": "encoder_decoder", "position": {"kind": "relative_bias"}}


@pytest.mark.parametrize(
    ("model", "mesh"),
    [
        (TWO_STACKS, {"schedule": "gpipe", "fsdp": 2, "tensor": 2}),
        (TWO_STACKS, {"schedule": "gpipe", "data": 2, "context": 2}),
        (
            TWO_STACKS | {"layers": 4, "decoder_layers": 8},
            {"schedule": "interleaved", "interleave": 2},
        ),
        (
            {"kind": "encoder", "norm_placement": "post", "head_transform": True, "tied": True},
            {"tensor": 2},
        ),
        ({"position": {"kind": "relative_bias"}, "head_bias": True}, {"fsdp": 2}),
        ({"layers": 4, "attention": {"window": 6, "global_every": 2}}, {}),
        # numbers that every part of a row has a gradient for
        ({"attention": {"sink_logits": True}}, {"context": 2, "tensor": 2}),
        ({"kind": "prefix_decoder"}, {"tensor": 2}),
    ],
    ids=str,
)
def test_every_architecture_lies_on_stages(model: dict[str, Any], mesh: dict[str, Any]) -> None:
    check(one_step({"stage": 2} | mesh, 4, model), one_step({}, 4, model))


@pytest.mark.parametrize(
    ("kernel", "mesh"), [("splash", {"context": 2, "schedule": "gpipe"}), ("cudnn", {"tensor": 2})]
)
def test_fused_kernels_run_on_stages(
    kernel: str, mesh: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"heads": 2, "attention": {"window": 150}}
    whole = one_step({}, 2, model, 256)
    run = {
        "splash": partial(splash, interpret=True),
        "cudnn": partial(cudnn, implementation="xla"),
    }[kernel]
    monkeypatch.setattr(attention, "KERNELS", (attention.Kernel("here", (), run),))
    monkeypatch.setitem(REFUSALS, "here", lambda call: None)
    check(one_step({"stage": 2} | mesh, 2, model, 256), whole)


def test_dropout_draws_the_same_on_stages() -> None:
    found = []
    meshes: list[dict[str, Any]] = [{}, {"stage": 2}, {"stage": 2, "schedule": "gpipe"}]
    for mesh in meshes:
        train = {"microbatch_size": 2}
        config = config_of({"layers": 4, "dropout": 0.2}, train, mesh={"data": 1} | mesh)
        with jax.set_mesh(make_mesh(config, jax.devices()[: config.mesh.stage])):
            params = make_params(config)
            state = State(params, PLAIN.init(params))
            _, figures = make_step(config, PLAIN)(
                state, on_mesh(host_batch(config), 4), jax.random.key(3)
            )
            found.append((float(figures["loss"]), float(figures["grad_norm"])))
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=1e-5)


SCHEDULES: list[dict[str, Any]] = [
    {},
    {"schedule": "gpipe"},
    {"schedule": "interleaved", "interleave": 2},
]


@pytest.mark.parametrize("mesh", SCHEDULES, ids=str)
def test_stages_that_have_nothing_to_do_do_no_harm(mesh: dict[str, Any]) -> None:
    # nothing divided by such a norm is infinite
    model = LAYERS | {"norm_eps": 1e-30}
    check(one_step({"stage": 2} | mesh, 4, model), one_step({}, 4, model))


@pytest.mark.parametrize("mesh", SCHEDULES, ids=str)
def test_no_microbatch_goes_through_the_layers_twice(mesh: dict[str, Any]) -> None:
    # the second time it would leave the range of fp16
    model, train = LAYERS | {"mlp_bias": True}, {"microbatch_size": 2, "precision": "fp16"}
    config = config_of(model, train, mesh={"data": 1, "stage": 2} | mesh)

    def large(path: Any, array: jax.Array) -> jax.Array:
        return jnp.full_like(array, 14000) if "down_bias" in jax.tree_util.keystr(path) else array

    with jax.set_mesh(make_mesh(config, jax.devices()[:2])):
        params = jax.tree_util.tree_map_with_path(large, make_params(config))
        state = make_state(config, params)
        state = state._replace(optimizer=state.optimizer._replace(scale=jnp.float32(1024)))
        step = make_step(config, optimizer_of(config, state.params))
        _, figures = step(state, on_mesh(host_batch(config), 4))
    assert float(figures["skipped_steps"]) == 0


def test_a_batch_is_scored_on_stages() -> None:
    found = []
    meshes: list[dict[str, Any]] = [{}, {"stage": 4, "schedule": "interleaved", "interleave": 2}]
    for mesh in meshes:
        config = config_of({"layers": 8}, {"microbatch_size": 2}, mesh={"data": 1} | mesh)
        with jax.set_mesh(make_mesh(config, jax.devices()[: config.mesh.stage])):
            params, batch = make_params(config), on_mesh(host_batch(config), 1)
            found.append(float(sum_of_nats(config, params, batch)))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


def temporaries(schedule: str, microbatches: int) -> int:
    """Bytes of a device for a step of so many microbatches, state and batch left out."""
    config = config_of(
        LAYERS,
        {"batch_size": 8 * microbatches, "microbatch_size": 8, "remat": "full"},
        mesh={"data": 1, "stage": 4, "schedule": schedule},
        data={"seq_len": 64},
    )
    with jax.set_mesh(make_mesh(config, jax.devices()[:4])):
        state = shapes_of_state(config)
        step: Any = make_step(config, PLAIN)
        state = state._replace(optimizer=PLAIN.init(state.params))
        return step.lower(state, shapes(config)).compile().memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_microbatches_but_for_gpipe() -> None:
    few, many = (temporaries("1f1b", M) for M in (8, 32))
    assert many < 1.02 * few
    few, many = (temporaries("gpipe", M) for M in (8, 32))
    assert many > 2 * few


@pytest.mark.parametrize(
    ("model", "train", "mesh", "message"),
    [
        ({"layers": 6}, {"microbatch_size": 1}, {"stage": 4}, "model.layers: 6 is not a multiple"),
        (
            {"layers": 4}, {}, {"stage": 4},
            "train.microbatch_size: 4 stages need as many microbatches a step, not 1; give 2 or",
        ),
        ({"layers": 4}, {}, {"stage": 2, "fsdp": 8}, "make train.batch_size a multiple of 16"),
        (TWO_STACKS, {"microbatch_size": 4}, {"stage": 2}, "mesh.schedule: 1f1b is for models of"),
        ({}, {"microbatch_size": 4}, {"stage": 2, "interleave": 2}, "mesh.interleave: 2 with"),
        ({}, {"microbatch_size": 4}, {"stage": 2, "schedule": "interleaved"}, "mesh.interleave: 1"),
        (
            {"vocab_size": 66}, {"microbatch_size": 2}, {"stage": 2, "tensor": 2},
            "model.vocab_size: 66 is not a multiple of mesh.stage x mesh.tensor = 4",
        ),
        (
            {"layers": 6, "attention": {"window": 4, "global_every": 2}}, {"microbatch_size": 2},
            {"stage": 2}, "x model.attention.global_every = 4",
        ),
    ],
)  # fmt: skip
def test_what_no_pipeline_runs_is_said(
    model: dict[str, Any], train: dict[str, Any], mesh: dict[str, Any], message: str
) -> None:
    config: Config = config_of()
    sizes = dict.fromkeys(AXES, 1) | {k: v for k, v in mesh.items() if k in AXES}
    data = config.model_dump()
    data["model"] |= model
    data["train"] |= train
    data["mesh"] |= mesh
    found = [text for _, text in indivisible(Config.model_validate(data), sizes)]
    assert any(message in text for text in found), found
