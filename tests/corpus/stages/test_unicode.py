"""The unicode stage: normal form, newlines, control characters, mojibake."""

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from jaxlm.config.corpus import Source
from jaxlm.config.text import Unicode
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.stages import EDITORS
from jaxlm.corpus.stages.unicode import _table
from jaxlm.corpus.statistics import Analysis


def mend(texts: list[str], **keys: bool) -> tuple[list[str], dict[int, set[str]]]:
    """The new texts, and what changed each."""
    documents = Documents.of(Source(name="s", path="p"), (text.encode() for text in texts))
    edit = EDITORS["unicode"](Analysis(documents), Unicode.model_validate(keys))
    changes: dict[int, set[str]] = {}
    spans = zip(edit.changes.document, edit.changes.start, edit.changes.end, strict=True)
    for number, (document, start, end) in enumerate(spans):
        assert (start, end) == (0, documents.texts.lengths[document])
        name = edit.changes.names[edit.changes.name[number]]
        changes.setdefault(int(document), set()).add(name)
    return [edit.texts[i].decode() for i in range(len(texts))], changes


def test_each_mended_thing_is_reported() -> None:
    texts = [
        "plain\ttext\n",
        "e\u0301",
        "a\r\nb\rc",
        "\ufeffx\x00y",
        "zw\u00f6lf",
        "",
        "sch\u00c3\u00b6n",
    ]
    out, changes = mend(texts)
    assert out == ["plain\ttext\n", "\u00e9", "a\nb\nc", "xy", "zw\u00f6lf", "", "sch\u00f6n"]
    assert changes == {1: {"nfc"}, 2: {"newlines"}, 3: {"controls"}, 6: {"mojibake"}}


MISREAD = [
    ("Fran\u00e7ois \u2014 \u201cd\u00e9j\u00e0 vu\u201d", "latin-1"),
    ("\u00a35 caf\u00e9\u2026", "cp1252"),
    ("\u00a35 caf\u00e9\u2026", "latin-1"),
    ("\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440", "cp1252"),
    ("\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440", "latin-1"),
    ("\u4f60\u597d\uff0c\u4e16\u754c\u3002", "cp1252"),
    ("\u4f60\u597d\uff0c\u4e16\u754c\u3002", "latin-1"),
    ("na\u00efve \u201cr\u00e9sum\u00e9\u201d", "latin-1"),
]
"""Texts and what their UTF-8 was read as; Windows-1252 has no sign for some bytes of others."""


@pytest.mark.parametrize(("text", "read_as"), MISREAD)
def test_mojibake_is_mended_line_by_line(text: str, read_as: str) -> None:
    broken = text.encode().decode(read_as)
    page = f"G\u00f6del \u201csaid\u201d so.\n{broken}\n{text}"
    assert mend([page])[0] == [f"G\u00f6del \u201csaid\u201d so.\n{text}\n{text}"]
    # with the key off, only the control characters of ISO 8859-1 go
    kept, changes = mend([page], mojibake=False)
    assert "mojibake" not in changes.get(0, set())
    assert kept[0].startswith("G\u00f6del \u201csaid\u201d so.\n")
    assert kept[0] != page or read_as == "cp1252"


@pytest.mark.parametrize(
    "text",
    [
        "CAF\u00c9\u201d, he said",
        "l\u2019\u00c9t\u00e9 \u00ab \u00c0 \u00bb",
        "\u00c4\u00d6\u00dc\u00df \u00c5\u00c6\u00d8",
        "\u00c2\u00bfQu\u00e9?"[1:],
        "pi\u00f1\u00f3n \u00f1\u00aa",
        "\u0432\u0415\u0420",
    ],
)
def test_good_text_that_looks_a_little_like_mojibake_stays(text: str) -> None:
    assert mend([text]) == ([text], {})


def test_invisible_characters_go_by_choice() -> None:
    # the joiners of Persian and of an emoji stay
    joined = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f468\u200d\U0001f469"
    text = f"soft\u00adhy\u200bphen \u202eabc\u202c {joined}"
    assert mend([text]) == ([text], {})
    out, changes = mend([text], invisible=True)
    assert out == [f"softhyphen abc {joined}"]
    assert changes == {0: {"invisible"}}


def test_what_no_pass_over_the_bytes_suspects_is_in_nfc() -> None:
    """Pairs of all characters that the table calls harmless, against Python's own answer."""
    harmless = [chr(i) for i in np.flatnonzero(_table() & 16 == 0) if not 0xD800 <= i < 0xE000]
    assert len(harmless) > 1_000_000
    assert unicodedata.is_normalized("NFC", "".join(harmless))
    assert unicodedata.is_normalized("NFC", "".join(reversed(harmless)))


@given(some.lists(some.text()), some.booleans(), some.booleans())
@example(
    ["\u1100\u1161\u11a8", "a\u0327\u0301", "\u0344", "\u09c7\u09be", "\U00011099\U000110ba"],
    True,
    False,
)
@example(["\x8d\u00d7\x82", "\u00c3\x01\u00a9"], True, False)
@example(["\u00c3\u0085", "\u00e2\u0080\u0099 \x85"], True, True)
def test_the_result_is_normal_and_stable(texts: list[str], mojibake: bool, invisible: bool) -> None:
    once, changes = mend(texts, mojibake=mojibake, invisible=invisible)
    for i, text in enumerate(texts):
        assert unicodedata.is_normalized("NFC", once[i])
        assert not set(once[i]) & set("\r\x0c\x00\x7f\x85\u2028\ufeff")
        assert (once[i] != text) == (i in changes)
    assert mend(once, mojibake=mojibake, invisible=invisible) == (once, {})
