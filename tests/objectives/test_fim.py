"""Fill in the middle, against Megatron's and BigCode's; and what must hold of ours."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from jaxlm.config.lengths import FIM_TOKENS
from jaxlm.config.objective import FIM
from jaxlm.config.tokens import Tokenizer as Options
from jaxlm.errors import UserError
from jaxlm.objectives.draws import keys
from jaxlm.objectives.fim import (
    Draws,
    arrange,
    check_cuts,
    cut_at_character,
    fim_ids,
    fim_text,
    fim_windows,
)
from jaxlm.tokens.sample import pieces_of
from jaxlm.tokens.sentencepieces import SentencePieceTokenizer
from jaxlm.tokens.tokenizer import ByteTokenizer, Tokenizer
from jaxlm.tokens.train import train_model
from tests.objectives.streams import BOS, EOS, stored

# Made with the permutation of Megatron-LM's and BigCode's data sets on arange(20), with NumPy's
# RandomState(seed): binomial (whether to cut), randint twice (where), binomial (the order); prefix
# 100, suffix 101, middle 102.
REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "fim.npz")
TEXT = "def naïve(x):\n    return x  # 漢字 and 😀 and more\n" * 4
BYTES = ByteTokenizer(FIM_TOKENS)


@pytest.fixture(scope="module")
def bpe() -> SentencePieceTokenizer:
    text = Path(json.__file__).read_text() + TEXT * 5
    model = train_model(Options(vocab_size=600), list(pieces_of(text)), FIM_TOKENS)
    return SentencePieceTokenizer(model, "x")


@pytest.mark.parametrize("row", range(len(REFERENCE["seed"])))
def test_the_order_is_megatrons(row: int) -> None:
    random = np.random.RandomState(REFERENCE["seed"][row])
    assert random.binomial(1, 1.0)
    cuts = sorted(int(random.randint(0, 21)) for _ in range(2))
    found = arrange(np.split(np.arange(20), cuts), bool(REFERENCE["spm"][row]), (100, 101, 102))
    assert found.tolist() == REFERENCE["out"][row].tolist()


def unmade(ids: list[int], three: tuple[int, int, int]) -> list[int]:
    """The document that a rearranged one was made of."""
    before, behind, between = three
    assert ids.count(before) == ids.count(behind) == ids.count(between) == 1
    assert ids[0] == before
    if ids[1] == behind:  # PSM with an empty prefix has the same form
        at = ids.index(between)
        one, other = ids[at + 1 :] + ids[2:at], ids[2:at] + ids[at + 1 :]
        return one if one == sorted(one) else other
    a, b = ids.index(behind), ids.index(between)
    return ids[1:a] + ids[b + 1 :] + ids[a + 1 : b]


@given(length=st.integers(0, 30), first=st.floats(0, 0.999), second=st.floats(0, 0.999))
@pytest.mark.parametrize("spm", [True, False])
def test_no_token_is_lost(length: int, first: float, second: float, spm: bool) -> None:
    cuts = Draws(0, first, second, 0).cuts(length)
    found = arrange(np.split(np.arange(length), cuts), spm, (100, 101, 102)).tolist()
    assert sorted(found) == [*range(length), 100, 101, 102]
    if spm:
        assert found[:2] == [100, 101]
        at = found.index(102)
        assert found[2:at] == list(range(cuts[1], length))
        assert found[at + 1 :] == list(range(cuts[1]))
    else:
        assert unmade(found, (100, 101, 102)) == list(range(length))


@given(text=st.text(max_size=40), key=st.integers(0, 2**64 - 1), data=st.data())
@pytest.mark.parametrize("cut", ["character", "token"])
def test_a_document_is_its_three_parts(
    bpe: Tokenizer, cut: Any, text: str, key: int, data: Any
) -> None:
    tokenizer = data.draw(st.sampled_from([BYTES, bpe]))
    ids = fim_text(text, key, FIM(rate=1, spm_rate=0, cut=cut), tokenizer).tolist()
    before, behind, between = fim_ids(tokenizer)
    a, b = ids.index(behind), ids.index(between)
    assert ids[0] == before
    parts = ids[1:a], ids[b + 1 :], ids[a + 1 : b]
    if cut == "character":
        assert "".join(map(tokenizer.decode, parts)) == text
        assert all(part == tokenizer.encode(tokenizer.decode(part)) for part in parts)
    else:
        assert [i for part in parts for i in part] == tokenizer.encode(text)


def test_the_rates_are_kept() -> None:
    options = FIM(rate=0.7, spm_rate=0.25)
    before, behind, _ = fim_ids(BYTES)
    found = [
        fim_text("abcdefgh", int(key), options, BYTES).tolist()
        for key in keys(0, np.arange(20_000))
    ]
    cut = [ids for ids in found if before in ids]
    assert abs(len(cut) - 14_000) < 4.5 * 65
    # PSM with an empty prefix begins like SPM: 17 of 81 pairs of cuts begin at 0
    spm = sum(ids[1] == behind for ids in cut) / len(cut)
    assert abs(spm - (0.25 + 0.75 * 17 / 81)) < 0.02


@pytest.mark.parametrize("text", [TEXT, "", "x"])
def test_cuts_between_characters_keep_the_text(bpe: Tokenizer, text: str) -> None:
    for tokenizer in (BYTES, bpe):
        ids = tokenizer.encode_array(text).astype(np.int32)
        for place in range(len(text) + 1):
            left, right = cut_at_character(ids, place, tokenizer)
            assert tokenizer.decode(left) == text[:place]
            assert tokenizer.decode(right) == text[place:]
            # each side as it is tokenized by itself
            assert left.tolist() == tokenizer.encode(text[:place])
            assert right.tolist() == tokenizer.encode(text[place:])


def test_a_window_that_begins_inside_a_character_keeps_its_bytes(bpe: Tokenizer) -> None:
    ids = bpe.encode_array("🧿return end").astype(np.int32)[2:]  # this emoji is four bytes
    assert "\ufffd" in bpe.decode(ids)
    for place in range(int(bpe.characters[ids].sum()) + 1):
        left, right = cut_at_character(ids, place, bpe)
        assert bpe.decode([*left, *right]) == bpe.decode(ids)


@given(
    seed=st.integers(0, 1000),
    document=st.integers(0, 60),
    rate=st.sampled_from([0.0, 0.5, 1.0]),
    cut=st.sampled_from(["character", "token"]),
)
def test_windows_are_filled(seed: int, document: int, rate: float, cut: Any) -> None:
    rows = np.stack([stored(65, seed + i, document) for i in range(4)])
    found, lengths = fim_windows(rows, keys(seed, np.arange(4)), FIM(rate=rate, cut=cut), BYTES)
    assert (lengths == 65).all()
    for row, ids in zip(rows, found, strict=True):
        marks = np.isin(ids, fim_ids(BYTES))
        assert marks.sum() % 3 == 0
        # documents keep their begins and ends, and no token is made up
        text = ids[~marks]
        for token in np.unique(text):
            assert (text == token).sum() <= (row == token).sum()
        assert ids[0] == row[0] or row[0] != BOS
        for part in np.split(ids, np.flatnonzero(ids == BOS))[1:]:
            assert (part == EOS).sum() <= 1
            assert EOS not in part[:-1] or part.size == 0
        if rate == 0:
            assert ids.tolist() == row.tolist()


def test_a_document_that_does_not_fit_is_cut_short_before() -> None:
    row = np.array([[BOS, *range(1, 10), EOS]], np.uint16)
    (ids,), _ = fim_windows(row, keys(5, np.arange(1)), FIM(rate=1, spm_rate=0), BYTES)
    assert ids[0] == BOS
    assert EOS not in ids
    assert sorted(ids.tolist()) == [*range(1, 8), BOS, *fim_ids(BYTES)]


def test_a_tokenizer_that_adds_spaces_cannot_cut_words() -> None:
    model = SentencePieceTokenizer(_with_leading_space(), "x")
    with pytest.raises(UserError, match=r"objective\.cut: this tokenizer puts a space"):
        check_cuts(FIM(), model)
    check_cuts(FIM(cut="token"), model)
    check_cuts(FIM(), BYTES)


def _with_leading_space() -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()), model_writer=model, model_type="bpe",
        vocab_size=310, byte_fallback=True, add_dummy_prefix=True, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()
