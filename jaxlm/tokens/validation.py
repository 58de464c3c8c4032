"""The documents that are held apart, as batches to score."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxlm.config import Config
from jaxlm.objectives import Batch
from jaxlm.tokens.loader import open_store, prepared
from jaxlm.tokens.mixture import Mixture
from jaxlm.tokens.store import Store
from jaxlm.workdir import Workdir


def stream_names(config: Config, workdir: Workdir) -> list[str]:
    """The streams of the store that a config's sources have, in their order."""
    store, _ = open_store(workdir)
    return list(store.streams([source.name for source in config.sources]))


def validation_batches(
    config: Config, workdir: Workdir, stream: str, batch_size: int
) -> Iterator[Batch[NDArray[Any]]]:
    """The validation tokens of a stream under the objective of a config without a curriculum.

    Windows lie end to end in the order of the store, and the last batch is padded. With next-token
    prediction every token is a target once. What is drawn for a window depends on its number alone,
    so every evaluation sees the same. No batch comes for a stream without validation documents.
    """
    store, tokenizer = open_store(workdir)
    objective = prepared(config, tokenizer)
    components = Mixture(objective.weights) if len(objective.weights) > 1 else None
    tokens, W, stride = store.tokens(stream, "valid"), objective.window, objective.stride
    windows = -(-max(tokens.length - (W - stride), 0) // stride)
    for first in range(0, windows, batch_size):
        start, span = first * stride, (batch_size - 1) * stride + W
        flat = tokens.read(start, min(start + span, tokens.length))
        padded = np.zeros(span, flat.dtype)
        padded[: flat.size] = flat
        windows_BW = np.lib.stride_tricks.sliding_window_view(padded, W)[::stride]
        lengths_B = np.clip(flat.size - np.arange(batch_size) * stride, 0, W)
        # a window that is no more than the overlap with the one before has nothing of its own
        lengths_B[first + np.arange(batch_size) >= windows] = 0
        number_B = first + np.arange(batch_size, dtype=np.int64)
        component_B = None if components is None else components(number_B)[0]
        yield objective(windows_BW, number_B, component_B, lengths_B)


def held_out(workdir: Workdir) -> set[str]:
    """The streams of a run's store that have validation documents."""
    sources = Store(workdir.tokens).manifest.sources
    return {name for name, source in sources.items() if source.valid.tokens}
