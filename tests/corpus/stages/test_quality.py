"""The size of documents, and what holds for every tagger."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from jaxlm.config import quality
from jaxlm.config.corpus import Source
from jaxlm.config.prose import Gopher
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.stages import TAGGERS, decide
from jaxlm.corpus.stages.base import Tags
from jaxlm.corpus.stages.sets import SETS
from jaxlm.corpus.statistics import Analysis

SOURCE = Source(name="s", path="x.txt")
PROSE = ("quality.length", "quality.gopher", "quality.repetition", "quality.fineweb")


def tag(stage: str, *texts: str) -> Tags:
    documents = Documents.of(SOURCE, (text.encode() for text in texts))
    rules = next(chosen.rules for chosen in SETS.values() if chosen.stage == stage)
    return TAGGERS[stage](Analysis(documents), rules)


def test_length_is_bytes() -> None:
    found = tag("quality.length", "", "é", "abc")
    assert found["bytes"].tolist() == [0, 2, 3]
    (least,) = decide(quality.Length(min_bytes=3), found)
    assert least.failed.tolist() == [True, True, False]


def test_a_threshold_of_null_is_no_rule() -> None:
    rules = [failure.rule for failure in decide(Gopher(min_words=None), tag("quality.gopher", "x"))]
    assert "min_words" not in rules
    assert "max_words" in rules


@pytest.mark.parametrize("stage", PROSE)
@given(some.lists(some.text(), max_size=5))
def test_a_document_is_judged_by_itself(stage: str, texts: list[str]) -> None:
    together = tag(stage, *texts)
    for i, text in enumerate(texts):
        for name, values in tag(stage, text).items():
            assert together[name].shape == (len(texts),)
            np.testing.assert_array_equal(together[name][i], values[0], err_msg=name)
