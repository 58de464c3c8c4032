"""Text to train and to measure a tokenizer on: pieces of documents, drawn by hash."""

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from jaxlm.config import Config
from jaxlm.tokens.documents import Block, Shard, corpus_shards, parse, read_blocks, tags_of
from jaxlm.tokens.pool import Pool
from jaxlm.tokens.shuffle import key_of
from jaxlm.tokens.weights import Kept, weights_of
from jaxlm.workdir import Progress, Workdir, no_progress

PIECE_CHARACTERS = 4096
READ_TO_MEASURE = 16
"""How many times the text that is measured is read of a source, about and at most, to draw it."""

type Job = tuple[int, int, int, Block]


class Piece(NamedTuple):
    """A part of a document."""

    number: int
    """What it drew, below 2 ** 64."""
    text: str
    document: str
    language: str


def sample_weights(config: Config, workdir: Workdir) -> dict[str, float]:
    """What share of the text a tokenizer is made for each source is, in any unit.

    That of data.mixture, with bytes for tokens; stages' own mixtures have no part in it. A mixture
    that names parts of sources, which are not known before there are tokens, goes by the sources'
    weights. Raises UserError for a mixture that leaves nothing.
    """
    kept = []
    for source in config.sources:
        size = sum(shard.bytes for shard in corpus_shards(workdir.corpus, source.name))
        tags = tags_of(workdir.corpus, source)
        kept.append(Kept(source.name, source.name, tags, source.weight, size))
    mixture, parts = config.data.mixture, {split.field for split in config.data.split_by}
    if any("@" in key or key.partition("=")[0] in parts for key in mixture.weights or ()):
        mixture = mixture.model_copy(update={"weights": None})
    weights = weights_of(mixture, kept, "data.mixture")
    return {stream.name: float(weight) for stream, weight in zip(kept, weights, strict=True)}


def draw_sample(
    config: Config, workdir: Workdir, pool: Pool, progress: Progress = no_progress
) -> dict[str, list[Piece]]:
    """Pieces of text by source, tokenizer.sample_bytes in all at most, in proportion to weights.

    Each piece of each document has a number that is a hash of the seed, the document's id and its
    place; the smallest numbers of a source win. So the sample does not depend on the order of the
    documents, and memory is bounded by its size. A source smaller than its share gives all it has.
    """
    weights = sample_weights(config, workdir)
    shards = {name: corpus_shards(workdir.corpus, name) for name in weights}
    total, done = sum(shard.bytes for part in shards.values() for shard in part), 0
    sample = {}
    for name, part in shards.items():

        def count(size: int) -> None:
            nonlocal done
            done += size
            progress("sample text", done, total, "B")

        budget = _share(weights, name, config.tokenizer.sample_bytes)
        sample[name] = _drawn(config.seed, part, 0, budget, pool.map, count)
    return sample


def draw_measured(
    config: Config, workdir: Workdir, drawn_below: dict[str, int], progress: Progress = no_progress
) -> dict[str, list[Piece]]:
    """Pieces to measure a tokenizer on, tokenizer.measure_bytes at most, by source.

    drawn_below: pieces of a source with smaller numbers were trained on; they are taken only where
    there are not enough others. Shards are read in an order of chance until there is text enough.
    """
    weights = sample_weights(config, workdir)
    sample, done = {}, 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        progress("text to measure", done, None, "B")

    for name in weights:
        budget = _share(weights, name, config.tokenizer.measure_bytes)
        shards = sorted(corpus_shards(workdir.corpus, name), key=lambda shard: shard.sha256)
        sample[name] = _drawn(
            config.seed, shards, drawn_below.get(name, 0), budget, map, count,
            most=READ_TO_MEASURE * budget,
        )  # fmt: skip
    progress("text to measure", done, done, "B")  # how much it is shows when it is over
    return sample


def _share(weights: dict[str, float], name: str, size: int) -> int:
    return int(size * weights[name] / sum(weights.values()))


def _drawn(
    seed: int,
    shards: list[Shard],
    first: int,
    budget: int,
    apply: Callable[[Callable[[Job], Any], Iterable[Job]], Iterable[Any]],
    count: Callable[[int], None],
    most: int | None = None,
) -> list[Piece]:
    """The pieces with the smallest numbers, counted from `first` around, that fit the budget.

    most: how much of the shards is read, about; None: all.
    """
    size = max(sum(shard.bytes for shard in shards), 1)
    if most is not None:
        size = min(size, max(most, 1))
    # What is expected to fit, and a tenth and 64 pieces more, is sent back by the workers.
    spare = 1.1 * budget + 64 * PIECE_CHARACTERS
    limit = min(int(spare / size * 2**64), 2**64)
    drawn: list[tuple[int, str, Piece]] = []
    held = 0
    jobs = ((seed, first, limit, block) for block in _blocks(shards, most))
    for candidates, read in apply(_candidates, jobs):
        for piece in candidates:
            heapq.heappush(drawn, (-((piece.number - first) % 2**64), piece.text, piece))
            held += len(piece.text.encode())
        while held > budget and len(drawn) > (budget > 0):
            held -= len(heapq.heappop(drawn)[1].encode())
        count(read)
    return [piece for *_, piece in sorted(drawn, reverse=True)]


def _blocks(shards: list[Shard], most: int | None) -> Iterator[Block]:
    """The blocks of shards, until so many bytes were given."""
    given = 0
    for shard in shards:
        for block in read_blocks(shard):
            if most is not None and given > most:
                return
            yield block
            given += len(block.data)


def _candidates(job: Job) -> tuple[list[Piece], int]:
    """The pieces of a block whose number is less than `limit` after `first`, and the bytes of all
    its text."""
    seed, first, limit, block = job
    found, size = [], 0
    for _, document in parse(block):
        text, name = document["text"], document["id"]
        size += len(text.encode())
        for place, piece in enumerate(pieces_of(text)):
            number = key_of(seed, name, place)
            if (number - first) % 2**64 < limit:
                found.append(Piece(number, piece, name, str(document.get("language") or "")))
    return found, size


def pieces_of(text: str) -> Iterator[str]:
    """Cut a text into parts of at most 4096 characters, before a space where there is one."""
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        cut = text.rfind(" ", start + 1, start + PIECE_CHARACTERS)
        end = cut if cut > 0 else start + PIECE_CHARACTERS
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]
