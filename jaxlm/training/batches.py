"""Batches on the devices, made and moved while the step before them computes."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from jaxlm.config import Config
from jaxlm.config.lengths import layout
from jaxlm.config.objective import PrefixLM, SpanCorruption, components
from jaxlm.objectives import Batch
from jaxlm.parallel import spec
from jaxlm.parallel.context import cut, parts
from jaxlm.tokens import Loader

AHEAD = 2


class Ready(NamedTuple):
    """A step's batch on the devices, [M, B, T], and what the host knows of it."""

    batch: Batch[jax.Array]
    microbatches: jax.Array | None
    """How many of them are computed, int32; None: all."""
    tokens: int
    """Places of the rows."""
    targets: int
    """Targets that count."""
    places: int
    """Places of tokens that the model computes, padding and the encoder's included."""
    read_S: NDArray[np.int64]
    """Stored tokens that it took up of each source."""


def batches(config: Config, loader: Loader, start: int, stop: int) -> Iterator[Ready]:
    """The batches of steps start..stop-1; a thread keeps the next ones ready.

    config: without a curriculum, or that of the stage in which the steps are.
    """
    train, mesh = config.train, jax.sharding.get_mesh()  # set for this thread only
    size = train.microbatch_size or train.batch_size
    everywhere = jax.NamedSharding(mesh, jax.P())

    def make(step: int) -> Ready:
        host = loader.batch_at(step)
        encoder_BS, rows = host.encoder_tokens_BS, len(host.tokens_BT)
        microbatches = None
        if train.batch_ramp is not None:
            number = np.int32(rows // size)
            microbatches = jax.make_array_from_callback((), everywhere, lambda _: number)
        return Ready(
            place(_filled(host, train.batch_size), train.batch_size // size, mesh),
            microbatches,
            rows * config.data.seq_len,
            int(host.weights_BT.sum()),
            host.tokens_BT.size + (0 if encoder_BS is None else encoder_BS.size),
            loader.read_at(step),
        )

    yield from ahead(make, start, stop)


def ahead[Made](make: Callable[[int], Made], start: int, stop: int) -> Iterator[Made]:
    """make(step) of steps start..stop-1 in order; a thread makes the next ones."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
        waiting: deque[Future[Made]] = deque()
        for step in range(start, stop + AHEAD):
            if step < stop:
                waiting.append(pool.submit(make, step))
            if step >= start + AHEAD:
                yield waiting.popleft().result()


def _filled(host: Batch[NDArray[Any]], rows: int) -> Batch[NDArray[Any]]:
    """A batch of a ramp with rows of zeros up to the number that all steps have."""
    missing = rows - len(host.tokens_BT)
    if not missing:
        return host
    return jax.tree.map(lambda a: np.pad(a, ((0, missing), (0, 0))), host)


def place(
    host: Batch[NDArray[Any]], microbatches: int, mesh: jax.sharding.Mesh
) -> Batch[jax.Array]:
    """A host batch [M * B, T] as [M, B, T] on the mesh's devices; what is None stays so.

    Where the mesh has a context axis of C > 1, as parts [M, C * B, T / C] (parallel/context.py).
    """
    sharding = jax.NamedSharding(mesh, spec(None, "batch", None))

    def put(array: NDArray[Any]) -> jax.Array:
        split = array.reshape(microbatches, -1, *array.shape[1:])
        split = cut(split, mesh.shape["context"])
        return jax.make_array_from_callback(split.shape, sharding, lambda index: split[index])

    return jax.tree.map(put, host)


def shapes(config: Config) -> Batch[jax.ShapeDtypeStruct]:
    """What `place` makes of a step's batch on the mesh that is set; nothing is computed.

    config: without a curriculum, or that of a stage.
    """
    kind, train, S = config.model.kind, config.train, config.data.seq_len
    objectives = components(config.objective)
    T = max(layout(objective, kind, S).target_len for objective in objectives)
    B = train.microbatch_size or train.batch_size
    sharding = jax.NamedSharding(jax.sharding.get_mesh(), spec(None, "batch", None))
    count = parts()

    def of(length: int, dtype: Any) -> jax.ShapeDtypeStruct:
        shape = (train.batch_size // B, count * B, length // count)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    row = of(T, np.int32)
    prefix = kind == "prefix_decoder" and any(
        isinstance(objective, PrefixLM | SpanCorruption) for objective in objectives
    )
    encoder = (of(S, np.int32) if kind == "encoder_decoder" else None,) * 3
    return Batch(row, row, of(T, np.float32), row, row, row if prefix else None, *encoder)
