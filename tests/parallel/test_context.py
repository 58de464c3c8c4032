"""Rows that are cut over the context axis give what whole rows give."""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from jaxlm.config.train import AXES
from jaxlm.evaluation import Request
from jaxlm.evaluation.generate import continued
from jaxlm.parallel import make_mesh, spec
from jaxlm.parallel.context import cut, order, places, whole_rows
from jaxlm.training.state import State
from jaxlm.training.step import make_step
from jaxlm.workdir import Workdir
from tests.models.small import config_of, host_batch, make_params, on_mesh
from tests.parallel.test_step import PLAIN, Result, check, host
from tests.training.runs import config_of as config_of_run
from tests.training.runs import make_tokens, records, train_here, write_text


def one_step(
    mesh: dict[str, int],
    microbatches: int,
    model: dict[str, Any],
    seq_len: int = 32,
    remat: str = "dots",
) -> Result:
    """Clipped gradients of a batch, its loss and the norm before clipping."""
    sizes = {"data": 1} | mesh
    train = {"remat": remat, "microbatch_size": 8 // microbatches}
    config = config_of(model, train, mesh=sizes, data={"seq_len": seq_len})
    devices = jax.devices()[: int(np.prod([size for axis, size in sizes.items() if axis in AXES]))]
    with jax.set_mesh(make_mesh(config, devices)):
        params = make_params(config)
        before = host(params)
        state = State(params, PLAIN.init(params))
        batch = host_batch(config)
        if config.model.kind == "prefix_decoder":
            prefix = (batch.positions_BT < 5) & (batch.segments_BT > 0)
            batch = batch._replace(prefix_BT=prefix.astype(np.int32))
        state, figures = make_step(config, PLAIN)(state, on_mesh(batch, microbatches))
        after = host(state.params)
    gradients = [b - a for b, a in zip(before, after, strict=True)]
    return gradients, float(figures["loss"]), float(figures["grad_norm"])


@pytest.fixture(scope="module")
def alone() -> Result:
    return one_step({}, 1, {})


@pytest.mark.parametrize(
    ("mesh", "microbatches"),
    [
        ({"context": 2}, 1),
        ({"context": 4}, 2),
        ({"context": 2, "data": 2, "fsdp": 2}, 2),
        ({"context": 2, "fsdp": 2, "tensor": 2}, 1),
        ({"context": 4, "tensor": 2}, 4),
    ],
)
def test_gradients_do_not_depend_on_how_rows_are_cut(
    mesh: dict[str, int], microbatches: int, alone: Result
) -> None:
    check(one_step(mesh, microbatches, {}), alone)


KINDS: list[dict[str, Any]] = [
    {"kind": "encoder_decoder", "position": {"kind": "relative_bias"}, "decoder_layers": 1},
    {"kind": "encoder", "position": {"kind": "learned", "length": 32}},
    {"kind": "prefix_decoder", "attention": {"sink_logits": True, "softcap": 5.0}},
    {"attention": {"window": 6, "sinks": {"tokens": 2}, "global_every": 2}},
    {"position": {"kind": "alibi"}},
    {"position": {"kind": "rope", "truncation": {"window": 5, "leak": 4.0, "log_length": 8}}},
    {"position": {"kind": "rope", "scaling": {
        "kind": "dynamic_ntk", "factor": 2.0, "original_length": 16}}},
    {"position": {"kind": "xpos"}},
]  # fmt: skip


@pytest.mark.parametrize("model", KINDS, ids=str)
def test_every_way_to_attend_works_on_parts(model: dict[str, Any]) -> None:
    mesh = {"context": 4} if model.get("kind") == "encoder" else {"context": 2, "tensor": 2}
    check(one_step(mesh, 1, model), one_step({}, 1, model))


@given(
    count=some.sampled_from([1, 2, 3, 4, 8]),
    chunk=some.integers(1, 5),
    before=some.sampled_from([(), (3,)]),
    rows=some.integers(1, 4),
)
def test_a_part_is_two_chunks_that_lie_opposite(
    count: int, chunk: int, before: tuple[int, ...], rows: int
) -> None:
    T = 2 * count * chunk
    whole = np.arange(int(np.prod(before)) * rows * T).reshape(*before, rows, T)
    found = cut(whole, count)
    assert found.shape == (*before, count * rows, T // count)
    for part in range(count):
        first = part * chunk
        second = T - first - chunk
        its = found[..., part * rows : (part + 1) * rows, :]
        np.testing.assert_array_equal(its[..., :chunk], whole[..., first : first + chunk])
        np.testing.assert_array_equal(its[..., chunk:], whole[..., second : second + chunk])
    queries, keys = order(T, count)[:, None], np.arange(T)
    seen = (queries >= keys).reshape(count, -1).sum(axis=1)
    assert (seen == seen[0]).all(), "all parts have the same work"


def test_devices_know_their_places_and_find_whole_rows() -> None:
    config = config_of(mesh={"data": 2, "context": 4}, data={"seq_len": 24})
    rows = np.arange(8 * 24, dtype=np.int32).reshape(8, 24)
    with jax.set_mesh(make_mesh(config)):
        parts = jax.reshard(cut(rows, 4), spec("batch", None))
        np.testing.assert_array_equal(places(parts), cut(rows % 24, 4))
        split = spec("batch", None)
        run = jax.shard_map(whole_rows, in_specs=split, out_specs=split, check_vma=False)
        found = np.asarray(run(parts)).reshape(4, 8, 24)
    for device in found:
        np.testing.assert_array_equal(device, rows)


def test_a_run_sees_the_same_examples_and_is_scored_alike(tmp_path: Path) -> None:
    write_text(tmp_path)
    make_tokens(config_of_run(tmp_path))
    ends = []
    for mesh in ({"data": 8}, {"data": 2, "context": 2, "tensor": 2}):
        config = config_of_run(
            tmp_path, mesh=mesh, train={"steps": 3, "batch_size": 8}, eval={"every": 3}
        )
        train_here(config)
        ends.append([
            (record["loss"], *record.get("validation", {}).values())
            for record in records(config)
        ])  # fmt: skip
        shutil.rmtree(Workdir(config.workdir).checkpoints)
        Workdir(config.workdir).metrics.unlink()
    assert len(ends[0][2]) == 4, "a loss, and scores of two sources and of all"
    np.testing.assert_allclose(np.concatenate(ends[1]), np.concatenate(ends[0]), rtol=1e-5)


def test_whole_rows_use_the_context_axis_as_one_of_data() -> None:
    prompts = [[3], [*range(7, 28)], [20, 21, 22, 23]]
    request, fp32 = Request(max_tokens=9, temperature=0.0), np.dtype(np.float32)
    found = []
    for mesh in ({"data": 1}, {"data": 2, "context": 2, "tensor": 2}):
        config = config_of(mesh=mesh)
        with jax.set_mesh(make_mesh(config, jax.devices()[: int(np.prod(list(mesh.values())))])):
            params = make_params(config)
            ids = continued(config.model, params, prompts, request, bos_id=0, eos_id=-1, dtype=fp32)
            found.append(ids)
    assert found[0] == found[1]
