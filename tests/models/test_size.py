"""Counts of parameters, FLOPs and cache against hand counts and against the compiler's."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.config import Config
from jaxlm.config.model import Model
from jaxlm.config.position import Learned, RelativeBias
from jaxlm.evaluation.decoding import Job, Rows, decode
from jaxlm.evaluation.sampling import Request
from jaxlm.models import Transformer
from jaxlm.models.size import (
    cache_bytes,
    describe,
    flops_per_token,
    parameter_count,
    size,
    summary_lines,
)
from jaxlm.objectives import Batch
from jaxlm.parallel import make_mesh, spec
from jaxlm.training.loss import DTYPES, loss_sum
from tests.models.small import config_of

GATED = ("swiglu", "geglu", "geglu_tanh")


def matrices_of_attention(model: Model) -> int:
    queries, keys = model.heads * model.head_width, model.kv_head_count * model.head_width
    return model.d_model * (2 * queries + 2 * keys)


def matrices_of_mlp(model: Model) -> int:
    return (3 if model.mlp in GATED else 2) * model.d_model * model.d_mlp


def by_hand(model: Model, vocab: int) -> int:
    """Parameters, from the papers' definitions of the parts."""
    D, H, F = model.d_model, model.head_width, model.d_mlp
    queries, keys = model.heads * H, model.kv_head_count * H
    norm = D * (2 if model.norm_bias else 1)
    attention = matrices_of_attention(model) + model.qkv_bias * (queries + 2 * keys)
    attention += model.out_bias * D + model.qk_norm * 2 * H
    attention += model.attention.sink_logits * model.heads
    ups = 2 if model.mlp in GATED else 1
    mlp = matrices_of_mlp(model) + model.mlp_bias * (ups * F + D)
    around = norm * (2 if model.norm_placement == "sandwich" else 1)  # norms of one sub-layer
    block = attention + mlp + 2 * around - norm * (model.residual == "parallel_one_norm")
    stack = norm * (model.norm_placement != "post")
    if isinstance(model.position, RelativeBias):
        stack += model.position.buckets * model.heads
    total = stack + model.layers * block
    if model.kind == "encoder_decoder":
        layers = model.decoder_layers or model.layers
        total += stack + layers * (block + attention + around)
    total += vocab * D * (1 if model.tied else 2) + vocab * model.head_bias
    total += model.head_transform * (D * D + D + norm)
    total += D * model.token_types + norm * model.embedding_norm
    if isinstance(model.position, Learned):
        total += D * model.position.length
    if model.ngram_embedding:
        total += len(model.ngram_embedding.orders) * model.ngram_embedding.buckets * D
    return total


FLAGS = ("norm_bias", "qk_norm", "qkv_bias", "out_bias", "mlp_bias", "tied", "head_bias",
         "head_transform", "embedding_norm")  # fmt: skip
POSITIONS = (
    {"kind": "rope", "fraction": 0.5}, {"kind": "xpos"}, {"kind": "learned", "length": 24},
    {"kind": "sinusoidal"}, {"kind": "none"}, {"kind": "alibi"},
    {"kind": "relative_bias", "buckets": 8, "max_distance": 16},
)  # fmt: skip


@st.composite
def models(draw: st.DrawFn) -> dict[str, Any]:
    kv_heads = draw(st.sampled_from([1, 2, 3]))
    model: dict[str, Any] = {name: draw(st.booleans()) for name in FLAGS}
    return model | {
        "kind": draw(st.sampled_from(["decoder", "prefix_decoder", "encoder_decoder", "encoder"])),
        "layers": draw(st.integers(1, 3)),
        "decoder_layers": draw(st.none() | st.integers(1, 3)),
        "d_model": draw(st.sampled_from([12, 24])),
        "heads": kv_heads * draw(st.sampled_from([1, 2])),
        "kv_heads": kv_heads,
        "head_dim": draw(st.sampled_from([4, 8])),
        "d_mlp": draw(st.sampled_from([8, 20])),
        "mlp": draw(st.sampled_from([*GATED, "gelu", "relu2"])),
        "norm": draw(st.sampled_from(["rms", "layer"])),
        "norm_placement": draw(st.sampled_from(["pre", "post", "sandwich"])),
        "residual": draw(st.sampled_from(["sequential", "parallel", "parallel_one_norm"])),
        "token_types": draw(st.sampled_from([0, 2])),
        "ngram_embedding": draw(st.none() | st.just({"orders": (2, 4), "buckets": 6})),
        "position": draw(st.sampled_from(POSITIONS)),
        "attention": {"sink_logits": draw(st.booleans())},
        "vocab_size": draw(st.sampled_from([30, 64])),
    }


@settings(max_examples=60)
@given(models())
def test_the_built_model_has_the_parameters_of_its_parts(model: dict[str, Any]) -> None:
    if model["kind"] != "encoder_decoder":
        model = model | {"decoder_layers": None}
    if model["norm"] == "rms":
        model = model | {"norm_bias": False}
    if model["norm_placement"] != "pre" or model["kind"] == "encoder_decoder":
        model = model | {"residual": "sequential"}
    config = config_of(model)
    assert parameter_count(config) == by_hand(config.model, config.vocab_size)


def products_by_hand(config: Config, target_len: int) -> int:
    """Multiplications of one sequence's forward pass with weights."""
    model, S = config.model, config.data.seq_len
    block = matrices_of_attention(model) + matrices_of_mlp(model)
    head = config.vocab_size * model.d_model + model.head_transform * model.d_model**2
    if model.kind != "encoder_decoder":
        return S * (model.layers * block + head)
    keys = 2 * model.d_model * model.kv_head_count * model.head_width
    crossing = S * keys + target_len * (matrices_of_attention(model) - keys)
    layers = model.decoder_layers or model.layers
    return S * model.layers * block + layers * crossing + target_len * (layers * block + head)


@pytest.mark.parametrize(
    ("model", "whole", "causal"),
    [
        # pairs of a query and a key, in rows of 16 tokens and 2 layers
        ({}, 2 * 16 * 16, 2 * 16 * 17 // 2),
        ({"kind": "prefix_decoder", "mlp": "gelu"}, 2 * 16 * 16, 2 * 16 * 17 // 2),
        ({"kind": "encoder", "head_transform": True}, 2 * 16 * 16, 2 * 16 * 16),
        # 1 + 2 + 3 + 4, and then 4 each
        ({"attention": {"window": 4}}, 2 * 16 * 4, 2 * (10 + 12 * 4)),
        ({"attention": {"window": 4, "sinks": {"tokens": 2}}}, 2 * 16 * 6, 2 * (21 + 10 * 6)),
        ({"attention": {"window": 4, "global_every": 2}}, 16 * (4 + 16), 10 + 12 * 4 + 136),
        # the encoder's, the decoder's over 5 tokens, and what the decoder sees of the encoder
        (
            {"kind": "encoder_decoder", "decoder_layers": 3},
            2 * 256 + 3 * 25 + 3 * 80,
            2 * 256 + 3 * 15 + 3 * 80,
        ),
    ],
)
def test_flops_are_those_of_the_products(model: dict[str, Any], whole: int, causal: int) -> None:
    # 17 tokens: one span of round(17 * 0.15) = 3, and targets of its sentinel, the 3 and EOS
    spans = {"objective": {"kind": "span_corruption"}}
    config = config_of(model, **(spans if model.get("kind") == "encoder_decoder" else {}))
    # 2 operations each; scores and averages; once forward and twice backward
    products, width = products_by_hand(config, 5), config.model.heads * config.model.head_width
    for is_causal, pairs in ((False, whole), (True, causal)):
        found = flops_per_token(config, is_causal)
        assert found * 16 == pytest.approx(6 * products + 3 * 2 * 2 * width * pairs, rel=1e-12)


@pytest.mark.parametrize(
    "model",
    [
        {"tied": True},
        {"kind": "encoder", "mlp": "gelu", "head_transform": True, "norm_placement": "post"},
        {"kind": "encoder_decoder", "decoder_layers": 1, "position": {"kind": "relative_bias"}},
    ],
    ids=lambda model: str(model.get("kind", "decoder")),
)
def test_flops_are_what_the_compiler_counts(model: dict[str, Any]) -> None:
    big = {"d_model": 128, "heads": 2, "kv_heads": 1, "d_mlp": 512, "vocab_size": 1024}
    train = {"batch_size": 2, "remat": "none", "unroll_layers": True, "loss_chunk": 1 << 20}
    both = model.get("kind") == "encoder_decoder"
    sections = {"objective": {"kind": "span_corruption"}} if both else {}
    config = config_of(big | model, train, data={"seq_len": 64}, **sections)
    T = 14 if both else 64  # 3 sentinels, 10 tokens of 70, EOS
    with jax.set_mesh(make_mesh(config, jax.devices()[:1])):
        rows = spec("batch", None)
        ids, longer = (
            jax.ShapeDtypeStruct((2, n), jnp.int32, sharding=jax.NamedSharding(mesh, rows))
            for mesh in [jax.sharding.get_mesh()]
            for n in (T, 64)
        )
        weights = ids.update(dtype=jnp.float32)
        batch = Batch(ids, ids, weights, ids, ids)
        if both:
            batch = batch._replace(
                encoder_tokens_BS=longer, encoder_segments_BS=longer, encoder_positions_BS=longer
            )
        build = partial(Transformer, config.model, config.vocab_size)
        params = jax.eval_shape(build, jax.random.key(0))
        loss = jax.value_and_grad(partial(loss_sum, config))
        cost = jax.jit(loss).lower(params, batch, None).compile().cost_analysis()
    assert cost is not None
    # the compiler also counts norms, softmax and the like
    expected = flops_per_token(config, causal=False) * 2 * 64
    assert expected <= cost["flops"] < 1.06 * expected


@pytest.mark.parametrize(
    ("model", "slots", "precision"),
    [
        ({"kind": "prefix_decoder", "kv_heads": 4}, 2 * 2 * 50, "fp32"),
        ({"attention": {"window": 4}}, 2 * 4, "bf16"),
        ({"attention": {"window": 4, "sinks": {"tokens": 2}}}, 2 * 6, "fp32"),
        ({"attention": {"window": 4, "global_every": 2}}, 4 + 50, "fp32"),
        ({"attention": {"window": 60}}, 2 * 50, "fp32"),
        # and the 16 tokens of the encoder
        ({"kind": "encoder_decoder", "decoder_layers": 3}, 3 * (50 + 16), "bf16"),
    ],
    ids=str,
)
def test_cache_bytes_are_what_generation_carries(
    model: dict[str, Any], slots: int, precision: str
) -> None:
    config = config_of(model, {"precision": precision})
    # keys and values, 2 heads of 8
    expected = slots * 2 * 2 * 8 * (4 if precision == "fp32" else 2)
    assert cache_bytes(config, 50) == expected
    prompt = 16
    # 50 tokens in all; a decoder beside an encoder begins with BOS instead
    new = 50 - (1 if config.model.kind == "encoder_decoder" else prompt)
    with jax.set_mesh(make_mesh(config, jax.devices()[:1])):
        mesh = jax.sharding.get_mesh()

        def rows(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
            line = jax.NamedSharding(mesh, spec("batch", *(None,) * (len(shape) - 1)))
            return jax.ShapeDtypeStruct(shape, dtype, sharding=line)

        job = Job(config.model, DTYPES[precision], Request(max_tokens=new), 0, 1, 50, prompt)
        prompts = Rows(rows(jnp.int32, 3, prompt), rows(jnp.int32, 3))  # type: ignore[arg-type]
        keys_B = rows(jax.random.key(0).dtype, 3)
        build = partial(Transformer, config.model, config.vocab_size)
        params = jax.eval_shape(build, jax.random.key(0))
        program = jax.make_jaxpr(decode, static_argnums=0)(job, params, prompts, keys_B)
    (whole,) = program.jaxpr.eqns  # of jit
    (loop,) = (step for step in whole.params["jaxpr"].jaxpr.eqns if step.primitive.name == "while")
    caches = [variable.aval for variable in loop.invars if variable.aval.ndim == 4]
    assert sum(cache.size * cache.dtype.itemsize for cache in caches) == 3 * expected


def test_an_encoder_keeps_nothing() -> None:
    assert cache_bytes(config_of({"kind": "encoder"}), 100) == 0


def test_the_summary_adds_up() -> None:
    config = config_of({"kind": "encoder_decoder", "position": {"kind": "relative_bias"}})
    lines = summary_lines(config)
    *arrays, total, flops, causal, token, row = lines[1:]
    assert len({len(line) for line in lines}) == 1
    assert sum(int(line.split()[-1]) for line in arrays) == int(total.split()[-1])
    figures = size(config)
    for line, figure in zip((total, flops, causal, token, row), figures, strict=True):
        assert int(line.split()[-1]) == round(figure)


def test_a_run_begins_with_what_it_is() -> None:
    first, second = describe(config_of({"kind": "encoder_decoder", "decoder_layers": 3}))
    assert first.startswith("encoder_decoder: 2 + 3 layers of width 32, 4 heads (2 of keys) of 8")
    config = config_of({"kind": "encoder_decoder", "decoder_layers": 3})
    assert second.startswith(f"{parameter_count(config)} parameters, ")
