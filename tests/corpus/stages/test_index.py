"""Corpora that are compared with earlier ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from jaxlm.config.dedup import Dedup, MinHash
from jaxlm.errors import UserError
from tests.corpus.stages.resolving import documents, resolved

BASE = " ".join(f"w{i}" for i in range(60))
COPIED = "It rained all day. Nobody came. The shop was shut."
META = ['{"url": "http://a.org/1"}', '{"url": "http://a.org/2"}', '{"url": "http://a.org/3"}']


def add(stage: str, texts: list[str], index: Path, **keys: Any) -> list[Any]:
    batches = [documents([text], [f"id{i}"], [META[i]]) for i, text in enumerate(texts)]
    return resolved(stage, batches, Dedup(index=str(index), **keys))


@pytest.mark.parametrize(
    ("stage", "old", "new"),
    [
        ("dedup.exact", [BASE, "a"], ["b", BASE]),
        ("dedup.url", ["a", "b", "c"], ["d", "e"]),
        ("dedup.minhash", [BASE, "a"], ["b", BASE + " more", BASE + " more"]),
        ("dedup.sentences", [COPIED, "a"], ["b", "Yes. No. Well. " + COPIED]),
    ],
)
def test_what_an_earlier_corpus_holds_is_removed(
    tmp_path: Path, stage: str, old: list[str], new: list[str]
) -> None:
    assert not add(stage, old, tmp_path / "index", name="old")
    config = {"against": (str(tmp_path / "index"),), "name": "new"}
    found = add(stage, new, tmp_path / "index", **config)
    assert found
    assert {item.partner for item in found} <= {"old:id0", "old:id1"}
    # what was removed is not added; the same name is not compared with
    assert [item.partner for item in add(stage, new, tmp_path / "index", **config)] == [
        item.partner for item in found
    ]
    third = add(stage, new, tmp_path / "index", **(config | {"name": "third"}))
    assert len(third) >= len(found)
    assert {item.partner.split(":")[0] for item in third} <= {"old", "new"}


def test_the_most_similar_of_both_corpora_is_named(tmp_path: Path) -> None:
    add("dedup.minhash", [BASE], tmp_path, name="old")
    new = documents([f"{BASE} x y", f"{BASE} x y z"])
    found = resolved("dedup.minhash", [new], Dedup(against=(str(tmp_path),)))
    assert [(d.index, d.partner) for d in found] == [(0, "old:id0"), (1, "old:id0")]
    # a partner that is dropped itself is none, though it is more similar
    config = Dedup(against=(str(tmp_path),), minhash=MinHash(threshold=0.97))
    found = resolved("dedup.minhash", [new], config)
    assert [(d.index, d.partner) for d in found] == [(1, (0, 0))]


def test_another_threshold_is_no_other_index_but_another_shingle_is(tmp_path: Path) -> None:
    add("dedup.minhash", [BASE], tmp_path)
    new = [documents([BASE + " more"])]
    near = Dedup(against=(str(tmp_path),), minhash=MinHash(threshold=0.5))
    assert len(resolved("dedup.minhash", new, near)) == 1
    with pytest.raises(UserError, match=r"made with ngram 5,.* the config says ngram 3"):
        resolved("dedup.minhash", new, Dedup(against=(str(tmp_path),), minhash=MinHash(ngram=3)))


def test_a_damaged_or_missing_index_is_refused(tmp_path: Path) -> None:
    add("dedup.exact", ["a"], tmp_path / "index")
    config = Dedup(against=(str(tmp_path / "index"),))
    with pytest.raises(UserError, match=r"holds no index of dedup.url"):
        resolved("dedup.url", [documents(["a"])], config)
    with pytest.raises(UserError, match=r"holds no index of dedup.exact"):
        resolved("dedup.exact", [], Dedup(against=(str(tmp_path / "none"),)))
    folder = tmp_path / "index" / "corpus" / "dedup.exact"
    keys = folder / "00000" / "dedup.exact.keys.npy"
    keys.write_bytes(keys.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"keys.npy: missing or damaged"):
        resolved("dedup.exact", [documents(["a"])], config)
    for text in ("{", "[]", "{}", json.dumps({"version": 1}), json.dumps({"version": 2})):
        (folder / "index.json").write_text(text)
        with pytest.raises(UserError, match=r"index.json: "):
            resolved("dedup.exact", [documents(["a"])], config)
