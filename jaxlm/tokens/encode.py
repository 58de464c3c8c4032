"""Documents -> token store, on all cores.

Two passes. The first encodes the corpus in its order into files that only grow (spool.py); a run
that was killed goes on after the last shard of the corpus that was done. The second writes the
arrays of the store from these files, sorted if data.sort_by says so; it is cheap, and done again as
a whole. Neither depends on the number of workers, nor on where a run was killed.
"""

import errno
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxlm.config import Config
from jaxlm.config.data import SplitBy
from jaxlm.config.objective import FIM
from jaxlm.errors import UserError
from jaxlm.objectives.fim import check_cuts, fim_text
from jaxlm.objectives.prepared import lacking
from jaxlm.tokens.documents import Block, Shard, corpus_shards, parse, read_blocks, tags_of
from jaxlm.tokens.pieces import id_dtype
from jaxlm.tokens.pool import Pool, cores
from jaxlm.tokens.shuffle import key_of
from jaxlm.tokens.spool import RECORD, Encoded, Part, Spool
from jaxlm.tokens.store import (
    MANIFEST,
    SPLITS,
    ArrayWriter,
    CorpusSize,
    Manifest,
    Split,
    StoredFile,
    StreamSize,
    check_writable,
    checksums,
    context,
)
from jaxlm.tokens.streams import Plan, Values, number_in, plan_streams, split_of, values_of
from jaxlm.tokens.tokenizer import Tokenizer, load_tokenizer
from jaxlm.workdir import Progress, Workdir, no_progress, write_json

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RUN = 1 << 22
"""Tokens that are read at a time in the second pass, about."""


def tokenize(config: Config, workdir: Workdir, progress: Progress = no_progress) -> None:
    """WORKDIR/corpus and WORKDIR/tokenizer -> WORKDIR/tokens (or data.store).

    What an earlier call with the same inputs did before it was stopped is not done again. Raises
    UserError for a corpus or tokenizer that is missing or broken, a stream without a document to
    train on, documents that cannot be parted or sorted as the config says, and a full disk.
    """
    tokenizer = load_tokenizer(workdir.tokenizer)
    fim = config.document_fim
    if fim is not None:
        if missing := [name for name in config.specials if name not in tokenizer.specials]:
            raise UserError(lacking(missing, str(workdir.tokenizer)))
        check_cuts(fim, tokenizer)
    dtype = np.dtype(id_dtype(tokenizer.vocab_size)).name
    if config.data.dtype != "auto":
        if tokenizer.vocab_size > 1 << 8 * np.dtype(config.data.dtype).itemsize:
            raise UserError(
                f"data.dtype {config.data.dtype} cannot hold {tokenizer.vocab_size} ids; use uint32"
            )
        dtype = config.data.dtype
    if config.data.store is not None:
        check_writable(config.data.store)
    shards = {source.name: corpus_shards(workdir.corpus, source.name) for source in config.sources}
    data = config.data
    inputs = {
        "corpus": {n: [(s.path.name, s.sha256) for s in part] for n, part in shards.items()},
        "tokenizer": tokenizer.hash, "dtype": dtype, "seed": config.seed,
        "fim": fim and fim.model_dump(mode="json"),
        "validation": [data.validation_fraction, data.validation_bytes],
        "split_by": [split.model_dump(mode="json") for split in data.split_by],
        "sort_by": data.sort_by,
    }  # fmt: skip
    try:
        with (
            workdir.work("tokens", inputs) as work,
            Pool(config.prepare.workers or cores(), _load, workdir.tokenizer, dtype, fim) as pool,
        ):
            with Spool(work, dtype) as spool:
                _plan(config, shards, spool, pool, progress)
                _encode_corpus(config, shards, spool, pool, progress)
            with workdir.replace_dir("tokens") as directory:
                sizes = _sizes(config, spool)
                files = _write_arrays(config, directory, spool, list(sizes), pool, progress)
                manifest = Manifest(
                    tokenizer_hash=tokenizer.hash,
                    vocab_size=tokenizer.vocab_size,
                    bos_id=tokenizer.bos_id,
                    eos_id=tokenizer.eos_id,
                    dtype=dtype,  # type: ignore[arg-type]
                    address=data.store,
                    sources=sizes,
                    files=files,
                    document_fim=fim,
                    split_by=data.split_by,
                    sort_by=data.sort_by,
                    corpus={
                        source.name: _corpus_size(
                            shards[source.name], tags_of(workdir.corpus, source)
                        )
                        for source in config.sources
                    },
                )
                write_json(directory / MANIFEST, manifest.model_dump())
    except OSError as error:
        what = "no room to write" if error.errno in FULL_DISK else "cannot be written or read"
        raise UserError(
            f"{error.filename or workdir.path}: {what} ({error.strerror or error}); mend that and "
            "start again: it goes on where it was. An earlier store was kept."
        ) from None


def _plan(
    config: Config,
    shards: dict[str, list[Shard]],
    spool: Spool,
    pool: Pool,
    progress: Progress,
) -> None:
    """Find the streams of all sources before anything is encoded."""
    if spool.plans:
        return
    looked = 0

    def count(size: int) -> None:
        nonlocal looked
        looked += size
        progress("streams", looked, None, "B")

    spool.plans = {
        name: plan_streams(config, name, part, pool, count) for name, part in shards.items()
    }
    if looked:
        progress("streams", looked, looked, "B")  # how much it is shows when it is over
    spool.commit()


def _encode_corpus(
    config: Config,
    shards: dict[str, list[Shard]],
    spool: Spool,
    pool: Pool,
    progress: Progress,
) -> None:
    """The first pass."""
    every = [(name, k, shard) for name, part in shards.items() for k, shard in enumerate(part)]
    left = [(name, k, shard) for name, k, shard in every if k >= spool.done.get(name, 0)]
    title, total = "tokenize", sum(shard.bytes for *_, shard in every)
    done = total - sum(shard.bytes for *_, shard in left)
    if done:
        title = f"tokenize, resumed after {len(every) - len(left)} of {len(every)} shards"
    progress(title, done, total, "B")

    def jobs() -> Iterator[_Job]:
        for number, (name, _, shard) in enumerate(left):
            splits, plans = split_of(config, name), spool.plans[name]
            for block in read_blocks(shard):
                yield _Job(number, config.seed, splits, config.data.sort_by, plans, block)

    whole = 0

    def end_shards(number: int) -> None:
        """All of what is left before this one is encoded."""
        nonlocal whole
        for name, k, _ in left[whole:number]:
            spool.done[name] = k + 1
        if number > whole:
            spool.commit()
        whole = number

    for number, encoded in pool.map(_encode, jobs()):
        end_shards(number)
        for (stream, split), part in encoded.items():
            spool.append(stream, split, part)
            done += part.bytes
        progress(title, done, total, "B")
    end_shards(len(left))


def _sizes(config: Config, spool: Spool) -> dict[str, StreamSize]:
    """What each stream holds. Raises UserError for those without a document to train on."""
    sizes = {
        plan.name: StreamSize(
            source=source,
            tags=dict(zip((s.field for s in split_of(config, source)), plan.values, strict=True)),
            train=spool.part(plan.name, "train").size,
            valid=spool.part(plan.name, "valid").size,
        )
        for source, plans in spool.plans.items()
        for plan in plans
    }
    if empty := [name for name, size in sizes.items() if not size.train.documents]:
        raise UserError([
            f"{'stream' if sizes[name].tags else 'source'} {name}: no document is left to train "
            "on; lower data.validation_fraction or bring more documents"
            for name in empty
        ])  # fmt: skip
    return sizes


def _corpus_size(shards: Sequence[Shard], tags: dict[str, str]) -> CorpusSize:
    every = "\n".join(shard.sha256 for shard in shards)
    return CorpusSize(
        documents=sum(shard.documents for shard in shards),
        checksum=hashlib.sha256(every.encode()).hexdigest(),
        tags=tags,
    )


def _write_arrays(
    config: Config,
    directory: Path,
    spool: Spool,
    streams: Sequence[str],
    pool: Pool,
    progress: Progress,
) -> list[StoredFile]:
    """The second pass; returns the files of the store, by path."""
    address = config.data.store or directory
    parts = {f"{name}/{split}": spool.part(name, split) for name in streams for split in SPLITS}
    written, total = 0, sum(part.size.tokens for part in parts.values())
    order, size = config.data.sort_by is not None, config.data.shard_bytes
    jobs = ((address, name, part, order, size) for name, part in parts.items())
    files: list[StoredFile] = []
    for part, found in zip(parts.values(), pool.map(_write, jobs), strict=True):
        files += found
        written += part.size.tokens
        progress("store", written, total, "tokens")
    return sorted(files, key=lambda file: file.path)


def _write(job: tuple[str | Path, str, Part, bool, int]) -> list[StoredFile]:
    """Write both arrays of a split of a stream ("STREAM/train")."""
    address, name, part, order, shard_bytes = job
    stored, records = part.read()
    lengths: NDArray[np.int64] = records["tokens"]
    ctx = context()
    tokens = ArrayWriter(address, f"{name}/tokens", stored.dtype.name, shard_bytes, ctx)
    offsets = ArrayWriter(address, f"{name}/offsets", "int64", shard_bytes, ctx)
    if order:
        sorted_D = np.argsort(records["key"], kind="stable")
        starts_D = np.cumsum(lengths) - lengths
        lengths = lengths[sorted_D]
        held, size = [], 0
        for start, length in zip(starts_D[sorted_D].tolist(), lengths.tolist(), strict=True):
            held.append(stored[start : start + length])
            size += length
            if size >= RUN:
                tokens.append(np.concatenate(held))
                held, size = [], 0
        if held:
            tokens.append(np.concatenate(held))
    else:
        for first in range(0, stored.size, RUN):
            tokens.append(stored[first : first + RUN])
    offsets.append(np.zeros(1, np.int64))
    offsets.append(np.cumsum(lengths))
    tokens.close()
    offsets.close()
    return [*checksums(address, f"{name}/offsets", ctx), *checksums(address, f"{name}/tokens", ctx)]


class _Job(NamedTuple):
    number: int
    """Of the block's shard, among those that are left."""
    seed: int
    splits: Sequence[SplitBy]
    sort_by: str | None
    plans: Sequence[Plan]
    block: Block


_tokenizer: Tokenizer
_dtype: np.dtype[np.unsignedinteger]
_fim: FIM | None


def _load(directory: Path, dtype: str, fim: FIM | None) -> None:
    global _tokenizer, _dtype, _fim
    _tokenizer, _dtype, _fim = load_tokenizer(directory), np.dtype(dtype), fim


def _encode(job: _Job) -> tuple[int, dict[tuple[str, Split], Encoded]]:
    """The documents of a block by stream and split, with the number of its shard."""
    number, seed, splits, sort_by, plans, block = job
    bos, eos = (np.array([i], _dtype) for i in (_tokenizer.bos_id, _tokenizer.eos_id))
    by_values: dict[Values, Plan] = {plan.values: plan for plan in plans}
    ids: dict[tuple[str, Split], list[NDArray[np.unsignedinteger]]] = {}
    records: dict[tuple[str, Split], list[tuple[int, float]]] = {}
    sizes: dict[tuple[str, Split], int] = {}
    for line, document in parse(block):
        name, text = document["id"], document["text"]
        plan = by_values[values_of(splits, document, block.shard, line)]
        split: Split = "valid" if key_of(seed, name) < plan.limit else "train"
        if _fim is None or split == "valid":  # what is held apart is scored as it is
            found = _tokenizer.encode_array(text)
        else:
            found = fim_text(text, key_of(seed, "fim", name), _fim, _tokenizer)
        key = 0.0
        if sort_by == "length":
            key = found.size
        elif sort_by is not None:
            key = number_in(document, sort_by, "data.sort_by", block.shard, line)
        where = (plan.name, split)
        ids.setdefault(where, []).extend((bos, found.astype(_dtype, copy=False), eos))
        records.setdefault(where, []).append((found.size + 2, key))
        sizes[where] = sizes.get(where, 0) + len(text.encode())
    return number, {
        where: Encoded(np.concatenate(parts), np.array(records[where], RECORD), sizes[where])
        for where, parts in ids.items()
    }
