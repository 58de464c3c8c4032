"""Lists from files, and whole words against a regular expression."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from jaxlm.corpus.documents import Strings
from jaxlm.corpus.lists import WordList, read_list, word_list
from jaxlm.errors import UserError

WORDS = ["ab", "b c", "_a", "\u00e9b", "c++", "\u4e2d\u6587", "a"]


@given(some.lists(some.text("abcABC _+.\u00e9\u00c9\u4e2d\u6587\n", max_size=30), max_size=4))
def test_whole_words_of_any_case(texts: list[str]) -> None:
    found = WordList(WORDS).find(Strings.of(text.encode() for text in texts))
    got: dict[tuple[int, int], int] = {}
    for document, entry in zip(found.document.tolist(), found.pattern.tolist(), strict=True):
        got[document, entry] = got.get((document, entry), 0) + 1
    wanted = {}
    for d, text in enumerate(texts):
        for e, word in enumerate(WORDS):
            # \\w without the characters of scripts that put no space between words
            letter = "[a-zA-Z0-9_\u00e9\u00c9]"
            left = f"(?<!{letter})" if re.match(letter, word) else ""
            right = f"(?!{letter})" if re.match(letter, word[-1]) else ""
            number = len(re.findall(left + re.escape(word) + right, text, re.IGNORECASE))
            if number:
                wanted[d, e] = number
    assert got == wanted


def test_words_do_not_reach_into_the_next_document() -> None:
    found = WordList(["ab", "cd"]).find(Strings.of([b"x ab", b"cd", b"a", b"b"]))
    assert found.document.tolist() == [0, 1]


def test_reads_a_list(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\ufeff# comment\none\n\n two words \r\none\n", encoding="utf-8")
    assert read_list(str(path)) == ("one", "two words", "one")
    assert word_list((str(path),)).entries == ("one", "two words")
    assert len(read_list("naughty-en")) == 403


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none-such", None, "naughty-en"),
        ("./none.txt", None, "no such file"),
        ("empty.txt", b"# nothing\n\n", "no entries"),
        ("binary.txt", b"a\n\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_refuses(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
        name = str(tmp_path / name)
    with pytest.raises(UserError, match=message):
        read_list(name)
