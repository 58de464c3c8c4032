"""Which encoding a text is in; what is not sure is told."""

import codecs
import random

import pytest
from hypothesis import given
from hypothesis import strategies as some

from jaxlm.corpus.readers.encoding import Undecodable, declared_charset, decode

TEXTS = {
    "cp1251": "Съешь ещё этих мягких французских булок, да выпей чаю.",
    "koi8-r": "Съешь ещё этих мягких французских булок, да выпей чаю.",
    "gb18030": "我们今天去公园散步，天气非常好。然后我们一起吃了晚饭。",
    "big5": "我們今天去公園散步，天氣非常好。然後我們一起吃了晚飯。",
    "shift_jis": "今日は天気がとても良いので散歩に行きましょう。",
    "euc-jp": "今日は天気がとても良いので散歩に行きましょう。",
    "iso-2022-jp": "今日は天気がとても良いので散歩に行きましょう。",
    "euc-kr": "오늘은 날씨가 매우 좋아서 산책하러 갑시다.",
    "cp1252": "Voilà l’été, où les élèves rêvent déjà — à “la plage”.",
    "iso-8859-1": "Der Zwölf Boxkämpfer größte Übung für Ärzte und Öfen",
}


@pytest.mark.parametrize("encoding", TEXTS)
@pytest.mark.parametrize("declared", [True, False])
def test_a_sentence_says_its_encoding(encoding: str, declared: bool) -> None:
    text = TEXTS[encoding] * 3
    assert decode(text.encode(encoding), declared=encoding if declared else None) == text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_byte_order_mark_decides(encoding: str) -> None:
    raw = "\ufeffGrüße, 世界".encode(encoding)
    assert decode(raw) == decode(raw, declared="koi8-r") == "Grüße, 世界"


def test_what_is_utf8_is_not_what_it_declares() -> None:
    assert decode("Grüße".encode(), declared="iso-8859-1") == "Grüße"
    assert decode(b"plain", declared="no-such-encoding") == "plain"


def test_the_config_may_say_the_encoding() -> None:
    assert decode(b"\xa4\xa2", "euc-jp") == "あ"
    assert decode(b"\xef\xbb\xbfa", "utf-8") == "a"
    assert decode(b"a\xff", "ascii") == Undecodable(
        "invalid_encoding", "not ascii: ordinal not in range(128) at 1"
    )


@pytest.mark.parametrize(
    ("raw", "declared", "rule"),
    [
        (b"ab\x00cd", None, "binary"),
        (b"\x7fELF\x02\x01\x01\x00", "utf-8", "binary"),
        ("für Übung größer".encode() + b"\xff.", None, "invalid_utf8"),
        ("für Übung größer".encode()[:-3] + b"\xc3.", None, "invalid_utf8"),
        (b"\xff\xfea", None, "invalid_encoding"),
        (random.Random(0).randbytes(1000).replace(b"\0", b"\1"), None, "doubtful_encoding"),
        (bytes(range(128, 256)) * 3, None, "doubtful_encoding"),
        # too short: the detector takes it for Greek
        ("Съешь ещё этих мягких булок".encode("koi8-r"), None, "doubtful_encoding"),
        (b"\x81\x82\x83", "windows-1252", "doubtful_encoding"),
    ],
)
def test_what_is_not_sure_is_told(raw: bytes, declared: str | None, rule: str) -> None:
    found = decode(raw, declared=declared)
    assert isinstance(found, Undecodable)
    assert found.rule == rule


def test_a_declaration_of_a_page() -> None:
    assert declared_charset(b'<html><meta http-equiv=x content="text/html; charset=GBK">') == "GBK"
    assert declared_charset(b"<META CHARSET='utf-8'>") == "utf-8"
    assert declared_charset(b'<?xml version="1.0" encoding="koi8-r"?>') == "koi8-r"
    assert declared_charset(b"<p>charset=x</p>" + b" " * 2000 + b"<meta charset=gbk>") is None


NAMES = ["auto", "utf-8", "utf-16", "utf-7", "utf-32", "iso-2022-kr", "hz", "idna", "cp932"]


@given(some.binary(), some.sampled_from(NAMES), some.none() | some.sampled_from(list(TEXTS)))
def test_arbitrary_bytes_are_text_or_told(raw: bytes, encoding: str, declared: str | None) -> None:
    found = decode(raw, encoding, declared)
    if isinstance(found, str):
        found.encode()
        assert not found.startswith("\ufeff") or raw.startswith(codecs.BOM_UTF8 * 2)
    else:
        assert found.rule
