"""Sentence ends of European and Chinese text, and that nothing visible is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from jaxlm.corpus.documents import Strings
from jaxlm.corpus.sentences import sentences, with_space_after

PIECES = some.sampled_from(
    [".", "!", "?!", "…", "。", "！”", "」", '"', ")", " ", "\n", "\n\n", "Dr", "e.g", "I", "A",
     "word", "Wort", "é", "你好", "\u3000", "\u2028", "3", "😀"]
)  # fmt: skip
TEXTS = some.text() | some.lists(PIECES, max_size=20).map("".join)


def split(text: str) -> list[str]:
    packed = Strings.of([text.encode()])
    spans = sentences(packed)
    return [text.encode()[a:b].decode() for a, b in zip(spans.starts, spans.ends, strict=True)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ('He said "no." Then he left.', ['He said "no."', "Then he left."]),
        ("Dr. Smith and J. Doe, e.g. at 3.5 p.m. today.", 1),
        ("It was I. He knew.", ["It was I.", "He knew."]),
        ("Well... Yes. and so on", ["Well...", "Yes. and so on"]),
        ("你好。「你是谁？」他说！再见", ["你好。", "「你是谁？」", "他说！", "再见"]),
        ("Wrapped at\nthe margin. End", ["Wrapped at\nthe margin.", "End"]),
        ("A title\nText\n\nand more", ["A title", "Text", "and more"]),
        ("क्या? हाँ। ठीक", ["क्या?", "हाँ।", "ठीक"]),
        (" \n ", []),
    ],
)
def test_where_sentences_end(text: str, wanted: list[str] | int) -> None:
    found = split(text)
    assert (len(found) if isinstance(wanted, int) else found) == wanted


@given(some.lists(TEXTS, max_size=4))
def test_every_visible_character_is_in_one_sentence(texts: list[str]) -> None:
    packed = Strings.of(text.encode() for text in texts)
    spans = sentences(packed)
    assert (spans.starts < spans.ends).all()
    assert (spans.ends[:-1] <= spans.starts[1:]).all()
    whole = with_space_after(packed, spans)
    assert (whole >= spans.ends).all()
    assert (whole[:-1] <= spans.starts[1:]).all()
    for d, text in enumerate(texts):
        base = packed.offsets[d]
        own = range(spans.first[d], spans.first[d + 1])
        pieces = [packed.buffer[spans.starts[i] : spans.ends[i]].tobytes() for i in own]
        visible = "".join(text.split())
        assert "".join("".join(piece.decode().split()) for piece in pieces) == visible
        assert all(base <= spans.starts[i] and whole[i] <= packed.offsets[d + 1] for i in own)
        assert split(text) == [piece.decode() for piece in pieces]
