"""What a corpus depends on besides its config and its sources: lists, models, evaluation sets,
indexes of earlier corpora. All that is missing is told before anything runs."""

import os
from pathlib import Path

from jaxlm.config import Config
from jaxlm.config.classifiers import Classifier, Http, Linear
from jaxlm.config.corpus import Prepare
from jaxlm.config.routes import with_value
from jaxlm.config.rules import Rules
from jaxlm.corpus.stages import FILES
from jaxlm.errors import UserError


def with_models(config: Config) -> Prepare:
    """The section prepare with a path for every model that was trained in this workdir."""
    folder = Path(config.workdir).expanduser() / "classifiers"
    found = config.prepare
    if found.toxicity.model is None and found.toxicity.train is not None:
        found = with_value(found, "toxicity.model", str(folder / "toxicity"))
    perplexity = found.quality.perplexity
    if perplexity.model is None and "quality.perplexity" in found.stages:
        found = with_value(found, "quality.perplexity.model", str(folder / "quality.perplexity"))
    classifiers = found.classifiers
    models = tuple(_in_folder(model, folder / model.name) for model in classifiers.models)
    record = classifiers.record or str(folder.parent / "corpus.work" / "cascade.jsonl")
    classifiers = classifiers.model_copy(update={"models": models, "record": record})
    return found.model_copy(update={"classifiers": classifiers})


def _in_folder(model: Classifier, folder: Path) -> Classifier:
    """The classifier with its files in `folder`, where the config says nothing else."""
    if isinstance(model, Linear) and model.path is None:
        return model.model_copy(update={"path": str(folder)})
    if isinstance(model, Http) and model.cache is None:
        return model.model_copy(update={"cache": str(folder / "scores.sqlite")})
    return model


def files(config: Prepare) -> list[tuple[str, int, int]]:
    """Path, size and time of the last change of every file that a stage reads besides texts.

    Raises UserError with all that are missing.
    """
    paths: set[str] = set()
    problems: list[str] = []
    for stage in config.stages:
        for section in _sections(config, stage) if stage in FILES else ():
            try:
                paths |= {str(path) for path in FILES[stage](section)}
            except UserError as error:
                problems += error.messages
    for index in config.dedup.against:
        if found := sorted(Path(index).expanduser().glob("*/*/index.json")):
            paths |= set(map(str, found))
        else:
            problems.append(f"dedup.against: {index} holds no index of an earlier corpus")
    out = []
    for path in sorted(paths):
        try:
            status = os.stat(path)
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
        else:
            out.append((path, status.st_size, status.st_mtime_ns))
    if problems:
        raise UserError(list(dict.fromkeys(problems)))
    return out


def _sections(config: Prepare, stage: str) -> list[Rules]:
    """The section of a stage as it is, and as each route has it."""
    out = []
    for route in (None, *config.routes):
        given = config
        for key, value in route.set.items() if route else ():
            if key.startswith(f"{stage}."):
                given = with_value(given, key, value)
        section: object = given
        for name in stage.split("."):
            section = getattr(section, name)
        assert isinstance(section, Rules)
        out.append(section)
    return out
