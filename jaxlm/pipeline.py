"""The stages of a run in order; a finished one whose inputs did not change is skipped."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm import corpus, tokens
from jaxlm.config import Config, Section, dump
from jaxlm.config.mixture import Mixture
from jaxlm.config.stages import config_at
from jaxlm.errors import UserError
from jaxlm.parallel import make_mesh
from jaxlm.parallel.processes import first_does, is_first, several, wait_for_file
from jaxlm.reports import Terminal, write_report
from jaxlm.workdir import Workdir, write_json, write_text


class Stage(NamedTuple):
    """A verb, what its result depends on, what it makes, and the work.

    `depends` gives None for a stage that sees for itself what is left to do.
    """

    name: str
    depends: Callable[[Config, Workdir], Any]
    makes: Callable[[Workdir], Path]
    work: Callable[[Config, Workdir, Terminal], None]
    together: bool = False
    """Of several processes, all take part in the work; else the first does it."""


def run(config: Config, workdir: Workdir, show: Terminal) -> None:
    """Every stage in order, then the report. Raises what the stages raise."""
    # a mesh that this machine cannot make, a run without a length or without the checkpoint that it
    # starts from, the folder of another run, or a tokenizer that lacks what the objective needs is
    # refused before the work
    make_mesh(config)
    tokens.check_tokenizer(config)
    assert config.steps > 0
    _refuse_start(config, workdir)
    write_config(config, workdir)
    for stage in STAGES:
        do(stage, config, workdir, show, again=False)
    first_does("report", lambda: str(write_report(workdir)))


def mix(config: Config, workdir: Workdir, show: Terminal) -> dict[str, Any]:
    """Search the shares of the sources (jaxlm/mixing), with the stages before it; returns its
    record. Raises what they raise, and UserError in a run of several processes."""
    from jaxlm.mixing import refuse, search
    from jaxlm.reports.mix import write_mix_report

    if several():
        raise UserError("jaxlm mix: runs in one process, on all devices of its host; start one")
    refuse(config)
    write_config(config, workdir)
    for name in ("prepare", "tokenizer", "tokenize"):
        do(BY_NAME[name], config, workdir, show, again=False)
    record = search(config, workdir, show)
    write_mix_report(workdir.path / "mix")
    return record


def do(stage: Stage, config: Config, workdir: Workdir, show: Terminal, *, again: bool) -> None:
    """Do one stage, unless it was done from the same inputs and need not be done `again`."""

    def begin() -> str | None:
        """What to note when it is done; None: nothing is to do."""
        inputs = stage.depends(config, workdir)
        if inputs is None:
            return ""
        done, stamp = _read_stamps(workdir), _digest(inputs)
        if not again and done.get(stage.name) == stamp and stage.makes(workdir).exists():
            show.line(f"{stage.name}: done before, nothing changed")
            return None
        # a stage that dies half-way must not look finished
        done.pop(stage.name, None)
        write_json(_stamps(workdir), done)
        return stamp

    def end() -> None:
        assert stamp is not None
        write_json(_stamps(workdir), _read_stamps(workdir) | {stage.name: stamp})

    stamp = first_does(stage.name, begin)
    if stamp is not None and stage.together:
        stage.work(config, workdir, show)
    elif stamp is not None:
        first_does(stage.name, lambda: stage.work(config, workdir, show))
    if stamp:
        first_does(stage.name, end)
    if not stage.together:
        wait_for_file(stage.makes(workdir))


def write_config(config: Config, workdir: Workdir) -> None:
    """Note the resolved config of this run in its folder."""
    first_does("config.yaml", lambda: write_text(workdir.config, dump(config)))


def evaluate(
    path: Path, config: Config | None = None, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Scores by source of the run or the one checkpoint at `path`; a run's are also written.

    config: takes the place of the one in the checkpoint for what eval needs (batch size).
    overrides: KEY=VALUE of HOW_TO_SCORE; scores are then of something that is not the run, and are
    not written. Raises UserError when no text of the run is held apart.
    """
    import jax

    from jaxlm.evaluation import HOW_TO_SCORE, open_trained
    from jaxlm.evaluation import evaluate as scores_of
    from jaxlm.models import parameter_count

    trained = open_trained(path, overrides=overrides, allowed=HOW_TO_SCORE)
    with jax.set_mesh(trained.mesh):
        stage = config_at(config, trained.step) if config else trained.config
        scores = scores_of(stage, trained.workdir, trained.params, trained.tokenizer)
    everything = scores.pop("all", None)
    if everything is None:
        raise UserError(
            f"{trained.workdir.tokens}: no document is held apart to evaluate on; raise "
            "data.validation_fraction and give jaxlm tokenize CONFIG"
        )
    record = {
        "step": trained.step,
        "parameters": parameter_count(trained.config),
        "sources": scores,
        "all": everything,
    }
    # the report of a run is about its newest checkpoint
    if path == trained.workdir.path and not overrides and is_first():
        write_json(trained.workdir.evaluation, record)
    return record


def _refuse_start(config: Config, workdir: Workdir) -> None:
    """Raise UserError where the folder holds checkpoints of another run, or where there is nothing
    at train.from_checkpoint to start from."""
    from jaxlm.training.checkpoints import (
        DamagedError,
        checkpoints_in,
        find_checkpoints,
        read_facts,
    )
    from jaxlm.training.same_run import refuse_other_run

    if found := checkpoints_in(workdir.checkpoints):
        # a damaged one is told of when training reads it
        with contextlib.suppress(DamagedError):
            facts = read_facts(found[0])
            # tokenizer and tokens are compared when they are made
            refuse_other_run(facts, facts | {"config": _plain(config)}, found[0])
    elif config.train.from_checkpoint is not None:
        find_checkpoints(Path(config.train.from_checkpoint))


def _tokenizer(config: Config, workdir: Workdir, show: Terminal) -> None:
    tokens.train_tokenizer(config, workdir, show)
    for note in tokens.notes(tokens.load_tokenizer(workdir.tokenizer)):
        show.line(f"tokenizer: {note}")
    tokens.measure_tokenizer(config, workdir, show)


def _train(config: Config, workdir: Workdir, show: Terminal) -> None:
    from jaxlm.evaluation import evaluate as scores_of
    from jaxlm.training import train

    tokenizer = tokens.load_tokenizer(workdir.tokenizer)

    def score(stage: Config, params: Any) -> Any:
        return scores_of(stage, workdir, params, tokenizer, batches=stage.eval.batches)

    train(config, workdir, show, score)


def _evaluate(config: Config, workdir: Workdir, show: Terminal) -> None:
    if config.data.validation_fraction == 0:
        show.line("eval: nothing is held apart (data.validation_fraction is 0)")
        first_does("eval", lambda: workdir.evaluation.unlink(missing_ok=True))
    else:
        evaluate(workdir.path, config)


def _generate(config: Config, workdir: Workdir, show: Terminal) -> None:
    from jaxlm.evaluation import Request, generate, open_trained

    wanted = config.eval.generate
    if not wanted.prompts:
        write_text(workdir.samples, "")
        return
    trained = open_trained(workdir.path, single_device=True)
    request = Request(
        wanted.max_tokens, wanted.temperature, wanted.top_k, wanted.top_p, config.seed,
        wanted.special_tokens,
    )  # fmt: skip
    texts = generate(trained, wanted.prompts, request)
    lines = [
        json.dumps(
            {
                "prompt": prompt,
                "text": text,
                "temperature": wanted.temperature,
                "top_p": wanted.top_p,
                "seed": config.seed,
                "step": trained.step,
            },
            ensure_ascii=False,
        )
        for prompt, text in zip(wanted.prompts, texts, strict=True)
    ]
    write_text(workdir.samples, "".join(f"{line}\n" for line in lines))


def _of_corpus(workdir: Workdir) -> Any:
    return [shard["sha256"] for shard in _read(workdir.corpus / "stats.json")["shards"]]


def _of_scoring(config: Config) -> list[Any]:
    """What the finished model's scores depend on besides it and the tokens."""
    last = config_at(config, config.steps)
    return [last.data.seq_len, _plain(last.objective), config.seed]


def _of_training(workdir: Workdir) -> Any:
    """Which parameters there are: the checkpoints that are finished."""
    steps = [p for p in workdir.checkpoints.glob("*") if p.name.isdigit()]
    newest = max(steps, key=lambda p: int(p.name), default=None)
    return newest and [newest.name, newest.stat().st_mtime_ns]


STAGES = (
    Stage(
        "prepare",
        lambda config, workdir: [
            [_without(source, "weight") for source in config.sources],
            _without(config.prepare, "workers", "executor"), corpus.inputs(config),
        ],
        lambda workdir: workdir.corpus,
        corpus.prepare,
    ),
    Stage(
        "tokenizer",
        lambda config, workdir: [
            _without(config.tokenizer, "specials", "measure_bytes", "compare"),
            _file(config.tokenizer.path), config.seed, _weights(config), *config.specials,
            _of_corpus(workdir),
        ],
        lambda workdir: workdir.tokenizer,
        _tokenizer,
    ),
    Stage(
        "tokenize",
        lambda config, workdir: [
            _without(config.data, "seq_len", "mixture", "curriculum", "split_by", "sort_by"),
            config.seed,
            _of_corpus(workdir), _read(workdir.tokenizer / "manifest.json")["hash"],
            *([_plain(config.data.split_by)] if config.data.split_by else []),
            *([config.data.sort_by] if config.data.sort_by else []),
            *([_plain(config.document_fim)] if config.document_fim else []),
        ],
        lambda workdir: workdir.tokens,
        tokens.tokenize,
    ),
    Stage(
        "train",
        lambda config, workdir: None,
        lambda workdir: workdir.checkpoints,
        _train,
        together=True,
    ),
    Stage(
        "eval",
        lambda config, workdir: [
            *_of_scoring(config), _of_training(workdir), _read(workdir.tokens / "manifest.json"),
        ],
        lambda workdir: workdir.evaluation,
        _evaluate,
        together=True,
    ),
    Stage(
        "generate",
        lambda config, workdir: [
            _plain(config.eval.generate), config.seed, _of_training(workdir),
        ],
        lambda workdir: workdir.samples,
        _generate,
    ),
)  # fmt: skip
BY_NAME = {stage.name: stage for stage in STAGES}


def _weights(config: Config) -> list[Any]:
    """What the shares of sources in the tokenizer's sample depend on."""
    mixture = config.data.mixture.model_copy(update={"max_epochs": None, "dynamic": None})
    given = [] if mixture == Mixture() else [_plain(mixture), _plain(config.data.split_by)]
    return [*((source.name, source.weight) for source in config.sources), *given]


def _plain(section: Any) -> Any:
    if isinstance(section, tuple):
        return [_plain(item) for item in section]
    return json.loads(section.model_dump_json())


def _without(section: Section, *keys: str) -> Any:
    """The section without keys that its stage's result does not depend on."""
    return {name: value for name, value in _plain(section).items() if name not in keys}


def _file(path: str | None) -> Any:
    """What tells that a file is another one than before; None when there is none."""
    if path is None or not Path(path).exists():
        return None
    stat = Path(path).stat()
    return [stat.st_size, stat.st_mtime_ns]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _stamps(workdir: Workdir) -> Path:
    return workdir.path / "stages.json"


def _read_stamps(workdir: Workdir) -> dict[str, str]:
    path = _stamps(workdir)
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return {}  # a stage too often is safer than one too few


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: missing; the stage before has not run (jaxlm run CONFIG does all of them)"
        ) from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}; run the stage before again") from None
