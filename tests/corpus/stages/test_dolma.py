"""Dolma's dialects against what Dolma's own taggers say (tests/reference/make_dolma.py), and its
decisions on 719 documents."""

import itertools
import json
from collections import Counter
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as some

from jaxlm.config.corpus import Source
from jaxlm.config.dolma import DolmaC4, DolmaGopher
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.stages import EDITORS, TAGGERS, decide
from jaxlm.corpus.stages.base import Edit, Tags
from jaxlm.corpus.stages.sets import SETS
from jaxlm.corpus.statistics import Analysis

REFERENCE = Path(__file__).parents[2] / "reference"
EVERY = 9  # as in make_dolma.py
SOURCE = Source(name="s", path="x.txt")
TEXTS = some.lists(some.text("ab\u00e9#*-\u2026 \n\u4e00\u2028{", max_size=60), max_size=4)


@cache
def decisions() -> list[dict[str, object]]:
    with open(REFERENCE / "rule_decisions.jsonl.zst", "rb") as file:
        data = zstandard.ZstdDecompressor().stream_reader(file).read()
    return [json.loads(line) for line in data.decode().splitlines()]


def analysis(*texts: object) -> Analysis:
    return Analysis(Documents.of(SOURCE, (str(text).encode() for text in texts)))


def gopher(*texts: object) -> Tags:
    return TAGGERS["quality.dolma_gopher"](analysis(*texts), DolmaGopher())


def c4(*texts: object) -> Edit:
    return EDITORS["quality.dolma_c4"](analysis(*texts), DolmaC4())


def test_decisions_equal_dolmas() -> None:
    chosen = SETS["gopher.dolma"]
    rows = decisions()
    failures = decide(chosen.rules, gopher(*(row["text"] for row in rows)))
    for i, row in enumerate(rows):
        wanted = row["dolma_v1_6"]
        assert isinstance(wanted, list)
        found = [chosen.reasons[f.rule] for f in failures if f.failed[i]]
        assert found == [reason for reason in wanted if reason != "pii>5"], row["id"]


def test_values_equal_dolmas() -> None:
    wanted = np.load(REFERENCE / "dolma.npz")
    corners = json.loads(str(wanted["corners"]))
    texts = [row["text"] for row in decisions()][::EVERY] + corners
    found = gopher(*texts)
    names = {
        "words": "word_count",
        "median_word_length": "median_word_length",
        "symbol_ratio": "symbol_to_word_ratio",
        "alphabetic_words": "fraction_of_words_with_alpha_character",
        "required_words": "required_word_count",
        "bullet_lines": "fraction_of_lines_starting_with_bullet_point",
        "ellipsis_lines": "fraction_of_lines_ending_with_ellipsis",
        "duplicate_lines": "fraction_of_duplicate_lines",
        "duplicate_line_characters": "fraction_of_characters_in_duplicate_lines",
        **{f"top_{n}gram": f"fraction_of_characters_in_most_common_{n}grams" for n in (2, 3, 4)},
        **{
            f"duplicate_{n}grams": f"fraction_of_characters_in_duplicate_{n}grams"
            for n in range(5, 11)
        },
    }
    assert set(names) == set(found)
    for ours, theirs in names.items():
        np.testing.assert_array_equal(found[ours], wanted[f"gopher.{theirs}"], err_msg=ours)
    tags = c4(*texts).tags
    for ours, theirs in {
        "curly_brace": "v2.has_curly_brace",
        "lorem_ipsum": "v2.has_lorem_ipsum",
        "javascript": "v2.has_javascript",
        "javascript_words": "v1.has_javascript",
        "naughty_word": "v2.has_naughty_word",
        "lines": "v2.line_count",
        "lines_without_end": "v2.lines_with_no_ending_punctuation",
        "short_lines": "v2.lines_with_too_few_words",
    }.items():
        np.testing.assert_array_equal(tags[ours], wanted[theirs], err_msg=ours)
        assert wanted[theirs].any()


def plain(text: str) -> dict[str, float]:
    """Some of the attributes, word by word."""
    words, lines = text.split(), Counter(text.split("\n"))
    pairs = Counter(itertools.pairwise(words))
    fives = Counter(tuple(words[i : i + 5]) for i in range(len(words) - 4))
    visible = sum(map(len, words))
    out: dict[str, float] = {
        "words": len(words),
        "median_word_length": median(map(len, words)) if words else 0,
        "duplicate_lines": sum(n for n in lines.values() if n > 1) / lines.total() if text else 0,
    }
    if pairs:
        top, number = pairs.most_common(1)[0]
        out["top_2gram"] = number * len("".join(top)) / visible
    if fives:
        sizes = {gram: number * len("".join(gram)) for gram, number in fives.items()}
        out["duplicate_5grams"] = sum(sizes[g] for g in fives if fives[g] > 1) / sum(sizes.values())
    return out


@given(TEXTS | some.lists(some.text(max_size=80), max_size=3))
def test_gopher_by_words(texts: list[str]) -> None:
    found = gopher(*texts)
    for i, text in enumerate(texts):
        wanted = plain(text)
        for name in ("top_2gram", "duplicate_5grams"):
            wanted.setdefault(name, np.nan)
        np.testing.assert_array_equal([found[name][i] for name in wanted], list(wanted.values()))


@given(TEXTS)
def test_c4_keeps_whole_lines(texts: list[str]) -> None:
    edit = c4(*texts)
    for i, text in enumerate(texts):
        lines = [line for line in text.split("\n") if line.strip().endswith((".", "?", "!", '"'))]
        kept = edit.texts[i].decode()
        assert (
            kept.split("\n")[:-1]
            == [line for line in lines if len(line.split()) > 2][: kept.count("\n")]
        )


def test_c4_cuts_lines_without_an_end_and_short_ones() -> None:
    edit = c4('Title\nThis line is kept.\nToo short.\n\nSo is \u201cthis one"', "nothing")
    assert edit.texts[0].decode() == 'This line is kept.\nSo is \u201cthis one"'
    assert edit.texts[1] == b""
    names = [edit.changes.names[k] for k in edit.changes.name]
    assert names == ["lines_without_end", "short_lines", "lines_without_end", "lines_without_end"]


@pytest.mark.parametrize(
    ("text", "rule"), [("a { b", "max_curly_brace"), ("Lorem Ipsum", "max_lorem_ipsum"),
                       ("useJavaScript", "max_javascript"), ("SHIT happens", "max_naughty_word")]
)  # fmt: skip
def test_c4_rules(text: str, rule: str) -> None:
    failed = [f.rule for f in decide(DolmaC4(), c4(text).tags) if f.failed[0]]
    assert failed == [rule]
    quiet = DolmaC4(naughty_words=None)
    tags = EDITORS["quality.dolma_c4"](analysis("SHIT happens"), quiet).tags
    assert tags["naughty_word"] == 0
