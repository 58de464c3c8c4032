"""The passes over bytes agree with Python's own string methods."""

import itertools

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as some

from jaxlm.config.corpus import Source
from jaxlm.corpus import statistics as st
from jaxlm.corpus.documents import Documents, Strings
from jaxlm.corpus.statistics import Analysis

# letters, every kind of white space, and characters whose bytes look like parts of white space
SPACES = " \t\n\r\x0b\x0c\x1c\x85\xa0\u1680\u2003\u2028\u202f\u205f\u3000"
ALPHABET = SPACES + "ab.#\u2022\u2026\u00c2\u4e00\U0001f600"
TEXTS = some.lists(some.text() | some.text(ALPHABET), max_size=6)


def pack(texts: list[str]) -> Strings:
    return Strings.of(text.encode() for text in texts)


def analysis(texts: list[str]) -> Analysis:
    return Analysis(Documents.of(Source(name="s", path="x.txt"), (t.encode() for t in texts)))


def cut(strings: Strings, spans: st.Spans) -> list[list[str]]:
    """The text of each span, by document."""
    raw = strings.buffer.tobytes()
    pieces = [raw[a:b].decode() for a, b in zip(spans.starts, spans.ends, strict=True)]
    ends = spans.first.tolist()
    return [pieces[a:b] for a, b in itertools.pairwise(ends)]


@given(TEXTS)
@example(["a", "b"])
@example(["", "a", ""])
@example(["\u2003", "\u3000a\u00a0b"])
def test_words_are_those_of_split(texts: list[str]) -> None:
    strings = pack(texts)
    assert cut(strings, st.words(strings)) == [text.split() for text in texts]


@given(TEXTS)
def test_lines_are_the_stripped_lines_that_are_not_blank(texts: list[str]) -> None:
    strings = pack(texts)
    wanted = [[line.strip() for line in text.split("\n") if line.strip()] for text in texts]
    assert cut(strings, analysis(texts).lines) == wanted


@given(TEXTS)
def test_equal_spans_have_equal_hashes_and_others_do_not(texts: list[str]) -> None:
    strings = pack(texts)
    spans = st.words(strings)
    hashes = st.span_hashes(strings.buffer, spans)
    words = [word for document in cut(strings, spans) for word in document]
    assert len(set(hashes.tolist())) == len(set(words))
    seen: dict[str, int] = {}
    for word, value in zip(words, hashes.tolist(), strict=True):
        assert seen.setdefault(word, value) == value


@given(some.lists(some.tuples(some.integers(0, 3), some.integers(0, 4))))
def test_repeats_are_later_occurrences_in_the_same_document(pairs: list[tuple[int, int]]) -> None:
    pairs.sort(key=lambda pair: pair[0])
    documents = np.array([d for d, _ in pairs], np.int64)
    hashes = np.array([h for _, h in pairs], np.uint64)
    wanted = [pair in pairs[:i] for i, pair in enumerate(pairs)]
    assert st.repeats(hashes, documents).tolist() == wanted


def test_sums_and_maxima_of_empty_groups_are_zero() -> None:
    first = np.array([0, 0, 2, 2])
    assert st.sums(np.array([5, 7]), first).tolist() == [0, 12, 0]
    assert st.maxima(np.array([5, 7]), first).tolist() == [0, 7, 0]
