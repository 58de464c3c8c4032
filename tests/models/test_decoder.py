"""The decoder against transformers' LLaMA, Qwen2 and Qwen3, and what packing promises."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import Config
from jaxlm.evaluation.generate import Request, _decode
from jaxlm.models import Mask
from jaxlm.models.decoder import ngram_ids
from jaxlm.objectives import Batch
from jaxlm.parallel import make_mesh, spec
from jaxlm.training.step import loss_sum
from tests.models.small import HostBatch, config_of, host_batch, logits_of, make_params, on_mesh
from tests.models.transformers_names import (
    VARIANTS,
    by_name,
    decoder,
    ours,
    reference,
    reference_config,
)

FP32 = jnp.dtype(jnp.float32)


def one_device(config: Config) -> Any:
    return jax.set_mesh(make_mesh(config, jax.devices()[:1]))


def whole_rows(ids: np.ndarray) -> HostBatch:
    """Each row one document; the last token of a row has no target."""
    B, T = ids.shape
    weights = np.ones((B, T), np.float32)
    weights[:, -1] = 0
    positions = np.broadcast_to(np.arange(T, dtype=np.int32), (B, T))
    return Batch(ids, np.roll(ids, -1, axis=1), weights, np.ones((B, T), np.int32), positions)


def packed_row(theirs: dict[str, np.ndarray]) -> HostBatch:
    ids = theirs["packed_ids"]
    weights = np.ones(ids.shape, np.float32)
    return Batch(ids, ids, weights, theirs["packed_segments"], theirs["packed_positions"])


def assert_close(found: jax.Array, theirs: np.ndarray, tolerance: float = 1e-5) -> None:
    """Within `tolerance` of the reference's largest value."""
    assert found.shape == theirs.shape
    np.testing.assert_allclose(found, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_are_those_of_transformers(name: str) -> None:
    config, theirs = reference_config(name), reference(name)
    with one_device(config):
        params = decoder(config, theirs)
        compute = jax.jit(logits_of, static_argnums=1)
        assert_close(
            compute(params, config, on_mesh(whole_rows(theirs["input_ids"]))), theirs["logits"]
        )
        assert_close(compute(params, config, on_mesh(packed_row(theirs))), theirs["packed_logits"])


@pytest.mark.parametrize("remat", ["none", "full"])
def test_loss_and_every_gradient_are_those_of_transformers(remat: str) -> None:
    config, theirs = reference_config("llama"), reference("llama")
    config = config.model_copy(
        update={"train": config.train.model_copy(update={"remat": remat, "loss_chunk": 5})}
    )
    batch = whole_rows(theirs["input_ids"])
    with one_device(config):
        loss, grads = jax.jit(jax.value_and_grad(loss_sum, argnums=1), static_argnums=0)(
            config, decoder(config, theirs), on_mesh(batch)
        )
    count = batch.weights_BT.sum()
    np.testing.assert_allclose(loss / count, theirs["loss"], rtol=1e-6)
    expected = ours(config, reference("llama_gradients"))
    found = by_name(grads)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        # the reference keeps 16 bits of significand
        assert_close(found[key] / count, value, tolerance=2e-5)


def test_the_tied_embedding_sums_the_gradients_of_both_its_uses() -> None:
    config, theirs = reference_config("llama_tied"), reference("llama_tied")
    batch = whole_rows(theirs["input_ids"])
    with one_device(config):
        grads = jax.jit(jax.grad(loss_sum, argnums=1), static_argnums=0)(
            config, decoder(config, theirs), on_mesh(batch)
        )
    expected = theirs["gradient.model.embed_tokens.weight"]
    assert_close(by_name(grads)["embedding"] / batch.weights_BT.sum(), expected, 2e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_greedy_generation_is_that_of_transformers(name: str) -> None:
    config, theirs = reference_config(name), reference(name)
    prompt, expected = theirs["prompt"][0], theirs["greedy"][0]
    tokens = np.zeros((1, 64), np.int32)
    tokens[0, : len(prompt)] = prompt
    with one_device(config):
        filled, ends = _decode(
            config.model,
            FP32,
            8,  # prompt slots, more than the prompt has
            Request(max_tokens=len(expected) - len(prompt), temperature=0.0),
            -1,  # no token ends the document
            decoder(config, theirs),
            jax.reshard(tokens, spec("batch", None)),
            *jax.reshard(
                (np.array([len(prompt)]), jax.random.split(jax.random.key(0), 1)), spec("batch")
            ),
        )
    assert int(ends[0]) == len(expected)
    np.testing.assert_array_equal(np.asarray(filled)[0, : len(expected)], expected)


NGRAMS = {"ngram_embedding": {"orders": (2, 3), "buckets": 50}}


@pytest.mark.parametrize("model", [{}, NGRAMS])
def test_documents_of_a_row_do_not_see_each_other(model: dict[str, Any]) -> None:
    config = config_of(model)
    batch = host_batch(config)
    changed = batch.tokens_BT.copy()
    second = batch.segments_BT == 2
    changed[second] = (changed[second] + 1) % config.vocab_size
    with one_device(config):
        params = make_params(config)
        compute = jax.jit(logits_of, static_argnums=1)
        before = np.asarray(compute(params, config, on_mesh(batch)))
        after = np.asarray(compute(params, config, on_mesh(batch._replace(tokens_BT=changed))))
    np.testing.assert_array_equal(before[~second], after[~second])
    assert (before[second] != after[second]).any(axis=-1).all()


@pytest.mark.parametrize("model", [{}, NGRAMS])
def test_a_packed_document_gives_what_it_gives_alone(model: dict[str, Any]) -> None:
    config = config_of(model)
    batch = host_batch(config)
    with one_device(config):
        params = make_params(config)
        compute = jax.jit(logits_of, static_argnums=1)
        together = np.asarray(compute(params, config, on_mesh(batch)))
        for number in (1, 2):
            here = batch.segments_BT == number
            order = np.argsort(~here, axis=1, kind="stable")  # the document moves to the front
            tokens = np.take_along_axis(batch.tokens_BT, order, axis=1)
            alone = np.asarray(compute(params, config, on_mesh(whole_rows(tokens))))
            for row in range(len(tokens)):
                length = here[row].sum()
                np.testing.assert_allclose(together[row, here[row]], alone[row, :length], atol=2e-5)


def test_what_comes_later_changes_nothing() -> None:
    config = config_of(NGRAMS)
    ids = np.arange(32, dtype=np.int32).reshape(2, 16)
    changed = ids.copy()
    changed[:, 9:] += 1
    with one_device(config):
        params = make_params(config)
        compute = jax.jit(logits_of, static_argnums=1)
        a, b = (np.asarray(compute(params, config, on_mesh(whole_rows(x)))) for x in (ids, changed))
    np.testing.assert_array_equal(a[:, :9], b[:, :9])
    assert (a[:, 9:] != b[:, 9:]).any(axis=-1).all()


def test_ngram_rows_by_hand() -> None:
    def row(ngram: list[int], buckets: int) -> int:
        """The hash in Python's integers; `ngram` from its last token back."""
        code = 0
        for index, token in enumerate(ngram):
            code = (code * (2654435761 if index else 1) + (token + 1 if token >= 0 else 0)) % 2**32
        code ^= code >> 15
        code = code * 0x85EBCA6B % 2**32
        return (code ^ code >> 13) % buckets

    tokens = np.array([[5, 6, 7, 8, 9]], np.int32)
    positions = np.array([[0, 1, 2, 0, 1]], np.int32)
    expected = [
        row(ngram, 1000) for ngram in ([5, -1, -1], [6, 5, -1], [7, 6, 5], [8, -1, -1], [9, 8, -1])
    ]
    with one_device(config_of()):
        before = np.array([[1, 2, 3, 4]], np.int32)
        here, place, later_place, before_BC = jax.reshard(
            (tokens, positions, positions + 2, before), spec("batch", None)
        )
        ours = ngram_ids(here, place, None, 3, 1000)
        later = ngram_ids(here, later_place, before_BC, 3, 1000)
    assert np.asarray(ours).tolist() == [expected]
    assert np.asarray(later)[0, 0] == row([5, 4, 3], 1000)


def test_masters_stay_fp32_when_products_are_bf16() -> None:
    config = config_of(train={"precision": "bf16"})
    with one_device(config):
        batch, params = on_mesh(host_batch(config)), make_params(config)
        exact = loss_sum(config_of(), params, batch)
        loss, grads = jax.value_and_grad(loss_sum, argnums=1)(config, params, batch)
        hidden, _ = params(
            config.model,
            batch.tokens_BT,
            batch.positions_BT,
            Mask(batch.segments_BT, batch.segments_BT),
            dtype=jnp.dtype(jnp.bfloat16),
        )
    assert hidden.dtype == jnp.bfloat16
    assert loss.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((params, grads))} == {FP32}
    np.testing.assert_allclose(loss, exact, rtol=5e-3)
    assert float(loss) != float(exact)


def test_a_frequent_tokens_gradient_is_summed_in_fp32() -> None:
    config = config_of({"layers": 1, "ngram_embedding": {"orders": (2,), "buckets": 8}})
    batch = whole_rows(np.full((8, 256), 5, np.int32))
    # one target in one row of many: what the many add up to is what matters
    weights = batch.weights_BT * np.random.default_rng(0).random((8, 256)).astype(np.float32)
    grads = []
    for precision in ("fp32", "bf16"):
        train = config.train.model_copy(update={"precision": precision, "loss_chunk": 512})
        varied = config.model_copy(update={"train": train})
        with one_device(config):
            compute = jax.jit(jax.grad(loss_sum, argnums=1), static_argnums=0)
            tree = compute(varied, make_params(config), on_mesh(batch._replace(weights_BT=weights)))
            grads.append({n: np.asarray(a) for n, a in by_name(tree).items()})
    for name in ("embedding", "ngrams"):
        exact, low = (g[name] for g in grads)
        assert np.linalg.norm(low - exact) < 0.02 * np.linalg.norm(exact), name
