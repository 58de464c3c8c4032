"""The loss of a batch."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.config import Config
from jaxlm.models import Mask, Transformer, cross_entropy, nats_of
from jaxlm.objectives import Batch
from jaxlm.parallel import spec
from jaxlm.parallel.context import parts, places

DTYPES = {
    "fp32": jnp.dtype(jnp.float32),
    "bf16": jnp.dtype(jnp.bfloat16),
    "fp16": jnp.dtype(jnp.float16),
}


def loss_sum(
    config: Config, params: Transformer, batch: Batch[jax.Array], key: jax.Array | None = None
) -> jax.Array:
    """Sum over the targets of a batch [B, T] of weight * nats, fp32 scalar.

    Rows are parts where the mesh has a context axis (jaxlm/parallel/context.py).
    key: of dropout; None: nothing is dropped.
    """
    x_ND = hidden(config, params, batch, key)
    return loss_of(config, params, x_ND, batch.targets_BT, batch.weights_BT)


def token_nats(config: Config, params: Transformer, batch: Batch[jax.Array]) -> jax.Array:
    """Nats of each target of a batch whether it counts or not, fp32 [B, T]; no gradient."""
    x_ND = hidden(config, params, batch, None)
    x_ND, head = params.for_loss(x_ND, DTYPES[config.train.precision])
    nats_N = nats_of(
        x_ND, head, batch.targets_BT.ravel(), config.train.loss_chunk, config.model.logit_softcap
    )
    return nats_N.reshape(batch.targets_BT.shape)


def hidden(
    config: Config, params: Transformer, batch: Batch[jax.Array], key: jax.Array | None
) -> jax.Array:
    """What the head takes, ND."""
    model = config.model
    encoder_key, decoder_key = (None, None) if key is None else jax.random.split(key)
    how: dict[str, Any] = {
        "dtype": DTYPES[config.train.precision],
        "remat": config.train.remat,
        "unroll": config.train.unroll_layers,
    }
    encoded_MD = None
    if batch.encoder_tokens_BS is not None:
        assert batch.encoder_positions_BS is not None
        assert batch.encoder_segments_BS is not None
        encoded_MD = params.encode(
            model, batch.encoder_tokens_BS, batch.encoder_positions_BS,
            batch.encoder_segments_BS, key=encoder_key,
            length=parts() * batch.encoder_tokens_BS.shape[1],
            places_BS=places(batch.encoder_tokens_BS), **how,
        )  # fmt: skip
    x_ND, _ = params(
        model,
        batch.tokens_BT,
        batch.positions_BT,
        Mask(
            batch.segments_BT,
            batch.segments_BT,
            prefix_BS=batch.prefix_BT,
            places_BT=places(batch.tokens_BT),
        ),
        encoded_MD=encoded_MD,
        encoder_segments_BS=batch.encoder_segments_BS,
        key=decoder_key,
        length=parts() * batch.tokens_BT.shape[1],
        **how,
    )
    return x_ND


def loss_of(
    config: Config,
    params: Transformer,
    x_ND: jax.Array,
    targets_BT: jax.Array,
    weights_BT: jax.Array,
) -> jax.Array:
    """The same from what the head takes; targets are flattened as x is."""
    targets_N, weights_N = (
        jax.lax.reshape(a, (a.size,), out_sharding=spec("batch")) for a in (targets_BT, weights_BT)
    )
    x_ND, head = params.for_loss(x_ND, DTYPES[config.train.precision])
    return cross_entropy(
        x_ND, head, targets_N, weights_N, config.train.loss_chunk, config.model.logit_softcap
    )
