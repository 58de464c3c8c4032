"""Words and addresses on lists."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from jaxlm.config.corpus import Prepare, Source
from jaxlm.config.quality import Quality
from jaxlm.config.words import Lists
from jaxlm.corpus.depends import files
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.stages import SPANS, TAGGERS, decide
from jaxlm.corpus.stages.base import Tags
from jaxlm.corpus.statistics import Analysis
from jaxlm.errors import UserError

SOURCE = Source(name="s", path="x.txt")


@pytest.fixture
def rules(tmp_path: Path) -> Lists:
    files = {
        "words": "casino\nonline poker\n\u8d4c\u535a\n",
        "urls": "bad.example\nhttps://www.fine.example/spam/\nHTTP://Port.Example:80\n",
        "url_words": "porn\ncasino\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return Lists.model_validate({name: (str(tmp_path / name),) for name in files})


def tag(rules: Lists, texts: list[str], urls: list[str | None] | None = None) -> Tags:
    metas = [json.dumps({"url": url}).encode() if url is not None else b"" for url in urls or []]
    documents = Documents.of(SOURCE, (t.encode() for t in texts), meta=metas or None)
    return TAGGERS["quality.lists"](Analysis(documents), rules)


def test_words(rules: Lists) -> None:
    texts = ["A Casino and\nONLINE POKER here", "casinos, online  poker",
             "\u5728\u7ebf\u8d4c\u535a\u7f51", ""]  # fmt: skip
    found = tag(rules, texts)
    assert found["listed_words"].tolist() == [2, 0, 1, 0]
    assert found["listed_per_word"].tolist() == [2 / 6, 0, 1 / 5, 0]
    assert found["listed_per_line"].tolist() == [1, 0, 1, 0]
    spans = SPANS["quality.lists"]("\u00e9 A Casino", rules)["max_listed_words"]
    assert spans == [(4, 10)]


def test_urls(rules: Lists) -> None:
    urls = {
        "http://bad.example/": 1,
        "https://www.Bad.Example.:8080/x?y#z": 1,
        "//a.b.bad.example": 1,
        "user@bad.example/x": 1,
        "http://notbad.example/": 0,
        "http://bad.example.org/": 0,
        "http://other.org/?u=http://bad.example/": 0,
        "http://fine.example/": 0,
        "http://fine.example/spam": 1,
        "http://www.fine.example/spam/eggs.html": 1,
        "http://fine.example/spammer": 0,
        "http://sub.fine.example/spam/": 0,
        "https://port.example/": 1,
        "http://[::1]/": 0,
    }
    found = tag(rules, ["x"] * len(urls), list(urls))
    assert dict(zip(urls, found["listed_url"].tolist(), strict=True)) == urls
    others: list[str | None] = ["http://x.org/free_porn/casino-1", "http://casinos.org", None, ""]
    found = tag(rules, ["x"] * 4, others)
    np.testing.assert_array_equal(found["listed_url_words"], [2, 0, np.nan, np.nan])


def test_nothing_fails_without_lists_and_anything_listed_with_them(rules: Lists) -> None:
    texts = ["casino"]
    urls: list[str | None] = ["http://bad.example/casino"]
    assert not any(f.failed.any() for f in decide(Lists(), tag(Lists(), texts, urls)))
    failed = [f.rule for f in decide(rules, tag(rules, texts, urls)) if f.failed.any()]
    assert failed == ["max_listed_words", "max_listed_url", "max_listed_url_words"]


def test_a_missing_list_is_told_early(rules: Lists) -> None:
    def prepare(lists: Lists, **values: object) -> Prepare:
        return Prepare.model_validate(
            {"stages": ("quality.lists",), "quality": Quality(lists=lists), **values}
        )

    files(prepare(rules))
    for key in ("words", "urls", "url_words"):
        missing = Lists.model_validate({key: ("nowhere/x.txt",)})
        with pytest.raises(UserError, match="no such file"):
            files(prepare(missing))
        files(prepare(missing, stages=("quality.length",)))
        route = {"kinds": ("web",), "set": {f"quality.lists.{key}": ["nowhere/x.txt"]}}
        with pytest.raises(UserError, match="no such file"):
            files(prepare(rules, routes=(route,)))


@given(some.lists(some.tuples(some.text(), some.none() | some.text()), max_size=4))
def test_takes_any_text_and_url(rows: list[tuple[str, str | None]]) -> None:
    section = Lists(words=("naughty-en",), urls=("naughty-en",), url_words=("naughty-en",))
    found = tag(section, [text for text, _ in rows], [url for _, url in rows])
    for values in found.values():
        assert values.shape == (len(rows),)
        assert not np.isinf(values).any()
