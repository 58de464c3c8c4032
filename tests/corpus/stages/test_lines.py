"""Boilerplate lines and repeated spans of sentences, against searches in plain Python."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from jaxlm.config.corpus import Source
from jaxlm.config.dedup import Dedup, Lines, Sentences
from jaxlm.corpus.stages import lines, shuffle
from jaxlm.corpus.stages.compare import Cut, Duplicate
from tests.corpus.stages.resolving import documents, resolved


def left(text: str, cuts: list[Cut]) -> str:
    """A text without the pieces that were cut."""
    raw, at, out = text.encode(), 0, b""
    for cut in cuts:
        assert at <= cut.start < cut.end <= len(raw)
        out += raw[at : cut.start]
        at = cut.end
    return (out + raw[at:]).decode()


@settings(max_examples=40, deadline=None)
@given(
    some.lists(some.lists(some.sampled_from(["a", "b", "Ab", " AB ", "c c", ""]), max_size=6),
               min_size=1, max_size=8),
    some.integers(1, 3),
    some.integers(0, 8),
    some.sampled_from([3, 1 << 20]),
)  # fmt: skip
def test_lines_of_more_documents_than_allowed_are_cut(
    texts: list[list[str]], most: int, border: int, part: int
) -> None:
    plain = [[line.strip().lower() for line in text] for text in texts]
    whole = ["\n".join(text) for text in texts]
    config = Dedup(lines=Lines(max_documents=most, min_characters=1))
    with pytest.MonkeyPatch.context() as patch:
        for module in (shuffle, lines):
            patch.setattr(module, "RECORDS", part)
        found = resolved(
            "dedup.lines", [documents(whole[:border]), documents(whole[border:])], config
        )
    border = len(whole[:border])
    for i, text in enumerate(texts):
        cuts = [cut for cut in found if cut.index + cut.batch * border == i]
        holders = [
            [d for d, other in enumerate(plain) if line and line in other] for line in plain[i]
        ]
        wanted = [line for line, there in zip(text, holders, strict=True) if len(there) <= most]
        gone = [there for there in holders if len(there) > most]
        assert [cut.value for cut in cuts] == [len(there) for there in gone]
        partners = [cut.partner[0] * border + cut.partner[1] for cut in cuts]
        assert partners == [next(d for d in there if d != i) for there in gone]
        assert left(whole[i], cuts).rstrip("\n") == "\n".join(wanted).rstrip("\n")


def test_a_line_counts_within_its_site() -> None:
    text = "Home | About us\nOwn text {}"
    meta = ['{"url": "http://A.org/1"}', '{"url": "https://a.org/2"}', '{"url": "http://b.org/1"}']
    batch = documents([text.format(i) for i in range(3)], meta=meta)
    config = Dedup(lines=Lines(max_documents=1, site_field="url"))
    found = resolved("dedup.lines", [batch], config)
    assert [(c.index, c.start, c.end, c.partner) for c in found] == [
        (0, 0, 16, (0, 1)),
        (1, 0, 16, (0, 0)),
    ]
    code = Source(name="code", path="x", kind="code")
    assert not resolved("dedup.lines", [documents(["x = 1\n"] * 9, source=code)], config)
    assert not resolved("dedup.lines", [batch], Dedup(lines=Lines(max_documents=2,
                                                                   site_field="url")))  # fmt: skip


def repeated(texts: list[list[str]], span: int) -> list[list[bool]]:
    """Which sentences are part of a span that occurred before and ended before it began."""
    first: dict[tuple[str, ...], tuple[int, int]] = {}
    out = []
    for d, text in enumerate(texts):
        gone = [False] * len(text)
        for k in range(len(text) - span + 1):
            there = first.setdefault(tuple(text[k : k + span]), (d, k))
            if there[0] != d or k >= there[1] + span:
                gone[k : k + span] = [True] * span
        out.append(gone)
    return out


@settings(max_examples=40, deadline=None)
@given(some.integers(0, 1 << 30), some.integers(1, 4), some.sampled_from([5, 1 << 20]))
def test_spans_of_sentences_that_occurred_before_are_cut(seed: int, span: int, part: int) -> None:
    draw = random.Random(seed)
    names = ["One", "Two", "Three", "Four"]
    texts = [draw.choices(names, k=draw.randrange(1, 10)) for _ in range(6)]
    whole = [" ".join(f"{name} is it." for name in text) for text in texts]
    config = Dedup(sentences=Sentences(span=span, min_sentences=1))
    with pytest.MonkeyPatch.context() as patch:
        for module in (shuffle, lines):
            patch.setattr(module, "RECORDS", part)
        found = resolved("dedup.sentences", [documents(whole[:2]), documents(whole[2:])], config)
    assert [(f.batch, f.index) for f in found] == sorted((f.batch, f.index) for f in found)
    for i, (text, gone) in enumerate(zip(texts, repeated(texts, span), strict=True)):
        here = [f for f in found if f.index + 2 * f.batch == i]
        if all(gone):
            assert [type(f) for f in here] == [Duplicate]
            continue
        assert sum(cut.value for cut in here) == sum(gone)
        wanted = [name for name, cut in zip(text, gone, strict=True) if not cut]
        assert left(whole[i], here).split() == " ".join(f"{n} is it." for n in wanted).split()


def test_a_document_that_cuts_leave_too_short_is_dropped() -> None:
    copied = "It rained all day. Nobody came. The shop was shut."
    texts = [copied, "Yesterday was dull. " + copied, f"A. good one. {copied} Two more. And three."]
    found = resolved("dedup.sentences", [documents(texts)], Dedup())
    assert [(type(f), f.index, f.rule, f.value, f.partner) for f in found] == [
        (Duplicate, 1, "min_sentences", 1, (0, 0)),
        (Cut, 2, "span", 3, (0, 0)),
    ]


@settings(max_examples=40, deadline=None)
@given(some.lists(some.text(max_size=40), max_size=4))
def test_any_text(texts: list[str]) -> None:
    texts = [text.encode(errors="replace").decode() for text in texts * 2]
    for stage, config in (
        ("dedup.lines", Dedup(lines=Lines(max_documents=1))),
        ("dedup.sentences", Dedup(sentences=Sentences(span=1, min_sentences=0))),
    ):
        found = resolved(stage, [documents(texts)], config)
        for i, text in enumerate(texts):
            left(text, [cut for cut in found if cut.index == i])
