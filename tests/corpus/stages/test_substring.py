"""Exact substrings: every removed byte against a slow definition, for any cut into batches."""

import bisect
import heapq
import queue
import shlex
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from jaxlm.config.corpus import Source
from jaxlm.config.dedup import Dedup
from jaxlm.config.dedup import Substring as Config
from jaxlm.corpus import repeats
from jaxlm.corpus.documents import Documents, load_array, save_array
from jaxlm.corpus.stages import substring
from jaxlm.corpus.stages.compare import Batch, Cut, Duplicate
from jaxlm.corpus.stages.substring import Substring

type Spans = dict[int, list[tuple[int, int]]]


def run(function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    return (function(*task) for task in tasks)


def read(folder: Path, name: str) -> np.ndarray[Any, Any]:
    return load_array(folder / f"dedup.substring.{name}.npy")


def found(
    batches: list[list[str]], config: Config, keep: list[list[bool]] | None = None, **more: Any
) -> list[Duplicate | Cut]:
    stage = Substring(Dedup(substring=config, **more))
    with tempfile.TemporaryDirectory() as folder:
        views = []
        for number, texts in enumerate(batches):
            source = Source(name=f"s{number}", path="x.txt")
            documents = Documents.of(source, (text.encode() for text in texts))
            here = Path(folder, str(number))
            here.mkdir()
            documents.save(here)
            for name, array in stage.signature(documents, {}).items():
                save_array(here / f"dedup.substring.{name}.npy", array)
            stays = np.array(keep[number] if keep else [True] * len(texts), np.bool_)
            signature = partial(read, here)
            views.append(Batch(stays, signature, partial(Documents.load, source, here), here))
        work = Path(folder, "work")
        work.mkdir()
        return list(stage.resolve(views, work, run))


def removed(batches: list[list[str]], config: Config) -> Spans:
    """The spans that are cut, by number of the document in the corpus."""
    first = np.cumsum([0, *map(len, batches)])
    out: Spans = {}
    for piece in found(batches, config):
        document = int(first[piece.batch]) + piece.index
        assert isinstance(piece, Cut)
        out.setdefault(document, []).append((piece.start, piece.end))
        assert piece.value == piece.end - piece.start
        assert isinstance(piece.partner, tuple)
        assert piece.partner <= (piece.batch, piece.index)
    assert list(out) == sorted(out)
    return out


def expected(texts: list[str], width: int) -> Spans:
    """The definition, window by window."""
    raw = [text.encode() for text in texts]
    seen: dict[bytes, tuple[int, int]] = {}
    out: Spans = {}
    for d, text in enumerate(raw):
        gone = np.zeros(len(text) + 1, np.bool_)
        for i in range(len(text) - width + 1):
            window = text[i : i + width]
            there, j = seen.setdefault(window, (d, i))
            if there < d or j + width <= i:
                gone[i : i + width] = True
        edges = np.flatnonzero(np.diff(gone, prepend=False)).reshape(-1, 2).tolist()
        for start, end in edges:
            while start < end and text[start] & 0xC0 == 0x80:
                start += 1
            while start < end < len(text) and text[end] & 0xC0 == 0x80:
                end -= 1
            if start < end:
                out.setdefault(d, []).append((start, end))
    return out


corpora = some.integers(2, 3).flatmap(
    lambda letters: some.lists(
        some.lists(some.text("abcé文"[: letters + 2][-letters:], max_size=40), max_size=4),
        max_size=5,
    )
)


@settings(max_examples=120, deadline=None)
@given(corpora, some.integers(2, 9), some.sampled_from([1, 20, 60, 1 << 20]))
def test_exactly_what_occurred_before_goes_however_the_corpus_is_cut(
    batches: list[list[str]], width: int, part: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(substring, "PART_BYTES", part)
        patch.setattr(substring, "SHARD_RECORDS", max(2, part // 8))
        texts = [text for batch in batches for text in batch]
        assert removed(batches, Config(min_bytes=width)) == expected(texts, width)


@settings(max_examples=50, deadline=None)
@given(corpora, some.integers(2, 6), some.sampled_from([1, 20, 1 << 20]))
def test_windows_with_equal_hashes_are_told_apart_by_their_bytes(
    batches: list[list[str]], width: int, part: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(substring, "PART_BYTES", part)
        patch.setattr(repeats, "TABLE", np.full(256, 12345, np.uint64))  # all hashes collide
        texts = [text for batch in batches for text in batch]
        assert removed(batches, Config(min_bytes=width)) == expected(texts, width)


def test_source_files_of_python_as_the_definition_says() -> None:
    texts = [
        Path(module.__file__ or "").read_text()
        for module in (textwrap, shlex, textwrap, heapq, bisect, queue)
    ]
    texts[3:4] = [texts[1][:900] + texts[3] + texts[0][1000:1300]]
    found = removed([texts[:2], texts[2:4], texts[4:]], Config(min_bytes=100))
    assert found == expected(texts, 100)
    assert found[2] == [(0, len(texts[2].encode()))]
    assert found[3][0] == (0, 900)


def test_what_stays_of_a_long_line_is_one_window() -> None:
    assert removed([["-" * 1000, "-" * 1000]], Config()) == {0: [(200, 1000)], 1: [(0, 1000)]}
    assert removed([["-" * 399], ["="]], Config()) == {}


def test_of_a_refrain_its_first_windows_stay() -> None:
    rng = np.random.default_rng(1)
    for period in (30, 80, 99, 120):
        refrain = "".join(rng.choice(list("abcdefgh "), period)) * 6
        texts = [refrain, "x" + refrain]
        assert removed([texts], Config(min_bytes=100)) == expected(texts, 100)


def test_documents_that_are_gone_are_no_copies() -> None:
    text = "it is said once " * 5
    everything = [[text], [text, text]]
    config = Config(min_bytes=80)
    two = found(everything, config, [[False], [True, True]])
    assert two == [Cut(1, 1, 0, 80, "repeated", 80, (1, 0))]


def test_copies_in_another_source_stay_when_sources_are_apart() -> None:
    text = "it is said once " * 5
    config = Config(min_bytes=80)
    assert [c.batch for c in found([[text], [text]], config)] == [1]
    assert found([[text], [text]], config, scope="source") == []
    assert [c.index for c in found([["x"], [text, text]], config, scope="source")] == [1]


def test_documents_with_too_much_that_occurred_before_are_dropped() -> None:
    one, two = "abcdefghij", "0123456789"
    config = Config(min_bytes=10, action="drop", max_share=0.5)
    texts = [one, f"{one}{two}", f"{one}{two}ABC", f"XYZXYZXYZXYZ{one}"]
    assert found([texts], config) == [Duplicate(0, 2, "max_share", 20 / 23, 0.5, (0, 0))]


def test_a_thousand_copies_in_many_parts() -> None:
    rng = np.random.default_rng(0)
    pieces = ["".join(rng.choice(list("abcdefgh "), 300)) for _ in range(4)]
    batches = [
        [pieces[k % 4] + chr(0x4E00 + k) for k in range(n, n + 50)] for n in range(0, 1000, 50)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(substring, "PART_BYTES", 40_000)
        patch.setattr(substring, "SHARD_RECORDS", 1000)
        cuts = found(batches, Config())
    assert [(c.batch * 50 + c.index, c.end - c.start) for c in cuts if isinstance(c, Cut)] == [
        (k, 300) for k in range(4, 1000)
    ]
