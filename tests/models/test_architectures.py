"""Every architecture against transformers and torchscale: logits, losses, gradients, packed rows,
generation.

Positions and masks that change a LLaMA against the same library and ReRoPE's own code.
"""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from jaxlm.config import Config
from jaxlm.evaluation.generate import continued
from jaxlm.evaluation.sampling import Request
from jaxlm.models import Transformer
from jaxlm.objectives import Batch
from jaxlm.parallel import make_mesh
from jaxlm.training.loss import loss_sum
from tests.models.small import HostBatch, logits_of, on_mesh
from tests.models.transformers_names import (
    MODELS,
    Arrays,
    by_name,
    ours,
    reference,
    reference_config,
    transformer,
)

PACKED = [name for name in MODELS if name != "prefix"]
WITH_GRADIENTS = [name for name in PACKED if name not in ("qwen2", "qwen3", "llama_tied")]


def one_device(config: Config) -> Any:
    return jax.set_mesh(make_mesh(config, jax.devices()[:1]))


def assert_close(
    found: Any, theirs: np.ndarray, tolerance: float = 1e-5, floor: float = 0.0
) -> None:
    """Within `tolerance` of the reference's largest value, or within `floor`."""
    assert found.shape == theirs.shape
    atol = max(tolerance * np.abs(theirs).max(), floor)
    np.testing.assert_allclose(found, theirs, rtol=0, atol=atol)


def rows(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Segments and positions of rows that are one document each."""
    return np.ones_like(ids), np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)


def batch_of(name: str, theirs: Arrays) -> HostBatch:
    """The rows of a reference that have a loss; below them its packed row, without weights."""
    batch: HostBatch
    if "encoder_ids" in theirs:
        ids, encoder_ids = theirs["decoder_ids"], theirs["encoder_ids"]
        ones = np.ones(ids.shape, np.float32)
        encoder = (encoder_ids, *rows(encoder_ids))
        batch = Batch(ids, theirs["labels"], ones, *rows(ids), None, *encoder)
    elif "targets" in theirs:
        ids = theirs["input_ids"]
        batch = Batch(ids, theirs["targets"], theirs["weights"], *rows(ids))
    else:
        ids = theirs["input_ids"]
        place = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        first = theirs.get("prefix_lengths", np.ones(len(ids), np.int32))[:, None] - 1
        counts = (place >= first) & (place < ids.shape[1] - 1)
        prefix = (place <= first).astype(np.int32) if name == "prefix" else None
        batch = Batch(ids, np.roll(ids, -1, 1), counts.astype(np.float32), *rows(ids), prefix)
    if name == "prefix":
        return batch
    packed_ids = theirs["packed_ids"]
    packed: HostBatch = Batch(
        packed_ids, packed_ids, np.zeros(packed_ids.shape, np.float32),
        theirs["packed_segments"], theirs["packed_positions"], None,
        theirs.get("packed_encoder_ids"), theirs.get("packed_encoder_segments"),
        theirs.get("packed_encoder_positions"),
    )  # fmt: skip
    return jax.tree.map(lambda *parts: np.concatenate(parts), batch, packed)


class Found(NamedTuple):
    """What we compute for the rows of a reference."""

    loss: jax.Array
    gradients: dict[str, jax.Array]
    logits: jax.Array


@partial(jax.jit, static_argnums=(0, 1))
def compute(differentiate: bool, config: Config, params: Transformer, batch: Any) -> Any:
    logits = logits_of(params, config, batch)
    if not differentiate:
        return loss_sum(config, params, batch), None, logits
    return *jax.value_and_grad(loss_sum, argnums=1)(config, params, batch), logits


@cache
def found(name: str, remat: str = "none") -> Found:
    """One program for all tests of a model."""
    config, theirs = reference_config(name), reference(name)
    train = config.train.model_copy(update={"remat": remat, "loss_chunk": 24})
    config = config.model_copy(update={"train": train})
    batch = batch_of(name, theirs)
    with one_device(config):
        weights = reference("llama") if name == "prefix" else theirs
        params = transformer(name, config, weights)
        differentiate = name in (*WITH_GRADIENTS, "llama_tied")
        loss, gradients, logits = compute(differentiate, config, params, on_mesh(batch))
    count = batch.weights_BT.sum()
    return Found(loss / count, {n: g / count for n, g in by_name(gradients).items()}, logits)


@pytest.mark.parametrize("name", MODELS)
def test_logits_and_loss_are_those_of_transformers(name: str) -> None:
    theirs = reference(name)
    assert_close(found(name).logits[: len(theirs["logits"])], theirs["logits"])
    np.testing.assert_allclose(found(name).loss, theirs["loss"], rtol=2e-6)


@pytest.mark.parametrize("name", PACKED)
def test_documents_of_a_row_give_what_they_give_alone(name: str) -> None:
    theirs = reference(name)
    assert_close(found(name).logits[len(theirs["logits"]) :], theirs["packed_logits"])


@pytest.mark.parametrize(
    ("name", "remat"), [*((name, "none") for name in WITH_GRADIENTS), ("llama", "full")]
)
def test_every_gradient_is_that_of_transformers(name: str, remat: str) -> None:
    theirs = reference("llama_gradients" if name == "llama" else name)
    if name != "llama":
        prefix = "gradient."
        theirs = {k.removeprefix(prefix): a for k, a in theirs.items() if k.startswith(prefix)}
    expected = ours(name, reference_config(name), theirs)
    gradients = found(name, remat).gradients
    assert gradients.keys() == expected.keys()
    for key, value in expected.items():
        # the reference keeps 16 bits of significand; a bias of keys has no gradient but rounding
        assert_close(gradients[key], value, tolerance=2e-5, floor=1e-7)


def test_the_tied_embedding_sums_the_gradients_of_both_its_uses() -> None:
    expected = reference("llama_tied")["gradient.model.embed_tokens.weight"]
    assert_close(found("llama_tied").gradients["embedding"], expected, 2e-5)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("llama_tied", "bert")])
def test_greedy_generation_is_that_of_transformers(name: str) -> None:
    config, theirs = reference_config(name), reference(name)
    prompt, expected = theirs["prompt"][0].tolist(), theirs["greedy"][0].tolist()
    expected = expected[1 if "encoder_ids" in theirs else len(prompt) :]
    weights = reference("llama") if name == "prefix" else theirs
    with one_device(config):
        new, _ = continued(
            config.model,
            transformer(name, config, weights),
            [prompt, prompt[:3]],
            Request(max_tokens=len(expected), temperature=0.0),
            bos_id=0,
            eos_id=-1,  # no token ends the document
            dtype=np.dtype("float32"),
        )
    assert new == expected


def logits_alone(
    config: Config, name: str, weights: Arrays, ids: np.ndarray, types: np.ndarray | None = None
) -> Any:
    """Logits of rows that are one document each."""
    nothing = np.zeros(ids.shape, np.float32)
    with one_device(config):
        params = transformer(name, config, weights)
        batch = on_mesh(Batch(ids, ids, nothing, *rows(ids)))
        return jax.jit(logits_of, static_argnums=1)(params, config, batch, types)


def test_token_types_are_those_of_transformers() -> None:
    theirs = reference("bert")
    config = reference_config("bert")
    found = logits_alone(config, "bert", theirs, theirs["input_ids"], theirs["token_types"])
    assert_close(found, theirs["typed_logits"])


STRETCHED = {"factor": 4.0, "original_length": 16}
SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"kind": "linear", "factor": 4.0},
    "dynamic": {"kind": "dynamic_ntk", "factor": 2.0, "original_length": 16},
    "yarn": {"kind": "yarn", "beta_fast": 4.0, "beta_slow": 1.0} | STRETCHED,
    "yarn_cool": {"kind": "yarn", "attention_factor": 0.8} | STRETCHED,
    "llama3": {"kind": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0} | STRETCHED,
    "longrope": {
        "kind": "longrope",
        "short_factors": (1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0),
        "long_factors": (1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 9.0, 16.0),
    }
    | STRETCHED,
}


@pytest.mark.parametrize("scaling", SCALINGS)
def test_stretched_positions_are_those_of_transformers(scaling: str) -> None:
    theirs = reference("rope_scaling")
    config = reference_config("llama", position={"kind": "rope", "scaling": SCALINGS[scaling]})
    ids = theirs["input_ids"]
    found = logits_alone(config, "llama", reference("llama"), ids)
    assert_close(found, theirs[f"{scaling}.logits"])
    if f"{scaling}.short_logits" in theirs:
        found = logits_alone(config, "llama", reference("llama"), ids[:, :12])
        assert_close(found, theirs[f"{scaling}.short_logits"])


def test_truncated_positions_are_those_of_their_author() -> None:
    theirs = reference("rerope")
    truncation = {"window": int(theirs["window"]), "log_length": int(theirs["training_length"])}
    config = reference_config(
        "llama",
        **{"d_model": 32, "head_dim": 8, "d_mlp": 64, "norm_eps": 1e-6},
        position={"kind": "rope", "truncation": truncation},
    )
    found = logits_alone(config, "llama", theirs, theirs["x"].astype(np.int32))
    assert_close(found, theirs["logits"])
