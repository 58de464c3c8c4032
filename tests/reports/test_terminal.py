"""Progress with and without a terminal, and the last screen."""

import io
import os
import pty
import subprocess
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console

from jaxlm.reports import Terminal, final_screen, training_line
from jaxlm.workdir import Workdir
from tests.reports.conftest import metric, write_lines

FULL = {"step": 98765, "loss": 3.41256, "tokens": 10**9, "learning_rate": 9.87e-4,
        "grad_norm": 0.5, "step_time_s": 1.5, "tokens_per_s": 118_345.0, "mfu": 0.4123,
        "mfu_causal": 0.3891, "time": 0.0}  # fmt: skip


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets, in seconds."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_training_line() -> None:
    line = training_line(FULL, 99_999)
    assert line == (
        "step 98765/99999  loss 3.4126  lr 9.9e-4  118k tok/s  mfu 41.2/38.9%  eta 30m51s"
    )
    assert len(line) <= 80
    bare = {"step": 5, "loss": None, "mfu": None, "mfu_causal": None}
    assert training_line(bare, 100) == "step   5/100  loss ?"


def test_plain_output_is_a_line_every_few_seconds(clock: list[float]) -> None:
    out = io.StringIO()
    with Terminal(stream=out) as show:
        for second in range(13):
            clock[0] = 100.0 + second
            show("read", second * 10_000_000, 120_000_000, "B")
        show("read", 120_000_000, 120_000_000, "B")  # said twice, told once
        clock[0] = 200.0
        show("dedup", 0, None, "documents")
        clock[0] = 202.0
        show("dedup", 500, None, "documents")
    assert out.getvalue().splitlines() == [
        "read             41.7% of 120 MB  10.0 MB/s  eta 7.0s",
        "read             83.3% of 120 MB  10.0 MB/s  eta 2.0s",
        "read             120 MB in 12s  10.0 MB/s",
        "dedup            500 documents in 2.0s  250/s",
    ]


def test_a_resumed_task_is_as_fast_as_what_it_did_here(clock: list[float]) -> None:
    out = io.StringIO()
    with Terminal(stream=out) as show:
        show("tokenize", 9_000_000, 10_000_000, "tokens")
        clock[0] += 10
        show("tokenize", 9_500_000, 10_000_000, "tokens")
    assert out.getvalue().split("  ")[-2:] == ["50k/s", "eta 10s\n"]


def test_training_without_a_terminal(clock: list[float]) -> None:
    out = io.StringIO()
    with Terminal(stream=out) as show:
        for step in range(1, 21):
            clock[0] += 0.5
            show.training(metric(step, 5.0), 20)
    steps = [line.split()[1] for line in out.getvalue().splitlines()]
    assert steps == ["1/20", "11/20", "20/20"]


def test_a_task_that_stops_is_not_called_done() -> None:
    out = io.StringIO()

    def stopped() -> None:
        with Terminal(stream=out) as show:
            show("read", 5, 10, "B")
            show("dedup", 5, None, "documents")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert out.getvalue() == ""


def test_quiet_shows_nothing() -> None:
    out = io.StringIO()
    with Terminal(quiet=True, stream=out) as show:
        show("read", 10, 10, "B")
        show.training(metric(20, 5.0), 20)
        show.line("text")
    assert out.getvalue() == ""


def test_names_are_not_markup() -> None:
    out = io.StringIO()
    with Terminal(stream=out) as show:
        show("[red]read[/red] :smile:", 10, 10, "B")
    assert out.getvalue().startswith("[red]read[/red] :smile: 10 B in ")


def test_bars_on_a_terminal() -> None:
    """In a real pseudo-terminal of 80 columns: a bar while it works, one line when it is done."""
    script = (
        "import time\n"
        "from jaxlm.reports import Terminal\n"
        "with Terminal() as show:\n"
        "    for done in (0, 30, 60):\n"
        "        show('a task with a very long name', done * 10**6, 10**8, 'B')\n"
        "        show.training({'step': done + 1, 'loss': 4.0}, 100)\n"
        "        time.sleep(0.3)\n"
        "    show('a task with a very long name', 10**8, 10**8, 'B')\n"
    )
    main, child = pty.openpty()
    env = os.environ | {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", script], stderr=child, env=env) as process:
        os.close(child)
        output = b""
        while True:
            try:
                piece = os.read(main, 4096)
            except OSError:  # how Linux tells that the other end is closed
                break
            if not piece:
                break
            output += piece
    os.close(main)
    assert process.returncode == 0
    text = output.decode()
    assert "60.0% of 100 MB" in text
    assert "━" in text
    assert "a task with a very long name 100 MB in " in text
    assert "step   1/100  loss 4.0000" in text


def shown(workdir: Workdir, width: int = 80) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(final_screen(workdir))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_final_screen(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workdir.path.parent)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert shown(workdir) == [
        "Made in little",
        "documents   1,001 of 1,254 kept, 4.00 MB of clean text",
        "tokens      1,001,500 for training, from 2 sources",
        "model       7,345,408 parameters, 20 of 20 steps, 2k tokens",
        "checkpoint  little/checkpoints/20",
        "",
        "How good, on held-out text  bits per byte  perplexity   loss",
        "web                                 1.532        61.9  4.125",
        "all                                 1.532        61.9  4.125",
        "",
        "A sample",
        "  Once upon a time",
        "",
        "Next",
        '  jaxlm generate little --prompt "Once upon a time"',
        "  jaxlm eval little",
        "  jaxlm train little/config.yaml train.steps=40",
    ]


def test_final_screen_fits_and_keeps_control_characters_off_the_terminal(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workdir.path.parent)
    text = "\x1b[31m[bold]red[/bold]\t" + "中文 words " * 100
    write_lines(
        workdir.samples,
        [{"prompt": "", "text": text, "temperature": 1, "top_p": 1, "seed": 0, "step": 20}],
    )
    lines = shown(workdir)
    assert len(lines) < 24
    assert all(cell_len(line) <= 80 for line in lines)
    assert not any("\x1b" in line for line in lines)
    assert any("[bold]red[/bold]" in line for line in lines)
    assert any(line.endswith("...") for line in lines)


def test_final_screen_of_an_empty_workdir_says_what_to_type(workdir: Workdir) -> None:
    assert "Next" in shown(Workdir(workdir.path / "nothing"))
