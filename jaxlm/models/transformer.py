"""The network: token ids to hidden states, to a loss or to the next token's logits."""

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from jaxlm.config.kernels import pattern_of
from jaxlm.config.model import Model
from jaxlm.config.position import Learned, RelativeBias, Sinusoidal
from jaxlm.models.attention import Mask, Pattern
from jaxlm.models.layers import (
    Block,
    Cache,
    Norm,
    all_tokens,
    beside,
    constant,
    dropout,
    gather,
    normal,
    spread,
)
from jaxlm.models.loss import Head
from jaxlm.models.ngrams import ngram_ids
from jaxlm.models.positions import sinusoids
from jaxlm.models.sight import Sight, bias_of, in_cache, rotations_of
from jaxlm.parallel import mesh_axes, residual, spec

FP32 = jnp.dtype(jnp.float32)

type Remat = Literal["none", "dots", "full"]


def _products(primitive: Any, *inputs: Any, **params: Any) -> bool:
    """Whether this is a product with weights or, where devices have parts of it, their sum (`back`
    in layers.py), which is smaller."""
    if primitive.name == "reshard":
        return bool(inputs[0].sharding.spec.unreduced)
    split = params.get("out_sharding")
    if split is not None and split.spec.unreduced:
        return False
    return jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *inputs, **params)


REMAT: dict[Remat, Callable[..., Any] | None] = {
    "none": jax.checkpoint_policies.everything_saveable,
    "dots": _products,
    "full": None,
}


class Stack(nnx.Module):
    """Blocks one after another: all layers in one Block whose arrays have an axis in front."""

    def __init__(self, model: Model, layers: int, crosses: bool, key: jax.Array) -> None:
        layer_keys = jax.random.split(key, layers)
        self.blocks = jax.vmap(partial(Block, model, crosses))(layer_keys)
        if model.norm_placement != "post":
            self.norm = Norm(model)
        if isinstance(model.position, RelativeBias):
            shape = (model.position.buckets, model.heads)
            table_key = jax.random.fold_in(key, layers)
            self.bias = normal(table_key, shape, (None, "heads"), model.init_std, -1)

    def layers(self) -> list[Block]:
        """The blocks as modules of their own."""
        count = jax.tree.leaves(self.blocks)[0].shape[0]
        return [jax.tree.map(itemgetter(index), self.blocks) for index in range(count)]

    def __call__(
        self,
        model: Model,
        x_ND: jax.Array,
        sight: Sight,
        positions: tuple[jax.Array, jax.Array | None, int],
        *,
        remat: Remat = "none",
        unroll: bool = False,
        caches: Sequence[Cache] | None = None,
        layers: Sequence[Block] | None = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, list[Cache]]:
        """Hidden states behind the last norm, ND, and the layers' caches with these tokens in them.

        sight: its mask, cache slots and encoder; what follows from the config is added here.
        positions: of queries BT, of what is in the caches BS where slots_BT says where these tokens
            go, and the length of the rows.
        layers: what self.layers() gives, for calls with caches; None: cut out of the stack here.
        key: of dropout; None: nothing is dropped.
        """
        sights = self.sights(model, sight, positions, caches)
        if caches is None:
            x_ND = self.through(model, x_ND, sights, remat=remat, unroll=unroll, key=key)
            return self.behind(model, x_ND), []
        new = []
        # one by one, so that each is written where it lies and may have a size of its own
        blocks = self.layers() if layers is None else layers
        for index, (block, cache) in enumerate(zip(blocks, caches, strict=True)):
            x_ND, written = block(model, x_ND, sights[index % len(sights)], cache)
            assert written is not None
            new.append(written)
        return self.behind(model, x_ND), new

    def sights(
        self,
        model: Model,
        sight: Sight,
        positions: tuple[jax.Array, jax.Array | None, int],
        caches: Sequence[Cache] | None = None,
    ) -> list[Sight]:
        """What layers see, which differ in a period: the last of each sees everything."""
        table_RN = None
        if isinstance(model.position, RelativeBias):
            table_RN = jax.reshard(self.bias.get_value(), spec(None, "heads"))
        positions_BT, key_positions_BS, length = positions
        period = (model.attention.window and model.attention.global_every) or 1
        sights = []
        for index in range(period):
            everything = period > 1 and index == period - 1
            pattern = pattern_of(model, causal=sight.pattern.causal, everything=everything)
            its = sight._replace(pattern=pattern, bias=bias_of(model, pattern, table_RN))
            keys_BS = key_positions_BS
            if caches is not None and keys_BS is None:
                its, keys_BS = in_cache(its, caches[index].k_BKSH.shape[2])
            if keys_BS is None:
                keys_BS = positions_BT
            turns = rotations_of(model, pattern, positions_BT, keys_BS, length)
            sights.append(its._replace(rotations=turns))
        return sights

    def through(
        self,
        model: Model,
        x_ND: jax.Array,
        sights: Sequence[Sight],
        *,
        remat: Remat = "none",
        unroll: bool = False,
        key: jax.Array | None = None,
        first: jax.Array | int = 0,
    ) -> jax.Array:
        """Hidden states behind the last block, ND. first: number of the first, for the draws of
        dropout."""

        def layer(x_ND: jax.Array, inputs: Any, sight: Sight) -> tuple[jax.Array, None]:
            block, layer_key = inputs
            return block(model, x_ND, sight, None, layer_key)

        calls: list[Callable[..., Any]] = [partial(layer, sight=its) for its in sights]
        if remat != "none":
            calls = [
                jax.checkpoint(call, policy=REMAT[remat], prevent_cse=unroll) for call in calls
            ]
        keys = None
        if key is not None:
            numbers = first + jnp.arange(jax.tree.leaves(self.blocks)[0].shape[0])
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
        return _in_periods(calls, x_ND, (self.blocks, keys), unroll)

    def behind(self, model: Model, x_ND: jax.Array) -> jax.Array:
        """Hidden states behind the last norm, where there is one."""
        return self.norm(model, x_ND) if model.norm_placement != "post" else x_ND


def _in_periods(
    calls: list[Callable[..., Any]], x_ND: jax.Array, inputs: Any, unroll: bool
) -> jax.Array:
    """A scan over groups of as many layers as there are calls, one call for each."""
    period = len(calls)
    if period == 1:
        return jax.lax.scan(calls[0], x_ND, inputs, unroll=unroll or 1)[0]

    # layouts are given, since a reshape forgets that of an axis of one
    def fold(a: jax.Array) -> jax.Array:
        split = jax.typeof(a).sharding.spec
        first, *others = split.partitions
        shape = (a.shape[0] // period, period, *a.shape[1:])
        parted = jax.P(first, None, *others, reduced=split.reduced)
        return jax.lax.reshape(a, shape, out_sharding=parted)

    def group(x_ND: jax.Array, inputs: Any) -> Any:
        for index, call in enumerate(calls):
            x_ND, _ = call(x_ND, jax.tree.map(itemgetter(index), inputs))
        return x_ND, None

    return jax.lax.scan(group, x_ND, jax.tree.map(fold, inputs), unroll=unroll or 1)[0]


def seen_by(
    model: Model,
    mask: Mask,
    causal: bool,
    encoder_segments_BS: jax.Array | None = None,
    encoded_MD: jax.Array | None = None,
) -> Sight:
    """What a stack sees, of what an encoder made too."""
    sight = Sight(mask, Pattern(causal=causal))
    if encoder_segments_BS is None:
        return sight
    across = Mask(mask.segments_BT, encoder_segments_BS, places_BT=mask.places_BT)
    pattern = Pattern(causal=False, scale=model.attention.scale)
    return sight._replace(cross=Sight(across, pattern, encoded_MD=encoded_MD))


class Transformer(nnx.Module):
    """A decoder, an encoder, or both (Vaswani et al. 2017): a pytree of fp32 parameters."""

    def __init__(self, model: Model, vocab_size: int, key: jax.Array) -> None:
        embed_key, blocks_key, head_key = jax.random.split(key, 3)
        V, D = vocab_size, model.d_model
        embedding_std = model.embedding_init_std or model.init_std
        self.embedding = normal(embed_key, (V, D), ("vocab", "embed"), embedding_std, -1)
        if model.ngram_embedding:
            # zeros: the model starts as the one without them
            tables = (len(model.ngram_embedding.orders), model.ngram_embedding.buckets, D)
            self.ngrams = normal(embed_key, tables, (None, "vocab", "embed"), 0.0, -1)
        more_keys = jax.random.split(jax.random.fold_in(embed_key, 1), 3)
        if isinstance(model.position, Learned):
            shape = (model.position.length, D)
            self.positions = normal(more_keys[0], shape, (None, "embed"), model.init_std, -1)
        if model.token_types:
            shape = (model.token_types, D)
            self.types = normal(more_keys[1], shape, (None, "embed"), model.init_std, -1)
        if model.embedding_norm:
            self.embedding_norm = Norm(model)
        if model.kind in ("encoder", "encoder_decoder"):
            self.encoder = Stack(model, model.layers, False, jax.random.fold_in(blocks_key, 1))
        if model.kind != "encoder":
            both = model.kind == "encoder_decoder"
            layers = (model.decoder_layers if both else None) or model.layers
            self.decoder = Stack(model, layers, both, blocks_key)
        if model.head_transform:
            self.transform = normal(more_keys[2], (D, D), ("embed", None), model.init_std, 1)
            self.transform_bias = constant(0.0, (D,), (None,))
            self.transform_norm = Norm(model)
        if not model.tied:
            self.head = normal(head_key, (V, D), ("vocab", "embed"), model.init_std, -1)
        if model.head_bias:
            self.head_bias = constant(0.0, (V,), ("vocab",))

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
        key: jax.Array | None = None,
        types_BT: jax.Array | None = None,
        encoded_MD: jax.Array | None = None,
        encoder_segments_BS: jax.Array | None = None,
        caches: Sequence[Cache] | None = None,
        layers: Sequence[Block] | None = None,
        slots_BT: jax.Array | None = None,
        key_positions_BS: jax.Array | None = None,
        length: int | None = None,
        before_BC: jax.Array | None = None,
    ) -> tuple[jax.Array, list[Cache]]:
        """Hidden states as the head takes them, ND in `dtype`, and the layers' caches with these
        tokens in them.

        key: of dropout; None: nothing is dropped.
        types_BT: token types; None: all 0.
        encoded_MD, encoder_segments_BS: what `encode` made, and of which documents; for an
            encoder_decoder. With caches that hold its keys encoded_MD is None.
        caches: of each layer, with the tokens before these if mask has a first_B. Without one these
            are the first: they meet each other alone, and are written. A cache with fewer slots
            than tokens, as a window allows, rolls.
        layers: the decoder's, as its layers() gives them; a loop should not cut them out each time.
        slots_BT, key_positions_BS: where these tokens go in caches of another order, and positions
            of what is in them, as mask.places_BS then says too.
        length: of the whole rows, for positions that depend on it; None: T.
        before_BC: tokens that came before, for n-gram embeddings; None: a row begins a document, or
            positions say how far back its document goes.
        """
        embed_key, stack_key = (None, None) if key is None else jax.random.split(key)
        x_ND = self.embed(model, tokens_BT, positions_BT, dtype, embed_key, types_BT, before_BC)
        sight = seen_by(model, mask, model.kind != "encoder", encoder_segments_BS, encoded_MD)
        sight = sight._replace(slots_BT=slots_BT)
        stack = self.encoder if model.kind == "encoder" else self.decoder
        x_ND, caches = stack(
            model, x_ND, sight, (positions_BT, key_positions_BS, length or tokens_BT.shape[1]),
            remat=remat, unroll=unroll, caches=caches, layers=layers, key=stack_key,
        )  # fmt: skip
        return self.for_head(model, x_ND), caches

    def encode(
        self,
        model: Model,
        tokens_BS: jax.Array,
        positions_BS: jax.Array,
        segments_BS: jax.Array,
        *,
        dtype: jnp.dtype = FP32,
        remat: Remat = "none",
        unroll: bool = False,
        key: jax.Array | None = None,
        length: int | None = None,
        places_BS: jax.Array | None = None,
    ) -> jax.Array:
        """What the encoder of an encoder_decoder makes of its input, MD in `dtype`.

        length: of the rows without their padding, for positions that depend on it; None: S.
        places_BS: as places_BT of a mask, where rows are parts.
        """
        embed_key, stack_key = (None, None) if key is None else jax.random.split(key)
        x_MD = self.embed(model, tokens_BS, positions_BS, dtype, embed_key, None, None)
        sight = seen_by(model, Mask(segments_BS, segments_BS, places_BT=places_BS), causal=False)
        x_MD, _ = self.encoder(
            model, x_MD, sight, (positions_BS, None, length or tokens_BS.shape[1]),
            remat=remat, unroll=unroll, key=stack_key,
        )  # fmt: skip
        return all_tokens(x_MD)  # once, and not in every layer of the decoder

    def cross_cache(
        self, model: Model, encoded_MD: jax.Array, batch: int
    ) -> list[tuple[jax.Array, jax.Array]]:
        """Keys and values of every decoder layer for what was encoded, BKSH each."""

        def layer(_: None, block: Block) -> tuple[None, tuple[jax.Array, jax.Array]]:
            k_BSKH, v_BSKH = block.cross.keys_and_values(model, encoded_MD, batch)
            return None, (jnp.swapaxes(k_BSKH, 1, 2), jnp.swapaxes(v_BSKH, 1, 2))

        return list(zip(*jax.lax.scan(layer, None, self.decoder.blocks)[1], strict=True))

    def output_head(self, dtype: jnp.dtype) -> Head:
        """What makes logits of hidden states, the matrix in `dtype`."""
        return self._head(self._head_table(), dtype)

    def for_loss(self, x_ND: jax.Array, dtype: jnp.dtype) -> tuple[jax.Array, Head]:
        """The same beside the hidden states that a loss takes it with.

        Going back, nothing follows before devices have added up their parts of the matrix's
        gradient: until then each has one as large as the matrix.
        """
        table = self._head_table()
        x_ND, table_VD = jax.lax.optimization_barrier((x_ND, table.get_value()))
        return x_ND, self._head(table.replace(table_VD), dtype)

    def _head_table(self) -> nnx.Param[jax.Array]:
        table: nnx.Param[jax.Array] = getattr(self, "head", self.embedding)
        return table

    def _head(self, table: nnx.Variable[jax.Array], dtype: jnp.dtype) -> Head:
        bias = self.head_bias.get_value() if hasattr(self, "head_bias") else None
        return Head(gather(table, dtype), bias)

    def embed(
        self,
        model: Model,
        tokens_BT: jax.Array,
        positions_BT: jax.Array,
        dtype: jnp.dtype,
        key: jax.Array | None,
        types_BT: jax.Array | None,
        before_BC: jax.Array | None,
    ) -> jax.Array:
        """Token embeddings with what is added to them, ND."""

        def flat(a_BT: jax.Array) -> jax.Array:
            return jax.lax.reshape(a_BT, (a_BT.size,), out_sharding=spec("batch"))

        split = residual(tokens_BT.size)

        def rows(table_VD: jax.Array, ids_BT: jax.Array) -> jax.Array:
            # each device looks up, in the part of the table that it stores, the tokens of all that
            # store other columns; then they exchange what is found, which is less than the table
            stored = jax.typeof(table_VD).sharding.spec
            tokens = tuple(a for a in split.partitions[0] or () if a not in mesh_axes(stored))
            apart = stored.reduced & {*tokens}  # as `beside` has it
            table_VD = jax.reshard(table_VD, jax.P(*stored.partitions, reduced=apart))
            ids_N = jax.reshard(flat(ids_BT), jax.P(tokens))
            columns = jax.P(tokens, stored.partitions[-1])
            found_ND = table_VD.at[ids_N].get(out_sharding=columns)
            # in two steps, or the partitioner would gather everything
            found_ND = jax.reshard(found_ND.astype(dtype), spec("batch", None))
            return jax.reshard(found_ND, split).astype(FP32)

        # out of fp32, or the gradient of a frequent token would be summed up in bf16
        x_ND = rows(self.embedding.get_value(), tokens_BT)
        if model.embedding_scale is not None:
            x_ND *= model.embedding_scale
        if model.ngram_embedding:
            orders, buckets = model.ngram_embedding.orders, model.ngram_embedding.buckets
            tables = self.ngrams.get_value()
            for index, order in enumerate(orders):
                ids_BT = ngram_ids(tokens_BT, positions_BT, before_BC, order, buckets)
                x_ND += rows(tables[index], ids_BT)
        match model.position:
            case Learned():
                x_ND += rows(self.positions.get_value(), positions_BT)
            case Sinusoidal():
                x_ND += jax.reshard(sinusoids(flat(positions_BT), model.d_model), split)
        if model.token_types:
            if types_BT is None:
                x_ND += spread(gather(self.types, FP32)[0], x_ND)
            else:
                x_ND += rows(self.types.get_value(), types_BT)
        if model.embedding_norm:
            x_ND = self.embedding_norm(model, x_ND)
        return dropout(x_ND.astype(dtype), model.dropout, key)

    def for_head(self, model: Model, x_ND: jax.Array) -> jax.Array:
        """Hidden states behind the last norm as the head takes them."""
        if model.head_transform:
            y_ND = x_ND @ beside(gather(self.transform, x_ND.dtype), x_ND)
            y_ND += spread(self.transform_bias.get_value(), y_ND)
            x_ND = self.transform_norm(model, jax.nn.gelu(y_ND, approximate=False))
        if model.head_scale is not None:
            x_ND *= jnp.asarray(model.head_scale, x_ND.dtype)
        return x_ND
