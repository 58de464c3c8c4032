"""Exact and near duplicates: signatures against datasketch, decisions against brute force."""

import itertools
import random

import numpy as np
from datasketch import MinHash
from hypothesis import given
from hypothesis import strategies as some

from jaxlm.config.corpus import Dedup, Source
from jaxlm.config.corpus import MinHash as MinHashConfig
from jaxlm.corpus.documents import Documents, Strings
from jaxlm.corpus.stages.duplicates import (
    DUPLICATES,
    Batch,
    Duplicate,
    NearDuplicates,
    jaccard,
    shingles,
)

SOURCE = Source(name="s", path="x.txt")


def documents(texts: list[str], ids: list[str] | None = None) -> Documents:
    ids = ids or [str(i) for i in range(len(texts))]
    return Documents(
        SOURCE,
        Strings.of(text.encode() for text in texts),
        Strings.of(id.encode() for id in ids),
        Strings.of(b"" for _ in texts),
    )


def resolve(stage: str, batches: list[Documents], config: Dedup | None = None) -> list[Duplicate]:
    worker = DUPLICATES[stage](config or Dedup())
    views = []
    for batch in batches:
        signature = worker.signature(batch)
        views.append(Batch(np.ones(len(batch), np.bool_), signature.__getitem__))
    return list(worker.resolve(views))


def words(text: str, n: int) -> set[tuple[str, ...]]:
    tokens = text.split()
    return (
        {tuple(tokens[i : i + n]) for i in range(max(1, len(tokens) - n + 1))} if tokens else set()
    )


def test_the_first_of_equal_texts_stays_across_batches() -> None:
    found = resolve("dedup.exact", [documents(["a b", "c"]), documents(["C", "d", "A  b\n", "c"])])
    assert [(d.batch, d.index, d.partner) for d in found] == [
        (1, 0, (0, 1)),
        (1, 2, (0, 0)),
        (1, 3, (0, 1)),
    ]


def test_ids_that_occur_twice_are_found_whatever_the_text() -> None:
    found = resolve("ids", [documents(["x", "y", "z"], ["1", "2", "1"])])
    assert [(d.index, d.partner) for d in found] == [(2, (0, 0))]


@given(some.lists(some.text("ab \n", max_size=12), max_size=5), some.integers(1, 3))
def test_shingles_are_runs_of_words(texts: list[str], n: int) -> None:
    hashes, first = shingles(Strings.of(text.encode() for text in texts), n)
    for i, text in enumerate(texts):
        assert len(set(hashes[first[i] : first[i + 1]].tolist())) == len(words(text, n))


def test_shingles_ignore_case_and_punctuation_and_cut_chinese_into_characters() -> None:
    hashes, first = shingles(Strings.of([b"To be, or not", b"to BE or  not!"]), 2)
    np.testing.assert_array_equal(hashes[: first[1]], hashes[first[1] :])
    _, first = shingles(
        Strings.of(["\u4e2d\u6587\u5b57 ab".encode(), "\U00020000\U00020001".encode()]), 1
    )
    assert np.diff(first).tolist() == [4, 2]


def test_sketches_are_those_of_datasketch() -> None:
    texts = ["one two three four five six", "seven"]
    worker = NearDuplicates(Dedup())
    hashes, first = shingles(Strings.of(text.encode() for text in texts), 5)
    sketch = worker.signature(documents(texts))["sketch"]
    for i in range(2):
        theirs = MinHash(128, scheme="affine32", hashfunc=lambda value: int(value) & 0xFFFFFFFF)
        theirs.update_batch(hashes[first[i] : first[i + 1]])
        np.testing.assert_array_equal(sketch[i], theirs.hashvalues)


def test_near_duplicates_have_the_true_similarity_and_a_partner_that_stays() -> None:
    """Mutated copies of random texts; every pair is compared by brute force."""
    draw = random.Random(0)
    vocabulary = [f"w{i}" for i in range(2000)]
    texts: list[str] = []
    for _ in range(40):
        base = draw.choices(vocabulary, k=200)
        texts.append(" ".join(base))
        for changes in (1, 4, 30):
            copy = list(base)
            for _ in range(changes):
                copy[draw.randrange(200)] = draw.choice(vocabulary)
            texts.append(" ".join(copy))
    sets = [words(text, 5) for text in texts]

    def true(i: int, j: int) -> float:
        return len(sets[i] & sets[j]) / len(sets[i] | sets[j])

    batches = [documents(texts[:50]), documents(texts[50:])]
    found = resolve("dedup.minhash", batches, Dedup(minhash=MinHashConfig(threshold=0.7)))
    starts = (0, 50)
    dropped = {starts[d.batch] + d.index: d for d in found}
    stays = [i for i in range(len(texts)) if i not in dropped]
    for index, duplicate in dropped.items():
        partner = starts[duplicate.partner[0]] + duplicate.partner[1]
        assert partner in stays
        assert partner < index
        assert duplicate.value == true(partner, index) >= 0.7
    for i, j in itertools.combinations(stays, 2):
        assert true(i, j) < 0.7
    assert len(dropped) >= 40


@given(some.sets(some.integers(0, 20)), some.sets(some.integers(0, 20)))
def test_jaccard(a: set[int], b: set[int]) -> None:
    wanted = len(a & b) / len(a | b) if a | b else 0
    arrays = [np.array(sorted(s), np.uint64) for s in (a, b)]
    assert jaccard(*arrays) == wanted
