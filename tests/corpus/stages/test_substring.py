"""Exact substrings: every removed byte against a slow definition, for any cut into batches."""

import tempfile
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
    texts = [text for batch in batches for text in batch]
    out: Spans = {}
    for piece in found(batches, config):
        document = int(first[piece.batch]) + piece.index
        if isinstance(piece, Cut):
            out.setdefault(document, []).append((piece.start, piece.end))
            assert piece.value == piece.end - piece.start
        else:
            out[document] = [(0, len(texts[document].encode()))]
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
        patch.setattr(substring, "SHARD_HASHES", max(2, part // 8))
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
