"""Stages over a batch: each rule is found, documents go their ways, changes keep their place."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from jaxlm.config.corpus import Prepare, Source
from jaxlm.config.load import validate
from jaxlm.corpus.apply import KEPT, apply, groups
from jaxlm.corpus.documents import Documents, Strings
from jaxlm.corpus.ledger import RuleCount, Tally
from jaxlm.corpus.stages.base import replaced

SOURCE = Source(name="s", path="x")


def documents(*texts: str) -> Documents:
    return Documents.of(SOURCE, (text.encode() for text in texts))


def test_taggers_go_together_and_editors_alone() -> None:
    stages = ("unicode", "quality.length", "quality.gopher", "unicode")
    assert list(groups(stages)) == [
        ("unicode",),
        ("quality.length", "quality.gopher"),
        ("unicode",),
    ]


def test_a_document_falls_once_but_every_rule_is_known() -> None:
    tally = Tally()
    stages = ("quality.length", "quality.gopher")
    left, tags, (found,) = apply(documents("tiny", "# " * 60), stages, Prepare(), tally)
    assert len(left) == 0
    assert found.dropped.tolist() == [0, 1]
    assert found.columns["quality.gopher.words"][0] == 1
    lines = [json.loads(line) for line in tally.lines]
    assert [(e["id"], e["stage"]) for e in lines if e["rule"].startswith("min_b")] == [
        ("0", "quality.length")
    ]
    assert {e["id"] for e in lines if e["stage"] == "quality.gopher"} == {"1"}
    gopher = tally.rules["quality.gopher.max_hash_ratio"]
    assert (gopher.documents, gopher.judged, gopher.failed) == (1, 2, 1)
    assert tags["quality.gopher.words"].shape == (0,)


def test_documents_of_other_languages_go_other_ways() -> None:
    config = validate({
        "train": {"steps": 1},
        "prepare": {"routes": [
            {"languages": ["de"], "set": {"quality.length.min_bytes": 2}},
            {"languages": ["fr"], "skip": ["quality.length"]},
        ]},
    }).prepare  # fmt: skip
    batch = documents("abc", "abc", "abc", "")
    batch.languages[:] = ["en", "de", "fr", "de"]
    left, _, (found,) = apply(batch, ("quality.length",), config, Tally())
    assert [left.id(i) for i in range(len(left))] == ["1", "2"]
    np.testing.assert_array_equal(found.columns["quality.length.bytes"], [3, 3, np.nan, 0])
    assert found.dropped.tolist() == [0, KEPT, KEPT, 0]


def test_changes_come_back_to_their_documents() -> None:
    config = validate({
        "train": {"steps": 1}, "prepare": {"routes": [{"languages": ["de"], "skip": ["unicode"]}]},
    }).prepare  # fmt: skip
    batch = documents("e\u0301", "e\u0301", "\x01", "a\r\nb")
    batch.languages[:] = ["en", "de", "en", "en"]
    tally = Tally()
    left, _, _ = apply(batch, ("unicode",), config, tally)
    assert [left.texts[i].decode() for i in range(len(left))] == ["\u00e9", "e\u0301", "a\nb"]
    assert {(e["id"], e["rule"], e["action"]) for e in map(json.loads, tally.lines)} >= {
        ("0", "nfc", "change"), ("2", "empty", "drop"), ("3", "newlines", "change"),
    }  # fmt: skip


@given(some.lists(some.text(max_size=20), min_size=1, max_size=4), some.data())
def test_pieces_are_replaced_as_in_plain_python(texts: list[str], data: some.DataObject) -> None:
    strings = Strings.of(text.encode() for text in texts)
    starts, ends, fills, wanted = [], [], [], []
    for i, text in enumerate(texts):
        raw = text.encode()
        places = sorted(data.draw(some.sets(some.integers(0, len(raw)), max_size=6)))
        out, at = b"", 0
        for a, b in zip(places[::2], places[1::2], strict=False):
            fill = data.draw(some.binary(max_size=4))
            starts.append(int(strings.offsets[i]) + a)
            ends.append(int(strings.offsets[i]) + b)
            fills.append(fill)
            out, at = out + raw[at:a] + fill, b
        wanted.append(out + raw[at:])
    new = replaced(strings, np.array(starts, np.int64), np.array(ends, np.int64), fills)
    assert [new[i] for i in range(len(new))] == wanted


@given(some.text(max_size=30), some.data())
def test_spans_in_characters(text: str, data: some.DataObject) -> None:
    places = sorted(data.draw(some.lists(some.integers(0, len(text)), min_size=2, max_size=2)))
    a, b = (len(text[:place].encode()) for place in places)
    assert documents("\u00e9", text).characters(1, [(a, b)]) == [tuple(places)]


def test_a_histogram_has_the_threshold_between_two_bins() -> None:
    count = RuleCount()
    values = np.array([-1, 0, 0.0999, 0.1, 0.29, 0.3, 5, np.nan])
    count.judge(0.1, values, values > 0.1)
    assert count.judged == 7
    assert count.failed == 3
    bins = {i: n for i, n in enumerate(count.histogram) if n}
    assert bins == {0: 1, 1: 1, 10: 1, 11: 1, 30: 1, 31: 2}


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7, 3.0, 50, 1e5])
def test_a_value_at_the_threshold_is_not_below_it(threshold: float) -> None:
    count = RuleCount()
    count.judge(threshold, np.array([threshold]), np.array([False]))
    assert count.histogram[11] == 1
