"""The linear classifier: features, learning, files, against scikit-learn and plain Python."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as some

from jaxlm.corpus.classify.linear import LinearModel, fit
from jaxlm.corpus.classify.tokens import words
from jaxlm.corpus.classify.training import area
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.statistics import Spans
from jaxlm.errors import UserError

REFERENCE = Path(__file__).parents[2] / "reference"
SETTINGS: dict[str, Any] = {
    "bits": 18, "ngrams": 2, "character_ngrams": 3, "epochs": 10, "learning_rate": 0.5,
    "l2": 1e-6, "seed": 0,
}  # fmt: skip


def whole(texts: Strings) -> Spans:
    return Spans(texts.offsets[:-1], texts.offsets[1:], np.arange(len(texts) + 1))


def strings(texts: list[str]) -> Strings:
    return Strings.of(text.encode() for text in texts)


def learned(texts: list[str], labels: list[bool], **settings: Any) -> LinearModel:
    packed = strings(texts)
    return fit(words(packed), whole(packed), np.array(labels), **(SETTINGS | settings))


def scores(model: LinearModel, texts: list[str]) -> np.ndarray:
    packed = strings(texts)
    return model.score(model.words(packed), whole(packed))


@pytest.fixture(scope="module")
def toy() -> LinearModel:
    good = [f"the river {i} runs to the sea" for i in range(20)]
    bad = [f"buy {i} cheap pills now" for i in range(20)]
    return learned(good + bad, [True] * 20 + [False] * 20, bits=12)


def test_it_ranks_as_well_as_scikit_learn() -> None:
    known = json.loads((REFERENCE / "linear.json").read_text())
    with open(REFERENCE / "rule_decisions.jsonl.zst", "rb") as raw:
        data = zstandard.ZstdDecompressor().stream_reader(raw).read().decode()
    rows = [json.loads(line) for line in data.split("\n") if line]
    texts = [row["text"][:200] for row in rows]
    labels = np.array([row["id"].startswith("fortunes/") for row in rows])
    train = np.arange(len(rows)) % 5 > 0
    model = learned([t for t, i in zip(texts, train, strict=True) if i], labels[train].tolist())
    found = scores(model, [t for t, i in zip(texts, train, strict=True) if not i])
    assert labels[~train].tolist() == known["labels"]
    assert area(np.array(known["scores"]), labels[~train]) == pytest.approx(known["auc"])
    assert area(found, labels[~train]) > known["auc"] - 0.01


def test_what_it_learned(toy: LinearModel) -> None:
    good, bad, neither = scores(toy, ["a river to the sea", "cheap pills", ""])
    assert good > 0.8
    assert bad < 0.2
    assert 0.3 < neither < 0.7


def test_the_same_seed_gives_the_same_bits() -> None:
    texts, labels = [f"text {i} of {i % 7}" for i in range(60)], [i % 2 == 0 for i in range(60)]
    one, two = learned(texts, labels), learned(texts, labels)
    assert one.weights.tobytes() == two.weights.tobytes()
    assert learned(texts, labels, seed=1).weights.tobytes() != one.weights.tobytes()


def test_runs_of_words_and_of_characters_count() -> None:
    texts = ["b a", "a b"] * 30
    assert area(scores(learned(texts, [True, False] * 30, ngrams=1), texts),
                np.array([True, False] * 30)) == 0.5  # fmt: skip
    assert area(scores(learned(texts, [True, False] * 30, ngrams=2), texts),
                np.array([True, False] * 30)) == 1.0  # fmt: skip
    chinese = ["中文", "文中"] * 30
    model = learned(chinese, [True, False] * 30, ngrams=1, character_ngrams=2)
    assert area(scores(model, chinese), np.array([True, False] * 30)) == 1.0


@given(some.lists(some.text(max_size=40), max_size=5))
def test_a_batch_is_its_texts_one_by_one(toy: LinearModel, texts: list[str]) -> None:
    together = scores(toy, texts)
    assert ((together >= 0) & (together <= 1)).all()
    assert together.tolist() == [scores(toy, [text])[0] for text in texts]


def test_files(toy: LinearModel, tmp_path: Path) -> None:
    saved = replace(toy, threshold=0.25, knots=np.array([0.0, 1]), probabilities=np.array([0, 0.5]))
    saved.save(tmp_path, {"note": "x"})
    loaded = LinearModel.load(tmp_path)
    assert loaded.threshold == 0.25
    assert scores(loaded, ["river"]).tolist() == scores(saved, ["river"]).tolist()
    assert json.loads((tmp_path / "model.json").read_text())["note"] == "x"


def test_broken_files_are_told(toy: LinearModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model.json is missing.*--train-classifier"):
        LinearModel.load(tmp_path)
    toy.save(tmp_path, {})
    about = (tmp_path / "model.json").read_text()
    for bad in ("{", about.replace('"format": 1', '"format": 9'), "[]"):
        (tmp_path / "model.json").write_text(bad)
        with pytest.raises(UserError, match="is broken"):
            LinearModel.load(tmp_path)
    (tmp_path / "model.json").write_text(about)
    whole_file = (tmp_path / "weights.npz").read_bytes()
    (tmp_path / "weights.npz").write_bytes(whole_file[:100])
    with pytest.raises(UserError, match="is broken"):
        LinearModel.load(tmp_path)
    # an array of objects would have to be unpickled
    none = np.empty(0)
    objects = np.array([{}], object)
    np.savez(tmp_path / "weights.npz", weights=objects, knots=none, probabilities=none)
    with pytest.raises(UserError, match="is broken"):
        LinearModel.load(tmp_path)


def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(
    toy: LinearModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2^20 zeros take a few kilobytes of the file; what counts is what they become."""
    replace(toy, weights=np.zeros(1 << 20, np.float32)).save(tmp_path, {})
    assert (tmp_path / "weights.npz").stat().st_size < 1 << 20
    monkeypatch.setattr("jaxlm.corpus.classify.linear.MOST_BYTES", 1 << 20)
    with pytest.raises(UserError, match="holds more than 1048576 bytes"):
        LinearModel.load(tmp_path)
