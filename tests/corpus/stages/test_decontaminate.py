"""Text of evaluation sets: what is found against a slow search, and what bad files are told."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from pydantic import ValidationError

from jaxlm.config.corpus import Prepare, Source
from jaxlm.config.dedup import Decontamination, EvaluationSet
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.stages.base import Edit
from jaxlm.corpus.stages.decide import decide
from jaxlm.corpus.stages.decontaminate import decontaminate, table
from jaxlm.corpus.statistics import Analysis
from jaxlm.errors import UserError

QUESTION = (
    "Which of these planets, seen from Earth, takes the longest time to go around the Sun once?"
)
SHORT = "The mitochondrion is the powerhouse of the cell."


def items(path: Path, *texts: str) -> EvaluationSet:
    lines = [json.dumps({"q": text, "n": str(k)}) for k, text in enumerate(texts)]
    path.write_text("\n".join(lines))
    return EvaluationSet(name="quiz", path=str(path), fields=("q",), id_field="n")


def edit(section: Decontamination, *texts: str) -> Edit:
    source = Source(name="s", path="x.txt")
    return decontaminate(Analysis(Documents.of(source, (t.encode() for t in texts))), section)


def test_a_document_with_an_item_is_dropped_and_the_item_named(tmp_path: Path) -> None:
    section = Decontamination(sets=(items(tmp_path / "q.jsonl", SHORT, QUESTION),))
    found = edit(
        section,
        "An essay on planets.",
        f"Quiz night! {QUESTION.upper()} Answers overleaf.",
        "- Which of these planets -- seen from Earth -- takes the longest time to go around?",
        "We learn that the mitochondrion is the powerhouse of the cell, and more.",
        "The mitochondrion is the powerhouse of the body.",
    )
    # 17 words have 5 runs of 13, and 14 have 2; case and punctuation play no role
    assert found.tags["overlaps"].tolist() == [0, 5, 2, 1, 0]
    assert dict(found.notes) == {1: "quiz/1", 2: "quiz/1", 3: "quiz/0"}
    assert found.tags["share"].tolist() == [0, 17 / 21, 1, 8 / 13, 0]
    (failure,) = decide(section, found.tags)
    assert failure.rule == "max_overlaps"
    assert failure.failed.tolist() == [False, True, True, True, False]
    assert not len(found.changes)


def test_overlaps_are_cut_out(tmp_path: Path) -> None:
    quiz = items(tmp_path / "q.jsonl", SHORT, QUESTION)
    section = Decontamination(sets=(quiz,), action="cut", max_overlaps=None)
    found = edit(section, f"é: {QUESTION} Saturn? {SHORT} Yes.", "None.")
    assert found.texts[0].decode() == "é: ? Saturn? . Yes."
    assert found.texts[1] == b"None."
    assert decide(section, found.tags) == []
    raw = f"é: {QUESTION} Saturn? {SHORT} Yes.".encode()
    spans = zip(found.changes.start.tolist(), found.changes.end.tolist(), strict=True)
    assert [raw[a:b].decode() for a, b in spans] == [QUESTION[:-1], SHORT[:-1]]
    assert found.notes[0] == "quiz/1, quiz/0"


def test_characters_are_words_where_no_spaces_are(tmp_path: Path) -> None:
    question = "下列行星中绕太阳一周所需时间最长的是哪一颗"
    section = Decontamination(sets=(items(tmp_path / "q.jsonl", question),))
    found = edit(section, f"题目：{question}？", "下列行星中绕太阳")
    assert found.tags["overlaps"].tolist() == [len(question) - 12, 0]


def test_runs_of_many_items_do_not_count(tmp_path: Path) -> None:
    prompt = "Answer the following question with one of the letters A B C or D only"
    texts = [f"{prompt} case number {k}" for k in range(11)]
    assert edit(Decontamination(sets=(items(tmp_path / "a.jsonl", *texts),)), prompt).tags[
        "overlaps"
    ].tolist() == [0]
    few = items(tmp_path / "b.jsonl", *texts[:10])
    assert edit(Decontamination(sets=(few,)), prompt).tags["overlaps"].tolist() == [3]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    some.lists(
        some.text("aB é,\n", min_size=1, max_size=30).filter(str.strip), min_size=1, max_size=4
    ),
    some.lists(some.text("aB é,\n", max_size=60), max_size=4),
    some.integers(2, 5),
)
def test_every_run_is_found(
    tmp_path: Path, evaluated: list[str], texts: list[str], ngram: int
) -> None:
    def words(text: str) -> list[str]:
        return re.findall(r"\w+", text.lower())

    sets = (items(tmp_path / "x.jsonl", *evaluated),)
    section = Decontamination(sets=sets, ngram=ngram, shortest=2, action="cut", max_overlaps=None)
    known = set()
    for text in evaluated:
        size = min(ngram, len(words(text)))
        if size >= 2:
            known |= {tuple(words(text)[i : i + size]) for i in range(len(words(text)) - size + 1)}
    found = edit(section, *texts)
    for d, text in enumerate(texts):
        here = words(text)
        hits = [
            (i, n)
            for i in range(len(here))
            for n in range(ngram, 1, -1)
            if i + n <= len(here) and tuple(here[i : i + n]) in known
        ]
        assert found.tags["overlaps"][d] == len({i for i, _ in hits})
        covered = np.zeros(len(here) + 1, np.bool_)
        for i in {i for i, _ in hits}:
            covered[i : i + max(n for j, n in hits if j == i)] = True
        assert found.tags["share"][d] == pytest.approx(covered.sum() / max(1, len(here)))
        left = [word for word, gone in zip(here, covered, strict=False) if not gone]
        assert words(found.texts[d].decode()) == left


def test_files_of_several_kinds_and_fields(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"question": [QUESTION, "What?"], "answer": [None, SHORT]}), tmp_path / "p.parquet"
    )
    (tmp_path / "lines.txt").write_text(f"First.\n{SHORT}\n")
    sets = (
        EvaluationSet(name="p", path=str(tmp_path / "p.parquet"), fields=("question", "answer")),
        EvaluationSet(name="t", path=str(tmp_path / "lines.txt"), split="\n"),
    )
    known = table(Decontamination(sets=sets))
    assert {known.names[item] for item in known.items.tolist()} == {
        "p/p.parquet:1/question",
        "p/p.parquet:2/answer",
    }
    assert known.names[-1] == "t/lines.txt:2"
    assert known.sizes.tolist() == [13, 8]


def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.jsonl"):
        table(Decontamination(sets=(EvaluationSet(name="x", path=str(tmp_path / "no.jsonl")),)))
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "fine"}\n{"text": \n')
    with pytest.raises(UserError, match=r"'x'.*broken\.jsonl:2: invalid_json"):
        table(Decontamination(sets=(EvaluationSet(name="x", path=str(broken)),)))
    broken.write_text('{"text": "fine"}\n')
    with pytest.raises(UserError, match="no text in the field 'question'"):
        table(
            Decontamination(sets=(EvaluationSet(name="x", path=str(broken), fields=("question",)),))
        )
    broken.write_text('{"text": "changed", "question": "what"}\n')
    sets = (EvaluationSet(name="x", path=str(broken), fields=("question",)),)
    assert table(Decontamination(sets=sets)).names == ("x/broken.jsonl:1",)


def test_settings_that_contradict_each_other_are_refused() -> None:
    for given_, told in (
        ({"action": "cut"}, "leaves nothing to cut"),
        ({"max_overlaps": None}, "needs max_overlaps or max_share"),
        ({"shortest": 14}, "above ngram"),
        ({"sets": ({"name": "a", "path": "x"},) * 2}, "same name"),
    ):
        with pytest.raises(ValidationError, match=told):
            Decontamination.model_validate(given_)
    with pytest.raises(ValidationError, match="needs evaluation sets"):
        Prepare(stages=("decontaminate",))
