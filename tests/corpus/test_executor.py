"""Workers end with the block, with an error in it, and with their parent."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from jaxlm.config.corpus import Prepare
from jaxlm.corpus.executor import executor

ROOT = Path(__file__).parents[2]


def test_a_worker_that_dies_is_an_error() -> None:
    with executor(Prepare(workers=1)) as (pool, workers):
        assert workers == 1
        dead = pool.submit(os._exit, 1)
        with pytest.raises(BrokenProcessPool):
            dead.result()


def test_an_error_does_not_wait_for_running_tasks() -> None:
    def fail() -> None:
        with executor(Prepare(workers=1)) as (pool, _):
            assert pool.submit(abs, -1).result() == 1
            pool.submit(time.sleep, 600)
            raise KeyError

    begin = time.monotonic()
    with pytest.raises(KeyError):
        fail()
    assert time.monotonic() - begin < 300


def test_workers_end_when_their_parent_is_killed() -> None:
    script = """
import os, time
from jaxlm.config.corpus import Prepare
from jaxlm.corpus.executor import executor

if __name__ == "__main__":
    with executor(Prepare(workers=1)) as (pool, _):
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(300):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        # where nothing reaps orphans a dead one stays as a zombie
        stat = Path(f"/proc/{worker}/stat")
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the worker lives on")
