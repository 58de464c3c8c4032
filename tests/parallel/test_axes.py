"""The table from names of axes to the mesh."""

import jax
import pytest

from jaxlm.errors import UserError
from jaxlm.parallel import make_mesh, sharding_of, spec
from tests.models.small import config_of, make_params


def test_names_become_mesh_axes() -> None:
    assert spec("batch", None, "heads") == jax.P(("context", "data", "fsdp"), None, "tensor")
    assert spec("layers", "embed", "mlp") == jax.P("stage", ("fsdp", "context"), "tensor")


@pytest.mark.parametrize("names", [("batch", "embed"), ("heads", "mlp"), ("vocab", None, "vocab")])
def test_a_mesh_axis_splits_an_array_once(names: tuple[str | None, ...]) -> None:
    with pytest.raises(ValueError, match="use a mesh axis twice"):
        spec(*names)


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        spec("head")


def test_parameters_lie_where_the_table_says() -> None:
    config = config_of(mesh={"data": 2, "fsdp": 2, "tensor": 2})
    with jax.set_mesh(make_mesh(config)):
        params = make_params(config)
        shardings = sharding_of(params, jax.sharding.get_mesh())
    blocks = params.decoder.blocks
    up, out = (w.get_value() for w in (blocks.mlp.up, blocks.attention.out))
    assert jax.typeof(up).sharding.spec == jax.P(None, ("fsdp", "context"), "tensor")
    assert up.addressable_shards[0].data.shape == (2, 16, 32)
    assert jax.typeof(out).sharding.spec == jax.P(None, "tensor", ("fsdp", "context"))
    assert params.embedding.get_value().addressable_shards[0].data.shape == (32, 16)
    assert params.decoder.norm.scale.get_value().sharding.is_fully_replicated
    wanted = jax.tree.leaves(shardings)
    found = [leaf.sharding for leaf in jax.tree.leaves(params)]
    assert all(f.is_equivalent_to(w, 3) for f, w in zip(found, wanted, strict=True))


def test_the_mesh_takes_what_is_left() -> None:
    mesh = make_mesh(config_of(mesh={"data": -1, "fsdp": 2, "tensor": 2}))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "stage": 1, "tensor": 2, "context": 1}


@pytest.mark.parametrize(
    ("sizes", "devices", "messages"),
    [
        ({"data": 3}, 8, ["mesh: data 3 x fsdp 1 x stage 1 x tensor 1 x context 1 does not"]),
        ({"data": -1, "fsdp": 16}, 8, ["does not multiply to the 8 devices"]),
        (
            {"data": 1, "tensor": 8},
            8,
            ["model.heads: 4 is not a multiple", "model.kv_heads: 2 is not a multiple"],
        ),
        ({"data": -1}, 3, ["train.batch_size: 8 is not a multiple of mesh.data x mesh.fsdp = 3"]),
    ],
)
def test_what_does_not_fit_is_said(
    sizes: dict[str, int], devices: int, messages: list[str]
) -> None:
    with pytest.raises(UserError) as refused:
        make_mesh(config_of(mesh=sizes), jax.devices()[:devices])
    assert len(refused.value.messages) == len(messages)
    for found, wanted in zip(refused.value.messages, messages, strict=True):
        assert wanted in found


def test_tables_of_ngrams_are_split_like_the_vocabulary() -> None:
    model = {"ngram_embedding": {"orders": (2,), "buckets": 15}}
    with pytest.raises(UserError, match=r"buckets: 15 is not a multiple of mesh\.st"):
        make_mesh(config_of(model, mesh={"data": 1, "tensor": 2}), jax.devices()[:2])
