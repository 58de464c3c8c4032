"""Rules that count words, against plain Python and against Dolma's search for repetitions."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from numpy.typing import NDArray

from jaxlm.config.corpus import Source
from jaxlm.config.rules import Rules
from jaxlm.config.words import Forum, Repeats, StopWords, Symbols, Wiki
from jaxlm.corpus.characters import spaceless
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.stages import TAGGERS, decide
from jaxlm.corpus.statistics import Analysis

SOURCE = Source(name="s", path="x.txt")
SECTIONS: dict[str, Rules] = {
    "repeats": Repeats(),
    "stop_words": StopWords(),
    "symbols": Symbols(),
    "forum": Forum(),
    "wiki": Wiki(),
}
TEXTS = some.lists(some.text("ab.#\u2026 \n\u4e2d\u0e01\u00e9", max_size=40), max_size=4)


def tag(stage: str, *texts: str, rules: Rules | None = None) -> dict[str, NDArray[np.float64]]:
    documents = Documents.of(SOURCE, (text.encode() for text in texts))
    return TAGGERS[f"quality.{stage}"](Analysis(documents), rules or SECTIONS[stage])


def split(text: str) -> list[str]:
    alone = spaceless()
    spread = "".join(f" {c} " if ord(c) < len(alone) and alone[ord(c)] else c for c in text)
    return spread.split()


def in_a_row(words: list[str], longest: int) -> int:
    """By trying every place and every length."""
    best = min(1, len(words))
    for size, start in itertools.product(range(1, longest + 1), range(len(words))):
        unit = words[start : start + size]
        times = 0
        while len(unit) == size and words[start + size * times :][:size] == unit:
            times += 1
        best = max(best, times)
    return best


@given(TEXTS)
def test_words_and_repeats(texts: list[str]) -> None:
    counted = tag("wiki", *texts)["words"]
    assert counted.tolist() == [len(split(text)) for text in texts]
    found = tag("repeats", *texts, rules=Repeats(longest=4))["repeated_words"]
    assert found.tolist() == [in_a_row(split(text), 4) for text in texts]


def test_repeats_are_those_that_dolma_finds() -> None:
    """Where Dolma finds any: it wants three times, and sees no more than 13 tokens."""
    rows = json.loads((Path(__file__).parents[2] / "reference/dolma_repeats.json").read_text())
    texts = [" ".join(map(str, row["tokens"])) for row in rows]
    found = tag("repeats", *texts)["repeated_words"].tolist()
    for ours, row in zip(found, rows, strict=True):
        assert ours == row["times"] if row["times"] else ours < 5, row
    assert sum(row["times"] > 2 for row in rows) > 10


def test_a_hundred_times_is_too_often() -> None:
    texts = ["x " + "la " * 99, "la " * 100, "\u54c8" * 100, "do it " * 100 + "now",
             "One. " * 99 + "Two. ", "It is so. Is it? " * 100]  # fmt: skip
    tags = tag("repeats", *texts)
    failures = {f.rule: f.failed.tolist() for f in decide(Repeats(), tags)}
    assert failures["max_repeated_words"] == [False, True, True, True, False, True]
    assert failures["max_repeated_sentences"] == [False, False, False, False, False, True]


def test_stop_words() -> None:
    texts = ["THE cat", "theatre, befall, bed", "to-be", "", "have\u2014with: (of)", "that's"]
    assert tag("stop_words", *texts)["stop_words"].tolist() == [1, 0, 2, 0, 3, 1]
    failed = decide(StopWords(), tag("stop_words", *texts))[0].failed
    assert failed.tolist() == [False, True, False, True, False, False]


@given(TEXTS)
def test_symbols(texts: list[str]) -> None:
    found = tag("symbols", *texts)["symbol_ratio"]
    for value, text in zip(found, texts, strict=True):
        wanted = sum(map(text.count, ("#", "...", "\u2026")))
        assert value == wanted / max(1, len(split(text)))


def test_forum() -> None:
    metas = [{"likes": 3}, {"likes": "2"}, {"likes": -4.5}, {"likes": None}, {}, {"likes": "x"},
             {"likes": True}, {"likes": "9" * 400}]  # fmt: skip
    packed = [json.dumps(meta).encode() for meta in metas] + [b""]
    documents = Documents.of(SOURCE, [b"text"] * len(packed), meta=packed)
    tags = TAGGERS["quality.forum"](Analysis(documents), Forum())
    nan = math.nan
    np.testing.assert_array_equal(tags["likes"], [3, 2, -4.5, nan, nan, nan, nan, math.inf, nan])
    failed = decide(Forum(), tags)[0].failed.tolist()
    assert failed == [False, True, True] + [False] * 6


def test_wiki() -> None:
    texts = ["w " * 24, "w " * 25, "\u4e2d" * 25]
    failed = decide(Wiki(), tag("wiki", *texts))[0].failed.tolist()
    assert failed == [True, False, False]


@pytest.mark.parametrize("stage", list(SECTIONS))
@given(texts=some.lists(some.text(), max_size=4))
def test_takes_any_text(stage: str, texts: list[str]) -> None:
    for name, values in tag(stage, *texts).items():
        assert values.shape == (len(texts),)
        assert np.isfinite(values).all() or name == "likes"
