"""Attention from products that XLA compiles, on any platform: blocks of queries, each with the keys
that it can see, so that with a window cost and memory grow linearly with the length."""

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxlm.config.kernels import Pattern
from jaxlm.models.block_attention import Keys, Queries, attend, keys_of, queries_of
from jaxlm.models.masks import Bias, Far, Mask, Own

# B batch, T queries, S keys, K key-value heads, G query heads a key head, H head width, R = T x G
# rows of scores of one key head, P keys of a single query head; `b` is B, or 1 for what is the same
# in all rows of the batch

BLOCK = 64
MOST_BLOCKS = 16
LONG = 2048
"""Rows of more scores than LONG x LONG keep none of them for the backward pass."""
LONG_BLOCK = 128
"""Queries whose scores such a row has in memory at a time."""
LONG_PARTS = 8
"""Different lengths of keys in such a row: causally 9/16 of the work, and as much to compile."""
SLIDING_BLOCKS = (64, 512)
"""Least and most of them with a window: half of it, so that half of the scores are of use or more
and keys are copied three times or a few more."""


type Attend = Callable[[Queries, Keys], jax.Array]
type Indexes = NDArray[np.integer] | jax.Array


def xla(
    q_BTKGH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    mask: Mask,
    pattern: Pattern,
    *,
    bias: Bias | None = None,
    far: Far | None = None,
    sink_logits_KG: jax.Array | None = None,
    own: Own | None = None,
) -> jax.Array:
    """Everything that `attention` promises."""
    T, S = q_BTKGH.shape[1], k_BSKH.shape[1]
    queries = queries_of(q_BTKGH, mask, pattern, far, own)
    keys = keys_of(k_BSKH, v_BSKH, mask, pattern, far)
    run = partial(attend, pattern, bias, sink_logits_KG)
    # keys behind a query are seen by some; a cache is in an order of its own
    ahead = not pattern.causal or mask.prefix_BS is not None
    window = pattern.window and max(pattern.window, pattern.sinks)
    if mask.places_BT is not None:
        o_BKRH = _of_part(run, queries, keys, window, ahead, pattern.sinks)
        return _in_order(o_BKRH, q_BTKGH)
    if window is not None and (mask.first_B is not None or T != S or window >= T):
        window = None  # the mask says it, but no key can be left out
    if T * S > LONG * LONG:
        if window is not None and 2 * window <= T:
            o_BKRH = _sliding(run, queries, keys, window, ahead, pattern.sinks)
        else:
            o_BKRH = _long(run, queries, keys, ahead or mask.first_B is not None)
    elif mask.first_B is not None or T <= BLOCK:
        o_BKRH = run(queries, keys)
    else:
        o_BKRH = _short(run, queries, keys, window, ahead, pattern.sinks)
    return _in_order(o_BKRH, q_BTKGH)


def _in_order(o_BKRH: jax.Array, q_BTKGH: jax.Array) -> jax.Array:
    """Axes as those of the queries."""
    B, T, K, G, H = q_BTKGH.shape
    split = jax.typeof(o_BKRH).sharding.spec[:2]
    shape = (B, K, T, G, H)
    o_BKTGH = jax.lax.reshape(o_BKRH, shape, out_sharding=jax.P(*split, None, None, None))
    return jnp.swapaxes(o_BKTGH, 1, 2)


def _of_part(
    run: Attend, queries: Queries, keys: Keys, window: int | None, ahead: bool, sinks: int
) -> jax.Array:
    """Both chunks of a part (jaxlm/parallel/context.py), each with keys of the whole row that it
    may see: what lies at places that only the device knows is not cut off, but for a window."""
    (T, S), outputs = (_length(queries), _length(keys)), []
    for second in (0, 1):
        chunk = _cut(queries, second * T // 2, (1 + second) * T // 2)
        # the first lies in the first half of the row
        seen = keys if ahead or second else _cut(keys, 0, S // 2)
        if T * S <= LONG * LONG:
            outputs.append(run(chunk, seen))
        elif window is not None and 2 * window <= S:
            first = chunk.places_bT[0, 0]
            outputs.append(_sliding(run, chunk, keys, window, ahead, sinks, first))
        else:
            outputs.append(_long(run, chunk, seen, everything=True))
    return jnp.concatenate(outputs, axis=2)


def _short(
    run: Attend, queries: Queries, keys: Keys, window: int | None, ahead: bool, sinks: int
) -> jax.Array:
    """Blocks one after another, each with the keys that it can see: causally half the work."""
    T, S = _length(queries), _length(keys)
    block = max(BLOCK, -(-T // MOST_BLOCKS))
    outputs = []
    for start in range(0, T, block):
        end = min(start + block, T)
        first = 0 if window is None else max(0, start - window + 1)
        last = min(S, end if not ahead else S if window is None else end + window - 1)
        seen = _cut(keys, first, last)
        if sinks and first:
            begins = _first_keys(keys, np.array([start]), np.array([first]), sinks)
            seen = _joined([begins, seen], blocks=0)
        outputs.append(run(_cut(queries, start, end), seen))
    return jnp.concatenate(outputs, axis=2)


def _long(run: Attend, queries: Queries, keys: Keys, everything: bool) -> jax.Array:
    """Few parts of different lengths, in which block after block is computed, and once more for
    its gradient: scores in memory, and the program, stay small.

    everything: queries may see all keys, not only those up to their own index.
    """
    T, S = _length(queries), _length(keys)
    parts = 1 if everything else LONG_PARTS
    part = LONG_BLOCK * -(-T // (LONG_BLOCK * parts))
    outputs = []
    for start in range(0, T, part):
        end = min(start + part, T)
        count = -(-(end - start) // LONG_BLOCK)
        inside = _padded(_cut(queries, start, end), 0, LONG_BLOCK * count - (end - start))

        def one(block: Queries, last: int = S if everything else min(S, end)) -> jax.Array:
            return run(block, _cut(keys, 0, last))

        o_nBKrH = jax.lax.map(jax.checkpoint(one, prevent_cse=False), _blocks(inside, count))
        outputs.append(_unblocked(o_nBKrH, queries, end - start))
    return jnp.concatenate(outputs, axis=2)


def _sliding(
    run: Attend,
    queries: Queries,
    keys: Keys,
    window: int,
    ahead: bool,
    sinks: int,
    first: jax.Array | None = None,
) -> jax.Array:
    """Block after block, each with the blocks of keys that the window reaches, and once more for
    its gradient. Keys are laid out for all blocks beforehand: a block that took its own from all
    of them would give a gradient for all of them.

    first: index of the first query among the keys; None: queries and keys are of the same tokens.
    """
    T, (least, most) = _length(queries), SLIDING_BLOCKS
    block = min(max(window // 2, least), most)
    count, reach = -(-T // block), -(-(window - 1) // block)
    spans = 2 * reach + 1 if ahead else reach + 1
    padded = _padded(keys, reach * block, (count + spans - 1 - reach) * block - T)
    if first is not None:
        reached = (count + spans - 1) * block
        padded = jax.tree.map(
            lambda a: jax.lax.dynamic_slice_in_dim(a, first, reached, axis=a.ndim // 2), padded
        )
    each = _blocks(padded, count + spans - 1)
    shifted = [jax.tree.map(itemgetter(slice(i, i + count)), each) for i in range(spans)]
    if sinks:
        starts = np.arange(0, T, block) + (0 if first is None else first)
        gathered = _first_keys(keys, starts, starts - reach * block, sinks)
        shifted = [_blocks(gathered, count), *shifted]
    inside = _blocks(_padded(queries, 0, count * block - T), count)
    one = jax.checkpoint(lambda pair: run(*pair), prevent_cse=False)
    return _unblocked(jax.lax.map(one, (inside, _joined(shifted, blocks=1))), queries, T)


def _cut[Part: (Queries, Keys)](part: Part, start: int, end: int) -> Part:
    """Some of the queries or keys: axis 2 of what has heads, axis 1 of what has not."""
    length = _length(part)

    def cut(array: jax.Array) -> jax.Array:
        axis = array.ndim // 2
        rows = array.shape[axis] // length  # G for queries
        return jax.lax.slice_in_dim(array, start * rows, end * rows, axis=axis)

    return jax.tree.map(cut, part)


def _length(part: Queries | Keys) -> int:
    return part.segments_BT.shape[1] if isinstance(part, Queries) else part.segments_BS.shape[1]


def _joined(parts: Sequence[Keys], blocks: int) -> Keys:
    """Keys beside each other; blocks: 1 if arrays have an axis of blocks in front, else 0."""

    def join(*arrays: jax.Array) -> jax.Array:
        return jnp.concatenate(arrays, axis=blocks + (arrays[0].ndim - blocks) // 2)

    # places of all rows, and of each; for a batch of one they still lie on the mesh in two ways
    types = [jax.typeof(part.places_bS) for part in parts]
    if len({(its.shape[blocks], str(its.sharding.spec)) for its in types}) > 1:
        parts = [_of_each_row(part) for part in parts]
    return jax.tree.map(join, *parts)


def _of_each_row(keys: Keys) -> Keys:
    """The same with places of each row of the batch."""
    return keys._replace(places_bS=keys.places_bS + jnp.zeros_like(keys.segments_BS))


def _padded[Part: (Queries, Keys)](part: Part, before: int, behind: int) -> Part:
    """Queries whose outputs are thrown away, keys that are not seen."""

    def pad(array: jax.Array, fill: int = 0) -> jax.Array:
        axis = array.ndim // 2
        rows = array.shape[axis] // _length(part)
        widths = [(0, 0)] * array.ndim
        widths[axis] = (before * rows, behind * rows)
        return jnp.pad(array, widths, constant_values=fill)

    padded = jax.tree.map(pad, part)
    if isinstance(part, Keys):
        padded = padded._replace(segments_BS=pad(part.segments_BS, -1))
    return padded


def _blocks[Part: (Queries, Keys)](part: Part, count: int) -> Part:
    """The same with an axis of blocks in front of every array."""

    def split(array: jax.Array) -> jax.Array:
        axis: int = array.ndim // 2
        length = array.shape[axis] // count
        shape = (*array.shape[:axis], count, length, *array.shape[axis + 1 :])
        names = jax.typeof(array).sharding.spec
        parted = jax.P(*names[:axis], None, None, *names[axis + 1 :])
        return jnp.moveaxis(jax.lax.reshape(array, shape, out_sharding=parted), axis, 0)

    return jax.tree.map(split, part)


def _unblocked(o_nBKrH: jax.Array, queries: Queries, length: int) -> jax.Array:
    """BKRH of the first `length` queries of blocks."""
    n, B, K, r, H = o_nBKrH.shape
    G = queries.q_BKRH.shape[2] // _length(queries)
    names = jax.typeof(o_nBKrH).sharding.spec
    o_BKnrH = jnp.moveaxis(o_nBKrH, 0, 2)
    flat = jax.P(*names[1:3], None, None)
    return jax.lax.reshape(o_BKnrH, (B, K, n * r, H), out_sharding=flat)[:, :, : length * G]


def _first_keys(keys: Keys, starts: Indexes, held: Indexes, sinks: int) -> Keys:
    """The first keys of the document that the query at each of `starts` is in.

    A document that begins later in that block of queries begins among the keys that the block has
    anyway. So does this one perhaps: keys from the place in `held` on get a segment that no query
    has.
    """
    segments_BS, S = keys.segments_BS, _length(keys)
    new_BS = segments_BS != jnp.pad(segments_BS, ((0, 0), (1, 0)), constant_values=-1)[:, :S]
    begin_BS = jax.lax.cummax(jnp.where(new_BS, jnp.arange(S), 0), axis=1)
    # layouts are given, since a gather forgets that of a batch of one
    rows = jax.P(jax.typeof(segments_BS).sharding.spec[0], None)
    begin_Bn = begin_BS.at[:, starts].get(out_sharding=rows)
    place_Bnj = begin_Bn[:, :, None] + jnp.arange(sinks)
    unseen_Bnj = place_Bnj >= jnp.minimum(held, S)[:, None]
    shape = (place_Bnj.shape[0], len(starts) * sinks)
    place_Bm = jax.lax.reshape(jnp.minimum(place_Bnj, S - 1), shape, out_sharding=rows)
    unseen_Bm = jax.lax.reshape(unseen_Bnj, shape, out_sharding=rows)

    def take(array: jax.Array) -> jax.Array:
        index = place_Bm if array.ndim == 2 else place_Bm[:, None, :, None]
        taken = jnp.take_along_axis(array, index, axis=array.ndim // 2)
        return jax.reshard(taken, jax.P(*jax.typeof(array).sharding.spec))

    taken = jax.tree.map(take, _of_each_row(keys))
    return taken._replace(segments_BS=jnp.where(unseen_Bm, -1, taken.segments_BS))
