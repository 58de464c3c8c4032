"""Token store -> batches, as a pure function of the step."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from jaxlm.config import Config
from jaxlm.config.stages import stages
from jaxlm.errors import UserError
from jaxlm.objectives import Batch, Prepared
from jaxlm.tokens.mixture import Mixture
from jaxlm.tokens.order import Order, block_length
from jaxlm.tokens.shuffle import key_of
from jaxlm.tokens.store import Store, TokenArray, shared_weights
from jaxlm.tokens.tokenizer import Tokenizer, load_tokenizer
from jaxlm.workdir import Workdir


@dataclass(frozen=True)
class Stream:
    """The training tokens of one stream of the store (a source, or a part of one)."""

    name: str
    tokens: TokenArray


class Stage(NamedTuple):
    """What a stage of the run asks of the loader."""

    steps: int
    """How many; the last stage has no end."""
    batch_size: int
    weights: list[float]
    """One a stream; 0: it takes no part."""
    objective: Prepared


class Loader:
    """batch_at(step) for every step, in any order, at the same cost.

    Each source is cut into windows at the objective's stride. The mixture says which source row i
    of step k comes from and how many examples of it came before; these count through the source's
    windows in an order that is shuffled anew in each epoch (jaxlm/tokens/order.py). The end of a
    source, which fills no window, is not used. What is drawn for an example depends on the seed,
    its source and how many examples of the source came before it in the run, and so does, in an
    exact cycle, which of several objectives it takes.
    """

    def __init__(self, streams: list[Stream], stages: list[Stage], *, seed: int) -> None:
        """Raises UserError where sources are too short."""
        self._streams, self._stages = streams, stages
        self._first = np.cumsum([0, *(stage.steps for stage in stages[:-1])]).tolist()
        self._sources = [np.flatnonzero(stage.weights) for stage in stages]
        self._mixtures = [
            Mixture([stage.weights[source] for source in sources])
            for stage, sources in zip(stages, self._sources, strict=True)
        ]
        self._components = [
            Mixture(stage.objective.weights) if len(stage.objective.weights) > 1 else None
            for stage in stages
        ]
        # examples of each source before each stage, and after the last one
        self._before = np.zeros((len(stages) + 1, len(streams)), np.int64)
        for k, stage in enumerate(stages):
            self._before[k + 1] = self._before[k]
            examples = self._mixtures[k].before(stage.steps * stage.batch_size)
            self._before[k + 1, self._sources[k]] += examples
        self._draws = [np.uint64(key_of("examples", stream.name)) for stream in streams]
        self._orders: list[dict[int, Order]] = [{} for _ in stages]
        short: list[str] = []
        for source, stream in enumerate(streams):
            short += self._lay_out(source, stream, seed)
        if short:
            raise UserError(short)

    def _lay_out(self, source: int, stream: Stream, seed: int) -> list[str]:
        """Find the orders of a source's windows in all stages; returns what is wrong."""
        parts = [k for k, stage in enumerate(self._stages) if stage.weights[source]]
        if not parts:
            return []
        objectives = [self._stages[k].objective for k in parts]
        block = block_length([o.stride for o in objectives], stream.tokens.length)
        needed = block + max(objective.window - objective.stride for objective in objectives)
        blocks = 1 + (stream.tokens.length - needed) // block
        if blocks < 1:
            return [
                f"source {stream.name}: {stream.tokens.length} tokens to train on do not fill one "
                f"sequence, which takes {needed}; lower data.seq_len, or bring more text"
            ]
        begin = 0
        for k, objective in zip(parts, objectives, strict=True):
            examples = int(self._before[k + 1, source] - self._before[k, source])
            taken = -(-examples // (block // objective.stride))
            self._orders[k][source] = Order(
                blocks,
                block,
                objective.stride,
                begin,
                None if k == len(self._stages) - 1 else taken,
                key_of(seed, "shuffle", stream.name),
                key_of(seed, "shuffle windows", stream.name, k),
            )
            begin += taken
        return []

    @property
    def names(self) -> list[str]:
        """The streams, in the order of their numbers."""
        return [stream.name for stream in self._streams]

    @property
    def weights(self) -> list[float]:
        """Of the streams, in the first stage."""
        return self._stages[0].weights

    def with_weights(self, weights: Sequence[float], *, seed: int) -> "Loader":
        """The same streams in other proportions in every stage, and in the order of this seed."""
        stages = [stage._replace(weights=list(weights)) for stage in self._stages]
        return Loader(self._streams, stages, seed=seed)

    def batch_at(self, step: int, rows: slice = slice(None)) -> Batch[NDArray[Any]]:
        """Rows `rows` of the batch of a step (from 0); all hosts' rows together are the batch.

        Raises UserError where a file of the store is damaged.
        """
        k = self._stage_at(step)
        objective, components = self._stages[k].objective, self._components[k]
        source_B, place_B = self._examples(step, rows)
        windows_BW = np.empty((len(source_B), objective.window), self._streams[0].tokens.dtype)
        number_B, component_B = place_B.copy(), None if components is None else place_B.copy()
        reads = []
        with ts.Batch() as batch:
            for source in np.unique(source_B):
                row = np.flatnonzero(source_B == source)
                count = self._before[k, source] + place_B[row]
                number_B[row] = (count.astype(np.uint64) + self._draws[source]).view(np.int64)
                if components is not None and component_B is not None:
                    component_B[row] = components(count)[0]
                starts = self._orders[k][source].starts(place_B[row])
                tokens = self._streams[source].tokens
                futures = tokens.start_reads(starts, starts + objective.window, batch)
                reads += [(tokens, r, f) for r, f in zip(row.tolist(), futures, strict=True)]
        for tokens, r, future in reads:
            windows_BW[r] = tokens.finish(future)
        return objective(windows_BW, number_B, component_B)

    def sources_at(self, step: int) -> NDArray[np.int64]:
        """The source of each row of a step, as its number in `names`, int64 [B]."""
        return self._examples(step, slice(None))[0]

    def read_at(self, step: int) -> NDArray[np.int64]:
        """Stored tokens of each source that a step takes up, int64 [sources]."""
        stride = self._stages[self._stage_at(step)].objective.stride
        return stride * np.bincount(self.sources_at(step), minlength=len(self._streams))

    def _stage_at(self, step: int) -> int:
        return bisect_right(self._first, step) - 1

    def _examples(self, step: int, rows: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The source of each row, and how many examples of it came before in the stage."""
        k = self._stage_at(step)
        size = self._stages[k].batch_size
        example_B = (step - self._first[k]) * size + np.arange(size, dtype=np.int64)[rows]
        part_B, place_B = self._mixtures[k](example_B)
        return self._sources[k][part_B], place_B


def open_loader(config: Config, workdir: Workdir) -> Loader:
    """The training batches of a run, over all its stages.

    Raises UserError for a store that is broken, too small, of another tokenizer, or whose documents
    are not arranged as the objective wants them.
    """
    store, tokenizer = _open_store(workdir)
    if store.manifest.document_fim != config.document_fim:
        raise UserError(
            f"{workdir.tokens}: its documents are stored for another objective (fim of level "
            "document rearranges them when they are tokenized); run `jaxlm tokenize` again"
        )
    if (store.manifest.split_by, store.manifest.sort_by) != (
        config.data.split_by, config.data.sort_by
    ):  # fmt: skip
        raise UserError(
            f"{workdir.tokens}: its documents are parted or sorted otherwise than data.split_by "
            "and data.sort_by say; run `jaxlm tokenize` again, or change them back"
        )
    streams = store.streams([source.name for source in config.sources])
    return Loader(
        [Stream(name, store.tokens(name, "train")) for name in streams],
        [
            Stage(
                stage.last - stage.first,
                stage.config.train.batch_size,
                shared_weights(streams, {s.name: s.weight for s in stage.config.sources}),
                _prepared(stage.config, tokenizer),
            )
            for stage in stages(config)
        ],
        seed=config.seed,
    )


def stream_names(config: Config, workdir: Workdir) -> list[str]:
    """The streams of the store that a config's sources have, in their order."""
    store, _ = _open_store(workdir)
    return list(store.streams([source.name for source in config.sources]))


def validation_batches(
    config: Config, workdir: Workdir, stream: str, batch_size: int
) -> Iterator[Batch[NDArray[Any]]]:
    """The validation tokens of a stream under the objective of a config without a curriculum.

    Windows lie end to end in the order of the store, and the last batch is padded. With next-token
    prediction every token is a target once. What is drawn for a window depends on its number alone,
    so every evaluation sees the same. No batch comes for a stream without validation documents.
    """
    store, tokenizer = _open_store(workdir)
    objective = _prepared(config, tokenizer)
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


def _prepared(config: Config, tokenizer: Tokenizer) -> Prepared:
    return Prepared(
        config.objective,
        kind=config.model.kind,
        seq_len=config.data.seq_len,
        vocabulary=tokenizer,
        seed=config.seed,
    )


def _open_store(workdir: Workdir) -> tuple[Store, Tokenizer]:
    store, tokenizer = Store(workdir.tokens), load_tokenizer(workdir.tokenizer)
    if tokenizer.hash != store.manifest.tokenizer_hash:
        raise UserError(
            f"{workdir.tokens}: was made with another tokenizer than {workdir.tokenizer} holds; "
            "run `jaxlm tokenize` again, or put that tokenizer back"
        )
    return store, tokenizer
