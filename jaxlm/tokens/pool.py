"""Work on all cores, in order, in bounded memory."""

import collections
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from jaxlm.errors import UserError


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool:
    """Fresh processes (spawned, so without this one's threads and JAX), each prepared by setup.

    They end with the pool, and also when this process is killed.
    """

    def __init__(self, workers: int, setup: Callable[..., None], *arguments: Any) -> None:
        self._workers = workers
        self._executor = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(setup, arguments),
        )

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)

    def map[In, Out](self, function: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
        """function(item) of each item, in order; two or three items a worker are held at a time."""
        waiting: collections.deque[Future[Out]] = collections.deque()
        try:
            for item in items:
                waiting.append(self._executor.submit(function, item))
                if len(waiting) > 2 * self._workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was killed, most likely for want of memory; "
                "lower prepare.workers, or free memory, and start again"
            ) from None
        finally:
            for future in waiting:
                future.cancel()


def _begin(setup: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the pool.
    # a process a core: the library tokenizers needs no threads besides
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    parent = multiprocessing.parent_process()
    assert parent is not None

    def die_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=die_with_parent, daemon=True).start()
    setup(*arguments)
