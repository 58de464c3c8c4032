"""Toxic sentences: the shipped model against its package, what is cut, any text."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from jaxlm.config.classifiers import Toxicity
from jaxlm.config.corpus import Source
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.sentences import sentences
from jaxlm.corpus.stages import decide
from jaxlm.corpus.stages.base import Edit
from jaxlm.corpus.stages.toxicity import spans, toxicity
from jaxlm.corpus.statistics import Analysis
from jaxlm.errors import UserError

REFERENCE = Path(__file__).parents[2] / "reference" / "profanity.json"
SOURCE = Source(name="s", path="x")
DEFAULT = Toxicity()


def run(texts: list[str], rules: Toxicity = DEFAULT) -> Edit:
    return toxicity(Analysis(Documents.of(SOURCE, (text.encode() for text in texts))), rules)


def test_scores_are_those_of_the_package() -> None:
    rows = json.loads(REFERENCE.read_text(encoding="utf-8"))
    found = run([row["text"] for row in rows]).tags["score"]
    wanted = [row["score"] if row["text"] else 0.0 for row in rows]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_sentences_are_cut_and_the_rest_stays() -> None:
    text = "You are an idiot and I hate you. The village has a pump. Fuck off!\nA river."
    edit = run(["A river.", text])
    assert edit.texts[1].decode() == "The village has a pump. \nA river."
    assert edit.texts[0].decode() == "A river."
    changes = edit.changes
    assert changes.document.tolist() == [1, 1]
    pieces = [text[a:b] for a, b in zip(changes.start, changes.end, strict=True)]
    assert pieces == ["You are an idiot and I hate you. ", "Fuck off!"]
    sizes = [len(text[s:e]) for s, e in zip(*_places(text), strict=True)]
    assert edit.tags["share"][1] == pytest.approx((sizes[0] + sizes[2]) / sum(sizes))
    assert edit.tags["sentence"][1] > 0.9
    shown = spans(text, Toxicity())
    assert [text[a:b] for a, b in shown["max_share"]] == [piece.strip() for piece in pieces]


def _places(text: str) -> tuple[list[int], list[int]]:
    found = sentences(Documents.of(SOURCE, [text.encode()]).texts)
    return found.starts.tolist(), found.ends.tolist()


def test_documents_may_be_dropped_instead() -> None:
    rules = Toxicity(cut_above=None, max_sentence=0.9)
    edit = run(["You idiot, fuck off. A river.", "A river."], rules)
    assert len(edit.changes) == 0
    (failure,) = decide(rules, edit.tags)
    assert failure.failed.tolist() == [True, False]


@given(some.lists(some.text(max_size=60) | some.text("fuck idiot. !\n", max_size=60), max_size=4))
def test_any_text(texts: list[str]) -> None:
    edit = run(texts)
    assert len(edit.texts) == len(texts)
    for values in edit.tags.values():
        assert ((values >= 0) & (values <= 1)).all()
    for i, text in enumerate(texts):
        here = edit.changes.document == i
        kept, at = b"", 0
        raw = text.encode()
        for a, b in zip(edit.changes.start[here], edit.changes.end[here], strict=True):
            assert at <= a < b <= len(raw)
            raw[a:b].decode()
            kept, at = kept + raw[at:a], b
        # what is left is the rest, but for white space after what was cut
        left = edit.texts[i].decode()
        assert "".join(left.split()) == "".join((kept + raw[at:]).decode().split())
        alone = run([text])
        assert alone.texts[0] == edit.texts[i]


def test_a_missing_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no classifier there"):
        run(["a"], Toxicity(model=str(tmp_path)))
