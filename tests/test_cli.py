"""The command line: what it prints, what it exits with, for right and wrong usage."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jaxlm.cli import main
from jaxlm.config import Config, dump, load
from jaxlm.config.load import validate
from jaxlm.workdir import Workdir

VERBS = [
    "run", "prepare", "tokenizer", "tokenize", "train", "eval", "generate", "mix", "plan", "report",
    "config", "tag", "dedup",
]  # fmt: skip


@pytest.fixture
def config(tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """tiny.yaml in the current folder, whose name has a space."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (tmp_path / "text.txt").rename("the text.txt")
    tiny["sources"][0]["path"] = "the text.txt"
    tiny["workdir"] = "a run"
    loaded = validate(tiny)
    Path("tiny.yaml").write_text(dump(loaded))
    return loaded


def jaxlm(*args: str) -> Result:
    return CliRunner().invoke(main, args, prog_name="jaxlm")


def refused(result: Result, status: int, said: str) -> None:
    """One line on standard error, nothing else, and this exit status."""
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("jaxlm: ")
    assert said in line
    assert result.exit_code == status


def test_every_verb_explains_itself_with_an_example() -> None:
    assert list(main.commands) == VERBS
    text = jaxlm("--help").stdout
    assert "jaxlm run configs/quickstart.yaml" in text
    for verb in VERBS:
        assert f"\n  {verb} " in text
        result = jaxlm(verb, "--help")
        assert result.exit_code == 0
        assert f"\n  jaxlm {verb} " in result.stdout
        assert "Options:" in result.stdout


def test_configs_in_the_examples_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    lines = [line for verb in VERBS for line in jaxlm(verb, "--help").stdout.splitlines()]
    examples = [
        shlex.split(line) for line in lines if line.startswith("  jaxlm ") and ".yaml" in line
    ]
    assert len(examples) >= 6
    for _, _, path, *rest in examples:
        load(path, [word for word in rest if "=" in word])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["rn"], "No such command 'rn'. Did you mean 'run'? See jaxlm --help"),
        (["run"], "Missing argument 'CONFIG'. See jaxlm run --help"),
        (["run", "tiny.yaml", "--quite"], "No such option '--quite'"),
        (["run", "nowhere.yaml"], "nowhere.yaml: cannot read the config: No such file"),
        (["prepare", "."], ".: cannot read the config: Is a directory"),
        (["tokenizer", "tiny.yaml", "tokenizer.kind=bpo"], "tokenizer.kind: 'bpo' is not one of"),
        (["tokenize", "tiny.yaml", "data"], "'data': an override is KEY=VALUE"),
        (["train", "tiny.yaml", "train.stpes=3"], "did you mean train.steps? (command line)"),
        (["train", "tiny.yaml", "mesh.data=3"], "train.batch_size: 8 is not a multiple of mesh"),
        (["config"], "Give a config file, or --schema. See jaxlm config --help"),
        (["generate", "a run"], "Give --prompt or --prompt-file. See jaxlm generate --help"),
        (["generate", "a run", "--prompt", "x", "--memory", "kn"], "'kn' is not one of"),
        (["generate", "a run", "--prompt", "x", "--memory-set", "k=3"], "give that too"),
        (["generate", "a run", "--prompt", "x", "--memory-on", "device"], "give that too"),
        (
            ["generate", "a run", "--prompt", "x", "--memory", "knn", "--context", "tiny.yaml"],
            "Give one of --memory and --context",
        ),
        (["generate", "a run", "--prompt", "\udcff"], "--prompt: not UTF-8 text. See"),
        (["generate", "a run", "--prompt", "x", "--seed", str(1 << 32)], "is not in the range"),
        (["generate", "a run", "--prompt", "x", "--max-tokens", "0"], "0 is not in the range x>=1"),
        (["generate", "a run", "--prompt", "x", "--temperature", "-1"], "-1.0 is not in the range"),
        (["generate", "a run", "--prompt", "x", "--top-p", "0"], "0.0 is not in the range 0<x<=1"),
        (["generate", "a run", "--prompt", "x", "--top-k", "few"], "'few' is not a valid integer"),
        (["eval"], "Missing argument 'WORKDIR|CHECKPOINT'"),
    ],
)
def test_wrong_usage_exits_with_2(config: Config, args: list[str], said: str) -> None:
    refused(jaxlm(*args), 2, said)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["prepare", "tiny.yaml", "sources.0.path=nowhere.txt"], "nowhere.txt: no such file"),
        (["prepare", "tiny.yaml", "sources=[]"], "sources: the config names no source of text"),
        (["run", "tiny.yaml", "workdir=tiny.yaml"], "tiny.yaml: a file is in the way"),
        (["tokenize", "tiny.yaml"], "stats.json: missing; the stage before has not run"),
        (["train", "tiny.yaml"], "there is no tokenizer"),
        (["eval", "nowhere"], "nowhere: no checkpoints here"),
        (["eval", "tiny.yaml"], "tiny.yaml: no checkpoints here"),
        (["generate", "nowhere", "--prompt", "x"], "nowhere: no checkpoints here"),
        (["report", "nowhere"], "nowhere: not the folder of a run"),
        (["report", "."], ".: not the folder of a run"),
    ],
)
def test_what_cannot_be_done_exits_with_1(config: Config, args: list[str], said: str) -> None:
    refused(jaxlm(*args), 1, said)
    assert not Path("report").exists()


def test_all_problems_of_a_config_are_told(config: Config) -> None:
    result = jaxlm("run", "tiny.yaml", "train.steps=none", "data.seq=3")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "jaxlm: data.seq: unknown key; did you mean data.seq_len? (command line)",
        'jaxlm: train.steps: must be a whole number, not "none" (command line)',
    ]
    assert not Path("a run").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_told_in_a_line(config: Config) -> None:
    Path("a run").mkdir()
    Path("a run/config.yaml.partial").symlink_to("/dev/full")
    refused(jaxlm("prepare", "tiny.yaml"), 1, "No space left on device; make room and give the")


def test_a_folder_in_use_is_told_in_a_line(config: Config) -> None:
    with Workdir("a run").lock():
        refused(jaxlm("prepare", "tiny.yaml"), 1, "a run: another run (process ")


def test_the_module_is_the_command(config: Config) -> None:
    def module(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "jaxlm", *args],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )

    result = module("config", "tiny.yaml", "train.steps=7")
    assert (result.returncode, result.stderr) == (0, "")
    Path("again.yaml").write_text(result.stdout)
    assert load("again.yaml") == load("tiny.yaml", ["train.steps=7"])
    result = module("rn")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "jaxlm: No such command 'rn'. Did you mean 'run'? See jaxlm --help\n"


class TestConfig:
    def test_prints_a_config_with_the_models_table_as_comments(self, config: Config) -> None:
        result = jaxlm("config", "tiny.yaml", "--summary")
        Path("again.yaml").write_text(result.stdout)
        assert load("again.yaml") == config
        # 2 x 258 x 32 for the embedding and the head, 32 x 32 x 4 + 32 x 64 x 3 + 2 x 32, 32
        assert result.stdout.split("# parameters")[1].split()[0] == "26848"

    def test_prints_the_schema(self) -> None:
        schema = json.loads(jaxlm("config", "--schema").stdout)
        assert schema["properties"]["train"]["$ref"] == "#/$defs/Train"


def test_from_text_to_generation(config: Config) -> None:
    result = jaxlm("run", "tiny.yaml")
    assert result.exit_code == 0, result.stderr
    assert "Made in a run" in result.stdout
    assert "step 4/4" in result.stderr

    result = jaxlm("run", "tiny.yaml", "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")

    result = jaxlm("eval", "a run", "--json")
    scores = json.loads(result.stdout)
    assert set(scores) == {"words", "all", "tasks"}
    assert set(scores["words"]) == {"loss", "perplexity", "bits_per_byte", "tokens"}
    table = jaxlm("eval", "a run/checkpoints/4").stdout.splitlines()
    assert [line.split()[0] for line in table] == ["source", "words", "all"]
    assert f"{scores['all']['loss']:.4f}" in table[2]

    options = ["--max-tokens", "5", "--temperature", "0"]
    result = jaxlm("generate", "a run", "--prompt", "abc", "--prompt", "", "--json", *options)
    first, second = map(json.loads, result.stdout.splitlines())
    assert (first["prompt"], second["prompt"]) == ("abc", "")
    assert jaxlm("generate", "a run", "--prompt", "abc", *options).stdout == f"abc{first['text']}\n"

    # how it attends can be changed, and leaves no trace
    noted = Path("a run/eval.json").read_bytes()
    ntk = "model.position.scaling={kind: ntk, factor: 8}"
    other = json.loads(jaxlm("eval", "a run", ntk, "data.seq_len=24", "--json").stdout)
    assert other["all"]["loss"] != scores["all"]["loss"]
    assert Path("a run/eval.json").read_bytes() == noted
    refused(jaxlm("eval", "a run", "train.steps=3"), 2, "not to be changed here; keys that are:")
    Path("context.txt").write_text("abc")
    rolling = ["model.attention.window=4", "model.attention.sinks={tokens: 1, distance: slot}"]
    for more in (rolling, ["--context", "context.txt"]):
        result = jaxlm("generate", "a run", "--prompt", "abc", *more, *options)
        assert result.stdout.startswith("abc"), result.stderr
    both = [*rolling, "--context", "context.txt"]
    refused(jaxlm("generate", "a run", "--prompt", "abc", *both), 1, "model.attention.window=null")
    refused(jaxlm("generate", "a run", "--prompt", "x", "--context", "no.txt"), 2, "no.txt")
    # a memory that finds everything loses nothing
    knn = ["--memory", "knn", "--memory-set", "window=2", "--memory-set", "k=99"]
    result = jaxlm("generate", "a run", "--prompt-file", "context.txt", *knn, *options)
    assert result.stdout == f"abc{first['text']}\n", result.stderr
    wrong = ["--memory", "blocks", "--memory-set", "windw=2"]
    refused(jaxlm("generate", "a run", "--prompt", "x", *wrong), 2, "did you mean window?")

    refused(jaxlm("eval", "a run/checkpoints/3"), 1, "no such checkpoint; steps found: 4, 2")

    Path("a run/report/index.html").unlink()
    assert jaxlm("report", "a run").stdout == "a run/report/index.html\n"
    assert Path("a run/report/index.html").is_file()

    # what the run wrote down is a config that does the same
    result = jaxlm("run", "a run/config.yaml")
    assert result.stderr.count("nothing changed") == 5


def write_records(*texts: str) -> None:
    rows = [json.dumps({"id": f"d{i}", "text": text}) for i, text in enumerate(texts)]
    Path("docs.jsonl").write_text("\n".join([*rows, "{broken"]) + "\n")


def test_tag_prints_a_line_a_document(config: Config) -> None:
    write_records("The people lived with houses beside the river.", "Mail bob@example.com now")
    result = jaxlm("tag", "docs.jsonl", "--rules", "gopher_quality,pii")
    assert result.exit_code == 0, result.stderr
    first, second, broken = map(json.loads, result.stdout.splitlines())
    assert first["id"] == "d0"
    assert first["gopher_quality"]["failed"] == ["gopher_short_doc"]
    assert first["gopher_quality"]["values"]["gopher_short_doc"] == 8
    assert second["pii"]["spans"] == [[5, 20, "EMAIL_ADDRESS"]]
    assert second["pii"]["text"] == "Mail [EMAIL_ADDRESS] now"
    assert broken == {"id": "docs.jsonl:3", "error": broken["error"]}
    assert broken["error"]["rule"] == "invalid_json"
    refused(jaxlm("tag", "docs.jsonl", "--rules", "gofer"), 2, "no rule set is named 'gofer'")
    refused(jaxlm("tag", "none.jsonl", "--rules", "pii"), 1, "none.jsonl")


def test_dedup_prints_what_is_there_twice(config: Config) -> None:
    write_records("one two three", "ONE  two three", "four five six")
    result = jaxlm("dedup", "docs.jsonl", "--method", "exact")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {"id": "d1", "kept": "d0", "similarity": 1.0} in lines
    refused(jaxlm("dedup", "docs.jsonl", "--method", "fuzzy"), 2, "'fuzzy' is not one of")
    refused(jaxlm("dedup", "docs.jsonl", "--method", "minhash", "--threshold", "7"), 2, "threshold")


def test_prepare_answers_questions_about_its_corpus(config: Config) -> None:
    path = dump(config.model_copy(update={"prepare": config.prepare.model_copy(
        update={"stages": ("quality.length",)})}))  # fmt: skip
    Path("tiny.yaml").write_text(path)
    refused(jaxlm("prepare", "tiny.yaml", "--explain", "x"), 1, "no corpus yet")
    assert jaxlm("prepare", "tiny.yaml", "--quiet").exit_code == 0
    setting = "prepare.quality.length.min_bytes=100000"
    result = jaxlm("prepare", "tiny.yaml", "--what-if", setting)
    assert "words  60 documents; kept 60 (100.0%) -> 0 (0.0%)" in result.stdout
    answer = json.loads(jaxlm("prepare", "tiny.yaml", "--what-if", setting, "--json").stdout)
    assert answer["words"]["kept_after"] == 0
    id = answer["words"]["newly_dropped"][0]["id"]
    assert "It is in the corpus." in jaxlm("prepare", "tiny.yaml", "--explain", id).stdout
    refused(jaxlm("prepare", "tiny.yaml", "--what-if", "quality.code.min_x=1"), 2, "did not run")
    both = ("--what-if", setting, "--explain", "x")
    refused(jaxlm("prepare", "tiny.yaml", *both), 2, "Give one of")
    trained = jaxlm("prepare", "tiny.yaml", "--train-classifier", "x", "--quiet")
    refused(trained, 2, "nothing says how 'x' is trained")


def test_tokenizer_prints_what_it_makes_of_the_corpus(config: Config) -> None:
    assert jaxlm("prepare", "tiny.yaml", "--quiet").exit_code == 0
    wanted = ("tokenizer", "tiny.yaml", "--quiet", "tokenizer.compare=[byte,none/x.json]")
    text = jaxlm(*wanted).stdout
    for shown in ("byte, 258 ids", "tokens/word", "round trip   exact on all", "none/x.json"):
        assert shown in text
    report = json.loads(jaxlm(*wanted, "--json").stdout)
    assert report["tokenizer"]["all"]["bytes_per_token"] == 1
    assert report["compare"]["byte"]["vocab_size"] == 258
    assert "none/x.json" in report["compare"]["none/x.json"]["error"]
