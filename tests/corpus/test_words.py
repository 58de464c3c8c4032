"""Tokens against spaCy's, and what holds of any text."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as some

from jaxlm.config.prose import WordKind
from jaxlm.corpus import words as w
from jaxlm.corpus.contractions import cut_words
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.words import Words, hash_of, split_words

REFERENCE = Path(__file__).parents[1] / "reference"
# pieces of words, marks and white space that the rules look at
PIECES = (
    "a", "Bc", "don't", "n't", "'s", "\u2019s", "U.S.", "e.g.", "1", "20", "km", "%", "$", "+",
    "-", "--", ".", "...", "\u2026", ",", ":", ")", "(", "/", "=", "\"", "'", "#", "_", "*", "<",
    "\u00e9", "\u20ac", "\u4e2d", "\u3042", "\u0e01", "\uff0c", "\U0001f600", "http://", "a.org",
    "@", "\u00b2",
    " ", "  ", "\n", "\t", "\u00a0", "\u3000", "\u2028", "\u0301", "\u0663", "C++", ":-)", "id.",
)  # fmt: skip
TEXTS = some.lists(
    some.text() | some.lists(some.sampled_from(PIECES), max_size=30).map("".join), max_size=4
)
KINDS = pytest.mark.parametrize("kind", ["unicode", "spacy"])


def pack(texts: list[str]) -> Strings:
    return Strings.of(text.encode() for text in texts)


def cut(texts: list[str], kind: WordKind = "unicode") -> list[list[str]]:
    """The tokens of each text."""
    strings = pack(texts)
    raw = strings.buffer.tobytes()
    found = split_words(strings, kind)
    pieces = [raw[a:b].decode() for a, b in zip(found.starts, found.ends, strict=True)]
    return [pieces[a:b] for a, b in zip(found.first[:-1], found.first[1:], strict=True)]


@cache
def corners() -> list[dict[str, object]]:
    return json.loads((REFERENCE / "datatrove.json").read_text())["corners"]


@cache
def documents() -> list[str]:
    with open(REFERENCE / "rule_decisions.jsonl.zst", "rb") as file:
        data = zstandard.ZstdDecompressor().stream_reader(file).read()
    return [json.loads(line)["text"] for line in data.decode().splitlines()]


@KINDS
def test_corners_are_cut_as_datatrove_cuts_them(kind: WordKind) -> None:
    if kind == "spacy":
        pytest.importorskip("spacy")
    rows = [r for r in corners() if kind == "spacy" or "\u4f60" not in str(r["text"])]
    assert len(rows) > 50
    assert cut([str(row["text"]) for row in rows], kind) == [row["words"] for row in rows]


def test_ours_are_spacys_in_all_documents_but_the_chinese() -> None:
    pytest.importorskip("spacy")
    texts = [text for text in documents() if not any("\u4e00" <= c <= "\u9fff" for c in text)]
    assert len(texts) == 706
    assert cut(texts) == cut(texts, "spacy")


@pytest.mark.parametrize(
    "text", ["20\u00b0C. or \u00b0F.", "(\u2018s) x--y 1--2 a-1", "$5 5$ US$5 A$5 +1 1+ a+"]
)
def test_rare_marks(text: str) -> None:
    pytest.importorskip("spacy")
    assert cut([text]) == cut([text], "spacy")


def test_contractions_are_spacys() -> None:
    spacy = pytest.importorskip("spacy")
    rules = spacy.blank("en").tokenizer.rules.items()
    orth = spacy.symbols.ORTH
    assert cut_words() == {
        word: tuple(part[orth] for part in parts) for word, parts in rules if word.strip()
    }


def test_spacys_are_spacys() -> None:
    spacy = pytest.importorskip("spacy")
    tokenizer = spacy.blank("en").tokenizer
    texts = documents()[::40]
    wanted = [[token.text for token in tokenizer(text) if token.text.strip()] for text in texts]
    assert cut(texts, "spacy") == wanted
    assert cut(texts, "spacy") == wanted  # now all from memory


def test_spacy_is_not_asked_for_what_takes_it_ages() -> None:
    pytest.importorskip("spacy")
    text = ")" * 100_000 + " (a-b)"
    assert cut([text], "spacy") == [[")"] * 100_000 + ["(", "a", "-", "b", ")"]]


def test_scripts_without_spaces_are_cut_into_characters() -> None:
    (found,) = cut(["JAX\u662f\u4e00\u4e2a\u5e93\uff0c\u3042\u308a (\u4e2d)\u3002"])
    assert found == ["JAX", *"\u662f\u4e00\u4e2a\u5e93\uff0c\u3042\u308a(\u4e2d)\u3002"]


@KINDS
@given(TEXTS)
@example(["", " ", "a"])
@example(["x" * 3000 + " " + "-" * 300, "("])
def test_tokens_are_the_text_without_white_space(kind: WordKind, texts: list[str]) -> None:
    if kind == "spacy":
        pytest.importorskip("spacy")
    found = cut(texts, kind)
    assert ["".join(tokens) for tokens in found] == ["".join(text.split()) for text in texts]
    assert all(tokens and len(tokens.split()) == 1 for row in found for tokens in row)
    assert found == [tokens for text in texts for tokens in cut([text], kind)]
    for text, tokens in zip(texts, found, strict=True):
        assert [text[a:b] for a, b in Words.of_text(text, kind)] == tokens


@given(TEXTS)
def test_what_is_said_of_tokens(texts: list[str]) -> None:
    found = split_words(pack(texts), "unicode")
    tokens = [token for row in cut(texts) for token in row]
    assert found.characters.tolist() == [len(token) for token in tokens]
    letters = [any(map(str.isalpha, token)) for token in tokens]
    assert ((found.flags & w.HAS_LETTER) > 0).tolist() == letters
    assert found.hashes.tolist() == [int(hash_of(token)) for token in tokens]
    assert len(set(found.hashes.tolist())) == len(set(tokens))


def test_flags() -> None:
    tokens = ["a", ".", "\u20ac", "\u2026", "\uff11", "...", "!"]
    flags = split_words(pack([" ".join(tokens)]), "unicode").flags
    for flag, wanted in (
        (w.NOT_MARKS, ["a", "\u20ac"]),
        (w.SENTENCE_END, [".", "!"]),
        (w.PUNCTUATION, [".", "\u2026", "...", "!"]),
    ):
        assert [t for t, bits in zip(tokens, flags.tolist(), strict=True) if bits & flag] == wanted


@given(TEXTS)
def test_sizes_and_borders(texts: list[str]) -> None:
    strings = pack(texts)
    characters, newlines = w.count_characters(strings)
    assert characters.tolist() == [len(text) for text in texts]
    assert newlines.tolist() == [text.count("\n") for text in texts]
    low, high = w.trim(strings)
    raw = strings.buffer.tobytes()
    assert [raw[a:b].decode() for a, b in zip(low, high, strict=True)] == [t.strip() for t in texts]
    assert np.all(low <= high)
