"""Where the work runs: tasks go to a concurrent.futures.Executor and are taken in order.

Another executor is another function here that yields an object with `submit` (for example one
that turns a Ray object reference into a Future); nothing else knows of it.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing.connection import wait

from jaxlm.config.corpus import Prepare


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def executor(config: Prepare) -> Iterator[tuple[Executor, int]]:
    """Yield an executor and the number of its workers; no task is left running afterwards.

    Workers are started afresh, not forked, since the caller may hold threads. When the block
    raises they are stopped in the middle of their tasks.
    """
    workers = config.workers or cores()
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    try:
        yield pool, workers
    except BaseException:
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end when it has died."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch(sentinel: int = parent.sentinel) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
