"""Kneser-Ney against KenLM, dictionaries, and the law that probabilities sum to one."""

import json
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from jaxlm.config.load import validate
from jaxlm.corpus.classify import ngram
from jaxlm.corpus.classify.ngram import NgramModel, discounts, fit, train
from jaxlm.corpus.documents import Strings
from jaxlm.errors import UsageError, UserError
from jaxlm.workdir import Workdir, no_progress

REFERENCE = Path(__file__).parents[2] / "reference"
TEXTS = [
    "the cat sat on the mat", "the dog sat on the log", "a cat and a dog", "the cat ran",
    "on and on the dog ran and the cat sat", "once", "a log and a mat and a cat",
]  # fmt: skip


def pack(*texts: str) -> Strings:
    return Strings.of(text.encode() for text in texts)


class Plain:
    """The formulas of `fit` word by word."""

    def __init__(self, texts: list[str], order: int, min_count: int = 1) -> None:
        seen = Counter(word for text in texts for word in text.split())
        self.known = {word for word, count in seen.items() if count > 1} | {"<s>", "</s>"}
        lines = [("<s>", *map(self.of, text.split()), "</s>") for text in texts]
        raw: list[Any] = [
            Counter(line[i : i + n] for line in lines for i in range(len(line) - n + 1))
            for n in range(1, order + 1)
        ]
        self.order = order
        self.counts: list[Any] = []
        self.taken: list[Any] = []
        for n, counts in enumerate(raw):
            own: dict[Any, int] = dict(counts)
            if n + 1 < order:
                before = Counter(longer[1:] for longer in raw[n + 1])
                own = {g: c if g[0] == "<s>" else before[g] for g, c in counts.items()}
            own.pop(("<s>",), None)
            v = Counter(own.values())
            discounts = [0.5, 1.0, 1.5]
            if v[1] and v[2] and v[3]:
                y = v[1] / (v[1] + 2 * v[2])
                found = [k - (k + 1) * y * v[k + 1] / v[k] for k in (1, 2, 3)]
                if all(0 < d <= k for k, d in enumerate(found, 1)):
                    discounts = found
            rare = {g for g in own if n >= 2 and counts[g] < min_count}
            self.taken.append(
                {g: c if g in rare else discounts[min(c, 3) - 1] for g, c in own.items()}
            )
            self.counts.append(own)
        self.words = sorted({g[0] for g in self.counts[0]} | {"<unk>"})
        self.after: list[Any] = []
        for counts in self.counts:
            after: dict[Any, list[Any]] = defaultdict(list)
            for gram in counts:
                after[gram[:-1]].append(gram)
            self.after.append(after)

    def of(self, word: str) -> str:
        return word if word in self.known else "<unk>"

    def p(self, gram: tuple[str, ...]) -> float:
        n = len(gram) - 1
        counts, taken, after = self.counts[n], self.taken[n], self.after[n].get(gram[:-1])
        if not after:
            return self.p(gram[1:])
        shorter = self.p(gram[1:]) if n else 1 / len(self.words)
        kept = counts.get(gram, 0) - taken.get(gram, 0)
        return float(
            (kept + sum(taken[g] for g in after) * shorter) / sum(counts[g] for g in after)
        )

    def nats(self, text: str) -> float:
        line = ["<s>", *map(self.of, text.split()), "</s>"]
        return -sum(
            math.log(self.p(tuple(line[max(0, i - self.order + 1) : i + 1])))
            for i in range(1, len(line))
        )


def test_probabilities_are_those_of_kenlm() -> None:
    known = json.loads((REFERENCE / "ngram.json").read_text())
    assert len(known["models"]) == 4
    for each in known["models"]:
        model = fit(pack(*known["train"]), each["order"], each["min_count"], no_progress)
        nats, number = model.nats(pack(*known["new"]))
        np.testing.assert_allclose(nats, each["nats"], rtol=1e-6)  # KenLM's are float32 too
        assert number.tolist() == [len(text.split()) + 1 for text in known["new"]]


def test_discounts_by_hand() -> None:
    """n1 = 4, n2 = 3, n3 = 2, n4 = 1: Y = 0.4."""
    counts = np.array([1] * 4 + [2] * 3 + [3] * 2 + [4, 9, 0])
    np.testing.assert_allclose(
        discounts(counts), [0, 1 - 0.8 * 3 / 4, 2 - 1.2 * 2 / 3, 3 - 1.6 / 2]
    )
    assert discounts(np.array([1, 1, 2])).tolist() == [0, 0.5, 1, 1.5]
    # D3 would be 3 - 4 * 1/3 * 8 < 0
    assert discounts(np.array([1, 2, 3] + [4] * 8)).tolist() == [0, 0.5, 1, 1.5]


@pytest.mark.parametrize(("order", "min_count"), [(1, 1), (2, 1), (3, 1), (5, 1), (4, 2)])
def test_the_same_as_with_dictionaries(order: int, min_count: int) -> None:
    model, plain = fit(pack(*TEXTS), order, min_count, no_progress), Plain(TEXTS, order, min_count)
    new = [*TEXTS, "the cat sat on the log and ran", "never seen", "cat the the sat", "mat"]
    nats, number = model.nats(pack(*new))
    np.testing.assert_allclose(nats, [plain.nats(text) for text in new], rtol=1e-5)
    assert number.tolist() == [len(text.split()) + 1 for text in new]
    found = model.perplexity(pack(*new))
    np.testing.assert_allclose(found, np.exp(nats / number))


@pytest.mark.parametrize("context", ["", "the", "the cat", "sat on the", "once the cat"])
def test_probabilities_sum_to_one(context: str) -> None:
    """p(w | context) from the nats of the context with the word less those without; the word
    "once" stands for the unknown one, and the end is what is left."""
    model = fit(pack(*TEXTS), 4, 1, no_progress)
    known = sorted({w for text in TEXTS for w in text.split()})

    def until(text: str) -> float:
        """Nats of the words of a text without those of its end."""
        words = text.split()
        plain = Plain(TEXTS, 4)
        end = plain.p(tuple(["<s>", *map(plain.of, words), "</s>"][-4:]))
        return float(model.nats(pack(text))[0][0]) + math.log(end)

    base = until(context)
    total = sum(math.exp(base - until(f"{context} {word}".strip())) for word in known)
    plain = Plain(TEXTS, 4)
    total += plain.p(tuple(["<s>", *map(plain.of, context.split()), "</s>"][-4:]))
    assert total == pytest.approx(1, abs=1e-5)


@given(some.lists(some.text(), min_size=1, max_size=4), some.lists(some.text(), max_size=3))
def test_any_text_trains_and_is_scored(learned: list[str], new: list[str]) -> None:
    model = fit(pack(*learned), 3, 1, no_progress)
    nats, number = model.nats(pack(*new))
    assert np.isfinite(nats).all()
    assert (nats >= -1e-6).all()
    assert (number >= 1).all()
    assert np.isnan(model.perplexity(pack(*new))).tolist() == (number == 1).tolist()


def config(folder: Path, **training: Any) -> Any:
    return validate({
        "workdir": str(folder), "train": {"steps": 1},
        "prepare": {"quality": {"perplexity": {"train": training}}} if training else {},
    })  # fmt: skip


def test_training_writes_a_model_that_reads_back_the_same(tmp_path: Path) -> None:
    good = tmp_path / "good.jsonl"
    good.write_text(
        "\n".join(json.dumps({"text": f"{t} {i % 7}"}) for i in range(30) for t in TEXTS)
    )
    run = config(tmp_path / "run", sources=[str(good)], order=3)
    folder = train(run, Workdir(tmp_path / "run"), no_progress)
    about = json.loads((folder / "model.json").read_text())
    assert about["reference"]["held_out"] is True
    assert about["head_below"] < about["tail_above"]
    model = NgramModel.load(folder)
    assert (model.head_below, model.tail_above) == (about["head_below"], about["tail_above"])
    again = train(run, Workdir(tmp_path / "run"), no_progress)
    assert json.loads((again / "model.json").read_text()) == about
    new = pack("the cat", "zebra crossing")
    assert model.perplexity(new).tolist() == NgramModel.load(again).perplexity(new).tolist()
    low, high = model.perplexity(pack("the cat sat on the mat 0", "mat the 0 the on cat sat"))
    assert low * 5 < high


def test_what_is_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="nothing says how it is trained"):
        train(config(tmp_path), Workdir(tmp_path), no_progress)
    with pytest.raises(UserError, match=r"no n-gram model there \(model\.json is missing\)"):
        NgramModel.load(tmp_path)
    model = fit(pack(*TEXTS), 2, 1, no_progress)
    model.save(tmp_path, {})
    whole = (tmp_path / "ngram.npz").read_bytes()
    (tmp_path / "ngram.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="the n-gram model is broken"):
        NgramModel.load(tmp_path)
    with open(tmp_path / "ngram.npz", "wb") as file:
        np.savez(file, keys=np.array([{}], object), probability=[0.0], backoff=[0.0])
    with pytest.raises(UserError, match="allow_pickle=False"):
        NgramModel.load(tmp_path)
    for name, wrong, message in (
        ("keys", np.array([1], np.uint64), "differ in length"),
        ("probability", np.full(len(model.keys), np.nan), "no probability"),
        ("probability", np.ones(len(model.keys)), "no probability"),
        ("backoff", np.full(len(model.keys), np.inf), "no probability"),
        ("keys", np.arange(1, len(model.keys) + 1), "does not know the unknown word"),
    ):
        parts = {"keys": model.keys, "probability": model.probability, "backoff": model.backoff}
        np.savez(tmp_path / "ngram.npz", **(parts | {name: wrong}))  # type: ignore[arg-type]
        with pytest.raises(UserError, match=message):
            NgramModel.load(tmp_path)
    model.save(tmp_path, {})
    about = json.loads((tmp_path / "model.json").read_text())
    for key, value in (("order", 10**9), ("order", "2"), ("format", 0), ("head_below", -1)):
        (tmp_path / "model.json").write_text(json.dumps(about | {key: value}))
        with pytest.raises(UserError, match="the n-gram model is broken"):
            NgramModel.load(tmp_path)
    monkeypatch.setattr(ngram, "MOST_BYTES", 100)
    (tmp_path / "model.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="holds more than 100 bytes"):
        NgramModel.load(tmp_path)
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(UserError, match="broken"):
        NgramModel.load(tmp_path)
