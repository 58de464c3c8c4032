"""FineWeb's attributes against datatrove's definitions in plain Python."""

import math

import numpy as np
from hypothesis import example, given

from jaxlm.config.prose import FineWeb
from jaxlm.corpus.stages.fineweb import ends_line
from jaxlm.corpus.words import Words
from tests.corpus.stages.prose import TEXTS, marked, tags

RULES = FineWeb()


def plain(text: str) -> dict[str, float]:
    """The attributes, line by line."""
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return {"lines": 0} | dict.fromkeys(
            ("ended_lines", "short_lines", "duplicate_characters", "newline_ratio"), math.nan
        )
    again = sum(len(line) for i, line in enumerate(lines) if line in lines[:i])
    return {
        "lines": len(lines),
        "ended_lines": sum(ends_line(line[-1]) for line in lines) / len(lines),
        "short_lines": sum(len(line) <= RULES.short_line for line in lines) / len(lines),
        "duplicate_characters": again / len(text.replace("\n", "")),
        "newline_ratio": text.count("\n") / len(Words.of_text(text, "unicode")),
    }


@given(TEXTS)
@example(["", "\n \n", "x" * 30 + "\n" + "x" * 31, "a.\na.\n\n\u4e00\u3002\n\u3000\n"])
def test_attributes(texts: list[str]) -> None:
    found = tags("quality.fineweb", RULES, texts)
    for i, text in enumerate(texts):
        for name, value in plain(text).items():
            np.testing.assert_equal(found[name][i], value, err_msg=name)


def test_terminal_punctuation() -> None:
    assert [c for c in ".?!\u3002\uff01\u061f\u0964\u203d\"';:\u2026" if ends_line(c)] == [
        *".?!\u3002\uff01\u061f\u0964\u203d"
    ]


def test_spans() -> None:
    assert marked("quality.fineweb", RULES, "An end.\nno end \n\nAn end.\n" + "x" * 31) == {
        "min_ended_lines": ["no end ", "x" * 31],
        "max_short_lines": ["An end.", "no end ", "An end."],
        "max_duplicate_characters": ["An end."],
    }
