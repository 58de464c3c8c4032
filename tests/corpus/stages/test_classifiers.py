"""Classifiers alone, together and as a cascade, with functions of ours as the models."""

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from pydantic import ValidationError

from jaxlm.config.classifiers import Classifiers
from jaxlm.config.corpus import Prepare, Source
from jaxlm.config.load import validate
from jaxlm.corpus.classify.linear import LinearModel
from jaxlm.corpus.classify.training import train
from jaxlm.corpus.depends import with_models
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.stages import EDITORS, FILES, decide
from jaxlm.corpus.stages import classifiers as stage
from jaxlm.corpus.stages.base import Edit
from jaxlm.corpus.statistics import Analysis
from jaxlm.errors import UserError
from jaxlm.workdir import Workdir, no_progress

SEEN: list[tuple[str, int]] = []


def length(texts: list[str]) -> list[float]:
    SEEN.append(("length", len(texts)))
    return [float(len(text)) for text in texts]


def vowels(texts: list[str]) -> list[float]:
    SEEN.append(("vowels", len(texts)))
    time.sleep(0.002 * len(texts))
    return open_letters(texts)


def open_letters(texts: list[str]) -> list[float]:
    return [sum(c in "aeiou" for c in text) / max(1, len(text)) for text in texts]


def shouting(texts: list[str]) -> list[float]:
    SEEN.append(("shouting", len(texts)))
    return [sum(c.isupper() for c in text) / max(1, len(text)) for text in texts]


def broken(texts: list[str]) -> list[float]:
    raise ZeroDivisionError("oh")


def short(texts: list[str]) -> list[float]:
    return [1.0]


def lost(texts: list[str]) -> list[float]:
    return [float("nan")] * len(texts)


FUNCTIONS = {"length": length, "vowels": vowels, "shouting": shouting}


def model(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "kind": "python", "function": f"{__name__}:{name}"} | keys


def rules(*models: dict[str, Any], **keys: Any) -> Classifiers:
    return Classifiers.model_validate_json(json.dumps({"models": models} | keys))


def run(texts: list[str], section: Classifiers) -> Edit:
    stage._orders.clear()
    documents = Documents.of(Source(name="s", path="x"), (text.encode() for text in texts))
    return EDITORS["classifiers"](Analysis(documents), section)


def dropped(edit: Edit, section: Classifiers) -> list[bool]:
    found = [failure.failed for failure in decide(section, edit.tags)]
    return np.any(found, axis=0).tolist()


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' modules are not on the path that the stage imports from."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _module())
    SEEN.clear()


def _module() -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(**globals())


TEXTS = ["aaaa", "bbbb", "aaaabbbbaaaabbbb", "AAAA", "b", "aB" * 10]
LIMITS: dict[str, Callable[[str], bool]] = {
    "length": lambda t: len(t) >= 4,
    "vowels": lambda t: sum(c in "aeiou" for c in t) / max(1, len(t)) >= 0.5,
    "shouting": lambda t: sum(c.isupper() for c in t) / max(1, len(t)) <= 0.4,
}
MODELS = [model("length", min_score=4), model("vowels", min_score=0.5),
          model("shouting", max_score=0.4)]  # fmt: skip


@pytest.mark.parametrize("cascade", [True, False])
@pytest.mark.parametrize("models", list(itertools.permutations(MODELS)))
def test_filter_and_rescue_whatever_the_order(models: Any, cascade: bool) -> None:
    for combine, over in (("filter", all), ("rescue", any)):
        section = rules(*models, combine=combine, cascade=cascade, sample=2)
        edit = run(TEXTS, section)
        keep = [over(limit(text) for limit in LIMITS.values()) for text in TEXTS]
        assert edit.tags["score"].tolist() == [float(kept) for kept in keep]
        assert dropped(edit, section) == [not kept for kept in keep]
        assert set(edit.tags) == ({"score"} if cascade else {"score", *FUNCTIONS})


def test_a_weighted_score() -> None:
    section = rules(model("vowels", weight=3), model("shouting"), combine="score", min_score=0.4)
    edit = run(TEXTS, section)
    wanted = [(3 * v + s) / 4 for v, s in zip(vowels(TEXTS), shouting(TEXTS), strict=True)]
    np.testing.assert_allclose(edit.tags["score"], wanted)
    assert dropped(edit, section) == [score < 0.4 for score in wanted]


def test_a_cascade_spares_the_costly_and_says_so(tmp_path: Path) -> None:
    record = tmp_path / "cascade.jsonl"
    texts = ["b"] * 50 + ["aaaa"] * 50
    section = rules(
        model("vowels", min_score=0.5), model("length", min_score=4), sample=8, record=str(record)
    )
    run(texts, section)
    number = {name: sum(n for who, n in SEEN if who == name) for name in FUNCTIONS}
    # the cheap one, second in the config, goes first; the other sees what is left and the sample
    assert number == {"length": 100, "vowels": 8 + 50, "shouting": 0}
    found = stage.summary(record)
    assert found["orders"] == {"length, vowels": 1}
    assert found["documents"] == 100
    assert found["classifiers"]["length"]["went_on"] == 0.5
    assert found["classifiers"]["vowels"]["documents"] == 58
    assert found["classifiers"]["vowels"]["seconds_a_document"] > 0.002
    run(texts, section)
    assert stage.summary(record)["documents"] == 200


TWO = "Fine words are here. SHOUTED TEXT IS HERE. Good again."


def test_sentences_are_cut() -> None:
    section = rules(model("shouting", granularity="sentence", cut_above=0.5))
    edit = run(["No shouting.", TWO], section)
    assert [edit.texts[i] for i in (0, 1)] == [b"No shouting.", b"Fine words are here. Good again."]
    changes = edit.changes
    assert [TWO[a:b] for a, b in zip(changes.start, changes.end, strict=True)] == [
        "SHOUTED TEXT IS HERE. "
    ]
    assert dropped(edit, section) == [False, False]


def test_documents_that_fall_are_not_cut() -> None:
    section = rules(
        model("shouting", granularity="sentence", cut_above=0.5), model("length", min_score=1000)
    )
    edit = run([TWO], section)
    assert len(edit.changes) == 0
    assert edit.texts[0] == TWO.encode()


@pytest.mark.parametrize("cascade", [True, False])
@pytest.mark.parametrize("bar", [0.5, None])
@settings(max_examples=30)
@given(
    texts=some.lists(
        some.lists(some.sampled_from(["Fine words.", "SHOUT IT.", "Aeiou aei.", "B C D E."])).map(
            " ".join
        ),
        max_size=5,
    )
)
def test_any_order_gives_the_same(cascade: bool, bar: float | None, texts: list[str]) -> None:
    section = rules(
        model("shouting", granularity="sentence", cut_above=0.5, max_score=0.6),
        model(
            "open_letters", granularity="sentence", cut_below=0.2, statistic="max", min_score=0.3
        ),
        model("length", min_score=12),
        cascade=cascade,
        min_score=bar,
    )
    found = []
    for order in itertools.permutations(range(3)):
        stage._orders[section] = order
        documents = Documents.of(Source(name="s", path="x"), (text.encode() for text in texts))
        edit = EDITORS["classifiers"](Analysis(documents), section)
        changes = edit.changes
        found.append((edit.tags["score"].tolist(), [edit.texts[i] for i in range(len(texts))],
                      changes.document.tolist(), changes.name.tolist(), changes.start.tolist(),
                      changes.end.tolist()))  # fmt: skip
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize(
    ("statistic", "wanted"),
    [("mean", None), ("max", 17 / 21), ("min", 1 / 20), ("share", 21 / (20 + 21 + 11))],
)
def test_statistics_of_sentences(statistic: str, wanted: float | None) -> None:
    section = rules(
        model("shouting", granularity="sentence", statistic=statistic, max_score=1),
        cascade=False,
    )
    values = run([TWO, ""], section).tags["shouting"]
    scores = [1 / 20, 17 / 21, 1 / 11]
    assert values[0] == pytest.approx(sum(scores) / 3 if wanted is None else wanted)
    assert np.isnan(values[1])


@given(some.lists(some.text(), max_size=4))
def test_any_text(texts: list[str]) -> None:
    section = rules(
        model("vowels", granularity="sentence", cut_below=0.2),
        model("length", max_score=20, weight=0.5),
        combine="score", min_score=None,
    )  # fmt: skip
    edit = run(texts, section)
    assert len(edit.texts) == len(texts)
    for i in range(len(texts)):
        edit.texts[i].decode()
    starts, ends = edit.changes.start, edit.changes.end
    assert (starts < ends).all()


def test_functions_that_fail_are_told() -> None:
    for name, message in (
        ("broken", "raised ZeroDivisionError: oh"),
        ("short", "1 scores for 2"),
        ("lost", "a text scores nan"),
    ):
        with pytest.raises(UserError, match=message):
            run(["a", "b"], rules(model(name, min_score=0)))
    with pytest.raises(UserError, match="has no attribute 'nowhere'"):
        FILES["classifiers"](rules(model("nowhere", min_score=0)))
    missing = {"name": "m", "kind": "python", "function": "no_such_module:f", "min_score": 0}
    with pytest.raises(UserError, match="No module named 'no_such_module'"):
        FILES["classifiers"](rules(missing))
    with pytest.raises(UserError) as told:
        FILES["classifiers"](rules(missing, model("nowhere", min_score=0),
                                   model("TEXTS", min_score=0)))  # fmt: skip
    assert len(told.value.messages) == 3
    assert "TEXTS is not a function" in told.value.messages[2]
    # a function that changed makes another corpus
    assert FILES["classifiers"](rules(model("length", min_score=0))) == [Path(__file__)]
    with pytest.raises(UserError, match=r"needs prepare\.classifiers\.models"):
        FILES["classifiers"](rules())


def test_the_extra_is_named() -> None:
    hub = {"name": "edu", "kind": "huggingface", "model": "m", "min_score": 0.5}
    with pytest.raises(UserError, match=r"pip install 'jaxlm\[hf-classifier\]'"):
        FILES["classifiers"](rules(hub))
    with pytest.raises(UserError, match=r"pip install 'jaxlm\[hf-classifier\]'"):
        run(["a"], rules(hub))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"models": [model("length")]}, "length needs min_score or max_score"),
        ({"models": [MODELS[0], MODELS[0]]}, "another name than 'length' is needed"),
        ({"models": [model("score", min_score=1)]}, "another name than 'score'"),
        ({"models": [model("length", min_score=2, max_score=1)]}, "is above max_score"),
        ({"models": [model("length", cut_above=2)]}, "need granularity: sentence"),
        (
            {"models": [model("length", granularity="sentence", cut_above=2)],
             "combine": "rescue"},
            "needs combine filter or score",
        ),
        ({"models": [model("length", weight=0)], "combine": "score"}, "all weights are 0"),
        (
            {"models": [{"name": "j", "kind": "http", "url": "http://x", "min_score": 0,
                         "when_spent": "unjudged"}]},
            "needs cascade: false",
        ),
    ],
)  # fmt: skip
def test_a_config_that_cannot_be_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Classifiers.model_validate_json(json.dumps(section))


def test_unjudged_texts_need_one_worker() -> None:
    judge = {"name": "j", "kind": "http", "url": "http://x", "min_score": 0,
             "when_spent": "unjudged"}  # fmt: skip
    section = {"stages": ["classifiers"], "classifiers": {"models": [judge], "cascade": False}}
    Prepare.model_validate_json(json.dumps(section | {"workers": 1}))
    with pytest.raises(ValidationError, match=r"needs prepare\.workers: 1"):
        Prepare.model_validate_json(json.dumps(section))


def test_a_trained_classifier_filters_by_the_threshold_of_its_training(tmp_path: Path) -> None:
    for name, word in (("good", "river"), ("bad", "pills")):
        rows = [json.dumps({"text": f"{word} {i} {word} x"}) for i in range(300)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    config = validate({
        "workdir": str(tmp_path / "run"), "train": {"steps": 1},
        "prepare": {"stages": ["classifiers"], "classifiers": {"models": [{
            "name": "topic", "kind": "linear", "train": {
                "positive": [f"{tmp_path}/good.jsonl"], "negative": [f"{tmp_path}/bad.jsonl"],
                "held_out": 0.4, "bits": 12, "wanted_precision": 1.0,
            },
        }]}},
    })  # fmt: skip
    section = with_models(config).classifiers
    assert section.record == str(tmp_path / "run" / "corpus.work" / "cascade.jsonl")
    with pytest.raises(UserError, match="no classifier there"):
        run(["river"], section)
    with pytest.raises(UserError, match=r"holds no classifier; .* --train-classifier topic"):
        FILES["classifiers"](section)
    folder = train("topic", config, Workdir(tmp_path / "run"), no_progress)
    assert [path.parent for path in FILES["classifiers"](section)] == [folder, folder]
    threshold = LinearModel.load(folder).threshold
    assert threshold is not None
    edit = run(["river 5 river x", "pills 5 pills x"], section)
    assert dropped(edit, section) == [False, True]
