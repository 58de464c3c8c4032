"""Which stages run again after which change, and what a stage that was stopped leaves."""

import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from jaxlm.config.load import validate
from jaxlm.config.tokens import Tokenizer as Options
from jaxlm.errors import UserError
from jaxlm.pipeline import BY_NAME, do, evaluate, run
from jaxlm.reports import Terminal
from jaxlm.tokens import open_loader
from jaxlm.tokens.train import train_model
from jaxlm.workdir import Workdir

type Change = Callable[[dict[str, Any]], object]


def to_tokens(config: dict[str, Any]) -> list[str]:
    """Do the stages that need no accelerator; the names of those that were not skipped."""
    checked = validate(config)
    workdir, worked = Workdir(checked.workdir), []
    for name in ("prepare", "tokenizer", "tokenize"):
        out = StringIO()
        with workdir.lock(), Terminal(stream=out) as show:
            do(BY_NAME[name], checked, workdir, show, again=False)
        if "nothing changed" not in out.getvalue():
            worked.append(name)
    return worked


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stages")


@pytest.fixture
def prepared(tiny: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """`tiny` in the current folder, with the stages up to the tokens done."""
    live, saved = folder / "live", folder / "saved"
    text = Path(tiny["sources"][0]["path"])
    tiny["workdir"], tiny["sources"][0]["path"] = "run", text.name
    if not saved.exists():
        live.mkdir()
        monkeypatch.chdir(live)
        text.rename(live / text.name)
        assert to_tokens(tiny) == ["prepare", "tokenizer", "tokenize"]
        shutil.copytree(live, saved)
    shutil.rmtree(live)
    shutil.copytree(saved, live)
    monkeypatch.chdir(live)
    return tiny


def touch_source(config: dict[str, Any]) -> None:
    path = Path(config["sources"][0]["path"])
    path.write_text(path.read_text() + "\n\none more document of a few words")


def lose(name: str) -> Change:
    return lambda config: Path(config["workdir"], name).rename(Path(config["workdir"], "lost"))


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda config: None, []),
        (touch_source, ["prepare", "tokenizer", "tokenize"]),
        (lambda config: config["prepare"].update(stages=["unicode", "dedup.exact"]), ["prepare"]),
        (lambda config: config["prepare"].update(workers=2), []),
        (lambda config: config["sources"][0].update(weight=2), ["tokenizer"]),
        (lambda config: config["tokenizer"].update(sample_bytes=999), ["tokenizer"]),
        (lambda config: config["data"].update(validation_fraction=0.2), ["tokenize"]),
        (lambda config: config["data"].update(seq_len=16), []),
        (lambda config: config.update(seed=1), ["tokenizer", "tokenize"]),
        (lambda config: config["train"].update(steps=7), []),
        (lambda config: config.update(objective={"kind": "prefix_lm"}), []),
        (lambda config: config.update(objective={"kind": "fim"}), ["tokenizer", "tokenize"]),
        (
            lambda config: config["tokenizer"].update(specials=["<a>"]),
            ["tokenizer", "tokenize"],
        ),
        (lose("corpus"), ["prepare"]),
        (lose("tokenizer"), ["tokenizer"]),
        (lose("tokens"), ["tokenize"]),
        (lose("stages.json"), ["prepare", "tokenizer", "tokenize"]),
        (
            lambda config: Path(config["workdir"], "stages.json").write_text("[[[ broken"),
            ["prepare", "tokenizer", "tokenize"],
        ),
    ],
)
def test_what_runs_again(prepared: dict[str, Any], change: Change, again: list[str]) -> None:
    change(prepared)
    assert to_tokens(prepared) == again
    assert to_tokens(prepared) == []


def test_a_stage_that_was_stopped_runs_again(prepared: dict[str, Any]) -> None:
    workdir = Workdir(prepared["workdir"])
    before = (workdir.corpus / "stats.json").read_bytes()
    touch_source(prepared)

    class Interrupts(Terminal):
        def __call__(self, task: str, done: int, total: int | None, unit: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Interrupts(quiet=True) as show:
        do(BY_NAME["prepare"], validate(prepared), workdir, show, again=False)
    assert (workdir.corpus / "stats.json").read_bytes() == before
    assert to_tokens(prepared) == ["prepare", "tokenizer", "tokenize"]


def test_a_stage_by_itself_is_done_again(prepared: dict[str, Any]) -> None:
    out, workdir = StringIO(), Workdir(prepared["workdir"])
    with workdir.lock(), Terminal(stream=out) as show:
        do(BY_NAME["tokenize"], validate(prepared), workdir, show, again=True)
    assert "nothing changed" not in out.getvalue()


def test_a_stage_says_that_the_one_before_is_missing(tiny: dict[str, Any]) -> None:
    workdir = Workdir(tiny["workdir"])
    with workdir.lock(), Terminal(quiet=True) as show:
        for name in ("tokenizer", "tokenize"):
            with pytest.raises(UserError, match=r"stats\.json: missing; the stage before"):
                do(BY_NAME[name], validate(tiny), workdir, show, again=True)


def run_all(config: dict[str, Any]) -> str:
    """`jaxlm run`; what it says."""
    out, workdir = StringIO(), Workdir(config["workdir"])
    with workdir.lock(), Terminal(stream=out) as show:
        run(validate(config), workdir, show)
    return out.getvalue()


def written(workdir: Workdir) -> dict[str, int]:
    return {
        str(path.relative_to(workdir.path)): path.stat().st_mtime_ns
        for path in workdir.path.rglob("*")
        if path.is_file() and path.name not in ("config.yaml", "index.html", ".lock")
    }


def test_a_finished_run_does_nothing_the_second_time(tiny: dict[str, Any]) -> None:
    run_all(tiny)
    workdir = Workdir(tiny["workdir"])
    names = {path.name for path in workdir.path.iterdir()}
    assert names >= {
        "config.yaml", "corpus", "tokenizer", "tokens", "checkpoints", "metrics.jsonl",
        "eval.json", "samples.jsonl", "report", "stages.json",
    }  # fmt: skip
    assert not [name for name in names if name.endswith((".partial", ".old"))]
    before = written(workdir)
    said = run_all(tiny)
    assert said.count("nothing changed") == 5
    assert "finished: 4 of 4 steps" in said
    assert {k: v for k, v in written(workdir).items() if k in before} == before

    # more steps: the text is left alone, the results are made again
    tiny["train"]["steps"] = 5
    said = run_all(tiny)
    assert said.count("nothing changed") == 3
    assert BY_NAME["eval"].makes(workdir).read_text().count('"step": 5') == 1

    # one checkpoint's scores are not the run's
    changed = written(workdir)["eval.json"]
    assert evaluate(workdir.checkpoints / "4")["step"] == 4
    assert written(workdir)["eval.json"] == changed


def test_a_run_without_validation_is_not_scored(tiny: dict[str, Any]) -> None:
    tiny["data"]["validation_fraction"] = 0.0
    assert "eval: nothing is held apart" in run_all(tiny)
    workdir = Workdir(tiny["workdir"])
    assert not workdir.evaluation.exists()
    with pytest.raises(UserError, match="no document is held apart to evaluate on"):
        evaluate(workdir.path)


def test_document_level_fim_is_part_of_the_tokens(tiny: dict[str, Any]) -> None:
    tiny["objective"] = {"kind": "fim", "level": "document"}
    assert to_tokens(tiny) == ["prepare", "tokenizer", "tokenize"]
    tiny["objective"]["rate"] = 0.25
    assert to_tokens(tiny) == ["tokenize"]
    tiny["objective"]["level"] = "context"
    assert to_tokens(tiny) == ["tokenize"]
    tiny["objective"]["rate"] = 0.5
    assert to_tokens(tiny) == []
    # nor are tokens of another objective trained on where verbs are called one by one
    tiny["objective"]["level"] = "document"
    with pytest.raises(UserError, match="stored for another objective"):
        open_loader(validate(tiny), Workdir(tiny["workdir"]))
    assert to_tokens(tiny) == ["tokenize"]
    open_loader(validate(tiny), Workdir(tiny["workdir"]))


def test_a_tokenizer_without_special_tokens_is_refused_before_the_work(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "x.model"
    path.write_bytes(train_model(Options(vocab_size=280), ["some words " * 20]))
    tiny["tokenizer"] = {"path": str(path), "vocab_size": 280}
    tiny["objective"] = {"kind": "fim"}
    with pytest.raises(UserError, match=r"x\.model has 280 ids and lacks <fim_prefix>"):
        run_all(tiny)
    assert not Workdir(tiny["workdir"]).corpus.exists()


def test_a_mesh_that_does_not_fit_is_refused_before_the_work(tiny: dict[str, Any]) -> None:
    tiny["mesh"] = {"data": 16}
    tiny["train"]["batch_size"] = 16
    with pytest.raises(UserError, match="does not multiply to the 8 devices found"):
        run_all(tiny)
    assert not Workdir(tiny["workdir"]).config.exists()


def test_a_start_that_is_not_there_is_refused_before_the_work(tiny: dict[str, Any]) -> None:
    tiny["train"]["from_checkpoint"] = "nowhere"
    config = validate(tiny)
    with Terminal(quiet=True) as show, pytest.raises(UserError, match="nowhere: no checkpoints"):
        run(config, Workdir(config.workdir), show)
    assert not Workdir(config.workdir).corpus.exists()


def test_the_folder_of_another_run_is_refused_before_the_work(tiny: dict[str, Any]) -> None:
    tiny["train"]["steps"] = 1
    tiny["eval"] = {"generate": {"prompts": []}}
    run_all(tiny)
    workdir = Workdir(tiny["workdir"])
    before = written(workdir)
    with pytest.raises(UserError, match=r'objective\.kind was "lm" and is "fim"'):
        run_all(tiny | {"objective": {"kind": "fim"}})
    assert written(workdir) == before
    assert "kind: lm" in workdir.config.read_text()
