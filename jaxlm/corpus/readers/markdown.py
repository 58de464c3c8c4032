"""Markdown -> text: as it is written without front matter, or without its markup."""

import re
from collections.abc import Iterator
from typing import Literal

MAX_LINE = 20_000
"""Characters of a line; markup in a longer one, which no person wrote, stays."""

_FRONT = re.compile(r"\A(?:---[ \t]*\n.*?^(?:---|\.\.\.)|\+\+\+[ \t]*\n.*?^\+\+\+)[ \t]*(?:\n|\Z)",
                    re.S | re.M)  # fmt: skip
_FRONT_LINE = re.compile(r"[ \t#+-]|[\w.-]+[ \t]*[:=]|[\]}]|\Z")
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_DEFINITION = re.compile(r" {0,3}\[[^\]]+\]:[ \t]*\S+.*")
_RULE = re.compile(r" {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,}|=+|-{2,})[ \t]*")
_PREFIX = re.compile(r"(?:[ \t]*>)+[ \t]?|[ \t]{0,3}#{1,6}[ \t]+")
_CLOSING = re.compile(r"[ \t]+#+[ \t]*\Z")
_INLINE = (
    (re.compile(r"(?<!\\)(`+)(?!`)(.+?)(?<!`)\1(?!`)"), r"\2"),
    (re.compile(r"(?<!\\)!\[([^\]\n]*)\](?:\([^)\n]*\)|\[[^\]\n]*\])"), r"\1"),
    (re.compile(r"(?<!\\)\[([^\]\n]+)\](?:\([^)\n]*\)|\[[^\]\n]*\])"), r"\1"),
    (re.compile(r"<((?:https?|mailto):[^>\s]+)>"), r"\1"),
    (re.compile(r"</?[A-Za-z][A-Za-z0-9-]*(?:\s[^<>]*)?/?>"), ""),
    (re.compile(r"(?<!\\)(\*{1,3}|~~)(?=\S)([^*~\n]+?)(?<![\s\\])\1"), r"\2"),
    (re.compile(r"(?<![\w\\])(_{1,3})(?=\S)([^_\n]+?)(?<![\s\\])\1(?!\w)"), r"\2"),
    (re.compile(r"\\([!-/:-@\[-`{-~])"), r"\1"),
)


def markdown_text(text: str, extract: Literal["main", "plain"]) -> str:
    """Without front matter (YAML or TOML) and HTML comments. `plain` also takes away the signs of
    headings, quotes and emphasis, the targets of links and images, and HTML tags; code stays as it
    is, fenced."""
    text = _without_front(text.replace("\r\n", "\n"))
    out = []
    for block, code in _blocks(text):
        if code or extract == "main":
            out.append(block if code else _without_comments(block))
        else:
            lines = _without_comments(block).split("\n")
            out.append("\n".join(_plain(line) for line in lines if not _DEFINITION.fullmatch(line)))
    return "".join(out)


def _without_front(text: str) -> str:
    """Drop what stands between two lines of --- or +++ at the very beginning, if it looks like
    keys and values; a rule may begin a text too."""
    found = _FRONT.match(text)
    if found is None:
        return text
    inside = found.group().split("\n")[1:]
    return text[found.end() :] if all(map(_FRONT_LINE.match, inside)) else text


def _without_comments(text: str) -> str:
    end = text.rfind("-->") + 3 if "-->" in text else 0
    return _COMMENT.sub("", text[:end]) + text[end:]


def _blocks(text: str) -> Iterator[tuple[str, bool]]:
    """Pieces of the text in order, and whether each is a fenced block of code."""
    piece: list[str] = []
    fence = ""
    for line in text.splitlines(keepends=True):
        found = _FENCE.match(line)
        if not fence and found:
            if piece:
                yield "".join(piece), False
            piece, fence = [], found.group(1)
        elif fence and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            yield "".join([*piece, line]), True
            piece, fence = [], ""
            continue
        piece.append(line)
    if piece:
        yield "".join(piece), bool(fence)


def _plain(line: str) -> str:
    if len(line) > MAX_LINE:
        return line
    if _RULE.fullmatch(line):
        return ""
    line = _CLOSING.sub("", _PREFIX.sub("", line, count=1)) if _PREFIX.match(line) else line
    for pattern, kept in _INLINE:
        line = pattern.sub(kept, line)
    return line
