"""Token store -> batches, as a pure function of the step."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from jaxlm.config import Config
from jaxlm.config.data import Order
from jaxlm.config.mixture import Mixture as MixtureConfig
from jaxlm.config.stages import stages
from jaxlm.config.steps import Span
from jaxlm.errors import UserError
from jaxlm.objectives import Batch, Prepared
from jaxlm.tokens.examples import Examples, Segment, by_skills, decided, fixed
from jaxlm.tokens.mixture import Mixture, exact
from jaxlm.tokens.order import GROUP, WindowOrder, block_length
from jaxlm.tokens.shuffle import key_of
from jaxlm.tokens.store import Store, TokenArray
from jaxlm.tokens.tokenizer import Tokenizer, load_tokenizer
from jaxlm.tokens.weights import Kept, by_key, capped, epochs_of, kept_of, weights_of
from jaxlm.workdir import Workdir


@dataclass(frozen=True)
class Stream:
    """The training tokens of one stream of the store (a source, or a part of one)."""

    kept: Kept
    tokens: TokenArray


class Stage(NamedTuple):
    """What a stage of the run asks of the loader."""

    name: str | None
    spans: tuple[Span, ...]
    """Its steps; the last stage has no end."""
    mixture: MixtureConfig
    order: Order
    objective: Prepared

    @property
    def fixed(self) -> bool:
        """Whether it is known before how many examples of each stream it has."""
        return self.mixture.dynamic is None

    @property
    def where(self) -> str:
        """Its mixture, for messages."""
        return "data.mixture" if self.name is None else f"stage {self.name}: mixture"


type Decision = tuple[int, Mapping[str, float]]
"""Steps of the run before it holds, and the share of each stream that takes part."""


class Loader:
    """batch_at(step) for every step, in any order, at the same cost.

    Each stream is cut into windows at the objective's stride. The mixture says which stream row i
    of step k comes from and how many examples of it came before; these count through the stream's
    windows in an order that is shuffled anew in each epoch (jaxlm/tokens/order.py). The end of a
    stream, which fills no window, is not used. What is drawn for an example depends on the seed,
    its stream and how many examples of the stream came before it in the run, and so does, in an
    exact cycle, which of several objectives it takes.
    """

    def __init__(
        self,
        streams: list[Stream],
        stages: list[Stage],
        *,
        seed: int,
    ) -> None:
        """Raises UserError where sources are too short, a mixture names what is not there, or there
        is less text than max_epochs allows to be read.
        """
        self.names = [stream.kept.name for stream in streams]
        self._streams, self._stages, self._seed = streams, stages, seed
        self._decisions: tuple[Decision, ...] = ()
        self._first = [stage.spans[0].first for stage in stages]
        kept = [stream.kept for stream in streams]
        self._weights = [weights_of(stage.mixture, kept, stage.where) for stage in stages]
        self._blocks = self._lay_out()
        self._components = [
            Mixture(stage.objective.weights) if len(stage.objective.weights) > 1 else None
            for stage in stages
        ]
        self._draws = [np.uint64(key_of("examples", stream.kept.name)) for stream in streams]
        self._examples: list[Examples] = []
        self._orders: list[dict[int, WindowOrder]] = []
        # examples of each stream before each stage, and blocks that they took
        self._before = [np.zeros(len(streams), np.int64)]
        self._begin = [np.zeros(len(streams), np.int64)]
        for k in range(len(stages)):
            self._add_stage(k, self._planned(k))
        # tokens of each stream that are read before one is read again, int64 [S]
        self.epoch_S = np.array([length * count for length, count in self._blocks], np.int64)

    def changed(self, decisions: Sequence[Decision]) -> "Loader":
        """The loader whose mixture changes in these steps too, in order, behind earlier changes.

        A change holds for the rest of its stage, and for stages behind it with the same mixture.
        """
        if not decisions:
            return self
        loader, k = copy(self), self._stage_at(decisions[0][0])
        loader._decisions = (*self._decisions, *decisions)
        loader._examples, loader._orders = self._examples[:k], self._orders[:k]
        loader._before, loader._begin = self._before[: k + 1], self._begin[: k + 1]
        for j in range(k, len(self._stages)):
            # segments of earlier changes are kept: finding them is what takes time
            segments = self._examples[k].segments if j == k else loader._planned(j)
            loader._add_stage(j, segments, decisions)
        return loader

    def shares_at(self, step: int) -> dict[str, float]:
        """Share of each stream that takes part in the mixture of a step (from 0), by name."""
        examples = self._examples[self._stage_at(step)]
        found = examples.shares(examples.before(step))
        return {self.names[stream]: share for stream, share in found.items()}

    def _lay_out(self) -> list[tuple[int, int]]:
        """Tokens of a block of each stream, and how many blocks it has."""
        found, short = [], []
        for source, stream in enumerate(self._streams):
            used = [
                stage.objective
                for stage, shares in zip(self._stages, self._weights, strict=True)
                if shares[source]
            ]
            if not used:
                found.append((1, stream.tokens.length))
                continue
            block = block_length([o.stride for o in used], stream.tokens.length)
            needed = block + max(objective.window - objective.stride for objective in used)
            blocks = 1 + (stream.tokens.length - needed) // block
            found.append((block, blocks))
            if blocks < 1:
                short.append(
                    f"source {stream.kept.name}: {stream.tokens.length} tokens to train on do not "
                    f"fill one sequence, which takes {needed}; lower data.seq_len, or bring more "
                    "text"
                )
        if short:
            raise UserError(short)
        return found

    def _planned(self, k: int) -> list[Segment]:
        """The segments of a stage in which nothing is decided yet."""
        stage, own = self._stages[k], self._decided_before(k) or self._weights[k]
        per_block = [block // stage.objective.stride for block, _ in self._blocks]
        count = sum((span.last - span.first) * span.batch_size for span in stage.spans)
        if stage.mixture.caps is not None:
            own = self._capped(k, own, per_block, count)
        if isinstance(stage.order, tuple):
            return by_skills(own, self._skills(stage, own), count)
        return fixed(own)

    def _add_stage(
        self, k: int, segments: list[Segment], decisions: Sequence[Decision] = ()
    ) -> None:
        """Find the examples of a stage and the orders of its windows, behind those before it."""
        stage = self._stages[k]
        examples = Examples(stage.spans, segments)
        for step, shares in decisions:
            if self._stage_at(step) == k:
                changed = [exact(shares.get(name, 0.0)) for name in self.names]
                examples.segments = decided(examples.segments, examples.before(step), changed)
        self._examples.append(examples)
        totals, begin = examples.totals(), self._begin[-1]
        open_ended = k == len(self._stages) - 1
        taken = np.zeros_like(begin)
        orders: dict[int, WindowOrder] = {}
        used = np.unique(np.concatenate([part.sources for part in examples.segments]))
        for source in used.tolist():
            block, blocks = self._blocks[source]
            name = self.names[source]
            order = WindowOrder(
                blocks,
                block,
                stage.objective.stride,
                int(begin[source]),
                None,
                key_of(self._seed, "shuffle", name),
                key_of(self._seed, "shuffle windows", name, k),
                blocks if stage.fixed else GROUP,
                stage.order if stage.order in ("ascending", "descending") else None,
            )
            known = stage.fixed and (order.sort or not open_ended)
            if known:
                order = order._replace(taken=-(-int(totals[source]) // order.per_block))
            taken[source] = order.blocks_of(int(totals[source]))
            orders[source] = order
        self._orders.append(orders)
        self._before.append(self._before[-1] + totals)
        self._begin.append(begin + taken)

    def _decided_before(self, k: int) -> list[Fraction] | None:
        """What was last decided in the stages just before that have the same mixture, if it was."""
        first = k
        while first and self._stages[first - 1].mixture == self._stages[k].mixture:
            first -= 1
        since, until = self._first[first], self._first[k]
        found = [shares for step, shares in self._decisions if since <= step < until]
        return [exact(found[-1].get(name, 0.0)) for name in self.names] if found else None

    def _capped(
        self, k: int, weights: list[Fraction], per_block: list[int], count: int
    ) -> list[Fraction]:
        """The weights of a stage with which no stream is read more often than it may be."""
        stage = self._stages[k]
        most = epochs_of(stage.mixture, [stream.kept for stream in self._streams], stage.where)
        room = [
            None if cap is None else max(int(exact(cap) * blocks) - int(begin), 0) * per
            for cap, (_, blocks), begin, per in zip(
                most, self._blocks, self._begin[-1], per_block, strict=True
            )
        ]
        if (found := capped(weights, room, count)) is not None:
            return found
        used = [s for s, weight in enumerate(weights) if weight]
        once = sum(self._blocks[s][1] * per_block[s] for s in used)
        before = sum(int(self._begin[-1][s]) * per_block[s] for s in used)
        stride = stage.objective.stride
        raise UserError(
            f"{stage.where}: {count * stride:,} tokens are more than max_epochs leaves, "
            f"{sum(room[s] or 0 for s in used) * stride:,}; by their end it would be "
            f"{(before + count) / once:.2f} epochs of {', '.join(self.names[s] for s in used)}; "
            "make it shorter, raise max_epochs or bring more text"
        )

    def _skills(self, stage: Stage, weights: list[Fraction]) -> list[list[int]]:
        """The streams of each skill that stage.order lists."""
        assert isinstance(stage.order, tuple)
        where = f"stage {stage.name}: order"
        keys, problems = by_key(stage.order, [stream.kept for stream in self._streams], where)
        problems += [
            f"{where}: {name} is in the mixture and not in the list; add it"
            for name, key, weight in zip(self.names, keys, weights, strict=True)
            if weight and key is None
        ]
        if problems:
            raise UserError(problems)
        return [[s for s, found in enumerate(keys) if found == key] for key in stage.order]

    def plan(self) -> list[dict[str, Any]]:
        """What each stage reads: its name, the steps of the run up to its end, and by stream the
        tokens and how often all of its text has been read by then."""
        found, read_S = [], np.zeros(len(self.names), np.int64)
        for stage, examples in zip(self._stages, self._examples, strict=True):
            tokens_S = examples.totals() * stage.objective.stride
            read_S = read_S + tokens_S
            used = np.flatnonzero(tokens_S).tolist()
            found.append({
                "name": stage.name,
                "first": stage.spans[0].first,
                "last": stage.spans[-1].last,
                "tokens": {self.names[s]: int(tokens_S[s]) for s in used},
                "epochs": {self.names[s]: float(read_S[s] / self.epoch_S[s]) for s in used},
            })  # fmt: skip
        return found

    @property
    def weights(self) -> list[float]:
        """Shares of the streams at the beginning of the run."""
        shares = self.shares_at(0)
        return [shares.get(name, 0.0) for name in self.names]

    def with_weights(self, weights: Sequence[float], *, seed: int) -> "Loader":
        """The same streams in other proportions in every stage, and in the order of this seed."""
        mixture = MixtureConfig(weights=dict(zip(self.names, weights, strict=True)))
        stages = [stage._replace(mixture=mixture) for stage in self._stages]
        return Loader(self._streams, stages, seed=seed)

    def batch_at(self, step: int, rows: slice = slice(None)) -> Batch[NDArray[Any]]:
        """Rows `rows` of the batch of a step (from 0); all hosts' rows together are the batch.

        Raises UserError where a file of the store is damaged.
        """
        k = self._stage_at(step)
        objective, components = self._stages[k].objective, self._components[k]
        source_B, place_B = self._at(step, rows)
        windows_BW = np.empty((len(source_B), objective.window), self._streams[0].tokens.dtype)
        number_B, component_B = place_B.copy(), None if components is None else place_B.copy()
        reads = []
        with ts.Batch() as batch:
            for source in np.unique(source_B):
                row = np.flatnonzero(source_B == source)
                count = self._before[k][source] + place_B[row]
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
        """The stream of each row of a step, as its number in `names`, int64 [B]."""
        return self._at(step, slice(None))[0]

    def read_at(self, step: int) -> NDArray[np.int64]:
        """Stored tokens of each source that a step takes up, int64 [sources]."""
        stride = self._stages[self._stage_at(step)].objective.stride
        return stride * np.bincount(self.sources_at(step), minlength=len(self._streams))

    def _stage_at(self, step: int) -> int:
        return bisect_right(self._first, step) - 1

    def _at(self, step: int, rows: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The stream of each row, and how many examples of it came before in the stage."""
        examples = self._examples[self._stage_at(step)]
        return examples.sources(examples.of(step)[rows])


def open_loader(config: Config, workdir: Workdir) -> Loader:
    """The training batches of a run, over all its stages.

    Raises UserError for a store that is broken, too small, of another tokenizer, or whose documents
    are not arranged as the objective wants them.
    """
    store, tokenizer = open_store(workdir)
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
    weights = {source.name: source.weight for source in config.sources}
    streams = [
        Stream(kept_of(name, store.manifest, weights[size.source]), store.tokens(name, "train"))
        for name, size in store.streams(list(weights)).items()
    ]
    return Loader(
        streams,
        [
            Stage(
                stage.name,
                stage.spans,
                stage.config.data.mixture,
                stage.order,
                prepared(stage.config, tokenizer),
            )
            for stage in stages(config)
        ],
        seed=config.seed,
    )


def prepared(config: Config, tokenizer: Tokenizer) -> Prepared:
    """The objectives of a config without a curriculum."""
    return Prepared(
        config.objective,
        kind=config.model.kind,
        seq_len=config.data.seq_len,
        vocabulary=tokenizer,
        seed=config.seed,
    )


def open_store(workdir: Workdir) -> tuple[Store, Tokenizer]:
    """The tokens of a run and their tokenizer. Raises UserError where the two do not fit."""
    store, tokenizer = Store(workdir.tokens), load_tokenizer(workdir.tokenizer)
    if tokenizer.hash != store.manifest.tokenizer_hash:
        raise UserError(
            f"{workdir.tokens}: was made with another tokenizer than {workdir.tokenizer} holds; "
            "run `jaxlm tokenize` again, or put that tokenizer back"
        )
    return store, tokenizer
