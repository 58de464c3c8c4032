"""A classifier of the config -> a function that scores pieces of texts."""

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.classifiers import Http, HuggingFace, Linear, PythonFunction
from jaxlm.corpus.classify.endpoint import Endpoint
from jaxlm.corpus.classify.huggingface import missing_extra, open_classifier
from jaxlm.corpus.classify.linear import LinearModel
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.statistics import Spans
from jaxlm.errors import UserError

type Judge = Callable[[Strings, Spans], NDArray[np.float64]]
"""Texts and pieces of them -> scores, float64 [spans]; NaN: not judged."""
type Section = Linear | HuggingFace | PythonFunction | Http


@lru_cache(maxsize=32)
def judge(config: Section) -> Judge:
    """Open a classifier, once a process. Raises UserError when it cannot be opened."""
    if isinstance(config, Linear):
        model = linear_model(config)

        def score(texts: Strings, spans: Spans) -> NDArray[np.float64]:
            return model.score(model.words(texts), spans)

        one = np.arange(2)
        score(Strings.of([b"a"]), Spans(one[:1], one[1:], one))  # compiles
        return score
    if isinstance(config, Http):
        return _of_texts(Endpoint(config))
    if isinstance(config, PythonFunction):
        return _of_texts(_function(config))
    network = open_classifier(
        config.name, config.model, config.label, config.max_tokens, config.batch_size
    )
    return _of_texts(lambda texts: _finite(config.name, network(texts)))


def files(config: Section) -> list[Path]:
    """Local files that a classifier is made of. Raises UserError for one that cannot be opened, as
    far as that shows cheaply."""
    if isinstance(config, Linear):
        assert config.path is not None, "filled in when the config is resolved"
        needed = [Path(config.path) / name for name in LinearModel.FILES]
        if not all(path.exists() for path in needed):
            raise UserError(
                f"classifiers: {config.path} holds no classifier; train it with: jaxlm prepare "
                f"CONFIG --train-classifier {config.name}"
            )
        return needed
    if isinstance(config, HuggingFace):
        if not all(map(importlib.util.find_spec, ("torch", "transformers"))):
            raise UserError(missing_extra(config.name))
        folder = Path(config.model)
        # anything else is a name of the hub: NAME or OWNER/NAME
        local = folder.exists() or folder.is_absolute() or config.model.startswith(("./", "../"))
        if local and not (folder / "config.json").exists():
            raise UserError(f"classifier {config.name}: {folder} holds no model (no config.json)")
        return sorted(path for path in folder.iterdir() if path.is_file()) if local else []
    judge(config)
    if isinstance(config, PythonFunction):
        module = sys.modules[config.function.partition(":")[0]]
        return [Path(module.__file__)] if module.__file__ else []
    return []


def bounds(config: Section) -> tuple[float, float]:
    """Lowest and highest score with which a document passes: what the config says, else the
    threshold that a linear model's training chose, else none where it only cuts sentences."""
    low, high = config.min_score, config.max_score
    cuts = config.cut_above is not None or config.cut_below is not None
    if low is None and high is None and isinstance(config, Linear) and not cuts:
        low = linear_model(config).threshold
    return (-math.inf if low is None else low), (math.inf if high is None else high)


@lru_cache(maxsize=32)
def linear_model(config: Linear) -> LinearModel:
    """Read a linear model, once a process."""
    assert config.path is not None, "filled in when the config is resolved"
    return LinearModel.load(Path(config.path))


def _function(config: PythonFunction) -> Callable[[list[str]], list[float]]:
    module, _, name = config.function.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # importing runs the user's code
        raise UserError(
            f"classifier {config.name}: {config.function}: {type(error).__name__}: {error}; give "
            "module:function of a module that Python finds (PYTHONPATH)"
        ) from error
    if not callable(function):
        raise UserError(f"classifier {config.name}: {config.function} is not a function")

    def score(texts: list[str]) -> list[float]:
        try:
            scores = [float(value) for value in function(texts)]
        except Exception as error:
            raise UserError(
                f"classifier {config.name}: {config.function} raised "
                f"{type(error).__name__}: {error}"
            ) from error
        if len(scores) != len(texts):
            raise UserError(
                f"classifier {config.name}: {config.function} gave {len(scores)} scores for "
                f"{len(texts)} texts"
            )
        return _finite(config.name, scores)

    return score


def _finite(name: str, scores: list[float]) -> list[float]:
    """The scores. Raises UserError when one is no number that rules could judge."""
    for value in scores:
        if not math.isfinite(value):
            raise UserError(f"classifier {name}: a text scores {value}, which no rule can judge")
    return scores


def _of_texts(score: Callable[[list[str]], list[float]]) -> Judge:
    def of(texts: Strings, spans: Spans) -> NDArray[np.float64]:
        view = memoryview(np.ascontiguousarray(texts.buffer))
        pieces = [
            str(view[start:end], "utf-8")
            for start, end in zip(spans.starts.tolist(), spans.ends.tolist(), strict=True)
        ]
        return np.array(score(pieces), np.float64) if pieces else np.empty(0)

    return of
