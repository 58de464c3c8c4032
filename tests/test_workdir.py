"""A run's folder: one writer, results replaced whole, and what a killed process leaves."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jaxlm.errors import UserError
from jaxlm.workdir import Workdir, write_json, write_text

ROOT = Path(__file__).parents[1]


def start(code: str, path: Path) -> subprocess.Popen[str]:
    """A process that runs `code` on a path, once it has said that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"import os\nfrom jaxlm.workdir import *\n{code}", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


HOLD = """
import sys
with Workdir(sys.argv[1]).lock():
    print("ready", flush=True)
    sys.stdin.read()
"""
HALF_WAY = """
import sys
workdir = Workdir(sys.argv[1])
with workdir.lock(), workdir.replace_dir("corpus") as folder:
    (folder / "new").touch()
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path / "run")
    with start(HOLD, workdir.path) as other:
        taken = rf"another run \(process {other.pid}\)"
        with pytest.raises(UserError, match=taken), workdir.lock():
            pytest.fail("the lock was given twice")
        other.send_signal(signal.SIGKILL)
        other.wait()
        with workdir.lock():
            assert (workdir.path / ".lock").read_text() == str(os.getpid())
    with workdir.lock():
        pass


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="a file is in the way"), Workdir(path).lock():
            pass


def test_the_home_folder_may_be_written_short() -> None:
    assert Workdir("~/run").corpus == Path.home() / "run" / "corpus"


class TestReplaceDir:
    @pytest.fixture
    def workdir(self, tmp_path: Path) -> Workdir:
        workdir = Workdir(tmp_path)
        workdir.corpus.mkdir()
        (workdir.corpus / "old").touch()
        return workdir

    def left(self, workdir: Workdir) -> list[str]:
        files = (p for p in workdir.path.rglob("*") if p.is_file() and p.name != ".lock")
        return sorted(str(p.relative_to(workdir.path)) for p in files)

    def test_the_new_takes_the_place_of_the_old(self, workdir: Workdir) -> None:
        with workdir.replace_dir("corpus") as folder:
            (folder / "new").touch()
            assert self.left(workdir) == ["corpus.partial/new", "corpus/old"]
        assert self.left(workdir) == ["corpus/new"]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_the_old_stays_when_the_work_fails(
        self, workdir: Workdir, error: type[BaseException]
    ) -> None:
        def fail() -> None:
            with workdir.replace_dir("corpus") as folder:
                (folder / "new").touch()
                raise error

        with pytest.raises(error):
            fail()
        assert self.left(workdir) == ["corpus/old"]

    def test_the_old_stays_when_the_process_is_killed(self, workdir: Workdir) -> None:
        with start(HALF_WAY, workdir.path) as other:
            other.send_signal(signal.SIGKILL)
            other.wait()
        assert self.left(workdir) == ["corpus.partial/new", "corpus/old"]
        with workdir.lock():
            assert self.left(workdir) == ["corpus/old"]

    def test_the_old_comes_back_when_only_one_rename_was_done(self, workdir: Workdir) -> None:
        workdir.corpus.rename(workdir.path / "corpus.old")
        with workdir.lock():
            assert self.left(workdir) == ["corpus/old"]

    def test_the_old_goes_when_both_renames_were_done(self, workdir: Workdir) -> None:
        workdir.corpus.rename(workdir.path / "corpus.old")
        workdir.corpus.mkdir()
        (workdir.corpus / "new").touch()
        with workdir.lock():
            assert self.left(workdir) == ["corpus/new"]


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": "é"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "é"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "old")
    (tmp_path / "x.txt.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
