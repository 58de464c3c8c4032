"""Near duplicates: signatures against datasketch, decisions against a plain greedy search, recall
against the curve that LSH promises."""

import itertools
import random
from collections.abc import Iterator
from unicodedata import category

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as some

from jaxlm.config.dedup import Dedup
from jaxlm.config.dedup import MinHash as Section
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.stages import minhash, shuffle
from jaxlm.corpus.stages.compare import Duplicate
from jaxlm.corpus.stages.minhash import NearDuplicates, band_keys, lsh
from jaxlm.corpus.stages.shingles import hashes, jaccard
from tests.corpus.stages.resolving import documents, resolved


def words(text: str, n: int) -> set[tuple[str, ...]]:
    tokens = text.split()
    return (
        {tuple(tokens[i : i + n]) for i in range(max(1, len(tokens) - n + 1))} if tokens else set()
    )


@given(some.lists(some.text("ab \n", max_size=12), max_size=5), some.integers(1, 3))
def test_shingles_are_runs_of_words(texts: list[str], n: int) -> None:
    found, first = hashes(Strings.of(text.encode() for text in texts), n, 8)
    for i, text in enumerate(texts):
        assert len(set(found[first[i] : first[i + 1]].tolist())) == len(words(text, n))


@given(some.lists(some.text(max_size=30), max_size=4))
def test_any_text_has_shingles_of_its_words(texts: list[str]) -> None:
    encoded = [text.encode(errors="replace") for text in texts]
    _, first = hashes(Strings.of(encoded), 1, 1)
    for i, text in enumerate(encoded):
        assert (first[i + 1] > first[i]) == any(
            c.isalnum() or category(c).startswith("M") or ord(c) >= 0x40000 for c in text.decode()
        )


def test_shingles_ignore_case_and_punctuation() -> None:
    found, first = hashes(Strings.of(["To be, or — nöt".encode(), "to BE or  NÖT!".encode()]), 2, 8)
    np.testing.assert_array_equal(found[: first[1]], found[first[1] :])


def test_texts_without_spaces_have_shingles_of_characters() -> None:
    texts = ["中文字abc", "\U00020000\U00020001", "ภาษาไทย", "four words and 字"]
    for size, counts in ((1, [4, 2, 7, 4]), (3, [2, 1, 5, 4])):
        _, first = hashes(Strings.of(text.encode() for text in texts), 1, size)
        assert np.diff(first).tolist() == counts


def test_sketches_are_those_of_datasketch() -> None:
    texts = ["one two three four five six one two three four five six", "seven"]
    worker = NearDuplicates(Dedup())
    found, first = hashes(Strings.of(text.encode() for text in texts), 5, 8)
    signature = worker.signature(documents(texts), {})
    for i in range(2):
        theirs = MinHash(128, scheme="affine32", hashfunc=lambda value: int(value) & 0xFFFFFFFF)
        theirs.update_batch(found[first[i] : first[i + 1]])
        np.testing.assert_array_equal(signature["sketch"][i], theirs.hashvalues)
        ends = signature["first"]
        wanted = np.unique(found[first[i] : first[i + 1]])
        np.testing.assert_array_equal(signature["shingles"][ends[i] : ends[i + 1]], wanted)


def test_candidates_are_those_of_datasketch() -> None:
    draw = np.random.default_rng(0)
    sketches = draw.integers(0, 3, (60, 128), dtype=np.uint32)
    sketches[1::2, 40:] = sketches[::2, 40:]
    index = MinHashLSH(0.8, 128, weights=(0.02, 0.98))
    assert lsh(0.8, 128) == (index.b, index.r)
    for i, row in enumerate(sketches):
        index.insert(i, MinHash(128, hashvalues=row, scheme="affine32"))
    keys = band_keys(sketches, np.zeros(60, np.uint64), index.b, index.r)
    for i, row in enumerate(sketches):
        ours = set(np.flatnonzero((keys == keys[i]).any(axis=1)).tolist())
        assert ours == set(index.query(MinHash(128, hashvalues=row, scheme="affine32")))


@given(some.sets(some.integers(0, 20)), some.sets(some.integers(0, 20)), some.floats(0, 1))
def test_jaccard(a: set[int], b: set[int], least: float) -> None:
    wanted = len(a & b) / len(a | b) if a | b else 0
    found = jaccard(np.array(sorted(a), np.uint64), np.array(sorted(b), np.uint64), least)
    assert found == wanted or (found == 0 and wanted < least)


def greedy(texts: list[str], section: Section, ranks: list[float]) -> dict[int, tuple[float, int]]:
    """Each document that goes: its similarity to the partner, and the partner."""
    signature = NearDuplicates(Dedup(minhash=section)).signature(documents(texts), {})
    first = signature["first"]
    sets = [frozenset(signature["shingles"][a:b].tolist()) for a, b in itertools.pairwise(first)]
    bands, rows = lsh(section.threshold, section.permutations)
    sketch = signature["sketch"][:, : bands * rows].reshape(len(texts), bands, rows)
    stays: list[int] = []
    gone: dict[int, tuple[float, int]] = {}
    by_set: dict[frozenset[int], int] = {}
    for i in sorted(range(len(texts)), key=lambda i: (ranks[i], i)):
        if not sets[i]:
            continue
        if sets[i] in by_set:
            leader = by_set[sets[i]]
            gone[i] = gone.get(leader, (1.0, leader))
            continue
        by_set[sets[i]] = i
        scores = [
            (len(sets[i] & sets[k]) / len(sets[i] | sets[k]), -k)
            for k in stays
            if (sketch[i] == sketch[k]).all(axis=1).any()
        ]
        best = max(scores, default=(0.0, 0))
        if best[0] >= section.threshold:
            gone[i] = best[0], -best[1]
        else:
            stays.append(i)
    return gone


def chains(draw: random.Random, count: int) -> list[str]:
    """Texts of 12 words, most of which differ from another by a word or two: long chains."""
    texts = [[f"w{draw.randrange(50)}" for _ in range(12)]]
    while len(texts) < count:
        copy = list(draw.choice(texts[-3:]))
        for _ in range(draw.choice((0, 1, 1, 2, 12))):
            copy[draw.randrange(12)] = f"w{draw.randrange(50)}"
        texts.append(copy)
    return [" ".join(text) for text in texts]


@settings(max_examples=25, deadline=None)
@given(
    some.integers(0, 1 << 30),
    some.integers(1, 50),
    some.sampled_from([60, 300, 1 << 20]),
    some.sampled_from([1, 100, 1 << 20]),
    some.sampled_from([0.3, 0.6, 0.8]),
    some.booleans(),
)
def test_the_result_is_that_of_a_plain_greedy_search(
    seed: int, count: int, part: int, at_once: int, threshold: float, longest: bool
) -> None:
    draw = random.Random(seed)
    texts = chains(draw, count)
    section = Section(threshold=threshold, ngram=1, permutations=32)
    ranks = [-float(len(text)) for text in texts] if longest else [0.0] * count
    wanted = greedy(texts, section, ranks)
    cut = draw.randrange(count + 1)
    batches = [documents(piece) for piece in (texts[:cut], texts[cut:])]
    config = Dedup(minhash=section, keep="longest" if longest else "first")
    worker = NearDuplicates(config)
    worker.records_at_once = at_once
    with pytest.MonkeyPatch.context() as patch:
        for module in (shuffle, minhash):
            patch.setattr(module, "RECORDS", part)
        found = resolved("dedup.minhash", batches, worker=worker)
    assert {
        number(d.batch, d.index, cut): (d.value, number(d.partner[0], d.partner[1], cut))
        for d in found
    } == {i: (value, partner) for i, (value, partner) in wanted.items()}
    assert [(d.batch, d.index) for d in found] == sorted((d.batch, d.index) for d in found)


def number(batch: int, index: int, cut: int) -> int:
    return index + batch * cut


def planted(count: int) -> Iterator[tuple[float, str, str]]:
    """Pairs of texts whose sets of single words have a similarity of 0.7 to 0.95."""
    for i in range(count):
        size, shared = 200, 165 + i % 31
        own = size - shared
        base = [f"p{i}w{k}" for k in range(size)]
        other = base[:shared] + [f"q{i}w{k}" for k in range(own)]
        yield shared / (size + own), " ".join(base), " ".join(other)


def test_recall_is_what_the_curve_of_the_bands_promises() -> None:
    """Every pair above the threshold is found with probability 1 - (1 - s^rows)^bands; the number
    found is within four standard deviations, and no pair below it is."""
    section = Section(threshold=0.8, ngram=1)
    bands, rows = lsh(0.8, 128)
    pairs = list(planted(930))
    texts = [text for _, *both in pairs for text in both]
    found = {d.index: d for d in resolved("dedup.minhash", [documents(texts)],
                                          Dedup(minhash=section))}  # fmt: skip
    mean = variance = 0.0
    hits = above = 0
    for i, (similarity, *_) in enumerate(pairs):
        hit = found.pop(2 * i + 1, None)
        if hit is not None:
            assert (hit.value, hit.partner) == (similarity, (0, 2 * i))
            assert similarity >= 0.8
            hits += 1
        if similarity >= 0.8:
            p = 1 - (1 - similarity**rows) ** bands
            above += 1
            mean += p
            variance += p * (1 - p)
    assert not found
    assert abs(hits - mean) <= 4 * variance**0.5 + 1
    assert hits > 0.99 * above


def test_what_stays_is_a_policy() -> None:
    base = " ".join(f"w{i}" for i in range(100))
    texts = [base, base + " more", base + " much more", base + " many"]
    meta = ["", '{"date": "2021-05-01"}', '{"date": "2020-01-01T10:00:00+02:00"}', '{"date": "x"}']
    quality = {"quality.gopher.words": np.array([np.nan, 3.0, 2.0, 5.0])}
    for config, stays in (
        (Dedup(), 0),
        (Dedup(keep="longest"), 2),
        (Dedup(keep="oldest"), 2),
        (Dedup(keep="quality", quality="quality.gopher.words"), 3),
    ):
        found = resolved("dedup.minhash", [documents(texts, meta=meta)], config, [quality])
        assert [d.index for d in found] == [i for i in range(4) if i != stays]
        assert {d.partner for d in found} == {(0, stays)}


def test_documents_that_are_gone_take_no_part() -> None:
    base = " ".join(f"w{i}" for i in range(100))
    batches = [documents([base, base + " a"]), documents([base + " b", "", "."])]
    found = resolved("dedup.minhash", batches, keeps=[[False, True], [True, True, True]])
    assert [(d.batch, d.index, d.partner) for d in found] == [(1, 0, (0, 1))]
    assert isinstance(found[0], Duplicate)
