"""Gopher's attributes against the words and lines that Python sees."""

import math

import numpy as np
from hypothesis import example, given

from jaxlm.config.prose import Gopher
from jaxlm.corpus.classes import MARK, classes
from jaxlm.corpus.stages import TAGGERS, decide
from jaxlm.corpus.words import Words
from tests.corpus.stages.prose import TEXTS, analysis, marked, tags

RULES = Gopher()


def plain(text: str) -> dict[str, float]:
    """The attributes, word by word."""
    words = [text[a:b] for a, b in Words.of_text(text, "unicode")]
    kinds = classes()
    real = [
        word for word in words
        if any(ord(c) >= len(kinds) or not kinds[ord(c)] & MARK for c in word)
    ]  # fmt: skip
    lines = text.splitlines()
    number = len(words) or math.nan
    rows = len(lines) or math.nan
    return {
        "words": len(real),
        "mean_word_length": sum(map(len, real)) / (len(real) or math.nan),
        "hash_ratio": text.count("#") / number,
        "ellipsis_ratio": (text.count("...") + text.count("\u2026")) / number,
        "symbol_ratio": max(text.count("#"), text.count("...") + text.count("\u2026")) / number,
        "bullet_lines": sum(line.lstrip().startswith(("\u2022", "-")) for line in lines) / rows,
        "ellipsis_lines": sum(line.rstrip().endswith(("...", "\u2026")) for line in lines) / rows,
        "alphabetic_words": sum(any(map(str.isalpha, word)) for word in words) / number,
        "stop_words": len({*words} & {*RULES.stop_words}),
    }


@given(TEXTS)
@example(["the ...", "....the\n* be... \n", ".", "THE And tHe the", ""])
@example(["end of one.", "..", "....", "..\n.", "a....\r\n\r\n.. ."])
def test_attributes(texts: list[str]) -> None:
    found = tags("quality.gopher", RULES, texts)
    for i, text in enumerate(texts):
        for name, value in plain(text).items():
            np.testing.assert_equal(found[name][i], value, err_msg=name)


def test_published_thresholds_decide_at_their_edge() -> None:
    just = " ".join(["the and that have stone"] * 10)
    texts = [just, just.rsplit(" ", 1)[0], just + " #" * 6]
    found = TAGGERS["quality.gopher"](analysis(texts), RULES)
    failures = {failure.rule: failure.failed.tolist() for failure in decide(RULES, found)}
    assert failures.pop("min_words") == [False, True, False]
    assert failures.pop("max_hash_ratio") == [False, False, True]
    assert not any(any(failed) for failed in failures.values())


def test_stop_words_are_those_of_the_section() -> None:
    rules = Gopher(stop_words=("der", "\u7684"))
    assert tags("quality.gopher", rules, ["der Stein \u6211\u7684", "Der the"])["stop_words"] == [
        2,
        0,
    ]


def test_spans() -> None:
    text = "- one...\nx # y\u2026\n \u2022 two 12"
    assert marked("quality.gopher", RULES, text) == {
        "max_hash_ratio": ["#"],
        "max_ellipsis_ratio": ["...", "\u2026"],
        "max_symbol_ratio": ["...", "#", "\u2026"],
        "max_bullet_lines": ["- one...\n", " \u2022 two 12"],
        "max_ellipsis_lines": ["- one...\n", "x # y\u2026\n"],
        "min_alphabetic_words": ["-", "...", "#", "\u2026", "\u2022", "12"],
    }
