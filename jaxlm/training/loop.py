"""The training loop: from tokens on disk to a trained model, stopped and resumed at will."""

import hashlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
import optax

from jaxlm.config import Config
from jaxlm.config.stages import Resolved, stages
from jaxlm.errors import UserError
from jaxlm.models import Transformer, flops_per_token
from jaxlm.models.size import describe
from jaxlm.optim import make_schedule
from jaxlm.parallel import make_mesh
from jaxlm.parallel.processes import first_does, is_first, largest, several
from jaxlm.tokens import load_tokenizer, open_loader
from jaxlm.training.batches import Ready, batches
from jaxlm.training.checkpoints import Checkpoints, checkpoints_in, resume, start_from
from jaxlm.training.dynamic import MOST_SHOWN, DynamicMixture, told
from jaxlm.training.hardware import peak_flops
from jaxlm.training.metrics import Metrics
from jaxlm.training.state import make_state, optimizer_of, shapes_of_params, shapes_of_state
from jaxlm.training.step import Step, make_step
from jaxlm.workdir import Workdir, write_json

LEAST_SCALE = 2.0**-16
"""Gradients that overflow fp16 at this scale of the loss do so at any."""


class Show(Protocol):
    """Who is told of the run while it goes on (reports.Terminal is one)."""

    def line(self, text: str) -> None: ...
    def training(self, record: dict[str, Any], total_steps: int) -> None: ...


type Score = Callable[[Config, Transformer], dict[str, dict[str, float]]]
"""Scores of parameters by source, as evaluation.evaluate gives them; the config is the stage's."""


class Stopped(Exception):  # noqa: N818, it is no error
    """The run was asked to stop by a signal; a checkpoint of this step is on disk."""

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}")
        self.signum, self.step = signum, step


def train(config: Config, workdir: Workdir, show: Show, score: Score) -> None:
    """Train to the last step, from the newest whole checkpoint in the workdir if there is one.

    The same config and mesh give the same bits, stopped or not. SIGINT and SIGTERM end it after the
    step that is under way, with a checkpoint: Stopped is raised. Raises UserError for a workdir
    that belongs to another run, damaged data, a loss that is not finite, or a full disk. `score` is
    called each eval.every steps.

    Of several processes the first writes metrics and calls `show`; a signal to one of them stops
    all after the same step.

    A curriculum compiles a step for each stage; the optimizer's state goes on from one to the next.
    """
    with _stop_signals() as stop, jax.set_mesh(make_mesh(config)):
        step = _train(config, workdir, show, score, stop)
    # none leaves before the checkpoint is whole: what started them may end the others then
    first_does("last checkpoint", lambda: None)
    if signum := stop.agreed:
        raise Stopped(signum, step)


class _Stop:
    """The signal that asked the run to stop."""

    signum = 0
    """Of this process; 0: none came."""
    heard = 0
    """Of any process, as all of them have heard it at this step."""

    @property
    def agreed(self) -> int:
        """What all processes stop for."""
        return self.heard if several() else self.signum

    def ask(self) -> jax.Array | None:
        """To be heard with the step's figures."""
        return largest(self.signum) if several() else None


class _Stage(NamedTuple):
    """What a stage of the run computes with."""

    resolved: Resolved
    step: Step
    schedule: optax.Schedule
    rates: "_Rates"


class _Pending(NamedTuple):
    """A step that was sent to the devices: its figures there, and what goes into its record."""

    step: int
    stage: _Stage
    figures: dict[str, jax.Array]
    tokens: int
    record: dict[str, Any] | None
    stop: jax.Array | None


def _train(config: Config, workdir: Workdir, show: Show, score: Score, stop: _Stop) -> int:
    """The work of `train`; returns the last finished step."""
    tokenizer = load_tokenizer(workdir.tokenizer)
    loader = open_loader(config, workdir)
    run = {
        "config": json.loads(config.model_dump_json()),
        "tokenizer_hash": tokenizer.hash,
        "store": _digest_of_store(workdir),
        "mesh": dict(jax.sharding.get_mesh().shape),
    }
    _same_everywhere(run)
    total, every = config.steps, config.logging.every
    plan = loader.plan()
    for line in [*describe(config), *map(_mixture_line, plan)]:
        show.line(line)
    names = loader.names
    start, tokens, read_S = 0, 0, np.zeros(len(names), np.int64)
    facts: dict[str, Any] = {}
    found = first_does("checkpoints", lambda: list(map(str, checkpoints_in(workdir.checkpoints))))
    if found:
        if not config.recovery.resume:
            raise UserError(
                f"{workdir.checkpoints}: holds a run and recovery.resume is false; choose another "
                "workdir or move it away"
            )
        path, state, facts = resume(list(map(Path, found)), run, shapes_of_state(config))
        start, tokens, read_S = facts["step"], facts["tokens"], np.array(facts["read"])
        show.line(f"resumed from {path}")
        if start >= total:
            longer = "a longer last stage" if config.data.curriculum else "train.steps=N"
            show.line(f"finished: {start} of {total} steps; {longer} goes on to step N")
            return start
    elif config.train.from_checkpoint is not None:
        path, params = start_from(
            config.train.from_checkpoint, tokenizer.hash, shapes_of_params(config)
        )
        state = make_state(config, params)
        show.line(f"parameters from {path}")
    else:
        state = make_state(config)

    first_does("mixture.json", lambda: write_json(workdir.mixture, {"stages": plan}))
    mixture = DynamicMixture(config, workdir, loader, facts)
    kept = (config.checkpoint.keep, config.checkpoint.keep_every)
    with (
        Checkpoints(workdir.checkpoints, *kept) as checkpoints,
        closing(Metrics(workdir, start, config.logging.tensorboard)) if is_first()
        else nullcontext() as metrics,
    ):  # fmt: skip

        def finish(pending: _Pending) -> None:
            """Wait for a step's figures, check them and write its record."""
            figures, rates = _finite(pending.step, pending.figures), pending.stage.rates
            rates.finished(pending.tokens)
            if pending.stop is not None:
                stop.heard = int(pending.stop)
            if pending.record is not None and metrics is not None:
                record = {
                    "step": pending.step,
                    **figures,
                    **pending.record,
                    "learning_rate": float(pending.record["learning_rate"]),
                    **rates.take(),
                    "time": time.time(),
                }
                metrics.write(record)
                show.training(record, total)

        pending: _Pending | None = None
        for stage, step, ready in _steps(config, mixture, state.params, start):
            if pending is not None and pending.stage is not stage:
                finish(pending)  # a stage's first step compiles
                pending = None
            key = _dropout_key(stage.resolved.config, step)
            with jax.transfer_guard("disallow"):
                state, figures = stage.step(state, ready.batch, key, ready.microbatches)
            # the figures of the step before are read while this one runs
            if pending is not None:
                finish(pending)
            tokens += ready.targets
            read_S += ready.read_S
            due, often = mixture.due(step), config.eval.every
            scored = due or (often is not None and step % often == 0)
            record: dict[str, Any] | None = None
            if scored or step == total or step % every == 0:
                record = {
                    "tokens": tokens,
                    "learning_rate": stage.schedule(step - 1),
                    "target_tokens": ready.targets,
                    "efficiency": ready.targets / ready.places,
                    "source_tokens": dict(zip(names, read_S.tolist(), strict=True)),
                    "source_epochs": dict(
                        zip(names, (read_S / loader.epoch_S).tolist(), strict=True)
                    ),
                    "repeated_tokens": int(np.maximum(read_S - loader.epoch_S, 0).sum()),
                }
                if config.train.batch_ramp is not None:
                    record["batch_size"] = ready.tokens // stage.resolved.config.data.seq_len
                if stage.resolved.name is not None:
                    record["stage"] = stage.resolved.name
            pending = _Pending(step, stage, figures, ready.tokens, record, stop.ask())
            last = step == total or stop.agreed != 0
            save = last or step % config.checkpoint.every == 0
            if record is not None and scored:
                scores = score(stage.resolved.config, state.params)
                record["validation"] = {n: each["bits_per_byte"] for n, each in scores.items()}
                if due and (change := mixture.record(step, read_S, scores)):
                    record["mixture"] = change
                    show.line(f"step {step}: {told(change)}")
            if save or scored:
                # before a save, so that no bad state is kept and no record is missing after it
                finish(pending)
                pending = None
                stage.rates.pause()
            if save:
                position = {"tokens": tokens, "read": read_S.tolist()}
                checkpoints.save(step, state, run | position | mixture.facts)
            if last:
                break
    return step


def _steps(
    config: Config, mixture: DynamicMixture, params: Transformer, start: int
) -> Iterator[tuple[_Stage, int, Ready]]:
    """Every step after `start`, with its stage, its number and its batch."""
    spans = config.spans
    for resolved in stages(config):
        if start >= resolved.last:
            continue
        own = resolved.config
        rate = own.optimizer.learning_rate
        stage = _Stage(
            resolved,
            make_step(own, optimizer_of(own, params, spans)),
            make_schedule(own.optimizer.schedule, rate, spans[-1].last, spans),
            _Rates(own),
        )
        first = max(start, resolved.first)
        while first < resolved.last:
            # batches are made ahead, as far as it is known what is in them
            stop = mixture.stretch(first, resolved.last)
            for step, ready in enumerate(batches(own, mixture.loader, first, stop), first + 1):
                yield stage, step, ready
            first = stop


def _mixture_line(stage: dict[str, Any]) -> str:
    """`mixture of STAGE: web 75.0% (0.31 epochs), code 25.0% (1.20 epochs)`"""
    whole = sum(stage["tokens"].values())
    parts = [
        f"{name} {count / whole:.1%} ({stage['epochs'][name]:.2f} epochs)"
        for name, count in sorted(stage["tokens"].items(), key=lambda item: -item[1])
    ]
    more = [f"and {len(parts) - MOST_SHOWN} more"] if len(parts) > MOST_SHOWN else []
    of = f" of {stage['name']}" if stage["name"] else ""
    return f"mixture{of}: {', '.join(parts[:MOST_SHOWN] + more)}"


def _dropout_key(config: Config, step: int) -> jax.Array | None:
    """The key of a step's dropout on all devices; None where nothing is dropped."""
    if not config.model.dropout:
        return None
    # made there: what is moved to devices of other processes is compared with theirs first
    return _folded(np.uint32(config.seed), np.uint32(step))


@jax.jit
def _folded(seed: jax.Array, step: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), step)


def _finite(step: int, figures: dict[str, jax.Array]) -> dict[str, float | None]:
    """The figures on the host. Raises UserError when one is not a finite number, but for the norm
    of a step that fp16 passed over: None."""
    values = {name: float(value) for name, value in jax.device_get(figures).items()}
    scale = values.get("loss_scale")
    passed = scale is not None and scale >= LEAST_SCALE
    bad = [
        f"{name} is {value}"
        for name, value in values.items()
        if not math.isfinite(value) and not (passed and name == "grad_norm")
    ]
    if bad:
        raise UserError(
            f"step {step}: {' and '.join(bad)}; start again from the last checkpoint with a lower "
            "optimizer.learning_rate, a longer warm-up or train.precision=fp32"
        )
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _digest_of_store(workdir: Workdir) -> str:
    """What tells one token store from another, wherever its arrays lie."""
    manifest = json.loads((workdir.tokens / "manifest.json").read_bytes())
    del manifest["address"]
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _same_everywhere(run: dict[str, Any]) -> None:
    """Raise UserError where this process sees another tokenizer or other tokens than the first."""
    own = [run["tokenizer_hash"], run["store"]]
    if own != first_does("tokens", lambda: own):
        raise UserError(
            f"{run['config']['workdir']}: holds another tokenizer or other tokens here than for "
            "process 0; give a workdir and a data.store that all hosts share"
        )


class _Rates:
    """Speed between logged steps; the first step, which compiles, does not count."""

    def __init__(self, config: Config) -> None:
        self._flops = [flops_per_token(config, causal) for causal in (False, True)]
        self._peak = config.logging.peak_flops or peak_flops()
        self._since: float | None = None
        self._spent = (0, 0, 0.0)

    def finished(self, tokens: int) -> None:
        """The result of a step of so many tokens was just read."""
        now = time.perf_counter()
        if self._since is not None:
            steps, before, seconds = self._spent
            self._spent = (steps + 1, before + tokens, seconds + now - self._since)
        self._since = now

    def pause(self) -> None:
        """What happens until the next step is not training."""
        self._since = None

    def take(self) -> dict[str, float | None]:
        """Figures since the last call; None where nothing was timed."""
        steps, tokens, seconds = self._spent
        self._spent = (0, 0, 0.0)
        if not steps:
            return dict.fromkeys(("step_time_s", "tokens_per_s", "mfu", "mfu_causal"))
        speed = tokens / seconds
        whole, causal = (
            speed * flops / (self._peak * jax.device_count()) if self._peak else None
            for flops in self._flops
        )
        return {
            "step_time_s": seconds / steps, "tokens_per_s": speed,
            "mfu": whole, "mfu_causal": causal,
        }  # fmt: skip


@contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """Note SIGINT and SIGTERM instead of dying; a second SIGINT interrupts at once."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(signum: int, frame: Any) -> None:
        if stop.signum and signum == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signum = signum

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def use_compilation_cache(path: Path) -> None:
    """Keep compiled programs on disk, so that the next start does not compile them again."""
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
