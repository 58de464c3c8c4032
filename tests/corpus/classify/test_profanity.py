"""The shipped model against what the package it comes from says."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from jaxlm.corpus.classify.profanity import profanity
from jaxlm.corpus.classify.tokens import plain_words, words
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.statistics import Spans
from jaxlm.errors import UserError

REFERENCE = Path(__file__).parents[2] / "reference" / "profanity.json"


def scores(texts: list[str]) -> list[float]:
    packed = Strings.of(text.encode() for text in texts)
    whole = Spans(packed.offsets[:-1], packed.offsets[1:], np.arange(len(texts) + 1))
    model = profanity()
    return model.score(model.words(packed), whole).tolist()


def test_same_probabilities_as_alt_profanity_check() -> None:
    rows = json.loads(REFERENCE.read_text(encoding="utf-8"))
    wanted = [row["score"] for row in rows]
    assert min(wanted) < 0.01 < 0.99 < max(wanted)
    np.testing.assert_allclose(scores([row["text"] for row in rows]), wanted, atol=1e-7)


def test_all_words_of_the_vocabulary_are_apart() -> None:
    model = profanity()
    assert (model.keys != 0).sum() == len(model.idf) == 15442


@given(some.lists(some.text(), max_size=4))
def test_any_text_has_a_probability(texts: list[str]) -> None:
    found = scores(texts)
    assert all(0 <= score <= 1 for score in found)
    assert found == [scores([text])[0] for text in texts]


@given(some.text())
def test_words_start_at_characters(text: str) -> None:
    packed = Strings.of([text.encode()])
    for found in (words(packed), plain_words(packed)):
        assert (np.diff(found.starts) > 0).all()
        assert all(packed.buffer[start] & 0xC0 != 0x80 for start in found.starts)


def test_words_marks_and_characters() -> None:
    def same(a: str, b: str) -> bool:
        found = [words(Strings.of([text.encode()])).hashes.tolist() for text in (a, b)]
        return found[0] == found[1]

    assert same("The  year\n1984", "the year 2024")
    assert not same("the year", "the years")
    chinese = words(Strings.of(["你好 world。".encode()])).hashes
    assert (chinese & 1).tolist() == [1, 1, 0, 0]
    assert len(words(Strings.of(["नमस्ते".encode()])).hashes) == 1


def test_a_missing_model_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profanity.cache_clear()
    monkeypatch.setattr("jaxlm.corpus.classify.profanity.data_folder", lambda: tmp_path)
    with pytest.raises(UserError, match=r"profanity\.npz: missing or broken"):
        profanity()
