"""Small configs, batches and models for tests of the network and its training."""

from typing import Any

import jax
import numpy as np

from jaxlm.config import Config
from jaxlm.models import Decoder, Mask
from jaxlm.objectives import Batch
from jaxlm.training.batches import place, split

MODEL = {
    "layers": 2,
    "d_model": 32,
    "heads": 4,
    "kv_heads": 2,
    "d_mlp": 64,
    "init_std": 0.2,
    "vocab_size": 64,
}
TRAIN = {"batch_size": 8, "steps": 10, "loss_chunk": 32}


def config_of(
    model: dict[str, Any] | None = None, train: dict[str, Any] | None = None, **sections: Any
) -> Config:
    """A tiny config; `model` and `train` change single keys of it."""
    return Config.model_validate(
        {
            "model": MODEL | (model or {}),
            "train": TRAIN | (train or {}),
            "data": {"seq_len": 16},
            **sections,
        }
    )


def host_batch(config: Config, seed: int = 0) -> Batch:
    """Rows of 1 to 3 documents with some padding; some targets do not count."""
    B, T = config.train.batch_size, config.data.seq_len
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, config.vocab_size, (B, T + 1)).astype(np.int32)
    segments = np.zeros((B, T), np.int32)
    positions = np.zeros((B, T), np.int32)
    for row in range(B):
        ends = np.sort(rng.choice(np.arange(1, T), 2, replace=False))
        number, start = 1, 0
        for end in (*ends, T if row % 2 else int(ends[-1])):
            segments[row, start:end] = number
            positions[row, start:end] = np.arange(end - start)
            number, start = number + 1, int(end)
    weights = ((segments > 0) & (rng.random((B, T)) < 0.8)).astype(np.float32)
    return Batch(tokens[:, :-1], tokens[:, 1:], weights, segments, positions)


def on_mesh(batch: Batch) -> Any:
    """A batch [B, T] on the mesh that is set."""
    return jax.tree.map(lambda a: a[0], place(split(batch, 1), jax.sharding.get_mesh()))


def device_batch(config: Config, microbatches: int = 1, seed: int = 0) -> Any:
    """Such a batch on the mesh that is set, [microbatches, B, T]."""
    return place(split(host_batch(config, seed), microbatches), jax.sharding.get_mesh())


def logits_of(params: Decoder, config: Config, batch: Any) -> jax.Array:
    """fp32 logits [B, T, V] of a Batch of arrays [B, T], made in one go."""
    x_ND, _ = params(
        config.model,
        batch.tokens_BT,
        batch.positions_BT,
        Mask(batch.segments_BT, batch.segments_BT),
    )
    logits_NV = x_ND @ params.output_head(x_ND.dtype).T
    return logits_NV.reshape(*batch.tokens_BT.shape, -1)
