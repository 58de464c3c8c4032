"""What holds for any weights: documents stay apart, nothing sees later tokens, sums are fp32."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import Config
from jaxlm.models import Mask
from jaxlm.objectives import Batch
from jaxlm.parallel import make_mesh
from jaxlm.training.loss import loss_sum
from tests.models.small import HostBatch, config_of, host_batch, logits_of, make_params, on_mesh
from tests.models.transformers_names import by_name

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
