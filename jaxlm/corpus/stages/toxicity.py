"""Editor: toxic or profane text, sentence by sentence."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from jaxlm.config.classifiers import Toxicity
from jaxlm.config.rules import Rules
from jaxlm.corpus import statistics as st
from jaxlm.corpus.classify.linear import LinearModel
from jaxlm.corpus.classify.profanity import Profanity, profanity
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.sentences import sentences, with_space_after
from jaxlm.corpus.stages.base import Changes, Edit, replaced
from jaxlm.corpus.statistics import Analysis, Spans


def toxicity(texts: Analysis, rules: Rules) -> Edit:
    """Score documents and their sentences, and cut the sentences at `cut_above`, as Dolma does.

    An empty document scores 0.
    """
    assert isinstance(rules, Toxicity)
    strings = texts.texts
    model = model_of(rules.model)
    found = model.words(strings)
    offsets = strings.offsets
    whole = Spans(offsets[:-1], offsets[1:], np.arange(len(strings) + 1))
    parts = sentences(strings)
    scores = model.score(found, parts)
    cut = scores >= rules.cut_above if rules.cut_above is not None else np.zeros(len(parts), bool)
    sizes = parts.ends - parts.starts
    ends = with_space_after(strings, parts)[cut]
    starts, document = parts.starts[cut], parts.documents[cut]
    tags = {
        "score": np.where(strings.lengths > 0, model.score(found, whole), 0.0),
        "sentence": _maxima(scores, parts),
        "share": st.sums(sizes * cut, parts.first) / np.maximum(st.sums(sizes, parts.first), 1),
    }
    begin = offsets[document]
    changes = Changes(("sentence",), document, np.zeros(len(document), np.int64),
                      starts - begin, ends - begin)  # fmt: skip
    return Edit(tags, replaced(strings, starts, ends), changes)


EDITORS: dict[str, Callable[[Analysis, Rules], Edit]] = {"toxicity": toxicity}


def spans(text: str, rules: Rules) -> dict[str, list[tuple[int, int]]]:
    """The sentence that scores highest, and those that would be cut, in characters."""
    assert isinstance(rules, Toxicity)
    from jaxlm.config.corpus import Source

    documents = Documents.of(Source(name="text", path="text"), [text.encode()])
    strings = documents.texts
    model = model_of(rules.model)
    parts = sentences(strings)
    if not len(parts):
        return {}
    scores = model.score(model.words(strings), parts)
    places = documents.characters(
        0, list(zip(parts.starts.tolist(), parts.ends.tolist(), strict=True))
    )
    worst = [places[int(scores.argmax())]]
    level = rules.cut_above if rules.cut_above is not None else 0.5
    above = [place for place, score in zip(places, scores, strict=True) if score >= level]
    return {"max_sentence": worst, "max_score": above or worst, "max_share": above}


SPANS: dict[str, Callable[[str, Rules], dict[str, list[tuple[int, int]]]]] = {"toxicity": spans}


def _files(rules: Rules) -> list[Path]:
    """The files of the model; it is read, so that a broken one is told at the beginning."""
    assert isinstance(rules, Toxicity)
    model_of(rules.model)
    return [Path(rules.model) / name for name in LinearModel.FILES] if rules.model else []


FILES: dict[str, Callable[[Rules], list[Path]]] = {"toxicity": _files}


def model_of(folder: str | None) -> LinearModel | Profanity:
    """The classifier in a folder, or the one that jaxlm ships."""
    return profanity() if folder is None else _loaded(folder)


@lru_cache(maxsize=4)
def _loaded(folder: str) -> LinearModel:
    return LinearModel.load(Path(folder))


def _maxima(values: np.ndarray, spans: Spans) -> np.ndarray:
    """The largest value of each document, 0 for one without spans."""
    out = np.zeros(len(spans.first) - 1)
    some = spans.counts > 0
    if some.any():
        out[some] = np.maximum.reduceat(values, spans.first[:-1][some])
    return out
