"""The unicode stage: normal form, newlines, control characters."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as some

from jaxlm.corpus.documents import Strings
from jaxlm.corpus.stages import CHANGERS

unicode = CHANGERS["unicode"]


def test_each_mended_thing_is_reported() -> None:
    texts = ["plain\ttext\n", "e\u0301", "a\r\nb\rc", "\ufeffx\x00y", "zw\u00f6lf"]
    out, changes = unicode(Strings.of(text.encode() for text in texts))
    assert [out[i].decode() for i in range(5)] == [
        "plain\ttext\n", "\u00e9", "a\nb\nc", "xy", "zw\u00f6lf",
    ]  # fmt: skip
    assert changes == {1: {"nfc": 1}, 2: {"newlines": 2}, 3: {"controls": 2}}


@given(some.lists(some.text()))
def test_the_result_is_normal_and_stable(texts: list[str]) -> None:
    once, changes = unicode(Strings.of(text.encode() for text in texts))
    for i, text in enumerate(texts):
        assert unicodedata.is_normalized("NFC", once[i].decode())
        assert (once[i].decode() != text) == (i in changes)
    twice, again = unicode(once)
    assert not again
    assert twice.buffer.tobytes() == once.buffer.tobytes()
