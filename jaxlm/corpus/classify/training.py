"""Labelled text -> a folder with a linear model, its curve of precision and recall on text that was
held out, its calibration and its threshold: `jaxlm prepare CONFIG --train-classifier NAME`."""

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxlm.config import Config
from jaxlm.config.classifiers import Linear, Training
from jaxlm.config.corpus import Limits, Source
from jaxlm.corpus import listing, recipes
from jaxlm.corpus.classify.linear import LinearModel, fit, sigmoid
from jaxlm.corpus.classify.tokens import words
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.readers import Record, read
from jaxlm.corpus.statistics import Spans
from jaxlm.errors import UsageError, UserError
from jaxlm.workdir import Progress, Workdir, write_json

TEXT_COLUMN = "comment_text"
BINS = 10
POINTS = 200
FEWEST = 20
"""Held-out texts of each class below which a threshold would mean nothing."""


def train(name: str, config: Config, workdir: Workdir, progress: Progress) -> Path:
    """Train the classifier `name` of prepare.classifiers.models, or `toxicity`, or the n-gram model
    `quality.perplexity`; returns its folder in WORKDIR/classifiers.

    Raises UsageError when the config does not say how, UserError when text is missing, unreadable
    or too little.
    """
    if name == "quality.perplexity":
        from jaxlm.corpus.classify.ngram import train as train_ngram

        return train_ngram(config, workdir, progress)
    linear = {model.name: model.train for model in config.prepare.classifiers.models
              if isinstance(model, Linear)}  # fmt: skip
    known = linear | {"toxicity": config.prepare.toxicity.train}
    training = known.get(name)
    if training is None:
        able = sorted(each for each, how in known.items() if how is not None)
        raise UsageError(
            f"--train-classifier: nothing says how {name!r} is trained; give it a section train"
            + (f" (there is one for {', '.join(able)})" if able else "")
        )
    texts, labels = labelled(training, config, progress)
    held = _held_out(texts, training)
    for use, mask in (("training", held == 0), ("held-out", held == 1), ("held-out", held == 2)):
        few = min(int((labels & mask).sum()), int((~labels & mask).sum()))
        if few < FEWEST:
            raise UserError(
                f"{name}: {few} {use} texts of one class, and {FEWEST} are needed at least; give "
                "more text of both sides, or another train.held_out"
            )
    progress("train", 0, training.epochs, "epochs")
    found = words(texts)
    whole = np.arange(len(texts))
    spans = Spans(texts.offsets[:-1], texts.offsets[1:], np.append(whole, len(texts)))

    def part(mask: NDArray[np.bool_]) -> Spans:
        return Spans(spans.starts[mask], spans.ends[mask], np.array([0, mask.sum()]))

    model = fit(found, part(held == 0), labels[held == 0], bits=training.bits,
                ngrams=training.ngrams, character_ngrams=training.character_ngrams,
                epochs=training.epochs, learning_rate=training.learning_rate, l2=training.l2,
                seed=training.seed)  # fmt: skip
    progress("train", training.epochs, training.epochs, "epochs")
    fitting, measuring = held == 1, held == 2
    raw = model.sums(found, part(fitting))
    model = calibrate(model, raw, labels[fitting], training.calibration)
    threshold = threshold_for(
        model.calibrated(raw), labels[fitting], training.wanted_precision, name
    )
    model = replace(model, threshold=threshold)
    sums, truth = model.sums(found, part(measuring)), labels[measuring]
    scores = model.calibrated(sums)
    taken = scores >= threshold
    about = {
        "texts": {"positive": int(labels.sum()), "negative": int((~labels).sum()),
                  "held_out": int((held > 0).sum())},
        "training": training.model_dump(mode="json"),
        "inputs": hashlib.sha256(texts.buffer).hexdigest(),
        "measured": {
            "auc": area(scores, truth),
            "threshold": threshold,
            "precision": float(truth[taken].mean()) if taken.any() else None,
            "recall": float(taken[truth].mean()),
            "calibration_error": calibration_error(scores, truth),
            "calibration_error_before": calibration_error(sigmoid(sums), truth),
        },
    }  # fmt: skip
    folder = workdir.path / "classifiers" / name
    model.save(folder, about)
    points = curve(scores, truth)
    write_json(folder / "curve.json", points)
    _draw(folder / "curve.png", name, points, scores, truth, threshold)
    return folder


def labelled(
    training: Training, config: Config, progress: Progress
) -> tuple[Strings, NDArray[np.bool_]]:
    """All texts and whether each is positive; `max_bytes` of each side at most."""
    rows: list[tuple[bytes, bool]] = []
    for label, names in ((True, training.positive), (False, training.negative)):
        size = 0
        for text in texts_of(names, config):
            size += len(text)
            if training.max_bytes is not None and size > training.max_bytes:
                break
            rows.append((text, label))
            progress("read", size, None, "B")
    for path in training.labelled:
        rows += _jigsaw(Path(path), training.labels)
    return Strings.of(text for text, _ in rows), np.array([label for _, label in rows], np.bool_)


def texts_of(names: Iterable[str], config: Config) -> Iterator[bytes]:
    """The texts of sources by their names in the config, or of paths. Raises UserError for a
    record that cannot be read: what a model learns from must be whole."""
    sources = {source.name: source for source in config.sources}
    for name in names:
        source = recipes.resolve(sources.get(name) or Source(name="text", path=name))
        for file in listing.files(source):
            for record in read(source, file, Limits()):
                if isinstance(record, Record):
                    yield record.text


def _jigsaw(path: Path, labels: tuple[str, ...]) -> Iterator[tuple[bytes, bool]]:
    """Rows of a CSV file of Jigsaw's toxic comment challenge."""
    csv.field_size_limit(1 << 24)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            missing = [c for c in (TEXT_COLUMN, *labels) if c not in (rows.fieldnames or ())]
            if missing:
                raise UserError(f"{path}: no column {', '.join(missing)}; this is not Jigsaw's CSV")
            for row in rows:
                marks = [row[label] for label in labels]
                if not all(mark in ("0", "1", "-1") for mark in marks):
                    raise UserError(f"{path}:{rows.line_num}: a label is not 0 or 1")
                if "-1" not in marks:  # rows of the test set that were not scored
                    yield (row[TEXT_COLUMN] or "").encode(errors="replace"), "1" in marks
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8: {error}") from None


def _held_out(texts: Strings, training: Training) -> NDArray[np.int64]:
    """0 for a text to train on, 1 to fit calibration and threshold, 2 to measure; equal texts go
    the same way, [texts]."""
    out = np.zeros(len(texts), np.int64)
    prefix = training.seed.to_bytes(8, "little")
    for i in range(len(texts)):
        digest = hashlib.blake2b(prefix + texts[i], digest_size=8).digest()
        place = int.from_bytes(digest, "little") / 2**64
        if place < training.held_out:
            out[i] = 1 if place < training.held_out / 2 else 2
    return out


def calibrate(
    model: LinearModel, sums: NDArray[np.float64], labels: NDArray[np.bool_], how: str
) -> LinearModel:
    """The model with its sums turned into probabilities, fitted on held-out texts.

    platt: a sigmoid by maximum likelihood with Platt's targets (Platt 1999, section 2.2), so that
    few texts cannot make it certain. isotonic: the rising step function of least squares.
    """
    if how == "none":
        return model
    if how == "isotonic":
        order = np.argsort(sums, kind="stable")
        levels, sizes = _rising(labels[order].astype(np.float64))
        ends = np.cumsum(sizes)
        knots = [sums[order][a:b].mean() for a, b in zip(ends - sizes, ends, strict=True)]
        return replace(model, knots=np.array(knots), probabilities=levels)
    positive, negative = int(labels.sum()), int((~labels).sum())
    target = np.where(labels, (positive + 1) / (positive + 2), 1 / (negative + 2))
    x = np.stack([sums, np.ones_like(sums)], 1)
    at = np.array([0.0, np.log((positive + 1) / (negative + 1))])

    def loss(at: NDArray[np.float64]) -> float:
        z = x @ at
        return float((np.logaddexp(0, z) - target * z).sum())

    for _ in range(
        100
    ):  # Newton's method; the loss is convex, and a step that overshoots is halved
        p = sigmoid(x @ at)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, x.T @ (p - target))
        while loss(at - step) > loss(at) and np.abs(step).max() > 1e-12:
            step /= 2
        at -= step
        if np.abs(step).max() < 1e-10:
            break
    return replace(model, slope=float(at[0]), offset=float(at[1]))


def _rising(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Pool adjacent violators: the means of the blocks of the nearest rising sequence, and the
    blocks' sizes."""
    means: list[float] = []
    sizes: list[int] = []
    for value in values.tolist():
        means.append(value)
        sizes.append(1)
        while len(means) > 1 and means[-2] >= means[-1]:
            size = sizes[-2] + sizes[-1]
            means[-2:] = [(means[-2] * sizes[-2] + means[-1] * sizes[-1]) / size]
            sizes[-2:] = [size]
    return np.array(means), np.array(sizes, np.int64)


def threshold_for(
    scores: NDArray[np.float64], labels: NDArray[np.bool_], precision: float, name: str
) -> float:
    """The lowest score from which `precision` of the texts are positive. Raises UserError with the
    best precision when there is none."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(labels[order])
    reached = hits / np.arange(1, len(order) + 1)
    last = np.append(ranked[1:] != ranked[:-1], True)  # equal scores are taken together
    good = np.flatnonzero(last & (reached >= precision) & (hits > 0))
    if not len(good):
        raise UserError(
            f"{name}: no threshold reaches a precision of {precision:.3g} on held-out text; the "
            f"best is {reached[last].max():.3g}. Set train.wanted_precision to less, or give "
            "more or better text"
        )
    return float(ranked[good[-1]])


def curve(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> list[dict[str, float]]:
    """Threshold, precision and recall from the highest score down, POINTS at most."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    last = np.flatnonzero(np.append(scores[order][1:] != scores[order][:-1], True))
    if len(last) > POINTS:
        last = last[np.linspace(0, len(last) - 1, POINTS).astype(np.int64)]
    return [
        {
            "threshold": float(scores[order][i]),
            "precision": float(hits[i] / (i + 1)),
            "recall": float(hits[i] / max(1, labels.sum())),
        }
        for i in last.tolist()
    ]


def area(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Area under the receiver operating characteristic: the chance that a positive text scores
    above a negative one, half for equal scores."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positive, negative = int(labels.sum()), int((~labels).sum())
    return float((rank[labels].sum() - positive * (positive + 1) / 2) / (positive * negative))


def calibration_error(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Expected calibration error: the mean distance between score and share of positive texts over
    BINS equal bins (Guo et al. 2017, arXiv:1706.04599, equation 3)."""
    bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    gap = np.bincount(bins, scores - labels, BINS)
    return float(np.abs(gap).sum() / len(scores))


def _draw(
    path: Path,
    name: str,
    points: list[dict[str, Any]],
    scores: NDArray[np.float64],
    labels: NDArray[np.bool_],
    threshold: float,
) -> None:
    """Precision over recall, and share of positive texts over score."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([p["recall"] for p in points], [p["precision"] for p in points])
    at = min(points, key=lambda p: abs(p["threshold"] - threshold))
    left.plot(at["recall"], at["precision"], "o", label=f"threshold {threshold:.3f}")
    left.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), title=name)
    left.legend(loc="lower left")
    bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    number = np.bincount(bins, minlength=BINS)
    some = number > 0
    mean, share = (np.bincount(bins, v, BINS)[some] / number[some] for v in (scores, labels))
    right.plot([0, 1], [0, 1], color="0.7")
    right.plot(mean, share, "o-")
    right.set(xlabel="score", ylabel="share of positive texts", xlim=(0, 1), ylim=(0, 1),
              title="calibration on held-out text")  # fmt: skip
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    path.write_bytes(data.getvalue())
