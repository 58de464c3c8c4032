"""Text from prompts longer than a window: keys and values that leave it go to a memory, and those
that matter to a query are looked up there, token by token or block by block.

A prompt is read in chunks, layer by layer, by the programs of jaxlm/evaluation/recall.py; between
them the memory may lie in the host's memory, and only what was selected goes to the device.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config.memory import MemoryRequest
from jaxlm.config.model import Model
from jaxlm.errors import UserError
from jaxlm.evaluation.generate import by_length, codec, refusals
from jaxlm.evaluation.recall import (
    Heads,
    Kept,
    Plan,
    attend,
    embed,
    nearer,
    no_keys,
    project,
    relevant,
    represent,
    score_next,
)
from jaxlm.evaluation.sampling import Request, sample
from jaxlm.evaluation.trained import Trained
from jaxlm.models import Transformer
from jaxlm.models.attention import Own
from jaxlm.training.loss import DTYPES

# T tokens of a chunk, X last tokens kept on the device, S slots of the memory, P selected tokens
# that all queries share, k tokens that a query head selects for itself, U blocks, K key-value
# heads, G query heads of each, H head width; a batch B is one row

TILE = 2048
"""Keys of the memory that are compared with a chunk's queries at a time."""


def generate_with_memory(
    trained: Trained, prompts: Sequence[str], request: Request, memory: MemoryRequest
) -> list[str]:
    """What `generate` gives, with the past selected from a memory; prompts are read one by one.

    Works on one device. Raises UserError for what cannot be read so.
    """
    tokenizer, config = trained.tokenizer, trained.config
    encode, decode = codec(tokenizer, request)
    ids = [[tokenizer.bos_id, *encode(prompt)] for prompt in prompts]
    found = memory.problems(config.model, config.data.seq_len)
    if trained.mesh.size > 1:
        found.append(f"--memory works on one device, not on a mesh of {trained.mesh.size}")
    if found := request.problems() + (found or refusals(config.model, ids, request)):
        raise UserError(found)
    key = jax.random.key(request.seed)
    texts = []
    with jax.set_mesh(trained.mesh):
        for row, its in enumerate(ids):
            new = continued_with_memory(
                config.model, trained.params, its, request, memory, jax.random.fold_in(key, row),
                eos_id=tokenizer.eos_id, dtype=DTYPES[config.train.precision],
            )  # fmt: skip
            texts.append(decode(new))
    return texts


def continued_with_memory(
    model: Model,
    params: Transformer,
    prompt: Sequence[int],
    request: Request,
    memory: MemoryRequest,
    key: jax.Array,
    *,
    eos_id: int,
    dtype: jnp.dtype,
) -> list[int]:
    """Ids that follow a prompt, up to the end of the document, which is left out.

    key: of the draws. Works on the mesh that is set, of one device.
    """
    reader = Reader(model, params, memory, len(prompt) + request.max_tokens, dtype)
    draw = jax.jit(partial(sample, request=request._replace(seed=0)))
    logits_V, new = reader.read(prompt), []
    for step in range(request.max_tokens):
        chosen = int(draw(logits_V, jax.random.fold_in(key, step)))
        if chosen == eos_id:
            break
        new.append(chosen)
        if step + 1 < request.max_tokens:
            logits_V = reader.read([chosen])
    return new


type Past = np.ndarray | jax.Array
"""Keys or values of a layer's tokens, SKH, on the host or on the device."""


class Layer(NamedTuple):
    """What a layer knows of the tokens before; the memory is written in place."""

    kept: Kept
    keys: Past
    values: Past
    sums_UKGH: jax.Array | None
    """Sum of each block's representatives, fp32; None: the layer selects no blocks."""
    selects: bool


class Reader:
    """One row, read from its beginning on."""

    def __init__(
        self,
        model: Model,
        params: Transformer,
        memory: MemoryRequest,
        length: int,
        dtype: jnp.dtype,
    ) -> None:
        """length: tokens that will be read at most."""
        # few different shapes, so that few are compiled
        step = 256 if length <= TILE else TILE
        slots = -(-length // step) * step
        self.plan = Plan(model, memory, dtype, length if by_length(model) else slots, slots)
        self.params, self.start = params, 0
        embedding = model.ngram_embedding
        self.before = [0] * (max(embedding.orders) - 1 if embedding else 0)
        self.layers = [self._nothing(layer) for layer in range(model.layers)]

    def _nothing(self, layer: int) -> Layer:
        model, memory = self.plan.model, self.plan.memory
        K, G, H = model.kv_head_count, model.heads // model.kv_head_count, model.head_width
        selects = memory.layers is None or layer in memory.layers
        zeros: Callable[..., Any] = np.zeros if memory.on == "host" else jnp.zeros
        shape = (self.plan.slots if selects else memory.sinks, K, H)
        last = partial(jnp.zeros, (memory.kept, K, H), self.plan.dtype)
        by_blocks = selects and memory.kind == "blocks"
        kept = Kept(
            last(),
            last(),
            last() if self.plan.pattern.near is not None else None,
            jnp.zeros((memory.kept, K, G)) if by_blocks else None,
        )
        sums_UKGH = jnp.zeros((self.plan.blocks, K, G, H)) if by_blocks else None
        return Layer(
            kept, zeros(shape, self.plan.dtype), zeros(shape, self.plan.dtype), sums_UKGH, selects
        )

    def read(self, ids: Sequence[int]) -> jax.Array:
        """Logits, fp32 V, of what follows these tokens."""
        assert ids
        chunk = self.plan.memory.chunk
        for first in range(0, len(ids), chunk):
            x_ND, count = self._read_chunk(ids[first : first + chunk])
        return score_next(self.plan, self.params, x_ND, count)

    def _read_chunk(self, ids: Sequence[int]) -> tuple[jax.Array, int]:
        """Hidden states of all layers for these tokens, and how many they are without filling."""
        plan, start, count = self.plan, self.start, len(ids)
        # few different shapes, so that few are compiled
        width = min(plan.memory.chunk, 1 << (count - 1).bit_length())
        tokens_BT = np.array([[*ids, *[ids[-1]] * (width - count)]], np.int32)
        before_BC = np.array([self.before], np.int32)
        x_ND = embed(plan, self.params, tokens_BT, before_BC, start, count)
        for number in range(plan.model.layers):
            heads = project(plan, self.params.decoder.blocks, number, x_ND, start, count)
            x_ND = self.recall(number, x_ND, heads, count)
        self.start += count
        self.before = [*self.before, *ids][count:]
        return x_ND, count

    def recall(self, number: int, x_ND: jax.Array, heads: Heads, count: int) -> jax.Array:
        """A layer behind its projections: x ND of a chunk of `count` tokens at self.start."""
        plan, start, layer = self.plan, self.start, self.layers[number]
        distant_k, new_v = heads.distant.k_BSKH[0], heads.v_BTKH[0]
        layer = layer._replace(
            keys=_written(layer.keys, distant_k, start, count),
            values=_written(layer.values, new_v, start, count),
        )
        places_P, own = self._selected(layer, heads, count)
        shared = tuple(_looked_up(past, places_P) for past in (layer.keys, layer.values))
        kept, sums_UKGH = layer.kept, layer.sums_UKGH
        if sums_UKGH is not None and plan.blocks:
            score_XKG, sums_UKGH = represent(plan, heads, kept, sums_UKGH, start, count)
            kept = kept._replace(score_XKG=score_XKG)
        x_ND, kept = attend(
            plan, self.params.decoder.blocks, number, x_ND, heads, kept, places_P, shared, own,
            start, count,
        )  # fmt: skip
        self.layers[number] = layer._replace(kept=kept, sums_UKGH=sums_UKGH)
        return x_ND

    def _selected(self, layer: Layer, heads: Heads, count: int) -> tuple[Any, Own | None]:
        """Places of what all queries see of the memory (-1: nothing), and what each sees alone."""
        plan, memory, start = self.plan, self.plan.memory, self.start
        on_host: Callable[[Any], Any] = np.asarray if memory.on == "host" else lambda a: a
        sinks = np.arange(memory.sinks) if start > memory.kept else np.full(memory.sinks, -1)
        if not layer.selects:
            return sinks, None
        q_TKGH = heads.distant.q_BTKGH[0]
        if layer.sums_UKGH is not None and plan.blocks:
            return on_host(relevant(plan, q_TKGH, layer.sums_UKGH, start, count)), None
        if not plan.k:
            return sinks, None
        best = no_keys(plan, q_TKGH)
        for first in range(0, start + count - memory.window, TILE):
            best = nearer(plan, best, q_TKGH, _tile(layer.keys, first), first, start)
        places = on_host(best.place_TKGk)
        own = Own(
            _looked_up(layer.keys, places)[None],
            _looked_up(layer.values, places)[None],
            on_host(jnp.isfinite(best.score_TKGk[None, :, 0, 0])),
        )
        return sinks, own


def _written(past: Past, new_TKH: jax.Array, start: int, count: int) -> Past:
    """The memory with the first `count` of new keys or values, as far as it has room."""
    if isinstance(past, np.ndarray):
        end = max(min(start + count, len(past)), start)
        past[start:end] = np.asarray(new_TKH)[: end - start]
        return past
    return _written_on_device(past, new_TKH, start, count)


@partial(jax.jit, donate_argnums=0)
def _written_on_device(
    past_SKH: jax.Array, new_TKH: jax.Array, start: int, count: int
) -> jax.Array:
    index_T = jnp.arange(new_TKH.shape[0])
    slot_T = jnp.where(index_T < count, start + index_T, past_SKH.shape[0])
    return past_SKH.at[slot_T].set(new_TKH, mode="drop")


def _looked_up(past: Past, places: Any) -> Any:
    """Keys or values of these places, [..., H] behind the axes of P, or TKGk with a head each."""
    return _taken(past, places) if isinstance(past, np.ndarray) else _taken_on_device(past, places)


def _taken(past_SKH: Any, places: Any) -> Any:
    places = places.clip(0)  # -1: any, it is not seen
    if places.ndim == 1:
        return past_SKH[places]
    return past_SKH[places, np.arange(past_SKH.shape[1])[:, None, None]]


_taken_on_device = jax.jit(_taken)


def _tile(past: Past, first: int) -> Any:
    if isinstance(past, np.ndarray):
        return past[first : first + TILE]
    return _tile_on_device(past, first, min(TILE, past.shape[0]))


@partial(jax.jit, static_argnums=2)
def _tile_on_device(past_SKH: jax.Array, first: int, size: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(past_SKH, first, size)
