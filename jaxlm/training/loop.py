"""The training loop: from tokens on disk to a trained model, stopped and resumed at will."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import jax

from jaxlm.config import Config
from jaxlm.errors import UserError
from jaxlm.models import Decoder, flops_per_token
from jaxlm.optim import make_schedule
from jaxlm.parallel import make_mesh
from jaxlm.tokens import load_tokenizer, open_loader
from jaxlm.training.batches import batches
from jaxlm.training.checkpoints import Checkpoints
from jaxlm.training.hardware import peak_flops
from jaxlm.training.metrics import Metrics, finite
from jaxlm.training.state import make_state
from jaxlm.training.step import make_step
from jaxlm.workdir import Workdir


class Show(Protocol):
    """Who is told of the run while it goes on (reports.Terminal is one)."""

    def line(self, text: str) -> None: ...
    def training(self, record: dict[str, Any], total_steps: int) -> None: ...


type Score = Callable[[Decoder], dict[str, dict[str, float]]]
"""Scores of parameters by source, as evaluation.evaluate gives them."""


class Stopped(Exception):  # noqa: N818, it is no error
    """The run was asked to stop by a signal; a checkpoint of this step is on disk."""

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}")
        self.signum, self.step = signum, step


def train(config: Config, workdir: Workdir, show: Show, score: Score) -> None:
    """Train to the last step, from the newest good checkpoint in the workdir if there is one.

    The same config and mesh give the same bits, stopped or not. SIGINT and SIGTERM end it after the
    step that is under way, with a checkpoint: Stopped is raised. Raises UserError for a workdir
    that belongs to another run, damaged data, a loss that is not finite, or a full disk. `score` is
    called each eval.every steps.
    """
    tokenizer = load_tokenizer(workdir.tokenizer)
    loader = open_loader(config, workdir)
    total = config.steps
    with jax.set_mesh(make_mesh(config)):
        state, optimizer = make_state(config)
        checkpoints = Checkpoints(
            workdir.checkpoints, config.checkpoint.keep, config.checkpoint.keep_every
        )
        start, tokens, read = 0, 0, [0] * len(config.sources)
        if checkpoints.steps() and not config.recovery.resume:
            raise UserError(
                f"{workdir.checkpoints}: holds a run and recovery.resume is false; choose another "
                "workdir or move it away"
            )
        if found := checkpoints.resume(config, tokenizer.hash, state, show.line):
            start, state, facts = found
            tokens, read = facts["tokens"], facts["read"]
            show.line(f"resumed from {workdir.checkpoints / str(start)}")
        if start >= total:
            show.line(f"finished: {start} of {total} steps; train.steps=N goes on to step N")
            checkpoints.close()
            return

        step_function = make_step(config, optimizer)
        schedule = make_schedule(config.optimizer.schedule, config.optimizer.learning_rate, total)
        rates = _Rates(config)
        microbatches = config.train.batch_size // (
            config.train.microbatch_size or config.train.batch_size
        )
        metrics = Metrics(workdir, start, config.logging.tensorboard)
        names = [source.name for source in config.sources]
        facts = {"config": json.loads(config.model_dump_json()), "tokenizer_hash": tokenizer.hash}

        with _stop_signals() as stopped, _closing(metrics.close):
            pending: dict[str, Any] | None = None
            for step, ready in enumerate(batches(loader, start, total, microbatches), start + 1):
                state, device_metrics = step_function(state, ready.batch)
                # the figures of the step before are read while this one runs
                if pending is not None:
                    _log(pending, metrics, rates, show, total)
                tokens += ready.targets
                for index in ready.sources_B:
                    read[index] += config.data.seq_len
                last = step == total or stopped.signum is not None
                save = last or step % config.checkpoint.every == 0
                scored = config.eval.every is not None and step % config.eval.every == 0
                pending = {
                    "step": step,
                    "device": device_metrics,
                    "tokens": tokens,
                    "learning_rate": schedule(step - 1),
                    "source_tokens": dict(zip(names, read, strict=True)),
                    "record": last or scored or step % config.logging.every == 0,
                }
                if save or scored:
                    if scored:
                        pending["validation"] = {
                            name: figures["bits_per_byte"]
                            for name, figures in score(state.params).items()
                        }
                    _log(pending, metrics, rates, show, total)
                    pending = None
                    rates.pause()
                if save:
                    checkpoints.save(
                        step, state, facts | {"tokens": tokens, "read": list(read), "mesh": _mesh()}
                    )
                if last:
                    break
        checkpoints.close()
        if stopped.signum is not None and step < total:
            raise Stopped(stopped.signum, step)


class _Rates:
    """Speed between logged steps; the first step, which compiles, does not count."""

    def __init__(self, config: Config) -> None:
        self._step_tokens = config.train.batch_size * config.data.seq_len
        self._flops = [flops_per_token(config, causal) for causal in (False, True)]
        self._peak = config.logging.peak_flops or peak_flops()
        self._since: tuple[int, float] | None = None
        self._spent = (0, 0.0)

    def finished(self, step: int) -> None:
        """A step's result was just read."""
        now = time.perf_counter()
        if self._since is not None:
            steps, seconds = self._spent
            self._spent = (steps + step - self._since[0], seconds + now - self._since[1])
        self._since = (step, now)

    def pause(self) -> None:
        """What happens until the next step is not training."""
        self._since = None

    def take(self) -> dict[str, float | None]:
        """Figures since the last call; None where nothing was timed."""
        steps, seconds = self._spent
        self._spent = (0, 0.0)
        if not steps:
            return dict.fromkeys(("step_time_s", "tokens_per_s", "mfu", "mfu_causal"))
        speed = steps * self._step_tokens / seconds
        whole, causal = (
            speed * flops / (self._peak * jax.device_count()) if self._peak else None
            for flops in self._flops
        )
        return {
            "step_time_s": seconds / steps, "tokens_per_s": speed,
            "mfu": whole, "mfu_causal": causal,
        }  # fmt: skip


def _log(
    pending: dict[str, Any], metrics: Metrics, rates: _Rates, show: Show, total: int
) -> None:
    step = pending["step"]
    loss = finite(step, "the loss", float(pending["device"]["loss"]))
    rates.finished(step)
    if not pending["record"]:
        return
    record = {
        "step": step,
        "loss": loss,
        "tokens": pending["tokens"],
        "learning_rate": float(pending["learning_rate"]),
        "grad_norm": finite(step, "the gradient's norm", float(pending["device"]["grad_norm"])),
        **rates.take(),
        "time": time.time(),
        "source_tokens": pending["source_tokens"],
    }
    if "validation" in pending:
        record["validation"] = pending["validation"]
    metrics.write(record)
    show.training(record, total)


class _Stop:
    signum: int | None = None


@contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """Note SIGINT and SIGTERM instead of dying; a second SIGINT interrupts at once."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(signum: int, frame: Any) -> None:
        if stop.signum is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signum = signum

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def _closing(close: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    finally:
        close()


def _mesh() -> dict[str, int]:
    return dict(jax.sharding.get_mesh().shape)


def use_compilation_cache(path: Path) -> None:
    """Keep compiled programs on disk, so that the next start does not compile them again."""
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
