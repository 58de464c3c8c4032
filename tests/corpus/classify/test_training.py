"""Training from the command line's entry: split, calibration, threshold, Jigsaw's files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from jaxlm.config import Config
from jaxlm.config.load import validate
from jaxlm.corpus.classify.linear import LinearModel
from jaxlm.corpus.classify.training import (
    _rising,
    area,
    calibrate,
    calibration_error,
    curve,
    threshold_for,
    train,
)
from jaxlm.errors import UsageError, UserError
from jaxlm.workdir import Workdir, no_progress

HEADER = "id,comment_text,toxic,severe_toxic,obscene,threat,insult,identity_hate"


def config(folder: Path, **training: Any) -> Config:
    return validate({
        "workdir": str(folder), "train": {"steps": 1},
        "prepare": {"toxicity": {"train": {"bits": 12, "held_out": 0.4} | training}},
    })  # fmt: skip


def comments(path: Path, number: int = 400) -> Path:
    """Rude and kind rows, one in ten with the wrong label, commas and line breaks inside."""
    draw = np.random.default_rng(0)
    rows = [HEADER]
    for i in range(number):
        rude = i % 2 == 0
        word = ("fool", "idiot") if rude else ("friend", "dear")
        wrong = draw.random() < 0.1
        label = int(rude != wrong)
        text = f'You {word[i % 3 % 2]},\nnumber {draw.integers(1 << 30)}, said ""hello""'
        rows.append(f'{i},"{text}",{label},0,0,0,{label},0')
    rows.append('x,"not scored",-1,-1,-1,-1,-1,-1')
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_training_leaves_a_model_with_its_curve_and_threshold(tmp_path: Path) -> None:
    labelled = str(comments(tmp_path / "train.csv"))
    run = config(tmp_path / "run", labelled=[labelled], wanted_precision=0.8)
    folder = train("toxicity", run, Workdir(tmp_path / "run"), no_progress)
    assert folder == tmp_path / "run" / "classifiers" / "toxicity"
    about = json.loads((folder / "model.json").read_text())
    assert about["texts"]["positive"] + about["texts"]["negative"] == 400
    measured = about["measured"]
    # one label in ten is wrong, so that is the best there can be
    assert 0.8 < measured["precision"] <= 1
    assert measured["recall"] > 0.7
    assert 0.8 < measured["auc"] < 1
    assert LinearModel.load(folder).threshold == measured["threshold"]
    points = json.loads((folder / "curve.json").read_text())
    assert points[-1]["recall"] == 1.0
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    again = train("toxicity", run, Workdir(tmp_path / "run"), no_progress)
    assert json.loads((again / "model.json").read_text()) == about


def test_sources_and_paths_are_the_two_sides(tmp_path: Path) -> None:
    for name, word in (("good", "river"), ("bad", "pills")):
        rows = [json.dumps({"text": f"{word} {i} {i * 7919 % 1000}"}) for i in range(300)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    run = validate({
        "workdir": str(tmp_path / "run"), "train": {"steps": 1},
        "sources": [{"name": "good", "path": f"{tmp_path}/good.jsonl"}],
        "prepare": {"toxicity": {"train": {
            "positive": ["good"], "negative": [f"{tmp_path}/bad.jsonl"], "held_out": 0.4,
            "calibration": "isotonic", "bits": 12,
        }}},
    })  # fmt: skip
    folder = train("toxicity", run, Workdir(tmp_path / "run"), no_progress)
    assert json.loads((folder / "model.json").read_text())["measured"]["auc"] == 1.0


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({}, "0 training texts of one class"),
        ({"labelled": ["none.csv"]}, "none.csv: no such file"),
        ({"positive": ["nowhere/*.txt"]}, "nowhere"),
        (
            {"positive": ["same/*.txt"], "negative": ["same/*.txt"]},
            "no threshold reaches a precision",
        ),
        ({"labelled": ["columns.csv"]}, "no column comment_text, severe_toxic"),
        ({"labelled": ["label.csv"]}, "label.csv:2: a label is not 0 or 1"),
        ({"labelled": ["binary.csv"]}, "not a CSV file in UTF-8"),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "same").mkdir()
    for i in range(300):
        (tmp_path / "same" / f"{i}.txt").write_text(f"text {i}")
    (tmp_path / "columns.csv").write_text("id,text,toxic,obscene,threat,insult,identity_hate\n")
    (tmp_path / "label.csv").write_text(f"{HEADER}\n1,a,yes,0,0,0,0,0\n")
    (tmp_path / "binary.csv").write_bytes(HEADER.encode() + b"\n1,\xff\xfe,0,0,0,0,0,0\n")
    with pytest.raises(UserError, match=message):
        train("toxicity", config(tmp_path / "run", **training), Workdir("run"), no_progress)


def test_a_name_without_training_is_a_wrong_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'nobody' is trained.*there is one for toxicity"):
        train("nobody", config(tmp_path), Workdir(tmp_path), no_progress)


@given(some.lists(some.tuples(some.sampled_from([0.1, 0.2, 0.5, 0.9]), some.booleans()),
                  min_size=1, max_size=30))  # fmt: skip
def test_figures_against_counting(rows: list[tuple[float, bool]]) -> None:
    scores, labels = np.array([s for s, _ in rows]), np.array([y for _, y in rows])
    if labels.any() and not labels.all():
        pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels] for b in scores[~labels]]
        assert area(scores, labels) == pytest.approx(np.mean(pairs))
    for point in curve(scores, labels):
        taken = scores >= point["threshold"]
        assert point["precision"] == pytest.approx(labels[taken].mean())
        assert point["recall"] == pytest.approx((labels & taken).sum() / max(1, labels.sum()))
    good = [s for s in set(scores) if labels[scores >= s].mean() >= 0.5]
    if good:
        assert threshold_for(scores, labels, 0.5, "x") == min(good)
    bins = [(scores >= k / 10) & (scores < (k + 1) / 10) for k in range(10)]
    gaps = [b.mean() * abs(scores[b].mean() - labels[b].mean()) for b in bins if b.any()]
    assert calibration_error(scores, labels) == pytest.approx(sum(gaps))


@given(some.lists(some.sampled_from([0.0, 1.0]), min_size=1, max_size=12))
def test_the_rising_sequence_is_the_nearest(values: list[float]) -> None:
    """The max-min formula of isotonic regression (Robertson et al. 1988)."""
    levels, sizes = _rising(np.array(values))
    n = len(values)
    wanted = [max(min(np.mean(values[a : b + 1]) for b in range(i, n)) for a in range(i + 1))
              for i in range(n)]  # fmt: skip
    np.testing.assert_allclose(np.repeat(levels, sizes), wanted)


@pytest.mark.parametrize("how", ["platt", "isotonic"])
def test_calibration_makes_scores_into_shares(how: str) -> None:
    draw = np.random.default_rng(0)
    sums = draw.normal(size=4000)
    labels = draw.random(4000) < 1 / (1 + np.exp(-(3 * sums - 1)))
    none = np.empty(0)
    raw = LinearModel(np.zeros(2, np.float32), 0.0, 1, 1, none, none)
    model = calibrate(raw, sums[:2000], labels[:2000], how)
    after = calibration_error(model.calibrated(sums[2000:]), labels[2000:])
    before = calibration_error(raw.calibrated(sums[2000:]), labels[2000:])
    assert after < 0.03 < 0.1 < before
    if how == "platt":
        assert (model.slope, model.offset) == pytest.approx((3, -1), abs=0.4)


def test_text_that_is_told_apart_without_error_keeps_a_doubt() -> None:
    none = np.empty(0)
    raw = LinearModel(np.zeros(2, np.float32), 0.0, 1, 1, none, none)
    sums = np.array([-20.0] * 50 + [20.0] * 30)
    model = calibrate(raw, sums, sums > 0, "platt")
    # Platt's targets: (30 + 1) / (30 + 2) and 1 / (50 + 2)
    assert model.calibrated(np.array([20.0, -20])) == pytest.approx([31 / 32, 1 / 52], abs=1e-6)
