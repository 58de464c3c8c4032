"""Rows of tokens that are cut over the mesh's context axis.

A batch of B rows of T tokens is then one of C x B rows of T/C: row c x B + b is part c of row b,
and lies on the devices with index c of that axis. All that is computed token by token takes parts
for rows. In attention a device gathers the keys and values of whole rows, and has its parts'
queries.

A part is two chunks of T/2C: the c-th of the row from its begin and the c-th from its end. So all
parts see as many keys before their queries (Llama Team 2024, "The Llama 3 Herd of Models", section
3.3.2, which gathers keys and values likewise).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxlm.parallel.axes import spec

# B rows, T tokens of a row or part, C parts


def parts() -> int:
    """How many parts rows are cut into on the mesh that is set; 1: they are whole."""
    return jax.sharding.get_abstract_mesh().shape.get("context", 1)


def order(length: int, count: int) -> NDArray[np.int32]:
    """The places of a row's tokens, part after part, int32 [length]."""
    chunks = np.arange(length, dtype=np.int32).reshape(2 * count, -1)
    return np.stack([chunks[:count], chunks[count:][::-1]], axis=1).reshape(length)


def cut(array_BT: NDArray[Any], count: int) -> NDArray[Any]:
    """Rows [..., B, T] as parts [..., count x B, T / count]; T is a multiple of 2 x count."""
    *before, B, T = array_BT.shape
    if count == 1:
        return array_BT
    array_BCt = array_BT[..., order(T, count)].reshape(*before, B, count, T // count)
    return np.moveaxis(array_BCt, -2, -3).reshape(*before, count * B, T // count)


def places(parts_BT: jax.Array) -> jax.Array | None:
    """Place of each token of parts [C x B, T / C] in its row, int32; None where rows are whole."""
    count, (rows, length) = parts(), parts_BT.shape
    if count == 1:
        return None
    lines = spec("batch", None)

    def index(axis: int) -> jax.Array:
        return jax.lax.broadcasted_iota(jnp.int32, (rows, length), axis, out_sharding=lines)

    part_BT, place_BT, chunk = index(0) // (rows // count), index(1), length // 2
    behind_BT = (2 * count - 2 - part_BT) * chunk  # of the second chunk, whose places go on
    return place_BT + jnp.where(place_BT < chunk, part_BT * chunk, behind_BT)


def whole_rows(x_BT: jax.Array) -> jax.Array:
    """Inside of a shard_map, the rows [B, T, ...] of this device's parts [B, T / C, ...]."""
    count = parts()
    B, length = x_BT.shape[:2]
    # parts come first: on TPUs sums are scattered over the first axis alone
    gathered = jax.lax.all_gather(x_BT, "context", tiled=True)
    chunks = gathered.reshape(count, B, 2, length // 2, *x_BT.shape[2:])
    natural = jnp.concatenate([chunks[:, :, 0], chunks[::-1, :, 1]])
    return jnp.moveaxis(natural, 0, 1).reshape(B, count * length, *x_BT.shape[2:])
