"""C4's lines against datatrove's definitions in plain Python."""

import re
from collections import Counter
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from jaxlm.config.prose import C4, LineRule
from jaxlm.corpus.stages import decide
from jaxlm.corpus.stages.base import Edit
from jaxlm.corpus.stages.c4 import POLICIES
from tests.corpus.stages.prose import TEXTS, edit, marked

CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")


def plain(text: str, rules: C4) -> tuple[str, Counter[str]]:
    """The lines that stay, and how many lines there are of what."""
    kept, found = [], Counter[str]()
    for line in map(str.strip, text.splitlines()):
        words = line.split()
        if "long_word" in rules.cut and any(len(word) > rules.long_word for word in words):
            found["long_word"] += 1
            continue
        if not rules.citations:
            line = CITATION.sub("", line)
        ends = line.endswith((".", "?", "!", '"', "'")) and not line.endswith("...")
        if "no_end" in rules.cut and not ends:
            found["no_end"] += 1
            continue
        if "few_words" in rules.cut and len(words) < rules.few_words:
            found["few_words"] += 1
            continue
        low = line.lower()
        found["lorem_ipsum"] += "lorem ipsum" in low
        if "javascript" in rules.cut and "javascript" in low:
            found["javascript"] += 1
            continue
        found["curly_brackets"] += "{" in line
        if "policy" in rules.cut and any(policy in low for policy in POLICIES):
            found["policy"] += 1
            continue
        found["lines"] += 1
        kept.append(line)
    return "\n".join(kept).strip(), found


def c4(*texts: str, **keys: object) -> Edit:
    return edit("quality.c4", C4.model_validate(keys), list(texts))


@given(TEXTS, some.sets(some.sampled_from(get_args(LineRule))), some.booleans())
@example(["[1] So it is [2].\n\n [edit] [3]x. \n[12 a.\n[\u0663]a b c."], {"no_end"}, False)
@example(["coo\u212aie policy", "pr\u0130vacy policy", "uses cookies\x85"], {"policy"}, True)
def test_lines(texts: list[str], cut: set[LineRule], citations: bool) -> None:
    order = tuple(name for name in get_args(LineRule) if name in cut)
    rules = C4(cut=order, citations=citations, long_word=4, few_words=2)
    found = edit("quality.c4", rules, texts)
    for i, text in enumerate(texts):
        kept, counts = plain(text, rules)
        assert found.texts[i].decode() == kept
        for name in ("lines", "lorem_ipsum", "curly_brackets", *get_args(LineRule)):
            assert found.tags[name][i] == counts[name], name


@given(TEXTS)
def test_changes_are_all_that_goes(texts: list[str]) -> None:
    found = edit("quality.c4", C4(few_words=2), texts)
    changes = found.changes
    for i, text in enumerate(texts):
        raw = text.encode()
        here = changes.document == i
        at, left = 0, b""
        for name, start, end in zip(
            changes.name[here], changes.start[here], changes.end[here], strict=True
        ):
            assert at <= start < end <= len(raw)
            raw[start:end].decode()
            left += raw[at:start] + (b"" if changes.names[name] == "citation" else b" ")
            at = end
        left += raw[at:]
        assert left.split() == found.texts[i].split()
        assert here.any() or found.texts[i] == raw


def test_what_changed_is_named() -> None:
    found = c4('Title\r\nThis line[1] is kept. \nToo short.\n\nSo is "this one".\n')
    assert found.texts[0].decode() == 'This line is kept.\nSo is "this one".'
    names = [found.changes.names[k] for k in found.changes.name]
    assert names == ["no_end", "citation", "white_space", "few_words", "no_end", "white_space"]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", 0),
        ("One two three.", 1),
        ("One two. Three four! Five six?", 3),
        ("One two three\n.", 0),
        ("One two three. \u201cYes.\u201d (So.) And it is so.", 4),
        ("Version 1.2 of e.g. this is out.", 1),
        ("It ends here... Or not, as it seems.", 1),
        ("Line one is here.\nLine two is here.", 2),
    ],
)
def test_sentences(text: str, sentences: int) -> None:
    assert c4(text).tags["sentences"].tolist() == [sentences]


def test_rules() -> None:
    texts = [
        "A line of words. " * 5,
        "A line of words. " * 4,
        "lorem Ipsum is here. " * 5,
        "{ a line. " * 5,
    ]
    failed = {f.rule: f.failed.tolist() for f in decide(C4(), c4(*texts).tags)}
    assert failed == {
        "max_lorem_ipsum": [False, False, True, False],
        "max_curly_brackets": [False, False, False, True],
        "min_sentences": [False, True, False, False],
    }


def test_spans() -> None:
    text = "\u00dcber Lorem Ipsum {x}\nLorem ipsum is here.\n\nNo."
    assert marked("quality.c4", C4(), text) == {
        "max_lorem_ipsum": ["Lorem Ipsum", "Lorem ipsum"],
        "max_curly_brackets": ["{"],
        "min_sentences": ["\u00dcber Lorem Ipsum {x}\n", "\n", "No."],
    }
