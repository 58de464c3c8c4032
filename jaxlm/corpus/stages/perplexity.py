"""Editor that changes nothing: perplexity under a small language model, an n-gram model or a
checkpoint of jaxlm, and the bucket it puts a document in."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.classifiers import Perplexity
from jaxlm.config.rules import Rules
from jaxlm.corpus.classify.ngram import NgramModel
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.stages.base import Changes, Edit
from jaxlm.corpus.statistics import Analysis
from jaxlm.errors import UserError


class _Model(Protocol):
    @property
    def head_below(self) -> float | None: ...

    @property
    def tail_above(self) -> float | None: ...

    def perplexity(self, texts: Strings) -> NDArray[np.float64]: ...


def perplexity(texts: Analysis, rules: Rules) -> Edit:
    """Perplexity a word or token, NaN for a text without words; bucket 0, 1 or 2, NaN where the
    perplexity is or where nothing says what head and tail are."""
    assert isinstance(rules, Perplexity)
    model = _loaded(_folder(rules))
    values = model.perplexity(texts.texts)
    head = rules.head_below if rules.head_below is not None else model.head_below
    tail = rules.tail_above if rules.tail_above is not None else model.tail_above
    bucket = np.full(len(values), np.nan)
    if head is not None and tail is not None:
        known = ~np.isnan(values)
        bucket[known] = (values[known] > head).astype(int) + (values[known] > max(head, tail))
    elif rules.max_bucket is not None:
        raise UserError(
            f"prepare.quality.perplexity.max_bucket: {rules.model} does not say where head and "
            "tail are; set head_below and tail_above"
        )
    nothing = np.zeros(0, np.int64)
    changes = Changes((), nothing, nothing, nothing, nothing)
    return Edit({"perplexity": values, "bucket": bucket}, texts.texts, changes)


EDITORS = {"quality.perplexity": perplexity}


def _folder(rules: Perplexity) -> str:
    if rules.model is None:
        raise UserError(
            "prepare.quality.perplexity: no model; set its key model, or train one with: jaxlm "
            "prepare CONFIG --train-classifier quality.perplexity"
        )
    return rules.model


def _files(rules: Rules) -> list[Path]:
    """What the perplexity comes from: the two files of an n-gram model, or what describes a run's
    checkpoints."""
    assert isinstance(rules, Perplexity)
    folder = Path(_folder(rules))
    if (folder / "checkpoints").is_dir():
        return sorted((folder / "checkpoints").glob("*/_CHECKPOINT_METADATA"))
    if folder.parent.name == "checkpoints":
        return [folder / "_CHECKPOINT_METADATA"]
    needed = [folder / name for name in NgramModel.FILES]
    if not all(path.exists() for path in needed):
        raise UserError(
            f"quality.perplexity: {folder} holds no n-gram model and no checkpoints; train one "
            "with: jaxlm prepare CONFIG --train-classifier quality.perplexity"
        )
    return needed


FILES: dict[str, Callable[[Rules], list[Path]]] = {"quality.perplexity": _files}


class _Checkpoint:
    """A model of jaxlm; JAX is imported when it is opened and never otherwise."""

    head_below: float | None = None
    tail_above: float | None = None

    def __init__(self, path: str) -> None:
        from jaxlm.evaluation import open_trained

        self.trained = open_trained(path, single_device=True)

    def perplexity(self, texts: Strings) -> NDArray[np.float64]:
        """exp of the mean nats a token."""
        from jaxlm.evaluation import text_nats

        nats, number = text_nats(self.trained, [texts[i].decode() for i in range(len(texts))])
        return np.asarray(np.exp(np.minimum(nats / number, 700)), np.float64)


@lru_cache(maxsize=2)
def _loaded(path: str) -> _Model:
    folder = Path(path)
    if (folder / "checkpoints").is_dir() or folder.parent.name == "checkpoints":
        return _Checkpoint(path)
    return NgramModel.load(folder)
