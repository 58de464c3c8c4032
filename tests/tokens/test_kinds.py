"""What must hold of every kind: nothing is lost, special names stay text, libraries agree."""

import re
import unicodedata

import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st

from jaxlm.errors import UserError
from jaxlm.tokens.tokenizer import Tokenizer, lost, open_tokenizer
from jaxlm.tokens.train import train_model
from tests.tokens.kinds import SPECIALS, SYMBOLS, TEXTS, options, tokenizer_of, trained

KINDS = ("bpe", "unigram", "wordpiece", "byte")
# What tokenizers lose: white space, marks of their own, controls, byte order marks, combining
# marks, private use, unassigned and last code points; names of special tokens; long runs.
AWKWARD = st.sampled_from(
    " \n\t\r\x00\x0b\x1c\x1f\x85\xa0\u2028\u3000\u0301\u0308\u20e3\u2040\u2047\u2581\u2585\ue000"
    "\ufeff\ufffd\uffff\U000f0000\U0010ffff<>#s/0x'_Ġ"
)
TEXTS_OF_ALL_UNICODE = st.lists(
    st.one_of(
        st.text(st.one_of(AWKWARD, st.characters(exclude_categories=["Cs"]))),
        st.sampled_from([*SPECIALS, *SYMBOLS, "<s>", "</s>", "<unk>", "<0x0A>", "##a"]),
        st.builds(lambda part, times: part * times, AWKWARD, st.integers(30, 200)),
    )
).map("".join)


@pytest.fixture(scope="module")
def made() -> dict[str, Tokenizer]:
    return {kind: tokenizer_of(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def normalizing() -> dict[str, Tokenizer]:
    return {kind: tokenizer_of(kind, normalization="nfkc") for kind in KINDS[:3]}


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS_OF_ALL_UNICODE)
def test_round_trip_is_exact(made: dict[str, Tokenizer], kind: str, text: str) -> None:
    tokenizer = made[kind]
    ids = tokenizer.encode_array(text)
    assert tokenizer.decode(ids) == text == tokenizer.normalized(text)
    assert tokenizer.token_bytes[ids].sum() == len(text.encode())
    assert tokenizer.characters[ids].sum() == len(text)
    assert b"".join(tokenizer.pieces[i] for i in ids) == text.encode()
    never = {tokenizer.bos_id, tokenizer.eos_id, *tokenizer.specials.values()}
    assert not never & set(ids.tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_every_character_round_trips(made: dict[str, Tokenizer], kind: str) -> None:
    last = 0x110000 if kind != "wordpiece" else 0x20000  # it is slow on what it does not know
    text = "".join(chr(c) for c in range(last) if not 0xD800 <= c < 0xE000)
    text += "".join(chr(c) for c in range(0x20000, 0x110000, 97))
    assert made[kind].decode(made[kind].encode(text)) == text
    assert lost(made[kind]) is None


@pytest.mark.parametrize("kind", KINDS[:3])
@given(text=TEXTS_OF_ALL_UNICODE)
@example(
    text="[EMAIL\u0301 class\u0308[EMAIL_ADDRESS]\ufb01"
)  # symbols are not composed with marks
def test_round_trip_of_nfkc_is_exact_up_to_it(
    normalizing: dict[str, Tokenizer], kind: str, text: str
) -> None:
    tokenizer = normalizing[kind]
    ids = tokenizer.encode_array(text)
    assert tokenizer.decode(ids) == tokenizer.normalized(text)
    assert tokenizer.token_bytes[ids].sum() == len(tokenizer.normalized(text).encode())


@pytest.mark.parametrize("kind", KINDS[:3])
def test_nfkc_is_unicodes(normalizing: dict[str, Tokenizer], kind: str) -> None:
    # of characters that every version of Unicode's tables has
    for character in "ａﬁ½ℌ①\xa0\u3000ｶﾞ각e\u0301\u00e9Å":
        wanted = unicodedata.normalize("NFKC", character)
        assert normalizing[kind].decode(normalizing[kind].encode(character)) == wanted
    assert normalizing[kind].decode(normalizing[kind].encode("ﬁ\u2581ﬁ")) == "fi\u2581fi"
    assert "ﬁ" in (lost(normalizing[kind]) or "")


@pytest.mark.parametrize("kind", KINDS)
def test_symbols_are_one_token_and_names_of_special_tokens_are_text(
    made: dict[str, Tokenizer], kind: str
) -> None:
    tokenizer = made[kind]
    assert tuple(tokenizer.specials) == SPECIALS
    for symbol in SYMBOLS:
        (i,) = tokenizer.encode(symbol)
        assert tokenizer.pieces[i] == symbol.encode()
        assert [i] == [j for j in tokenizer.encode(f"x{symbol}y 1") if j == i]
    assert len(tokenizer.encode("[EMAIL")) == len(tokenizer.encode("[EMAIL_ADDRESS]")) == 1
    for name in SPECIALS:
        assert tokenizer.token_bytes[tokenizer.specials[name]] == 0
        assert tokenizer.decode([tokenizer.specials[name]]) == ""
    assert len({*tokenizer.specials.values(), tokenizer.bos_id, tokenizer.eos_id}) == 6


@pytest.mark.parametrize("kind", KINDS[:3])
def test_sizes_are_what_was_asked_for_and_digits_are_apart(
    made: dict[str, Tokenizer], kind: str
) -> None:
    tokenizer = made[kind]
    assert tokenizer.vocab_size == len(tokenizer.pieces) == 1200
    assert tokenizer.kind == kind
    texts = [piece.decode(errors="replace") for piece in tokenizer.pieces]
    assert not [text for text in texts if sum(map(str.isdigit, text)) > 1]
    grouped = open_tokenizer(trained(kind, split_digits=False), "x")
    assert any(re.fullmatch(rb" ?\d\d+", piece) for piece in grouped.pieces)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_training_is_deterministic(kind: str) -> None:
    assert trained(kind) == trained.__wrapped__(kind)


@pytest.mark.parametrize("kind", KINDS[:2])
def test_sentencepiece_is_the_librarys_own(kind: str) -> None:
    model = trained(kind)
    ours, own = open_tokenizer(model, "x"), sentencepiece.SentencePieceProcessor()
    own.LoadFromSerializedProto(model)
    for text in (*TEXTS, "\n".join(TEXTS), " \n  x\t y  "):
        assert ours.encode(text) == own.encode(text)
    assert ours.encode_batch(TEXTS) == own.encode(TEXTS)


def test_wordpiece_is_the_librarys_own() -> None:
    content = trained("wordpiece")
    ours = open_tokenizer(content, "x")
    own = tokenizers.Tokenizer.from_str(content.decode())
    own.encode_special_tokens = True
    for text in [
        *TEXTS,
        "a\n  b\x1c!\x1c c\t\t\td",
        "\u3000x \u3000 y",
        "ab" * 300,
        " " * 99 + "x",
    ]:
        ids = own.encode(text, add_special_tokens=False).ids
        assert ours.encode(text) == ids
        assert own.decode(ids) == text


@pytest.mark.parametrize("kind", KINDS[:3])
def test_largest_vocabulary_is_told(kind: str) -> None:
    pieces = ["a few words and a few more words"]
    with pytest.raises(UserError, match="largest possible size is") as caught:
        train_model(options(kind, vocab_size=5000), pieces)
    largest = int(str(caught.value).split("largest possible size is ")[1].split(":")[0])
    assert train_model(options(kind, vocab_size=largest), pieces)
    with pytest.raises(UserError, match=f"is {largest}:"):
        train_model(options(kind, vocab_size=largest + 1), pieces)
    with pytest.raises(UserError, match="holds no text"):
        train_model(options(kind), [" \n"])


def test_wordpiece_wants_room_for_bytes() -> None:
    with pytest.raises(UserError, match=r"no room for the bytes, twice each; set it to 519"):
        train_model(options("wordpiece", vocab_size=400), ["some words"])


def test_a_megabyte_without_spaces_is_encoded_in_pieces(made: dict[str, Tokenizer]) -> None:
    text = "ab" * (1 << 19)
    for tokenizer in made.values():
        ids = tokenizer.encode_array(text)
        assert tokenizer.token_bytes[ids].sum() == 1 << 20


def test_ids_are_stored_in_the_smallest_type(made: dict[str, Tokenizer]) -> None:
    assert {tokenizer.encode_array("x é").dtype for tokenizer in made.values()} == {
        np.dtype(np.uint16)
    }
