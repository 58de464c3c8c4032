"""A run's folder: where each stage writes, how a result replaces an older one, who may write."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxlm.errors import UserError

type Progress = Callable[[str, int, int | None, str], None]
"""Called as progress(task, done, total or None, unit); unit is B, tokens, documents or steps."""


def no_progress(task: str, done: int, total: int | None, unit: str) -> None:
    """Show nothing."""


class Workdir:
    """Paths inside one run's folder. Creating the object touches nothing on disk."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.corpus = self.path / "corpus"
        self.tokenizer = self.path / "tokenizer"
        self.tokens = self.path / "tokens"
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.evaluation = self.path / "eval.json"
        self.samples = self.path / "samples.jsonl"
        self.report = self.path / "report"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one writing process; the system frees it when the process dies.

        Raises UserError when another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".lock", "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise UserError(
                    f"{self.path}: another run (process {holder}) is writing here; "
                    "wait for it, stop it, or choose another workdir"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    @contextlib.contextmanager
    def replace_dir(self, name: str) -> Iterator[Path]:
        """Yield an empty folder NAME.partial that becomes NAME when the block ends well.

        When the block raises or the process dies, the earlier NAME stays as it was.
        """
        target, partial, old = (self.path / f"{name}{end}" for end in ("", ".partial", ".old"))
        for stale in (partial, old):
            shutil.rmtree(stale, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if target.exists():
            target.rename(old)
        partial.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically (see `write_text`)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
