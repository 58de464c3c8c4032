"""The command line: one sub-command a verb, no logic of its own."""

import errno
import functools
import hashlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from jaxlm.errors import UserError

CONFIG = click.argument("config_file", metavar="CONFIG")
OVERRIDES = click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
QUIET = click.option("--quiet", is_flag=True, help="Show no progress.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


class Verbs(click.Group):
    """Keeps the order of the pipeline in --help, and tells what a user did wrong in few lines."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            messages, status = error.messages, error.status
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "jaxlm"
            messages, status = [f"{error.format_message()} See {command} --help"], 2
        except BrokenPipeError:
            os._exit(1)  # nobody reads; Python would complain when it closes standard output
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            messages, status = [f"{where}{error.strerror or error}"], 1
        except KeyboardInterrupt:
            messages, status = ["interrupted"], 128 + signal.SIGINT
        for message in messages:
            click.echo(f"jaxlm: {message}", err=True)
        sys.exit(status)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="jaxlm", prog_name="jaxlm")
def main() -> None:
    """Pretrain language models in JAX, from raw text to a trained, evaluated model.

    \b
    jaxlm run configs/quickstart.yaml
    jaxlm run configs/quickstart.yaml train.steps=500 workdir=runs/longer
    """


def staged(verb: str, example: str, summary: str) -> None:
    """Add a verb that does one stage of the pipeline."""

    @main.command(verb, help=f"{summary}\n\n\b\n{example}")
    @CONFIG
    @OVERRIDES
    @QUIET
    def command(config_file: str, overrides: tuple[str, ...], quiet: bool) -> None:
        from jaxlm.pipeline import BY_NAME, do, write_config

        def work(config: Any, workdir: Any, show: Any) -> None:
            write_config(config, workdir)
            do(BY_NAME[verb], config, workdir, show, again=True)

        _in_workdir(config_file, overrides, quiet, work)


@main.command()
@CONFIG
@OVERRIDES
@QUIET
def run(config_file: str, overrides: tuple[str, ...], quiet: bool) -> None:
    """Do every stage in order, skip those that are finished, and write the report.

    \b
    jaxlm run configs/quickstart.yaml train.steps=500
    """
    from rich.console import Console

    from jaxlm.parallel.processes import is_first
    from jaxlm.pipeline import run as run_stages
    from jaxlm.reports import final_screen

    workdir = _in_workdir(config_file, overrides, quiet, run_stages)
    if not quiet and is_first():
        Console(highlight=False).print(final_screen(workdir))


@main.command()
@CONFIG
@OVERRIDES
@click.option(
    "--what-if",
    multiple=True,
    metavar="KEY=VALUE",
    help="Print what another threshold would change in the corpus that is there; may be repeated.",
)
@click.option("--explain", metavar="ID", help="Tell what became of one document.")
@click.option(
    "--train-classifier", metavar="NAME", help="Train this one of prepare.classifiers, and stop."
)
@AS_JSON
@QUIET
def prepare(
    config_file: str,
    overrides: tuple[str, ...],
    what_if: tuple[str, ...],
    explain: str | None,
    train_classifier: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Clean raw text into WORKDIR/corpus.

    \b
    jaxlm prepare configs/quickstart.yaml
    jaxlm prepare configs/quickstart.yaml --what-if prepare.quality.gopher.min_words=20
    jaxlm prepare configs/quickstart.yaml --explain genesis
    """
    if sum(map(bool, (what_if, explain, train_classifier))) > 1:
        raise click.UsageError("Give one of --what-if, --explain and --train-classifier.")
    if what_if or explain:
        from jaxlm.config import load
        from jaxlm.corpus.explain import story
        from jaxlm.corpus.explain import what_if as changes_of
        from jaxlm.reports.answers import story_lines, what_if_lines
        from jaxlm.workdir import Workdir

        workdir = Workdir(load(config_file, overrides).workdir)
        if explain:
            steps = story(workdir, explain)
            click.echo(json.dumps(steps) if as_json else "\n".join(story_lines(steps)))
        else:
            changes = changes_of(workdir, what_if)
            click.echo(json.dumps(changes) if as_json else "\n".join(what_if_lines(changes)))
        return
    if train_classifier:
        from jaxlm.corpus.classify.training import train
        from jaxlm.parallel.processes import first_does

        def work(config: Any, workdir: Any, show: Any) -> None:
            def write() -> None:
                show.line(f"wrote {train(train_classifier, config, workdir, show)}")

            first_does("classifier", write)
    else:
        from jaxlm.pipeline import BY_NAME, do, write_config

        def work(config: Any, workdir: Any, show: Any) -> None:
            write_config(config, workdir)
            do(BY_NAME["prepare"], config, workdir, show, again=True)

    _in_workdir(config_file, overrides, quiet, work)


@main.command()
@CONFIG
@OVERRIDES
@AS_JSON
@QUIET
def tokenizer(config_file: str, overrides: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Train the tokenizer on WORKDIR/corpus, or take the one at tokenizer.path, and print what it
    makes of the corpus: tokens a word, bytes a token, unused ids, characters that become bytes.

    tokenizer.compare measures others beside it. WORKDIR/tokenizer/report.json has the same.

    \b
    jaxlm tokenizer configs/quickstart.yaml tokenizer.vocab_size=8192
    jaxlm tokenizer configs/quickstart.yaml tokenizer.kind=unigram
    jaxlm tokenizer configs/quickstart.yaml tokenizer.compare=[bpe-8k,unigram-8k,byte]
    """
    from jaxlm.parallel.processes import is_first
    from jaxlm.pipeline import BY_NAME, do, write_config
    from jaxlm.reports.records import read_tokenizer_report
    from jaxlm.reports.tokenizer import tokenizer_lines

    def work(config: Any, workdir: Any, show: Any) -> None:
        write_config(config, workdir)
        do(BY_NAME["tokenizer"], config, workdir, show, again=True)

    workdir = _in_workdir(config_file, overrides, quiet, work)
    report = read_tokenizer_report(workdir)
    if report is not None and is_first():
        click.echo(
            report.model_dump_json(indent=2) if as_json else "\n".join(tokenizer_lines(report))
        )


staged("tokenize", "jaxlm tokenize configs/quickstart.yaml", "Write the corpus as token shards.")
staged("train", "jaxlm train configs/quickstart.yaml train.steps=1000",
       "Train, from the newest checkpoint in WORKDIR if there is one.")  # fmt: skip


@main.command("eval")
@click.argument("path", metavar="WORKDIR|CHECKPOINT", type=click.Path(path_type=Path))
@OVERRIDES
@AS_JSON
def evaluate(path: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Loss, perplexity and bits per byte by source, on the validation split.

    Overrides change how the trained model attends and is scored: keys of model.position and
    model.attention that need no other parameters, data.seq_len and eval.batch_size. The scores are
    printed then, and not noted for the report.

    \b
    jaxlm eval runs/quickstart
    jaxlm eval runs/quickstart/checkpoints/300 --json
    jaxlm eval RUN data.seq_len=8192 \\
      model.position.scaling='{kind: yarn, factor: 4, original_length: 2048}'
    """
    _use_jax()
    from jaxlm.pipeline import evaluate as evaluate_path

    record = evaluate_path(path, overrides=overrides)
    scores = record["sources"] | {"all": record["all"]}
    if as_json:
        click.echo(json.dumps(scores | {"tasks": {}}, indent=2))
        return
    click.echo(f"{'source':20} {'loss':>8} {'perplexity':>11} {'bits/byte':>10} {'tokens':>10}")
    for name, score in scores.items():
        click.echo(
            f"{name:20} {score['loss']:8.4f} {score['perplexity']:11.2f} "
            f"{score['bits_per_byte']:10.4f} {score['tokens']:10,}"
        )


@main.command()
@click.argument("path", metavar="WORKDIR|CHECKPOINT", type=click.Path(path_type=Path))
@OVERRIDES
@click.option("--prompt", multiple=True, help="Text to continue; may be repeated.")
@click.option(
    "--prompt-file",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with text to continue; may be repeated.",
)
@click.option(
    "--context",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Text that all prompts see, read by itself (parallel context windows); may be repeated.",
)
@click.option(
    "--memory",
    type=click.Choice(["knn", "blocks"]),
    help="Read in chunks and look up what left a window, by tokens (knn) or by blocks.",
)
@click.option(
    "--memory-set",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of --memory, such as window=1024; a wrong name lists them; may be repeated.",
)
@click.option(
    "--memory-on",
    type=click.Choice(["host", "device"]),
    help="Where --memory keeps keys and values; host unless given.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="Longest continuation.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.8,
    show_default=True,
    help="0 takes the likeliest token.",
)
@click.option("--top-k", type=click.IntRange(min=1), help="Draw from this many likeliest tokens.")
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Draw from this much probability.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, (1 << 32) - 1),
    default=0,
    show_default=True,
    help="Seed of the draws.",
)
@click.option(
    "--special-tokens",
    is_flag=True,
    help="Special tokens are written by their names, such as <fim_middle> or [S2S].",
)
@AS_JSON
def generate(
    path: Path,
    overrides: tuple[str, ...],
    prompt: tuple[str, ...],
    prompt_file: tuple[Path, ...],
    context: tuple[Path, ...],
    memory: str | None,
    memory_set: tuple[str, ...],
    memory_on: str | None,
    max_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float,
    seed: int,
    special_tokens: bool,
    as_json: bool,
) -> None:
    """Continue prompts until the end of a document or --max-tokens.

    Overrides change how the trained model attends: keys of model.position and model.attention that
    need no other parameters. Extensions (YaRN, dynamic NTK, ReRoPE) and windows (LM-Infinite,
    StreamingLLM) are one each; with a window the cache and the cost of a token stay bounded.

    \b
    jaxlm generate runs/quickstart --prompt "In the beginning"
    jaxlm generate runs/quickstart --prompt "def " --prompt "The " --temperature 0
    jaxlm generate RUN --context a.txt --context b.txt --prompt "Question: "
    jaxlm generate RUN --prompt-file book.txt --memory blocks --memory-set window=512
    jaxlm generate RUN --prompt "In the" \\
      model.position.scaling='{kind: yarn, factor: 4, original_length: 2048}'
    jaxlm generate RUN --prompt "In the" model.position.truncation.window=512
    jaxlm generate RUN --prompt "In the" model.attention.window=2048 \\
      model.attention.sinks='{tokens: 4, distance: slot}'
    """
    _use_jax()
    from jaxlm.evaluation import Request, open_trained
    from jaxlm.evaluation import generate as generate_texts

    prompts, contexts = [*prompt, *map(_text, prompt_file)], [_text(file) for file in context]
    if not prompts:
        raise click.UsageError("Give --prompt or --prompt-file.")
    if any(
        start.encode(errors="replace") != start.encode(errors="surrogateescape")
        for start in prompts
    ):
        raise click.UsageError("--prompt: not UTF-8 text.")
    if memory and context:
        raise click.UsageError("Give one of --memory and --context.")
    if (memory_set or memory_on) and not memory:
        raise click.UsageError("--memory-set and --memory-on are for --memory; give that too.")
    trained = open_trained(path, single_device=True, overrides=overrides)
    request = Request(max_tokens, temperature, top_k, top_p, seed, special_tokens)
    if memory:
        from jaxlm.config.memory import memory_request
        from jaxlm.evaluation import generate_with_memory

        wanted = memory_request(
            memory, memory_set, trained.config.data.seq_len, memory_on or "host"
        )
        texts = generate_with_memory(trained, prompts, request, wanted)
    else:
        texts = generate_texts(trained, prompts, request, contexts)
    for start, text in zip(prompts, texts, strict=True):
        click.echo(json.dumps({"prompt": start, "text": text}) if as_json else start + text)


@main.command()
@CONFIG
@OVERRIDES
@AS_JSON
@QUIET
def mix(config_file: str, overrides: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Search the shares of the sources with small proxy models; write WORKDIR/mix/best.yaml.

    What it needs of the corpus, the tokenizer and the tokens is made first, unless it is there. A
    search that was stopped goes on.

    \b
    jaxlm mix configs/quickstart.yaml
    jaxlm mix configs/quickstart.yaml mix.proxies=96 'mix.target={bible: 2, stdlib: 1}'
    """
    from jaxlm.pipeline import mix as search
    from jaxlm.reports.mix import mix_lines

    found: dict[str, Any] = {}

    def work(config: Any, workdir: Any, show: Any) -> None:
        found.update(search(config, workdir, show))

    workdir = _in_workdir(config_file, overrides, quiet, work)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo("\n".join(mix_lines(found, workdir)))


@main.command()
@CONFIG
@OVERRIDES
@click.option(
    "--hardware",
    required=True,
    metavar="PLATFORM:CHIP:SHAPE[:SLICES]",
    help="As tpu:v5p:4x4x4, or gpu:h100:8:4 for four nodes of 8; a wrong name lists what there is.",
)
@click.option("--json", "json_file", metavar="FILE", help="Write the figures there too; -: print.")
@click.option("--search", is_flag=True, help="Compile changes that make it fit, or faster.")
@QUIET
def plan(
    config_file: str,
    overrides: tuple[str, ...],
    hardware: str,
    json_file: str | None,
    search: bool,
    quiet: bool,
) -> None:
    """Compile the train step for hardware that need not be there, and tell what it takes: memory,
    collectives, and how fast it can be at best. Exit status 1: it does not fit.

    \b
    jaxlm plan configs/models/llama2-7b.yaml --hardware tpu:v5p:4x4x4
    jaxlm plan configs/models/llama3-8b.yaml --hardware gpu:h100:8:4 --search --json plan.json
    """
    os.environ["JAX_PLATFORMS"] = "cpu"  # devices of this machine have no part in it
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    from jaxlm.config import load
    from jaxlm.planning import devices_of, parse_hardware, search_changes
    from jaxlm.planning import plan as plan_config
    from jaxlm.reports.plan import plan_lines
    from jaxlm.workdir import write_text

    def say(line: str) -> None:
        if not quiet:
            click.echo(line, err=True)

    wanted = parse_hardware(hardware)
    loaded = load(config_file, overrides)
    devices = devices_of(wanted)
    say(f"compiles the train step for {wanted.devices} devices")
    record = plan_config(loaded, wanted, devices)
    if search:
        record["search"] = search_changes(loaded, wanted, devices, record, say)
    if json_file == "-":
        click.echo(json.dumps(record, indent=2))
    else:
        click.echo("\n".join(plan_lines(record)))
        if json_file is not None:
            write_text(Path(json_file), json.dumps(record, indent=2) + "\n")
    if not record["fits"]:
        sys.exit(1)


@main.command()
@click.argument("path", metavar="WORKDIR", type=click.Path(path_type=Path))
def report(path: Path) -> None:
    """Write WORKDIR/report/index.html from the run's records.

    \b
    jaxlm report runs/quickstart
    """
    from jaxlm.reports import write_report
    from jaxlm.workdir import Workdir

    workdir = Workdir(path)
    if not workdir.config.is_file():
        raise UserError(f"{path}: not the folder of a run; give the workdir of one")
    click.echo(write_report(workdir))


@main.command()
@click.argument("config_file", metavar="CONFIG", required=False)
@OVERRIDES
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a config.")
@click.option("--summary", is_flag=True, help="Add the model's table with its parameter count.")
@click.option("--get-workdir", is_flag=True, help="Print the run's folder, for scripts.")
def config(
    config_file: str | None,
    overrides: tuple[str, ...],
    schema: bool,
    summary: bool,
    get_workdir: bool,
) -> None:
    """Print the resolved config, which is itself a config.

    \b
    jaxlm config configs/quickstart.yaml train.steps=500 --summary
    jaxlm config --schema > jaxlm.schema.json
    """
    from jaxlm.config import dump, json_schema, load

    if schema:
        click.echo(json.dumps(json_schema(), indent=2))
        return
    if config_file is None:
        raise click.UsageError("Give a config file, or --schema.")
    loaded = load(config_file, overrides)
    if get_workdir:
        click.echo(loaded.workdir)
        return
    click.echo(dump(loaded), nl=False)
    if summary:
        from jaxlm.models.size import summary_lines

        click.echo("".join(f"# {line}\n" for line in summary_lines(loaded)), nl=False)


@main.command()
@click.argument("path", metavar="FILE.jsonl[.gz|.zst]")
@click.option(
    "--rules",
    required=True,
    metavar="SET[,SET]...",
    help="Rule sets, such as gopher_quality, gopher.dolma, pii; a wrong name lists them all.",
)
def tag(path: str, rules: str) -> None:
    """Judge each document of a file of {"id", "text"}: one JSON line a document.

    \b
    jaxlm tag web.jsonl.gz --rules gopher_quality,c4,pii > tags.jsonl
    """
    from jaxlm.corpus.tag_file import tag_file

    for record in tag_file(path, rules.split(",")):
        click.echo(json.dumps(record, ensure_ascii=False))


@main.command()
@click.argument("path", metavar="FILE.jsonl[.gz|.zst]")
@click.option(
    "--method",
    type=click.Choice(["exact", "minhash", "substring", "sentence"]),
    required=True,
    help="What is compared.",
)
@click.option(
    "--threshold",
    type=float,
    help="minhash: Jaccard similarity (0.8); substring: bytes (200); sentence: sentences (3).",
)
def dedup(path: str, method: str, threshold: float | None) -> None:
    """Find what a file of {"id", "text"} holds twice: one JSON line a removed document or span.

    \b
    jaxlm dedup web.jsonl.zst --method minhash --threshold 0.8
    """
    from jaxlm.corpus.dedup_file import dedup_file

    for record in dedup_file(path, method, threshold):
        click.echo(json.dumps(record, ensure_ascii=False))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None


def _in_workdir(
    config_file: str, overrides: tuple[str, ...], quiet: bool, work: Callable[..., None]
) -> Any:
    """Load the config, meet the other processes, lock its workdir, show progress, do the work."""
    from jaxlm.config import dump, load
    from jaxlm.parallel.processes import first_does, is_first, joined, processes_of, share_folder
    from jaxlm.reports import Terminal
    from jaxlm.workdir import Workdir

    loaded = load(config_file, overrides)
    workdir = Workdir(loaded.workdir)
    _use_jax()
    from jaxlm.training import Stopped

    processes, same = processes_of(os.environ), hashlib.sha256(dump(loaded).encode()).hexdigest()
    with joined(processes, loaded.recovery.start_timeout, same), ExitStack() as stack:
        first_does("workdir", lambda: stack.enter_context(workdir.lock()))
        share_folder(workdir.path)
        show = stack.enter_context(Terminal(quiet or not is_first()))
        try:
            work(loaded, workdir, show)
        except Stopped as stopped:
            show.line(f"{stopped}; the same command goes on from there")
            sys.exit(128 + stopped.signum)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"{error.filename or workdir.path}: {error.strerror}; make room and give the same "
                "command again"
            ) from None
    return workdir


@functools.cache
def _use_jax() -> None:
    """Keep compiled programs between starts, where JAX was not told another place.

    What Orbax and JAX log besides what they raise would bury our own line about it.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    from jaxlm.training import use_compilation_cache

    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    use_compilation_cache(Path(cache) / "jaxlm" / "xla")
