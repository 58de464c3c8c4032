"""`tokenize` that is killed goes on where it was, and the store is the same to the byte."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaxlm.config import Config
from jaxlm.config.data import Data, SplitBy
from jaxlm.config.tokens import Tokenizer
from jaxlm.errors import UserError
from jaxlm.tokens import tokenize, train_tokenizer
from jaxlm.tokens.spool import Spool
from jaxlm.workdir import Workdir
from tests.tokens.conftest import CODE, TOPICS, make_config, write_corpus
from tests.tokens.test_streams import Here

ROOT = Path(__file__).parents[2]


def config_of(workers: int = 1) -> Config:
    parted = SplitBy(field="language", sources=("web",))
    return make_config(
        ("web", "code"), tokenizer=Tokenizer(kind="byte"), prepare={"workers": workers},
        data=Data(
            split_by=(parted,), sort_by="length", shard_bytes=1 << 16, validation_fraction=0.1
        ),
    )  # fmt: skip


def fields(name: str) -> dict[str, Any]:
    return {"language": ("de", "en", "fr")[len(name) % 3]}


def prepared(folder: Path) -> Workdir:
    workdir = Workdir(folder)
    write_corpus(workdir.corpus, {"web": TOPICS[:30], "code": CODE[:4]}, 8, fields)
    train_tokenizer(config_of(), workdir)
    return workdir


def contents(workdir: Workdir) -> dict[str, bytes]:
    files = sorted(path for path in workdir.tokens.rglob("*") if path.is_file())
    return {str(path.relative_to(workdir.tokens)): path.read_bytes() for path in files}


def killed_at(moment: int, folder: Path) -> bool:
    """Run `tokenize` in a forked process that kills itself at its so-manieth change of a file, with
    what was appended since the last one on disk; returns whether it lived to the end."""
    if not (child := os.fork()):
        left = moment

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
            if changes or (event == "open" and arguments[1] not in (None, "r", "rb")):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        def append(spool: Spool, *arguments: Any) -> None:
            whole(spool, *arguments)
            for files in spool._open.values():
                for file in files:
                    file.flush()
            count("os.truncate", ())

        code = 1
        try:
            whole: Callable[..., None] = Spool.append
            Spool.append = append  # type: ignore[method-assign, assignment]
            sys.modules["jaxlm.tokens.encode"].Pool = Here  # type: ignore[attr-defined]
            os.fsync = lambda fd: None  # that is for a machine that dies
            sys.addaudithook(count)
            workdir = Workdir(folder)
            with workdir.lock():
                tokenize(config_of(), workdir)
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    return status == 0


def at_moments(made: Path, work: Path, apart: int) -> None:
    """Kill at every `apart`-th change of a file, then once more at random, and let the third go to
    the end.

    The process that calls this has no threads, so that it may fork.
    """
    draw = random.Random(0)
    whole = shutil.copytree(made, work / "whole")
    assert killed_at(1 << 30, whole)
    wanted = contents(Workdir(whole))
    assert len(wanted) > 16, wanted.keys()
    moment, lived = 0, False
    while not lived:
        folder = shutil.copytree(made, work / "run")
        lived = killed_at(moment, folder)
        killed_at(draw.randrange(60), folder)
        assert killed_at(1 << 30, folder)
        assert contents(Workdir(folder)) == wanted, moment
        assert not list(folder.glob("*.work")) + list(folder.glob("*.partial")), moment
        shutil.rmtree(folder)
        moment += apart
    assert moment > 60, moment
    # and one that never gets far
    folder = shutil.copytree(made, work / "run")
    while not killed_at(45, folder):
        pass
    assert contents(Workdir(folder)) == wanted


@pytest.mark.parametrize("apart", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_change_of_a_file(tmp_path: Path, apart: int) -> None:
    prepared(tmp_path / "made")
    script = (
        "import sys; from pathlib import Path; from tests.tokens.test_killed import at_moments;"
        "at_moments(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "made"), str(tmp_path), str(apart)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_killed_with_all_its_workers_and_taken_up_by_others(tmp_path: Path) -> None:
    whole, run = prepared(tmp_path / "whole"), prepared(tmp_path / "run")
    tokenize(config_of(), whole)
    script = """
import sys
from tests.tokens.test_killed import *
if __name__ == "__main__":
    workdir = Workdir(sys.argv[1])
    with workdir.lock():
        tokenize(config_of(int(sys.argv[2])), workdir, lambda *what: time.sleep(0.05))
"""
    path = tmp_path / "script.py"
    path.write_text(script)
    journal, kills = run.path / "tokens.work" / "journal.json", 0
    for attempt in range(10):
        before = journal.read_bytes() if journal.exists() else b""
        process = subprocess.Popen(
            [sys.executable, path, run.path, str(1 + attempt % 2)], cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
        )  # fmt: skip
        while process.poll() is None and attempt < 3:
            if journal.exists() and journal.read_bytes() != before:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        if process.wait() == 0:
            break
    assert kills == 3
    assert contents(run) == contents(whole)
    assert not (run.path / "tokens.work").exists()


def test_what_was_done_is_told_and_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = prepared(tmp_path)
    monkeypatch.setattr("jaxlm.tokens.encode.Pool", Here)
    told: list[tuple[str, int]] = []

    def note(task: str, done: int, total: int | None, unit: str) -> None:
        told.append((task, done))

    def stop(task: str, done: int, total: int | None, unit: str) -> None:
        if task.startswith("tokenize") and total is not None and done > total / 2:
            raise KeyboardInterrupt

    def halfway() -> None:
        with pytest.raises(KeyboardInterrupt):
            tokenize(config_of(), workdir, stop)
        told.clear()

    halfway()
    tokenize(config_of(), workdir, note)
    # streams are not looked for again
    assert re.fullmatch("tokenize, resumed after [23] of 5 shards", told[0][0])
    assert told[0][1] > 0
    # of other inputs, or where a file of what was half done is gone, from the beginning
    halfway()
    tokenize(config_of().model_copy(update={"seed": 1}), workdir, note)
    assert ("tokenize", 0) in told
    halfway()
    next((tmp_path / "tokens.work").glob("*.tokens")).unlink()
    tokenize(config_of(), workdir, note)
    assert ("tokenize", 0) in told


def test_a_full_disk_is_told_and_work_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the same error."""
    run = prepared(tmp_path / "run")
    whole = Workdir(shutil.copytree(run.path, tmp_path / "whole"))
    tokenize(config_of(), whole)
    script = """
import resource, sys
from jaxlm.errors import UserError
from tests.tokens.test_killed import *
if __name__ == "__main__":
    most = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    try:
        tokenize(config_of(), Workdir(sys.argv[1]))
    except UserError as error:
        print(error)
"""
    path = tmp_path / "script.py"
    path.write_text(script)
    done = subprocess.run(
        [sys.executable, path, run.path, "20000"], cwd=ROOT, text=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60,
    )  # fmt: skip
    assert "no room to write" in done.stdout, done.stderr
    assert not done.stderr
    assert not run.tokens.exists()
    assert (run.path / "tokens.work" / "journal.json").exists()
    tokenize(config_of(), run)
    assert contents(run) == contents(whole)


def test_a_store_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    workdir = prepared(tmp_path / "run")
    (tmp_path / "file").write_text("in the way")
    data = config_of().data.model_copy(update={"store": str(tmp_path / "file" / "store")})
    told: list[str] = []
    with pytest.raises(UserError, match=r"data\.store: .* cannot be written"):
        tokenize(
            config_of().model_copy(update={"data": data}), workdir, lambda *a: told.append(a[0])
        )
    assert not told
