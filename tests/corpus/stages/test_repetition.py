"""Repetition's attributes against datatrove's definitions in plain Python."""

import math
import re
from collections import Counter

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as some

from jaxlm.config.prose import Repetition
from jaxlm.corpus.words import Words
from tests.corpus.stages.prose import TEXT, marked, tags

RULES = Repetition()
FEW = some.lists(some.sampled_from(["a", "b", "ab", "a b", "\u00e9"]), max_size=60).map(" ".join)


def plain(text: str) -> dict[str, float]:
    """The attributes, piece by piece."""
    whole = len(text) or math.nan
    out: dict[str, float] = {"characters": len(text)}
    for name, pieces in (
        ("paragraph", re.split("\n{2,}", text.strip())),
        ("line", re.split("\n+", text)),
    ):
        again = [piece for i, piece in enumerate(pieces) if piece in pieces[:i]]
        out[f"duplicate_{name}s"] = len(again) / len(pieces) if text else math.nan
        out[f"duplicate_{name}_characters"] = sum(map(len, again)) / whole
    words = [text[a:b] for a, b in Words.of_text(text, "unicode")]
    for n in (2, 3, 4):
        grams = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
        gram, number = grams.most_common(1)[0] if grams else ("", math.nan)
        out[f"top_{n}gram"] = len(gram) * number / whole
    for n in range(5, 11):
        seen: set[str] = set()
        i = size = 0
        while i + n <= len(words):
            joined = "".join(words[i : i + n])
            size += len(joined) * (joined in seen)
            i += n if joined in seen else 1
            seen.add(joined)
        out[f"duplicate_{n}grams"] = size / whole
    return out


@given(some.lists(TEXT | FEW, max_size=4))
@example(["", "\n", "\n\n", " ", "a\n", "\na\n\n\na"])
@example(["one two\n\nthree\none two\n\nthree\none two", "x" * 600 + " " + "x" * 600 + " y" * 9])
@example(["a b c d e ab c d ea b c d e a", "a b a b c d c d"])
def test_attributes(texts: list[str]) -> None:
    found = tags("quality.repetition", RULES, texts)
    for i, text in enumerate(texts):
        for name, value in plain(text).items():
            np.testing.assert_equal(found[name][i], value, err_msg=name)


def test_spans() -> None:
    found = marked("quality.repetition", RULES, "a b\nc\n\na b\n\na b\nc\n")
    assert found["max_duplicate_paragraphs"] == ["a b\nc"]
    assert found["max_duplicate_lines"] == ["a b", "a b", "c"]
    assert found["max_top_2gram"] == ["a b"] * 3
    assert found["max_top_3gram"] == ["a b\nc", "a b\nc"]
    assert found["max_duplicate_5grams"] == []
    text = "one two three four five, one two three four five"
    assert marked("quality.repetition", RULES, text)["max_duplicate_5grams"] == [text[25:]]


@given(TEXT | FEW)
def test_spans_have_the_characters_that_count(text: str) -> None:
    found = marked("quality.repetition", RULES, text)
    wanted = plain(text)
    for rule, pieces in found.items():
        name = rule.removeprefix("max_")
        if text and name.endswith("characters"):
            assert sum(map(len, pieces)) / len(text) == wanted[name]
        if text and name.startswith("duplicate_") and name.endswith("grams"):
            bare = sum(len("".join(piece.split())) for piece in pieces)
            assert bare / len(text) == wanted[name]
