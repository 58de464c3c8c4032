"""Raw text -> WORKDIR/corpus: the stages of a config over all sources, in an order that is fixed.

The corpus is cut into segments at the stages that compare documents with each other. Within a
segment workers take batches of documents independently; their results are taken in the order of
the sources and files, so that the output does not depend on how many workers there are.

All work is in tasks that leave their results in WORKDIR/corpus.work, so that a preparation which
was killed goes on where it was. That folder goes when the corpus is whole.
"""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jaxlm.config import Config
from jaxlm.config.corpus import Prepare, Source
from jaxlm.corpus import depends, listing, recipes
from jaxlm.corpus.executor import executor
from jaxlm.corpus.ledger import Tally
from jaxlm.corpus.listing import InputFile
from jaxlm.corpus.run import Run
from jaxlm.errors import UserError
from jaxlm.workdir import Progress, Workdir

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def inputs(config: Config) -> list[dict[str, Any]]:
    """Every input file: its source, path, size and a stamp that changes when it does; and the files
    of lists and models, whose source is null."""
    texts = [
        {"source": source.name, "path": file.path, "size": file.size, "stamp": file.stamp}
        for source, files in _sources(config)
        for file in files
    ]
    rules = depends.files(depends.with_models(config))
    return texts + [{"source": None, "path": path, "size": size, "stamp": str(stamp)}
                    for path, size, stamp in rules]  # fmt: skip


def prepare(config: Config, workdir: Workdir, progress: Progress) -> None:
    """Read, clean and deduplicate all sources into workdir.corpus.

    Writes documents/SOURCE-NNNNN.jsonl.zst, ledger.jsonl.zst, tags/, examples.jsonl.zst,
    stats.json, timings.json and config.json. What an earlier call with the same config and inputs
    did before it was killed is not done again. Raises UserError, with the earlier corpus left as
    it was, when an input is missing and when the disk is full; and when nothing is left of a
    source, with a corpus that can be asked why.
    """
    try:
        sources = _sources(config)
        rules = depends.with_models(config)
        with (
            _same_work(rules, sources, workdir) as work,
            executor(rules) as (pool, workers),
        ):
            run = Run(rules, sources, pool, 2 * workers, work, progress)
            run.segments()
            with workdir.replace_dir("corpus") as folder:
                run.finish(folder)
        _refuse_empty(run.tallies, workdir.path)
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


@contextlib.contextmanager
def _same_work(
    rules: Prepare, sources: list[tuple[Source, list[InputFile]]], workdir: Workdir
) -> Iterator[Path]:
    """The folder of the tasks: as it was left when config and inputs are the same, else empty.

    It goes when the block ends, well or with an error that the same call would meet again; it
    stays when this process or a worker is killed, or the user interrupts.
    """
    inputs = {
        "version": version("jaxlm"),
        "prepare": rules.model_dump(mode="json", exclude={"executor", "workers"}),
        "files": depends.files(rules),
        "sources": [
            (source.model_dump(mode="json"), [(f.path, f.size, f.stamp) for f in files])
            for source, files in sources
        ],
    }
    with workdir.work("corpus", inputs) as folder:
        try:
            yield folder
        except (KeyboardInterrupt, SystemExit, BrokenProcessPool):
            raise
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


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


def _refuse_empty(tallies: dict[str, Tally], workdir: Path) -> None:
    """Raise UserError for every source of which nothing is left, with what took most of it."""
    problems = []
    for name, tally in tallies.items():
        if not tally.stages or list(tally.stages.values())[-1].documents == 0:
            dropping = [
                (rule, count)
                for rule, count in sorted(tally.rules.items(), key=lambda item: -item[1].documents)
                if count.failed or rule.startswith("read.")
            ]
            why = ", ".join(f"{rule} took {count.documents}" for rule, count in dropping[:3])
            problems.append(
                f"source {name!r}: nothing is left after preparation"
                + (f" (documents by rule: {why})" if why else "")
                + "; change the thresholds, raise max_bytes, or leave the source out"
            )
    if problems:
        problems[-1] += f" (jaxlm report {workdir} shows what became of it)"
        raise UserError(problems)
