"""Columns of byte strings keep what is put into them."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as some

from jaxlm.config.corpus import Source
from jaxlm.corpus.documents import Documents, Strings

SOURCE = Source(name="s", path="x.txt")


@given(some.lists(some.binary(max_size=20)), some.data())
def test_strings_hold_and_select_what_they_are_made_of(
    items: list[bytes], data: some.DataObject
) -> None:
    strings = Strings.of(items)
    assert [strings[i] for i in range(len(strings))] == items
    keep = data.draw(some.lists(some.booleans(), min_size=len(items), max_size=len(items)))
    taken = strings.take(np.array(keep, np.bool_))
    wanted = [item for item, kept in zip(items, keep, strict=True) if kept]
    assert [taken[i] for i in range(len(taken))] == wanted


def test_replace_exchanges_strings_also_for_an_empty_one() -> None:
    strings = Strings.of([b"a", b"bb", b"c"]).replace({1: b"", 2: b"long"})
    assert [strings[i] for i in range(3)] == [b"a", b"", b"long"]


def test_documents_come_back_from_disk(tmp_path: Path) -> None:
    texts, ids, meta = [b"one", "zw\u00f6lf".encode(), b""], [b"1", b"2", b"3"], [b"", b"{}", b""]
    Documents.of(SOURCE, texts, ids, meta).save(tmp_path)
    back = Documents.load(SOURCE, tmp_path)
    assert [back.texts[i] for i in range(3)] == texts
    assert [back.id(i) for i in range(3)] == ["1", "2", "3"]
    assert [back.meta[i] for i in range(3)] == meta


def test_an_excerpt_is_cut_between_characters() -> None:
    documents = Documents.of(SOURCE, ["\u00e9".encode() * 500])
    assert documents.excerpt(0) == "\u00e9" * 300
