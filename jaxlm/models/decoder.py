"""The decoder: token ids to hidden states, to a loss or to the next token's logits."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from jaxlm.config.model import Model
from jaxlm.models.attention import Mask
from jaxlm.models.layers import Block, Cache, constant, gather, normal, rms_norm, rope_tables
from jaxlm.parallel import spec

FP32 = jnp.dtype(jnp.float32)

type Remat = Literal["none", "dots", "full"]

REMAT: dict[Remat, Callable[..., Any] | None] = {
    "none": jax.checkpoint_policies.everything_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": None,
}


class Decoder(nnx.Module):
    """A LLaMA-style causal decoder (Touvron et al. 2023): a pytree of fp32 parameters.

    `blocks` holds all layers in one Block whose arrays have an axis of layers in front.
    """

    def __init__(self, model: Model, vocab_size: int, key: jax.Array) -> None:
        embed_key, blocks_key, head_key = jax.random.split(key, 3)
        V, D = vocab_size, model.d_model
        self.embedding = normal(embed_key, (V, D), ("vocab", "embed"), model.init_std, -1)
        if model.ngram_embedding:
            # zeros: the model starts as the one without them
            shape = (len(model.ngram_embedding.orders), model.ngram_embedding.buckets, D)
            self.ngrams = normal(embed_key, shape, (None, "vocab", "embed"), 0.0, -1)
        layer_keys = jax.random.split(blocks_key, model.layers)
        self.blocks = jax.vmap(partial(Block, model))(layer_keys)
        self.norm = constant(1.0, (D,), (None,))
        if not model.tied:
            self.head = normal(head_key, (V, D), ("vocab", "embed"), model.init_std, -1)

    def __call__(
        self,
        model: Model,
        tokens_BT: jax.Array,
        positions_BT: jax.Array,
        mask: Mask,
        *,
        dtype: jnp.dtype = FP32,
        remat: Remat = "none",
        unroll: bool = False,
        cache: Cache | None = None,
        before_BC: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """Hidden states after the last norm, ND in `dtype`, and the cache with these tokens in it.

        before_BC: tokens that came before, for n-gram embeddings; None: a row begins a document, or
        positions say how far back its document goes.
        """
        # fp32, or the gradient of a frequent token would be summed up in bf16
        table_VD = gather(self.embedding, FP32)
        tokens_N = jax.lax.reshape(tokens_BT, (tokens_BT.size,), out_sharding=spec("batch"))
        x_ND = table_VD.at[tokens_N].get(out_sharding=spec("batch", None))
        if model.ngram_embedding:
            orders, buckets = model.ngram_embedding.orders, model.ngram_embedding.buckets
            tables = gather(self.ngrams, FP32)
            for index, order in enumerate(orders):
                ids_BT = ngram_ids(tokens_BT, positions_BT, before_BC, order, buckets)
                ids_N = jax.lax.reshape(ids_BT, tokens_N.shape, out_sharding=spec("batch"))
                x_ND += tables[index].at[ids_N].get(out_sharding=spec("batch", None))
        x_ND = x_ND.astype(dtype)
        rope = rope_tables(positions_BT, model.head_width, model.position.theta)

        def layer(x_ND: jax.Array, block_and_cache: tuple[Block, Cache | None]) -> Any:
            block, layer_cache = block_and_cache
            return block(model, x_ND, rope, mask, layer_cache)

        if remat != "none":
            layer = jax.checkpoint(layer, policy=REMAT[remat], prevent_cse=unroll)
        x_ND, cache = jax.lax.scan(layer, x_ND, (self.blocks, cache), unroll=unroll or 1)
        return rms_norm(x_ND, self.norm.get_value(), model.norm_eps), cache

    def output_head(self, dtype: jnp.dtype) -> jax.Array:
        """The matrix VD from hidden states to logits, in `dtype`."""
        return gather(getattr(self, "head", self.embedding), dtype)


def ngram_ids(
    tokens_BT: jax.Array,
    positions_BT: jax.Array,
    before_BC: jax.Array | None,
    order: int,
    buckets: int,
) -> jax.Array:
    """Rows, int32 BT below `buckets`, of the hashed n-grams that end at each token.

    An n-gram that would reach over its document's begin is cut there. The hash multiplies by
    Knuth's 2654435761 and ends with a step of MurmurHash3's finaliser.
    """
    B, T = tokens_BT.shape
    if before_BC is None:
        before_BC = jnp.zeros((B, order - 1), jnp.int32, out_sharding=spec("batch", None))
    C = before_BC.shape[1]
    line = jnp.concatenate([before_BC, tokens_BT], axis=1)
    code = tokens_BT.astype(jnp.uint32) + 1
    for back in range(1, order):
        earlier = line[:, C - back : C - back + T].astype(jnp.uint32) + 1
        inside = positions_BT >= back
        code = code * jnp.uint32(2654435761) + jnp.where(inside, earlier, 0)
    code ^= code >> 15
    code *= jnp.uint32(0x85EBCA6B)
    code ^= code >> 13
    return (code % jnp.uint32(buckets)).astype(jnp.int32)
