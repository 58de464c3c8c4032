"""Progress on stderr while a run works, and the screen it ends with."""

import os
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

from jaxlm.reports import records
from jaxlm.reports.units import amount, duration, percent, rate, short, size, whole
from jaxlm.workdir import Workdir

BAR_SECONDS = 0.1  # between two looks of a bar
PLAIN_SECONDS = 5.0  # between two lines of one task where there is no terminal
HISTORY = 20  # training lines that stay on a terminal, over a whole run
MOST_SOURCES = 5
SAMPLE_LINES = 3


@dataclass
class Job:
    """One task under way. `first` is where it stood when it began here: a resumed one, not at 0."""

    name: str
    unit: str
    began: float
    first: int
    done: int
    total: int | None
    told: float

    def figures(self, now: float) -> str:
        """How far, how fast, how long to go."""
        seconds, moved = now - self.began, self.done - self.first
        parts = [amount(self.done, self.unit)]
        if self.total is not None:
            parts = [f"{percent(self.done, self.total)} of {amount(self.total, self.unit)}"]
        if seconds > 0 and moved > 0:
            parts.append(rate(moved / seconds, self.unit))
            if self.total is not None:
                parts.append(f"eta {duration((self.total - self.done) * seconds / moved)}")
        return "  ".join(parts)

    def finished(self, now: float) -> str:
        """What it did, in how long."""
        seconds, moved = now - self.began, self.done - self.first
        speed = f"  {rate(moved / seconds, self.unit)}" if seconds > 0 and moved > 0 else ""
        return f"{self.name:<16} {amount(self.done, self.unit)} in {duration(seconds)}{speed}"


class Terminal:
    """Shows how long work goes. A context manager that is itself the `Progress` callback.

    On a terminal: a bar for each task, and the newest training line under them. Elsewhere: a line a
    task every few seconds. With `quiet`: nothing. A finished task leaves one line.

        with Terminal(quiet) as terminal:
            corpus.prepare(config, workdir, terminal)
    """

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._console = Console(
            file=stream or sys.stderr, quiet=quiet, highlight=False, markup=False, emoji=False
        )
        self._jobs: dict[str, Job] = {}
        self._ended: set[str] = set()
        self._bars: _Bars | None = None
        self._told_step = 0
        self._told_at = -PLAIN_SECONDS

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.quiet:
            self._bars = _Bars(self._console)
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for job in list(self._jobs.values()):
            # a task that knows its total and did not reach it was stopped: no line says it is done
            if kind is None and job.total is None:
                self._finish(job)
        if self._bars:
            self._bars.stop()
            self._bars = None
        self._jobs.clear()

    def __call__(self, task: str, done: int, total: int | None, unit: str) -> None:
        """Note that `task` has done so much of `total` (None: not known)."""
        now = time.monotonic()
        ends = total is not None and done >= total
        if ends and task in self._ended:
            return  # said again
        job = self._jobs.get(task)
        if job is None:
            self._ended.discard(task)
            told = now - BAR_SECONDS if self._bars else now
            job = self._jobs[task] = Job(task, unit, now, done, done, total, told)
        job.done, job.total = done, total
        if ends:
            self._finish(job)
        elif now - job.told >= (BAR_SECONDS if self._bars else PLAIN_SECONDS):
            job.told = now
            if self._bars:
                self._bars.show(job, now)
            else:
                self.line(f"{task:<16} {job.figures(now)}")

    def training(self, record: Mapping[str, Any], total_steps: int) -> None:
        """Show a line of metrics.jsonl; the training loop calls this and no other.

        On a terminal every line in place under the bar, and some of them to stay.
        """
        now, step, text = time.monotonic(), record["step"], training_line(record, total_steps)
        if self._bars:
            stays = step * HISTORY // total_steps > self._told_step * HISTORY // total_steps
        else:
            stays = now - self._told_at >= PLAIN_SECONDS
        if stays or step >= total_steps:
            self._told_step, self._told_at = step, now
            self.line(text)
        if self._bars:
            self("train", step, total_steps, "steps")
            self._bars.note = text if step < total_steps else ""

    def line(self, text: str) -> None:
        """Print a line that stays, above the bars."""
        self._console.print(text, soft_wrap=True)

    def _finish(self, job: Job) -> None:
        del self._jobs[job.name]
        self._ended.add(job.name)
        if self._bars:
            self._bars.drop(job)
        self.line(job.finished(time.monotonic()))


class _Figures(ProgressColumn):
    """The text of a job beside its bar."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["figures"], no_wrap=True)


class _Bars(Bars):
    """rich's bars, with the newest training line under them."""

    def __init__(self, console: Console) -> None:
        self.note = ""
        self._ids: dict[str, Any] = {}
        name = Column(min_width=16, max_width=22, no_wrap=True, overflow="ellipsis")
        super().__init__(
            TextColumn("{task.description}", markup=False, table_column=name),
            BarColumn(10),
            _Figures(),
            console=console,
            transient=True,
            refresh_per_second=4,
        )

    def show(self, job: Job, now: float) -> None:
        figures = job.figures(now)
        if job.name not in self._ids:
            self._ids[job.name] = self.add_task(job.name, total=None, figures=figures)
        self.update(self._ids[job.name], completed=job.done, total=job.total, figures=figures)

    def drop(self, job: Job) -> None:
        if job.name in self._ids:
            self.remove_task(self._ids.pop(job.name))

    def get_renderables(self) -> Any:
        yield self.make_tasks_table(self.tasks)
        if self.note:
            yield Text(self.note, style="dim", no_wrap=True, overflow="ellipsis")


def training_line(record: Mapping[str, Any], total_steps: int) -> str:
    """A line of metrics.jsonl for people, at most 80 columns up to 99,999 steps.

    MFU stands in both conventions (all attention FLOPs, the causal half) where the peak is known.
    """
    step = record["step"]
    loss, rate_, gap = record["loss"], record.get("learning_rate"), record.get("step_time_s")
    speed, mfu, causal = (record.get(key) for key in ("tokens_per_s", "mfu", "mfu_causal"))
    parts = [
        f"step {step:>{len(str(total_steps))}}/{total_steps}",
        f"loss {'?' if loss is None else format(loss, '.4f')}",
    ]
    if rate_ is not None:
        parts.append(f"lr {rate_:.1e}".replace("e-0", "e-"))
    if speed is not None:
        parts.append(f"{short(speed)} tok/s")
    if mfu is not None:
        both = "" if causal is None else f"/{100 * causal:.1f}"
        parts.append(f"mfu {100 * mfu:.1f}{both}%")
    if gap is not None and step < total_steps:
        parts.append(f"eta {duration((total_steps - step) * gap)}")
    return "  ".join(parts)


def final_screen(workdir: Workdir) -> RenderableType:
    """What a run made, how good it is and what to type next, from its records; 80 x 24.

    Print it with a rich Console. Raises UserError where a record is broken.
    """
    config = records.read_config(workdir)
    corpus = records.read_corpus(workdir)
    tokens = records.read_tokens(workdir)
    metrics = records.read_metrics(workdir)
    plan = records.read_plan(workdir)
    evaluation = records.read_evaluation(workdir)
    samples = records.read_samples(workdir, 1)
    made = Table.grid(padding=(0, 2))

    def row(name: str, text: str) -> None:
        made.add_row(Text(name, style="dim"), Text(text, overflow="fold"))

    if corpus:
        read = sum(s.stages[0].documents for s in corpus.sources.values() if s.stages)
        last = [s.stages[-1] for s in corpus.sources.values() if s.stages]
        kept, kept_bytes = sum(s.documents for s in last), sum(s.bytes for s in last)
        row("documents", f"{whole(kept)} of {whole(read)} kept, {size(kept_bytes)} of clean text")
    if tokens:
        count = sum(s.train.tokens for s in tokens.sources.values())
        row("tokens", f"{whole(count)} for training, from {len(tokens.sources)} sources")
    if metrics:
        known = evaluation and evaluation.parameters
        of = f" of {whole(plan.steps)}" if plan else ""
        row(
            "model",
            (f"{whole(known)} parameters, " if known else "")
            + f"{whole(metrics.last.step)}{of} steps, {short(metrics.last.tokens)} tokens",
        )
    if checkpoint := newest_checkpoint(workdir):
        row("checkpoint", _shown(checkpoint))
    if (page := workdir.report / "index.html").is_file():
        row("report", _shown(page))
    parts: list[RenderableType] = [Text(f"Made in {_shown(workdir.path)}", style="bold"), made]
    if evaluation:
        parts += [Text(""), _scores(evaluation)]
    if samples:
        parts += [Text("\nA sample", style="bold"), _sample(samples[0])]
    parts.append(Text("\nNext", style="bold"))
    parts += [
        Text(f"  {line}", no_wrap=True, overflow="ignore") for line in _next(workdir, config, plan)
    ]
    return Group(*parts)


def newest_checkpoint(workdir: Workdir) -> Path | None:
    """The checkpoint of the highest step, as its folder's name tells."""
    folders = workdir.checkpoints.iterdir() if workdir.checkpoints.is_dir() else ()
    steps = [f for f in folders if f.name.isdecimal() and f.is_dir()]
    return max(steps, key=lambda folder: int(folder.name), default=None)


def _scores(evaluation: records.Evaluation) -> Table:
    table = Table.grid(padding=(0, 2))
    for justify in ("left", "right", "right", "right"):
        table.add_column(justify=justify, no_wrap=True)
    heads = (Text(t, style="dim") for t in ("bits per byte", "perplexity", "loss"))
    table.add_row(Text("How good, on held-out text", style="bold"), *heads)
    shown = list(evaluation.sources.items())[:MOST_SOURCES]
    for name, score in [*shown, ("all", evaluation.all)]:
        table.add_row(Text(textwrap.shorten(name, 32)), f"{score.bits_per_byte:.3f}",
                      f"{score.perplexity:.1f}", f"{score.loss:.3f}")  # fmt: skip
    if (more := len(evaluation.sources) - len(shown)) > 0:
        table.add_row(Text(f"and {more} more in the report", style="dim"))
    return table


def _sample(sample: records.Sample) -> RenderableType:
    text = (sample.prompt + sample.text.removeprefix(sample.prompt)).expandtabs(4)
    # control characters would act on the terminal
    clean = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
    lines = Text(clean.strip("\n")).wrap(Console(), 76)
    shown = [Text("  ") + line for line in lines[:SAMPLE_LINES]]
    if len(lines) > SAMPLE_LINES:
        shown[-1].truncate(76)
        shown[-1].append("...", style="dim")
    return Group(*shown)


def _next(
    workdir: Workdir, config: records.RunConfig | None, plan: records.Plan | None
) -> list[str]:
    """Commands to go on with."""
    program, folder = _program(), shlex.quote(_shown(workdir.path))
    lines = [f'{program} generate {folder} --prompt "Once upon a time"', f"{program} eval {folder}"]
    if config and plan and not config.keys.data.curriculum:
        file = shlex.quote(_shown(workdir.config))
        lines.append(f"{program} train {file} train.steps={2 * plan.steps}")
    return lines


def _program() -> str:
    """What starts jaxlm here: its name where PATH has it, its path, or the module."""
    if shutil.which("jaxlm"):
        return "jaxlm"
    script = Path(sys.executable).with_name("jaxlm")
    return shlex.quote(_shown(script)) if script.is_file() else "python -m jaxlm"


def _shown(path: Path) -> str:
    """A path from the current folder where it lies below it, else as given."""
    whole_path, here = os.path.abspath(path), os.getcwd()
    return os.path.relpath(path) if whole_path.startswith(here + os.sep) else str(path)
