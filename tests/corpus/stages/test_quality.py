"""Attributes against a plain Python computation, and thresholds at their edges."""

import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from jaxlm.config.corpus import Code, Gopher, Source
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.stages import TAGGERS, decide
from jaxlm.corpus.stages.quality import STOP_WORDS
from jaxlm.corpus.statistics import Analysis

ALPHABET = "ab.#-* \n\u2026\u2022\u4e00\u00e9"
LINES = some.lists(some.text(ALPHABET, max_size=30) | some.sampled_from(STOP_WORDS), max_size=8)
PROSE = Source(name="s", path="x.txt")


def tag(stage: str, *texts: str) -> dict[str, list[float]]:
    tags = TAGGERS[stage](Analysis(Strings.of(text.encode() for text in texts)))
    return {name: values.tolist() for name, values in tags.items()}


def plain_gopher(text: str) -> dict[str, float]:
    """The same attributes, word by word."""
    words = text.split()
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    number = max(1, len(words))
    letter = re.compile("[A-Za-z\u00c0-\u1fff\u3000-\uefff]")
    return {
        "words": len(words),
        "mean_word_length": sum(map(len, words)) / number,
        "hash_ratio": text.count("#") / number,
        "ellipsis_ratio": (text.count("...") + text.count("\u2026")) / number,
        "bullet_lines": sum(line[0] in "\u2022-*" for line in lines) / max(1, len(lines)),
        "ellipsis_lines": sum(line.endswith(("...", "\u2026")) for line in lines)
        / max(1, len(lines)),
        "alphabetic_words": sum(bool(letter.search(word)) for word in words) / number,
        "stop_words": len({word.lower() for word in words} & set(STOP_WORDS)),
    }


@given(some.lists(LINES.map("\n".join), max_size=5))
@example(["the ...", "....the\n* be... \n", ".", "THE And tHe"])
@example(["end of one.", "..", "...."])
def test_gopher_attributes(texts: list[str]) -> None:
    found = tag("quality.gopher", *texts)
    for name in found:
        wanted = [plain_gopher(text)[name] for text in texts]
        np.testing.assert_allclose(found[name], wanted, err_msg=name)


def test_published_thresholds_decide_at_their_edge() -> None:
    words = [*STOP_WORDS, "it", "is"]
    just = " ".join((words * 5)[:50])
    tags = TAGGERS["quality.gopher"](Analysis(Strings.of([just.encode(), just[:-3].encode()])))
    failures = {
        f.rule: f.failed.tolist() for f in decide(Gopher(min_mean_word_length=2), tags, PROSE)
    }
    assert failures.pop("min_words") == [False, True]
    assert not any(any(failed) for failed in failures.values())


def test_rules_do_not_judge_other_kinds_and_languages() -> None:
    tags = TAGGERS["quality.gopher"](Analysis(Strings.of([b"x"])))
    assert decide(Gopher(), tags, PROSE)
    assert not decide(Gopher(), tags, PROSE.model_copy(update={"kind": "code"}))
    assert not decide(Gopher(), tags, PROSE.model_copy(update={"language": "zh"}))


def test_a_threshold_of_null_is_no_rule() -> None:
    tags = TAGGERS["quality.gopher"](Analysis(Strings.of([b"x"])))
    rules = [failure.rule for failure in decide(Gopher(min_words=None), tags, PROSE)]
    assert "min_words" not in rules
    assert "max_words" in rules


def test_repetition_counts_later_copies_and_their_bytes() -> None:
    text = "one two\n\nthree\none two\n\nthree\none two"
    found = tag("quality.repetition", text, "one two", "")
    assert found["duplicate_lines"] == pytest.approx([3 / 5, 0, 0])
    assert found["duplicate_line_bytes"] == pytest.approx([19 / 31, 0, 0])
    assert found["duplicate_paragraphs"] == pytest.approx([1 / 3, 0, 0])


def test_code_attributes() -> None:
    found = tag("quality.code", "ab\n\u00e9\u00e9\u00e9\u00e9", "", "++\n", "a")
    assert found["mean_line_length"] == pytest.approx([3, 0, 2, 1])
    assert found["line_length"] == [4, 0, 2, 1]
    assert found["alphanumeric_share"] == pytest.approx([6 / 7, 0, 0, 1])
    assert decide(Code(), TAGGERS["quality.code"](Analysis(Strings.of([b"a"]))), PROSE) == []


@given(some.lists(some.text()))
def test_every_tagger_takes_any_text(texts: list[str]) -> None:
    strings = Strings.of(text.encode() for text in texts)
    for tagger in TAGGERS.values():
        for values in tagger(Analysis(strings)).values():
            assert values.shape == (len(texts),)
            assert np.isfinite(values).all()
