"""Raw text -> WORKDIR/corpus: the stages of a config over all sources, in an order that is fixed.

The corpus is cut into segments at the stages that compare documents with each other. Within a
segment workers take batches of documents independently; their results are taken in the order of
the sources and files, so that the output does not depend on how many workers there are.
"""

import errno
import itertools
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

from jaxlm.config import Config
from jaxlm.config.corpus import Prepare, Source
from jaxlm.corpus import listing, recipes
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.executor import executor
from jaxlm.corpus.ledger import Tally
from jaxlm.corpus.listing import InputFile
from jaxlm.corpus.stages import DUPLICATES, EDITORS
from jaxlm.corpus.stages.duplicates import Batch
from jaxlm.corpus.work import Result, Segment, Stored, process_batches, read_files, write_shard
from jaxlm.errors import UserError
from jaxlm.workdir import Progress, Workdir, write_json

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def inputs(config: Config) -> list[dict[str, Any]]:
    """Every input file: its source, path, size and a stamp that changes when it does."""
    return [
        {"source": source.name, "path": file.path, "size": file.size, "stamp": file.stamp}
        for source, files in _sources(config)
        for file in files
    ]


def prepare(config: Config, workdir: Workdir, progress: Progress) -> None:
    """Read, clean and deduplicate all sources into workdir.corpus.

    Writes documents/SOURCE-NNNNN.jsonl.zst, ledger.jsonl.zst and stats.json. Raises UserError,
    with the earlier corpus left as it was, when an input is missing or broken, when nothing is
    left of a source, and when the disk is full.
    """
    try:
        with workdir.replace_dir("corpus") as folder:
            _prepare(config, folder, progress)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise UserError(
                f"{workdir.corpus}: no room to write ({error.strerror}); free some disk space or "
                "choose another workdir. An earlier corpus there was kept."
            ) from None
        raise UserError(
            f"{error.filename or workdir.corpus}: {error.strerror or error}; "
            "make it readable and writable, or choose another workdir"
        ) from None
    except BrokenProcessPool:
        raise UserError(
            "a worker process of prepare died, most likely for want of memory; set "
            "prepare.workers or prepare.batch_bytes to less"
        ) from None


def _prepare(config: Config, folder: Path, progress: Progress) -> None:
    import zstandard

    begin = time.monotonic()
    sources = _sources(config)
    tallies = {source.name: Tally() for source, _ in sources}
    work = folder / "work"
    with (
        open(folder / "ledger.jsonl.zst", "wb") as ledger_file,
        zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(
            ledger_file, closefd=False
        ) as ledger,
        executor(config.prepare) as (pool, workers),
    ):
        run = _Run(config.prepare, pool, 2 * workers, tallies, ledger, progress)
        batches: list[Stored] = []
        for number, segment in enumerate(segments(config.prepare.stages)):
            here = work / str(number)
            if number == 0:
                batches = run.read(sources, segment, here)
            else:
                batches = run.process(batches, segment, here)
                shutil.rmtree(work / str(number - 1))
            for stage in segment.duplicates:
                run.compare(batches, stage)
        _refuse_empty(tallies)
        shards = run.write(batches, folder)
    shutil.rmtree(work)
    limits = {source.name: source.max_bytes for source, _ in sources if source.max_bytes}
    write_json(
        folder / "stats.json",
        {
            "sources": {
                source.name: {
                    "kind": source.kind,
                    "language": source.language,
                    "recipe": source.recipe,
                    "files": len(files),
                    "max_bytes": limits.get(source.name),
                    "cut_at_max_bytes": source.name in run.full,
                    "stages": [
                        {"stage": name, "documents": size.documents, "bytes": size.bytes}
                        for name, size in tallies[source.name].stages.items()
                    ],
                    "rules": {
                        name: {"documents": size.documents, "bytes": size.bytes}
                        for name, size in sorted(tallies[source.name].rules.items())
                    },
                }
                for source, files in sources
            },
            "shards": shards,
            "seconds": round(time.monotonic() - begin, 3),
        },
    )


def _sources(config: Config) -> list[tuple[Source, list[InputFile]]]:
    """Each source with its recipe filled in and its files; all that is wrong is raised at once."""
    if not config.sources:
        raise UserError("sources: the config names no source of text; add at least one")
    out, problems = [], []
    for given in config.sources:
        try:
            source = recipes.resolve(given)
            out.append((source, listing.files(source)))
        except UserError as error:
            problems += error.messages
    if problems:
        raise UserError(problems)
    return out


def segments(stages: tuple[str, ...]) -> list[Segment]:
    """Cut a list of stages after each group of comparing ones. Ids are compared first of all."""
    out: list[Segment] = []
    plain: list[str] = []
    comparing: list[str] = []
    for stage in stages:
        if stage in DUPLICATES:
            comparing.append(stage)
            continue
        if comparing:
            out.append(Segment(tuple(plain), tuple(comparing)))
            plain, comparing = [], []
        plain.append(stage)
    out.append(Segment(tuple(plain), tuple(comparing)))
    out[0] = Segment(out[0].stages, ("ids", *out[0].duplicates))
    return out


class _Run:
    """The state of one preparation: workers, tallies and the open ledger."""

    def __init__(
        self,
        config: Prepare,
        pool: Executor,
        window: int,
        tallies: dict[str, Tally],
        ledger: BinaryIO,
        progress: Progress,
    ) -> None:
        self.config, self.pool, self.window = config, pool, window
        self.tallies, self.ledger, self.progress = tallies, ledger, progress
        self.full: set[str] = set()
        """Sources that reached their max_bytes."""

    def read(
        self, sources: list[tuple[Source, list[InputFile]]], segment: Segment, folder: Path
    ) -> list[Stored]:
        """Read all sources and run the first segment."""
        left = {source.name: source.max_bytes for source, _ in sources}
        total = sum(
            min(sum(file.size for file in files), source.max_bytes or 1 << 62)
            for source, files in sources
        )
        seen = 0
        self.progress("read", 0, total, "B")
        batches: list[Stored] = []

        def tasks() -> Iterator[tuple[Source, tuple[InputFile, ...], Path]]:
            number = 0
            for source, files in sources:
                for group in _grouped(files, self.config.batch_bytes):
                    if source.name in self.full:
                        break
                    yield source, group, folder / f"{number:07d}"
                    number += 1

        def submit(task: tuple[Source, tuple[InputFile, ...], Path]) -> Future[Result]:
            source, group, place = task
            return self.pool.submit(
                read_files, source, group, left[source.name], segment, self.config, place
            )

        for (source, group, place), future in self._in_order(tasks(), submit):
            budget = left[source.name]
            if source.name in self.full:
                future.cancel()
                continue
            result = future.result()
            if budget is not None:
                if result.read_bytes > budget:
                    # it was started when more was left: read it again with what is left now
                    again = place.with_name(f"{place.name}-cut")
                    result = self.pool.submit(
                        read_files, source, group, budget, segment, self.config, again
                    ).result()
                left[source.name] = budget - result.read_bytes
                if result.full:
                    self.full.add(source.name)
            self._take(source, result)
            batches += result.batches
            seen += sum(file.size for file in group) if budget is None else result.read_bytes
            self.progress("read", min(seen, total), total, "B")
        self.progress("read", total, total, "B")
        return batches

    def process(self, batches: list[Stored], segment: Segment, folder: Path) -> list[Stored]:
        """Run a later segment."""
        out: list[Stored] = []
        done, total = 0, sum(int(batch.keep.sum()) for batch in batches)

        def submit(task: tuple[int, Stored]) -> Future[Result]:
            number, batch = task
            place = folder / f"{number:07d}"
            return self.pool.submit(process_batches, [batch], segment, self.config, place)

        for (_, batch), future in self._in_order(enumerate(batches), submit):
            result = future.result()
            self._take(batch.source, result)
            out += result.batches
            done += int(batch.keep.sum())
            self.progress(", ".join(segment.stages), done, total, "documents")
        return out

    def compare(self, batches: list[Stored], stage: str) -> None:
        """Drop documents that repeat earlier ones, and write each into the ledger."""
        views = [Batch(batch.keep, partial(batch.signature, stage)) for batch in batches]
        before = [0, *itertools.accumulate(int(batch.keep.sum()) for batch in batches)]

        @lru_cache(maxsize=64)
        def documents(number: int) -> Documents:
            return batches[number].documents()

        # copies come batch by batch, and a resolver has read a batch's `keep` before its first one
        for copy in DUPLICATES[stage](self.config.dedup).resolve(views):
            here, (there, index) = documents(copy.batch), copy.partner
            tally = self.tallies[here.source.name]
            tally.hit(
                here, copy.index, stage, copy.rule, "drop",
                round(copy.value, 6), copy.threshold, documents(there).id(index),
            )  # fmt: skip
            batches[copy.batch].keep[copy.index] = False
            self._flush(tally)
            self.progress(stage, before[copy.batch], before[-1], "documents")
        self.progress(stage, before[-1], before[-1], "documents")
        for batch in batches:
            self.tallies[batch.source.name].stage(stage, int(batch.keep.sum()), batch.kept_bytes())

    def write(self, batches: list[Stored], folder: Path) -> list[dict[str, Any]]:
        """Write the shards of each source."""
        documents = folder / "documents"
        documents.mkdir()
        jobs: list[tuple[Path, list[Stored]]] = []
        size = number = 0
        source = ""
        for batch in batches:
            if batch.source.name != source:
                source, number, size = batch.source.name, -1, self.config.shard_bytes
            if not batch.keep.any():
                continue
            if size >= self.config.shard_bytes:
                number, size = number + 1, 0
                jobs.append((documents / f"{source}-{number:05d}.jsonl.zst", []))
            jobs[-1][1].append(batch)
            size += batch.kept_bytes()
        shards = []
        done, total = 0, sum(batch.kept_bytes() for batch in batches)
        for (path, _), future in self._in_order(
            iter(jobs), lambda job: self.pool.submit(write_shard, job[1], job[0])
        ):
            count, written, checksum = future.result()
            shards.append({"path": f"documents/{path.name}", "documents": count,
                           "bytes": written, "sha256": checksum})  # fmt: skip
            done += written
            self.progress("write", done, total, "B")
        return shards

    def _in_order[T, R](
        self, tasks: Iterator[T], submit: Callable[[T], Future[R]]
    ) -> Iterator[tuple[T, Future[R]]]:
        """Submit tasks a little ahead; yield each with its future in the order of the tasks."""
        pending: deque[tuple[T, Future[R]]] = deque()
        for task in tasks:
            pending.append((task, submit(task)))
            if len(pending) >= self.window:
                yield pending.popleft()
        while pending:
            yield pending.popleft()

    def _take(self, source: Source, result: Result) -> None:
        tally = self.tallies[source.name]
        tally.merge(result.tally)
        self._flush(result.tally)

    def _flush(self, tally: Tally) -> None:
        self.ledger.write(b"".join(tally.lines))
        tally.lines.clear()


def _grouped(files: list[InputFile], size: int) -> Iterator[tuple[InputFile, ...]]:
    """Neighbouring files until their sizes reach `size`."""
    group: list[InputFile] = []
    for file in files:
        if group and sum(f.size for f in group) + file.size > size:
            yield tuple(group)
            group = []
        group.append(file)
    if group:
        yield tuple(group)


def _refuse_empty(tallies: dict[str, Tally]) -> None:
    """Raise UserError for every source of which nothing is left, with what took most of it."""
    problems = []
    for name, tally in tallies.items():
        if not tally.stages or list(tally.stages.values())[-1].documents == 0:
            rules = [item for item in tally.rules.items() if item[0].split(".")[0] not in EDITORS]
            rules = sorted(rules, key=lambda item: -item[1].documents)[:3]
            why = ", ".join(f"{rule} took {size.documents}" for rule, size in rules)
            problems.append(
                f"source {name!r}: nothing is left after preparation"
                + (f" (documents by rule: {why})" if why else "")
                + "; change the thresholds, raise max_bytes, or leave the source out"
            )
    if problems:
        raise UserError(problems)
