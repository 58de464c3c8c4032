"""A run's folder: where each stage writes, how a result replaces an older one, who may write."""

import contextlib
import fcntl
import hashlib
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
        self.path = Path(path).expanduser()
        self.config = self.path / "config.yaml"
        self.corpus = self.path / "corpus"
        self.tokenizer = self.path / "tokenizer"
        self.tokens = self.path / "tokens"
        self.checkpoints = self.path / "checkpoints"
        self.mixture = self.path / "mixture.json"
        self.metrics = self.path / "metrics.jsonl"
        self.evaluation = self.path / "eval.json"
        self.samples = self.path / "samples.jsonl"
        self.report = self.path / "report"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one writing process; the system frees it when the process dies.

        Mends what a process that was killed left half-way. Raises UserError when another process
        holds the folder, or when it cannot be one.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(
                f"{self.path}: a file is in the way of this folder; choose another workdir"
            ) from None
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
            self._mend()
            yield

    def _mend(self) -> None:
        """Undo a `replace_dir` that was killed: drop the part, put back what had been set aside."""
        for partial in self.path.glob("*.partial"):
            if partial.is_dir():
                shutil.rmtree(partial)
        for old in self.path.glob("*.old"):
            target = old.with_suffix("")
            if target.exists():
                shutil.rmtree(old)
            else:
                old.rename(target)

    @contextlib.contextmanager
    def work(self, name: str, inputs: Any) -> Iterator[Path]:
        """Yield NAME.work, the folder of what is half done: as it was left when what the work
        depends on (`inputs`, JSON) is the same, else empty. It goes when the block ends well.
        """
        folder = self.path / f"{name}.work"
        stamp = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
        mark = folder / "inputs.json"
        if not mark.exists() or json.loads(mark.read_text()) != stamp:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_json(mark, stamp)
        yield folder
        mark.unlink()  # first: what is left of a folder that goes is not taken up
        shutil.rmtree(folder)

    @contextlib.contextmanager
    def replace_dir(self, name: str) -> Iterator[Path]:
        """Yield an empty folder NAME.partial that becomes NAME when the block ends well.

        When the block raises or the process dies, the earlier NAME stays as it was, or comes back
        with the next `lock`.
        """
        target, partial, old = (self.path / f"{name}{end}" for end in ("", ".partial", ".old"))
        shutil.rmtree(partial, ignore_errors=True)
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
