"""Token store -> batches, as a pure function of the step."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from jaxlm.config import Config
from jaxlm.errors import UserError
from jaxlm.objectives import Batch, lm
from jaxlm.tokens.mixture import Mixture
from jaxlm.tokens.shuffle import key_of, permute
from jaxlm.tokens.store import Store, TokenArray
from jaxlm.tokens.tokenizer import load_tokenizer
from jaxlm.workdir import Workdir


@dataclass(frozen=True)
class Stream:
    """The training tokens of one source and its weight in the mixture."""

    name: str
    tokens: TokenArray
    weight: float


class Loader:
    """batch_at(step) for every step, in any order, at the same cost.

    Each source is cut into windows of seq_len + 1 tokens at stride seq_len. The mixture says which
    source row i of step k comes from and how many examples of it came before; these count through
    the source's windows in an order that is shuffled anew in each epoch. The end of a source, up to
    seq_len tokens that fill no window, is not used.
    """

    def __init__(
        self, streams: list[Stream], *, seq_len: int, batch_size: int, seed: int, bos_id: int
    ) -> None:
        self._streams = streams
        self._seq_len, self._batch_size, self._bos_id = seq_len, batch_size, bos_id
        self.windows = [(stream.tokens.length - 1) // seq_len for stream in streams]
        """Windows of each source: the examples of an epoch."""
        short = [
            f"source {stream.name}: {stream.tokens.length} tokens to train on do not fill one "
            f"sequence of data.seq_len={seq_len}; lower it, or bring more text"
            for stream, count in zip(streams, self.windows, strict=True)
            if count < 1
        ]
        if short:
            raise UserError(short)
        self.mixture = Mixture([stream.weight for stream in streams])
        self._keys = [key_of(seed, "shuffle", stream.name) for stream in streams]

    def batch_at(self, step: int, rows: slice = slice(None)) -> Batch[NDArray[Any]]:
        """Rows `rows` of the batch of a step (from 0); all hosts' rows together are the batch.

        Raises UserError where a file of the store is damaged.
        """
        source_B, place_B = self.mixture(self._examples(step, rows))
        windows_BT1 = np.empty((len(source_B), self._seq_len + 1), self._streams[0].tokens.dtype)
        reads = []
        with ts.Batch() as batch:
            for source in np.unique(source_B):
                row = np.flatnonzero(source_B == source)
                epoch, place = np.divmod(place_B[row], self.windows[source])
                window = permute(place, self.windows[source], self._keys[source], epoch)
                starts = window * self._seq_len
                tokens = self._streams[source].tokens
                futures = tokens.start_reads(starts, starts + self._seq_len + 1, batch)
                reads += [(tokens, r, f) for r, f in zip(row.tolist(), futures, strict=True)]
        for tokens, r, future in reads:
            windows_BT1[r] = tokens.finish(future)
        return lm(windows_BT1, self._bos_id)

    def sources_at(self, step: int) -> NDArray[np.int32]:
        """The source of each row of a step, as its number in the config, int32 [B]."""
        return self.mixture(self._examples(step, slice(None)))[0]

    def _examples(self, step: int, rows: slice) -> NDArray[np.int64]:
        return step * self._batch_size + np.arange(self._batch_size, dtype=np.int64)[rows]


def open_loader(config: Config, workdir: Workdir) -> Loader:
    """The training batches of a run.

    Raises UserError for a store that is broken, too small or of another tokenizer.
    """
    store = _open_store(workdir)
    return Loader(
        [
            Stream(source.name, store.tokens(source.name, "train"), source.weight)
            for source in config.sources
        ],
        seq_len=config.data.seq_len,
        batch_size=config.train.batch_size,
        seed=config.seed,
        bos_id=store.manifest.bos_id,
    )


def validation_batches(
    config: Config, workdir: Workdir, source: str, batch_size: int
) -> Iterator[Batch[NDArray[Any]]]:
    """Every validation token of a source once as a target, in order; the last batch is padded.

    No batch comes for a source without validation documents.
    """
    store = _open_store(workdir)
    tokens, T = store.tokens(source, "valid"), config.data.seq_len
    windows = -(-max(tokens.length - 1, 0) // T)
    for first in range(0, windows, batch_size):
        start = first * T
        flat = tokens.read(start, min(start + batch_size * T + 1, tokens.length))
        padded = np.zeros(batch_size * T + 1, flat.dtype)
        padded[: flat.size] = flat
        windows_BT1 = np.lib.stride_tricks.sliding_window_view(padded, T + 1)[::T]
        lengths_B = np.clip(flat.size - np.arange(batch_size) * T, 0, T + 1)
        yield lm(windows_BT1, store.manifest.bos_id, lengths_B)


def _open_store(workdir: Workdir) -> Store:
    store = Store(workdir.tokens)
    if load_tokenizer(workdir.tokenizer).hash != store.manifest.tokenizer_hash:
        raise UserError(
            f"{workdir.tokens}: was made with another tokenizer than {workdir.tokenizer} holds; "
            "run `jaxlm tokenize` again, or put that tokenizer back"
        )
    return store
