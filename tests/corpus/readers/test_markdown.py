"""Markdown as it is written, or without its markup."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from jaxlm.corpus.readers.markdown import MAX_LINE, markdown_text

PAGE = """---
title: x
tags:
  - a
---
# Head #

A *bold* __word__, a [link](http://u) and ![a picture](i.png) <b>html</b>.<!-- a
comment --> `co*d*e` snake_case_word \\*star\\* <https://kept.org>

> quoted
> > twice

```py
# keep *this* <!-- and this -->
```
Title
=====
- item
1. first

* * *
[ref]: http://x "t"
[named][ref]
"""


def test_front_matter_and_comments_go() -> None:
    text = markdown_text(PAGE, "main")
    assert text.startswith("# Head #\n\nA *bold* __word__")
    assert "comment" not in text
    assert "# keep *this* <!-- and this -->" in text
    assert text.endswith('[ref]: http://x "t"\n[named][ref]\n')


def test_plain_has_no_markup_outside_code() -> None:
    assert markdown_text(PAGE, "plain") == (
        "Head\n\nA bold word, a link and a picture html. code snake_case_word *star* "
        "https://kept.org\n\nquoted\ntwice\n\n```py\n# keep *this* <!-- and this -->\n```\n"
        "Title\n\n- item\n1. first\n\n\nnamed\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "---\n\nA rule begins, and this is prose.\n\n---\n",
        "---\nno end",
        "```\n<!-- open\n",
        "--- a",
    ],
)
def test_what_is_no_front_matter_stays(text: str) -> None:
    assert markdown_text(text, "main") == text


def test_toml_is_front_matter_too() -> None:
    assert markdown_text('+++\ntitle = "x"\n+++\nText\n', "main") == "Text\n"


def test_long_lines_and_open_comments_end_soon() -> None:
    line = "`*_[" * MAX_LINE
    assert markdown_text(line, "plain") == line
    open_comments = "<!--" * 200_000
    assert markdown_text(open_comments, "main") == open_comments


TOKENS = ["`", "```", "~~~", "\n", "---\n", "+++\n", "[", "](", ")", "![", "*", "__", "<b", ">",
          "<!--", "-->", "# ", "\\", "> ", "x", ": "]  # fmt: skip


@given(some.lists(some.sampled_from(TOKENS) | some.text(max_size=4)).map("".join))
def test_arbitrary_markdown_is_text(text: str) -> None:
    assert len(markdown_text(text, "main")) <= len(text)
    assert len(markdown_text(text, "plain")) <= len(text)
