"""Small configs, batches and models for tests of the network and its training."""

from functools import partial
from typing import Any

import jax
import numpy as np

from jaxlm.config import Config
from jaxlm.models import Mask, Transformer, logits
from jaxlm.objectives import Batch
from jaxlm.parallel import sharding_of, spec
from jaxlm.parallel.context import cut, parts

type HostBatch = Batch[np.ndarray]

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


def host_batch(config: Config, seed: int = 0) -> HostBatch:
    """Rows of 1 to 3 documents with some padding; some targets do not count. What an encoder reads
    has the same documents."""
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
    batch = Batch(tokens[:, :-1], tokens[:, 1:], weights, segments, positions)
    if config.model.kind != "encoder_decoder":
        return batch
    return batch._replace(
        encoder_tokens_BS=tokens[:, ::-1][:, :-1],
        encoder_segments_BS=segments,
        encoder_positions_BS=positions,
    )


def on_mesh(batch: HostBatch, microbatches: int | None = None) -> Any:
    """The batch on the mesh that is set, [B, T] or [microbatches, B / microbatches, T]; as parts of
    rows where that has a context axis."""
    rows = spec("batch", None)
    if microbatches is None:
        return jax.reshard(jax.tree.map(lambda a: cut(a, parts()), batch), rows)
    split = jax.tree.map(lambda a: cut(a.reshape(microbatches, -1, a.shape[1]), parts()), batch)
    return jax.reshard(split, jax.P(None, *rows))


def make_params(config: Config) -> Transformer:
    """Parameters on the mesh that is set; noise everywhere, so that every part takes part.

    Made by NumPy, since compiling the initialisers takes longer than most tests.
    """
    build = partial(Transformer, config.model, config.vocab_size)
    shapes = jax.eval_shape(build, jax.random.key(0))
    rng = np.random.default_rng(config.seed)

    def noise(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        start = 1.0 if "norm" in jax.tree_util.keystr(path) else 0.0
        return (start + 0.2 * rng.standard_normal(leaf.shape)).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(noise, shapes)
    places = sharding_of(shapes, jax.sharding.get_mesh(), config.mesh.zero)
    return jax.device_put(params, places)


def logits_of(params: Transformer, config: Config, batch: Any, types_BT: Any = None) -> jax.Array:
    """fp32 logits [B, T, V] of a Batch of arrays [B, T], made in one go."""
    encoded_MD = None
    if batch.encoder_tokens_BS is not None:
        encoded_MD = params.encode(
            config.model,
            batch.encoder_tokens_BS,
            batch.encoder_positions_BS,
            batch.encoder_segments_BS,
        )
    x_ND, _ = params(
        config.model,
        batch.tokens_BT,
        batch.positions_BT,
        Mask(batch.segments_BT, batch.segments_BT, prefix_BS=batch.prefix_BT),
        types_BT=types_BT,
        encoded_MD=encoded_MD,
        encoder_segments_BS=batch.encoder_segments_BS,
    )
    logits_NV = logits(x_ND, params.output_head(x_ND.dtype), config.model.logit_softcap)
    return logits_NV.reshape(*batch.tokens_BT.shape, -1)
