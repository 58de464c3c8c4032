"""Combinations that cannot work are refused, all of them at once."""

from typing import Any

import pytest

from jaxlm.config import Config
from jaxlm.config.checks import impossible, indivisible
from jaxlm.config.load import validate
from jaxlm.config.train import AXES
from jaxlm.errors import UsageError

GOOD: dict[str, Any] = {"train": {"steps": 1000}}
SOURCES = [{"name": name, "path": "x"} for name in ("a", "b", "a", "a")]

BAD: list[tuple[dict[str, Any], str]] = [
    ({"train": {"steps": 1, "tokens": 1}}, "train.steps: give either train.steps or train.tokens"),
    ({"model": {"heads": 6}}, "model.heads: model.d_model 256 is not a multiple of 6 heads"),
    ({"model": {"kv_heads": 3}}, "model.kv_heads: 4 query heads cannot share 3 key heads evenly"),
    ({"model": {"head_dim": 33}}, "model.head_dim: rotary positions need an even number of"),
    ({"model": {"vocab_size": 31_999}}, "model.vocab_size: 31999 is smaller than tokenizer.vocab"),
    (
        {"tokenizer": {"vocab_size": 65_537}, "data": {"dtype": "uint16"}},
        "data.dtype: uint16 holds ids below 65536, the tokenizer has 65537",
    ),
    ({"train": {"steps": 1000, "microbatch_size": 3}}, "train.microbatch_size: train.batch_size 8"),
    (
        {"optimizer": {"schedule": {"warmup_steps": 90, "decay_steps": 80}}},
        "optimizer.schedule.warmup_steps: the decay is over at step 80, before 90 steps of warm-up",
    ),
    ({"checkpoint": {"keep_every": 1500}}, "checkpoint.keep_every: 1500 is not a multiple of"),
    ({"eval": {"every": 10}, "data": {"validation_fraction": 0}}, "eval.every: nothing is held"),
    (
        {"eval": {"generate": {"prompts": ["a"]}}, "model": {"kind": "encoder"},
         "objective": {"kind": "mlm"}},
        "eval.generate.prompts: an encoder cannot continue text",
    ),
    (
        {"eval": {"generate": {"prompts": ["a"], "max_tokens": 64}}, "data": {"seq_len": 64},
         "model": {"position": {"kind": "learned", "length": 64}}},
        "eval.generate.max_tokens: 64 and a prompt are more than the 64 places that model.position",
    ),
    (
        {"sources": [{"name": "a", "path": "x", "weight": 0}]},
        "sources.0.weight: every source has weight 0",
    ),
    ({"mesh": {"stage": 2}}, "train.microbatch_size: 2 stages need as many microbatches"),
    (
        {"mesh": {"context": 2}, "model": {"ngram_embedding": {}}},
        "mesh.context: n-grams reach over the ends of the parts",
    ),
    (
        {"mesh": {"context": 4}, "data": {"seq_len": 20}},
        "data.seq_len: 20 makes rows of 20 tokens, not a multiple of 2 x mesh.context = 8",
    ),
    (
        {
            "mesh": {"context": 2}, "data": {"seq_len": 512},
            "objective": {"kind": "span_corruption"}, "model": {"kind": "encoder_decoder"},
        },
        "data.seq_len: 512 makes rows of 114 tokens, not a multiple of 2 x mesh.context = 4",
    ),
    ({"mesh": {"fsdp": -1}}, "mesh.data: at most one mesh axis may be -1"),
    ({"mesh": {"tensor": 0}}, "mesh.tensor: an axis has at least one device"),
    ({"mesh": {"data": 3}}, "train.batch_size: 8 is not a multiple of mesh.data x mesh.fsdp = 3"),
    (
        {"train": {"steps": 1000, "microbatch_size": 2}, "mesh": {"data": 2, "fsdp": 2}},
        "train.microbatch_size: 2 is not a multiple of mesh.data x mesh.fsdp = 4",
    ),
    (
        {"eval": {"batch_size": 2}, "mesh": {"fsdp": 4}},
        "eval.batch_size: 2 is not a multiple of mesh.data x mesh.fsdp = 4",
    ),
    ({"model": {"heads": 2}, "mesh": {"tensor": 4}}, "model.heads: 2 is not a multiple of"),
    ({"model": {"kv_heads": 2}, "mesh": {"tensor": 4}}, "model.kv_heads: 2 is not a multiple of"),
    ({"model": {"d_mlp": 1022}, "mesh": {"tensor": 4}}, "model.d_mlp: 1022 is not a multiple of"),
    ({"tokenizer": {"vocab_size": 301}, "mesh": {"tensor": 2}}, "tokenizer.vocab_size: 301 is not"),
    ({"model": {"vocab_size": 32_001}, "mesh": {"tensor": 2}}, "model.vocab_size: 32001 is not a"),
    (
        {"model": {"d_model": 12, "head_dim": 8}, "mesh": {"fsdp": 8}},
        "model.d_model: 12 is not a multiple of mesh.fsdp x mesh.context = 8",
    ),
]  # fmt: skip


def position(kind: str, model: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    return {"model": {"position": {"kind": kind, **keys}, **(model or {})}}


def scaled(kind: str, model: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    return position("rope", model, scaling={"kind": kind, "original_length": 64, **keys})


TWO, TEN = [1.0] * 2, [1.0] * 10
BAD += [
    (position("learned", length=8), "data.seq_len: 1024 tokens are more than the 8 positions"),
    (position("xpos", scale_base=1.0), "data.seq_len: 1024 tokens are more than the 138 positions"),
    (position("sinusoidal", {"d_model": 33, "head_dim": 8}), "model.d_model: sines and cosines go"),
    (
        position("relative_bias", {"kind": "encoder"}, buckets=7),
        "model.position.buckets: 7 do not halve into two directions",
    ),
    (
        position("relative_bias", max_distance=16),
        "model.position.max_distance: 16 lies within the 16 buckets of one distance each",
    ),
    (
        position("relative_bias", {"kind": "encoder"}, max_distance=8),
        "model.position.max_distance: 8 lies within the 8 buckets",
    ),
    (position("xpos", {"kind": "encoder"}), "model.position.kind: xpos grows with distance for"),
    (
        position("rope", theta=1.0),
        "model.position.theta: wavelengths are its powers",
    ),
    (position("rope", fraction=0.01), "model.position.fraction: rotary positions need an even"),
    (
        position("rope", truncation={"window": 8, "log_length": 1}),
        "model.position.truncation.log_length: the logarithm of 1 is 0",
    ),
    (scaled("dynamic_ntk", {"head_dim": 2}), "model.position.scaling: dynamic_ntk changes the"),
    (scaled("yarn", beta_slow=32.0), "model.position.scaling.beta_slow: 32 is not below beta_fast"),
    (
        scaled("llama3", low_freq_factor=5.0),
        "model.position.scaling.low_freq_factor: 5 is not below high_freq_factor, 4",
    ),
    (
        scaled("longrope", {"head_dim": 4}, short_factors=TEN, long_factors=TWO),
        "model.position.scaling.short_factors: 10 factors for 2 pairs of a head",
    ),
    (
        scaled("longrope", {"head_dim": 4}, short_factors=TWO, long_factors=TWO, original_length=1),
        "model.position.scaling.original_length: the logarithm of 1 is 0",
    ),
]


def kernel(name: str, **model: Any) -> dict[str, Any]:
    attention = {"kernel": name, **model.pop("attention", {})}
    return {"model": {**model, "attention": attention}}


ALIBI, WINDOW = {"kind": "alibi"}, {"window": 64}
BAD += [
    (
        kernel("splash", position=ALIBI),
        "model.attention.kernel: splash has no biases by distance (ALiBi, T5); choose xla",
    ),
    (
        kernel("splash", attention={**WINDOW, "sinks": {"tokens": 4}}),
        "model.attention.kernel: splash scores all pairs alike, however distant; choose xla",
    ),
    (
        kernel("splash", kind="prefix_decoder", attention=WINDOW),
        "model.attention.kernel: splash has no window where there is a prefix; choose xla",
    ),
    (
        kernel("splash") | {"data": {"seq_len": 200}},
        "model.attention.kernel: splash takes sequences that are multiples of 128, not 200",
    ),
    (
        kernel("cudnn"),
        "model.attention.kernel: cudnn takes bf16 and fp16, not float32 (train.precision: bf16)",
    ),
]


@pytest.mark.parametrize(("data", "said"), BAD, ids=lambda value: str(value)[:50])
def test_refused(data: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        validate(GOOD | data)
    assert any(said in message for message in caught.value.messages)


def test_each_repeated_name_is_told_once() -> None:
    with pytest.raises(UsageError) as caught:
        validate(GOOD | {"sources": SOURCES})
    assert [message.split(":")[0] for message in caught.value.messages] == [
        "sources.2.name",
        "sources.3.name",
    ]


def test_all_at_once() -> None:
    data = {
        "train": {"steps": 10, "batch_size": 6, "microbatch_size": 4},
        "model": {"heads": 3, "vocab_size": 300},
        "mesh": {"stage": 0, "tensor": 2, "data": 1},
        "optimizer": {"schedule": {"warmup_steps": 11, "decay_steps": 10}},
    }
    with pytest.raises(UsageError) as caught:
        validate(data)
    assert [message.split(":")[0] for message in caught.value.messages] == [
        "model.vocab_size",
        "train.microbatch_size",
        "optimizer.schedule.warmup_steps",
        "mesh.stage",
        "model.heads",
        "model.head_dim",
        "model.heads",
        "model.kv_heads",
    ]


@pytest.mark.parametrize(
    "data",
    [
        GOOD,
        {"train": {"tokens": 10_000_000}},
        GOOD | {"model": {"heads": 6, "head_dim": 64, "kv_heads": 3}},
        GOOD | {"data": {"dtype": "uint16"}, "tokenizer": {"vocab_size": 65_536}},
        GOOD | {"model": {"vocab_size": 32_128}, "mesh": {"tensor": 4, "data": 2, "fsdp": 4}},
        GOOD | {"checkpoint": {"every": 50, "keep_every": 100}},
        # a run may end before its warm-up does
        {"train": {"steps": 10}, "optimizer": {"schedule": {"warmup_steps": 1000}}},
    ],
)
def test_accepted(data: dict[str, Any]) -> None:
    assert impossible(validate(data)) == []


def test_axes_that_take_what_is_left_are_checked_when_the_devices_are_known() -> None:
    config = Config.model_validate(GOOD)
    sizes = dict.fromkeys(AXES, 1) | {"data": -1}
    assert indivisible(config, sizes) == []
    ((keys, _),) = indivisible(config, sizes | {"data": 16})
    assert keys == ["train.batch_size"]


def test_a_config_that_only_prepares_needs_no_length_of_training() -> None:
    config = validate({})
    with pytest.raises(UsageError, match=r"give either train\.steps or"):
        _ = config.steps
