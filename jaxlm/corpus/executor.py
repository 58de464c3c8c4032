"""Where the work runs: tasks go to an object with `submit` and are taken in order.

local: processes of this machine. ray: tasks of a Ray cluster whose machines share the workdir.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any, cast

from jaxlm.config.corpus import Prepare
from jaxlm.errors import UserError


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def executor(config: Prepare) -> contextlib.AbstractContextManager[tuple[Executor, int]]:
    """Yield an executor and the number of its workers; no task is left running afterwards."""
    return _ray(config) if config.executor == "ray" else _local(config)


def in_order[T, R](
    tasks: Iterable[T], submit: Callable[[T], Future[R]], window: int
) -> Iterator[tuple[T, Future[R]]]:
    """Submit tasks, `window` at a time; yield each with its future in the order of the tasks."""
    pending: deque[tuple[T, Future[R]]] = deque()
    for task in tasks:
        pending.append((task, submit(task)))
        if len(pending) >= window:
            yield pending.popleft()
    while pending:
        yield pending.popleft()


@contextlib.contextmanager
def _local(config: Prepare) -> Iterator[tuple[Executor, int]]:
    """Processes. Workers are started afresh, not forked, since the caller may hold threads. When
    the block raises they are stopped in the middle of their tasks."""
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


class RayTasks(Executor):
    """Each call is a Ray task that takes one core."""

    def __init__(self) -> None:
        import ray

        self._remote: Any = ray.remote(num_cpus=1, max_retries=3)(_call)
        self._running: set[Any] = set()

    def submit[**P, R](
        self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[R]:
        """Start a task; what it raises is raised by the future's result."""
        reference = self._remote.remote(function, args, kwargs)
        self._running.add(reference)
        future: Future[R] = Future()

        def ended(answer: Future[Any]) -> None:
            self._running.discard(reference)
            if error := answer.exception():
                future.set_exception(error)
                return
            value, raised = answer.result()
            if raised is None:
                future.set_result(cast(R, value))
            else:
                future.set_exception(raised)

        reference.future().add_done_callback(ended)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Cancel what still runs."""
        import ray

        for reference in list(self._running):
            ray.cancel(reference, force=True)


def _call[R](
    function: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[R | None, Exception | None]:
    """Ray would wrap an exception in one of its own, which has lost what ours carry."""
    try:
        return function(*args, **kwargs), None
    except Exception as error:
        return None, error


@contextlib.contextmanager
def _ray(config: Prepare) -> Iterator[tuple[Executor, int]]:
    """Tasks of the cluster at RAY_ADDRESS, of one that runs on this machine, or of one that is
    started for the block."""
    try:
        import ray
    except ImportError:
        raise UserError(
            "prepare.executor is ray, which is not installed; pip install 'jaxlm[ray]'"
        ) from None

    ours = not ray.is_initialized()
    if ours:
        # workers import the caller's modules, as processes on this machine do
        ray.init(
            address=os.environ.get("RAY_ADDRESS"),
            configure_logging=False,
            log_to_driver=False,
            include_dashboard=False,
        )
    pool = RayTasks()
    try:
        yield pool, config.workers or int(ray.cluster_resources().get("CPU", 1))
    finally:
        pool.shutdown()
        if ours:
            ray.shutdown()
