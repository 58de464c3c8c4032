"""What the tests of the rules of prose share: texts, and a section over a batch of them."""

from hypothesis import strategies as some

from jaxlm.config.corpus import Source
from jaxlm.config.rules import Rules
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.stages import EDITORS, SPANS, TAGGERS
from jaxlm.corpus.stages.base import Edit
from jaxlm.corpus.statistics import Analysis

PIECES = (
    "the", "and", "a", "b", "\u00e9", "\u4e00", "\u2026", "...", ".", "!", "#", "\u2022", "-", "*",
    "{", "[1]", "[edit]", "lorem ipsum", "JavaScript", "\u3002", "\"", "so it is.", " ", " ", "\n",
    "\n\n", "\r\n", "\u2028", "\u3000", "\x1c", "ab ab ", "one two three.\n", "same line\n",
)  # fmt: skip
TEXT = some.text(max_size=40) | some.lists(some.sampled_from(PIECES), max_size=40).map("".join)
TEXTS = some.lists(TEXT, max_size=4)


def analysis(texts: list[str]) -> Analysis:
    source = Source(name="s", path="x.txt")
    return Analysis(Documents.of(source, (text.encode() for text in texts)))


def tags(stage: str, rules: Rules, texts: list[str]) -> dict[str, list[float]]:
    """The attributes of a tagger."""
    found = TAGGERS[stage](analysis(texts), rules)
    return {name: values.tolist() for name, values in found.items()}


def edit(stage: str, rules: Rules, texts: list[str]) -> Edit:
    """What an editor does."""
    return EDITORS[stage](analysis(texts), rules)


def marked(stage: str, rules: Rules, text: str) -> dict[str, list[str]]:
    """The pieces of a text that the spans of each rule mark."""
    found = SPANS[stage](text, rules)
    return {rule: [text[a:b] for a, b in spans] for rule, spans in found.items()}
