"""A preparation under way: tasks go to the workers, what they made is taken in order and joined."""

import json
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.config.corpus import Prepare, Source
from jaxlm.corpus import examples
from jaxlm.corpus.documents import Documents, load_array, save_array
from jaxlm.corpus.executor import in_order
from jaxlm.corpus.kept import unknown
from jaxlm.corpus.ledger import Tally, number
from jaxlm.corpus.listing import InputFile
from jaxlm.corpus.stages import DUPLICATES
from jaxlm.corpus.stages.classifiers import summary
from jaxlm.corpus.stages.duplicates import Batch, Duplicate
from jaxlm.corpus.tags import merge_tags
from jaxlm.corpus.work import Result, Segment, Stored, once, process_batch, read_files, write_shard
from jaxlm.errors import UserError
from jaxlm.workdir import Progress, write_json


def segments(stages: tuple[str, ...]) -> list[Segment]:
    """Cut a list of stages after each group of comparing ones, and after each that cuts texts.
    Ids are compared first of all."""
    out: list[Segment] = []
    plain: list[str] = []
    comparing: list[str] = []

    def end() -> None:
        out.append(Segment(tuple(plain), tuple(comparing)))
        plain.clear()
        comparing.clear()

    for stage in stages:
        if stage not in DUPLICATES:
            if comparing:
                end()
            plain.append(stage)
            continue
        comparing.append(stage)
        if DUPLICATES[stage].cuts:
            end()
    if plain or comparing or not out or DUPLICATES[out[-1].duplicates[-1]].cuts:
        end()
    out[0] = Segment(out[0].stages, ("ids", *out[0].duplicates))
    return out


class Run:
    """The state of one preparation: workers, tallies, and the batches that are left."""

    def __init__(
        self,
        config: Prepare,
        sources: list[tuple[Source, list[InputFile]]],
        pool: Executor,
        window: int,
        work: Path,
        progress: Progress,
    ) -> None:
        self.config, self.sources = config, sources
        self.pool, self.window, self.work, self.progress = pool, window, work, progress
        self.tallies = {source.name: Tally() for source, _ in sources}
        self.begin = time.monotonic()
        self.full: set[str] = set()
        """Sources that reached their max_bytes."""
        self.batches: list[Stored] = []
        self.ledgers: list[Path] = []
        self.found: dict[tuple[int, int], dict[str, list[tuple[int, Path]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        """Segment and group of stages in it -> source -> batches that it saw: root and folder."""

    def segments(self) -> None:
        """Do all stages."""
        cut_by: str | None = None
        for n, segment in enumerate(segments(self.config.stages)):
            here = self.work / f"segment-{n}"
            if n == 0:
                self.batches = list(self._read(segment, here))
            else:
                before = self.batches
                self.batches = list(self._process(n, segment, here, cut_by))
                _forget(before)
            for stage in segment.duplicates:
                self._compare(stage, here / stage)
            last = segment.duplicates[-1:]
            cut_by = last[0] if last and DUPLICATES[last[0]].cuts else None

    def finish(self, folder: Path) -> None:
        """Write all that the corpus consists of."""
        shards = self._write_shards(folder)
        _join(self.ledgers, folder / "ledger.jsonl.zst")
        self._write_tags(folder)
        if missing := unknown(self.config.keep, folder / "tags"):
            name, there = next(iter(missing.items()))
            raise UserError(
                f"prepare.keep: {name} was found of no document; there are {', '.join(there)}"
            )
        limits = {source.name: source.max_bytes for source, _ in self.sources if source.max_bytes}
        config = {
            "prepare": self.config.model_dump(mode="json"),
            "sources": [source.model_dump(mode="json") for source, _ in self.sources],
        }
        write_json(folder / "config.json", config)
        timings: dict[str, Any] = {
            "seconds": round(time.monotonic() - self.begin, 3),
            "cpu_seconds": {
                name: {stage: round(seconds, 3) for stage, seconds in tally.seconds.items()}
                for name, tally in self.tallies.items()
            },
        }
        record = self.config.classifiers.record
        if record is not None and Path(record).exists():
            timings["cascade"] = summary(Path(record))
        write_json(folder / "timings.json", timings)
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
                        "cut_at_max_bytes": source.name in self.full,
                        "stages": [
                            {"stage": name, "documents": size.documents, "bytes": size.bytes}
                            for name, size in self.tallies[source.name].stages.items()
                        ],
                        "rules": self.tallies[source.name].to_json()["rules"],
                    }
                    for source, files in self.sources
                },
                "shards": shards,
            },
        )

    def _read(self, segment: Segment, folder: Path) -> Iterator[Stored]:
        """Read all sources and run the first segment."""
        root = 0
        left = {source.name: source.max_bytes for source, _ in self.sources}
        total = sum(
            min(sum(file.size for file in files), source.max_bytes or 1 << 62)
            for source, files in self.sources
        )
        seen = 0
        title = _title("read", segment)
        self.progress(title, 0, total, "B")

        def tasks() -> Iterator[tuple[Source, tuple[InputFile, ...], Path]]:
            count = 0
            for source, files in self.sources:
                for group in _grouped(files, self.config.batch_bytes):
                    if source.name in self.full:
                        break
                    yield source, group, folder / f"{count:07d}"
                    count += 1

        def submit(task: tuple[Source, tuple[InputFile, ...], Path]) -> Future[Result]:
            source, group, place = task
            budget = left[source.name]
            return self.pool.submit(
                once, read_files, place, source, group, budget, segment, self.config
            )

        for (source, group, place), future in in_order(tasks(), submit, self.window):
            budget = left[source.name]
            if source.name in self.full:
                future.cancel()
                continue
            result = future.result()
            if budget is not None:
                if result.read_bytes > budget:
                    # it was started when more was left: read it again with what is left now
                    again = place.with_name(f"{place.name}-cut")
                    result = submit((source, group, again)).result()
                left[source.name] = budget - result.read_bytes
                if result.full:
                    self.full.add(source.name)
            yield from self._take(source, result, 0, root)
            root += len(result.batches)
            seen += sum(file.size for file in group) if budget is None else result.read_bytes
            self.progress(title, min(seen, total), total, "B")
        self.progress(title, total, total, "B")

    def _process(
        self, n: int, segment: Segment, folder: Path, cut_by: str | None
    ) -> Iterator[Stored]:
        """Run a later segment."""
        done, total = 0, sum(batch.kept_bytes() for batch in self.batches)
        title = _title("cut" if cut_by else "", segment)

        def submit(task: tuple[int, Stored]) -> Future[Result]:
            place, batch = folder / f"{task[0]:07d}", task[1]
            return self.pool.submit(once, process_batch, place, batch, cut_by, segment, self.config)

        for (_, batch), future in in_order(enumerate(self.batches), submit, self.window):
            yield from self._take(batch.source, future.result(), n, batch.root)
            done += batch.kept_bytes()
            self.progress(title, done, total, "B")

    def _take(self, source: Source, result: Result, n: int, root: int) -> Iterator[Stored]:
        """Note what a task of segment n made, and yield the batches with something in them."""
        self.tallies[source.name].merge(result.tally)
        self.ledgers += result.ledgers()
        for count, (name, documents) in enumerate(result.batches):
            folder = result.folder / name
            for path in folder.glob("tags-*.parquet"):
                k = int(path.stem.removeprefix("tags-"))
                self.found[n, k][source.name].append((root + count, folder))
            if documents:
                yield Stored(source, folder, root + count, np.ones(documents, np.bool_))

    def _compare(self, stage: str, folder: Path) -> None:
        """Drop documents that repeat earlier ones and cut out what does, each into the ledger."""
        if not (folder / "result.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self._resolve(stage, folder)
        drops, cuts = load_array(folder / "drops.npy"), load_array(folder / "cuts.npy")
        for b, i in drops.tolist():
            self.batches[b].keep[i] = False
        borders = np.searchsorted(cuts[:, 0], np.arange(len(self.batches) + 1))
        for b, batch in enumerate(self.batches):
            batch.cuts = np.array(cuts[borders[b] : borders[b + 1], 1:])
        for name, data in json.loads((folder / "result.json").read_text()).items():
            self.tallies[name].merge(Tally.from_json(data))
        self.ledgers.append(folder / "ledger.jsonl")
        for batch in self.batches:
            self.tallies[batch.source.name].stage(stage, int(batch.keep.sum()), batch.kept_bytes())

    def _resolve(self, stage: str, folder: Path) -> None:
        batches = self.batches
        views = [
            Batch(batch.keep, partial(batch.signature, stage), batch.documents, batch.folder)
            for batch in batches
        ]

        @lru_cache(maxsize=64)
        def documents(number: int) -> Documents:
            return batches[number].documents()

        def submitted[R](function: Callable[..., R], tasks: Iterable[tuple[Any, ...]]) -> Any:
            for _, future in in_order(
                tasks, lambda task: self.pool.submit(function, *task), self.window
            ):
                yield future.result()

        work = folder / "files"
        work.mkdir()
        tallies = {source.name: Tally() for source, _ in self.sources}
        drops: list[tuple[int, int]] = []
        cuts: list[tuple[int, int, int, int]] = []
        total = sum(int(batch.keep.sum()) for batch in batches)
        self.progress(stage, 0, total, "documents")
        with open(folder / "ledger.jsonl", "wb") as ledger:
            for found in DUPLICATES[stage](self.config.dedup).resolve(views, work, submitted):
                here = documents(found.batch)
                tally = tallies[here.source.name]
                stays = found.partner
                partner = documents(stays[0]).id(stays[1]) if isinstance(stays, tuple) else stays
                if isinstance(found, Duplicate):
                    drops.append((found.batch, found.index))
                    tally.hit(here, found.index, stage, found.rule, "drop",
                              number(found.value), found.threshold, partner=partner)  # fmt: skip
                else:
                    cuts.append((found.batch, found.index, found.start, found.end))
                    spans = here.characters(found.index, [(found.start, found.end)])
                    tally.hit(here, found.index, stage, found.rule, "change",
                              number(found.value), None, partner=partner, spans=spans)  # fmt: skip
                ledger.write(b"".join(tally.lines))
                tally.lines.clear()
        shutil.rmtree(work)
        save_array(folder / "drops.npy", np.array(drops, np.int64).reshape(-1, 2))
        save_array(folder / "cuts.npy", np.array(cuts, np.int64).reshape(-1, 4))
        write_json(folder / "result.json", {n: tally.to_json() for n, tally in tallies.items()})
        self.progress(stage, total, total, "documents")

    def _write_shards(self, folder: Path) -> list[dict[str, Any]]:
        """Write the shards of each source."""
        tags: dict[tuple[str, int], list[Path]] = defaultdict(list)
        for (_, k), by_source in sorted(self.found.items()) if self.config.keep else ():
            for name, seen in by_source.items():
                for root, place in seen:
                    tags[name, root].append(place / f"tags-{k}.parquet")
        jobs: list[tuple[Path, list[Stored], list[list[Path]]]] = []
        size = count = 0
        source = ""
        for batch in self.batches:
            if batch.source.name != source:
                source, count, size = batch.source.name, -1, self.config.shard_bytes
            if not batch.keep.any():
                continue
            if size >= self.config.shard_bytes:
                count, size = count + 1, 0
                jobs.append((self.work / "shards" / f"{source}-{count:05d}.jsonl.zst", [], []))
            jobs[-1][1].append(batch)
            jobs[-1][2].append(tags[source, batch.root])
            size += batch.kept_bytes()
        shards = []
        done, total = 0, sum(batch.kept_bytes() for batch in self.batches)
        for (path, *_), future in in_order(
            jobs, lambda job: self.pool.submit(write_shard, *job, self.config.keep), self.window
        ):
            documents, written, checksum = future.result()
            shards.append({"path": f"documents/{path.name}", "documents": documents,
                           "bytes": written, "sha256": checksum})  # fmt: skip
            done += written
            self.progress("write", done, total, "B")
        (folder / "documents").mkdir()
        for path, *_ in jobs:
            path.rename(folder / "documents" / path.name)
        return shards

    def _write_tags(self, folder: Path) -> None:
        """Join the tags of each group and source, and choose examples from them."""
        for path in (folder / "tags", self.work / "examples"):
            path.mkdir(exist_ok=True)
        kept = {batch.root: batch.folder for batch in self.batches}
        jobs = []
        for group, ((_, k), by_source) in enumerate(sorted(self.found.items())):
            for source, _ in self.sources:
                if seen := by_source.get(source.name):
                    name = f"{group:02d}-{source.name}"
                    places = [(path, kept.get(root)) for root, path in seen]
                    lines = self.work / "examples" / f"{name}.jsonl"
                    tags = folder / "tags" / f"{name}.parquet"
                    jobs.append((tags, lines, source, k, places, self.config))
        written = in_order(
            jobs, lambda job: self.pool.submit(_tags_and_examples, *job), self.window
        )
        for done, (_, future) in enumerate(written, start=1):
            future.result()
            self.progress("tags", done, len(jobs), "files")
        _join([lines for _, lines, *_ in jobs], folder / "examples.jsonl.zst")


def _tags_and_examples(
    tags: Path,
    lines: Path,
    source: Source,
    k: int,
    places: list[tuple[Path, Path | None]],
    config: Prepare,
) -> None:
    """Join what group k found of one source, and write the lines of its examples. places: for each
    batch its folder, and that of what is left of it at the end."""
    merge_tags(tags, [folder / f"tags-{k}.parquet" for folder, _ in places])
    picks: dict[int, list[tuple[str, examples.Pick]]] = defaultdict(list)
    for stage, one in examples.pick(tags, source, config):
        picks[one.batch].append((stage, one))
    with open(lines, "wb") as out:
        for b, found in sorted(picks.items()):
            folder, kept = places[b]
            out.writelines(
                examples.show(source, found, folder / f"tags-{k}.parquet", folder / f"dropped-{k}",
                              kept, config)
            )  # fmt: skip


def _title(first: str, segment: Segment) -> str:
    """The name of a bar: what is done while it moves."""
    names = [name for name in (first, *segment.stages) if name]
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def _join(parts: list[Path], path: Path) -> None:
    """One compressed file of all these."""
    import zstandard

    with (
        open(path, "wb") as file,
        zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(
            file, closefd=False
        ) as out,
    ):
        for part in parts:
            with open(part, "rb") as stream:
                shutil.copyfileobj(stream, out, 1 << 20)


def _forget(batches: list[Stored]) -> None:
    """Remove the texts and signatures of batches that a later segment has been through."""
    for batch in batches:
        for path in batch.folder.glob("*.npy"):
            if path.name != "texts_offsets.npy":
                path.unlink()


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
