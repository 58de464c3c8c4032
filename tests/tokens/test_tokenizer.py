import hashlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from jaxlm.config.tokens import Tokenizer as Options
from jaxlm.errors import UserError
from jaxlm.tokens import decode_named, encode_named, load_tokenizer
from jaxlm.tokens.sentencepieces import SentencePieceTokenizer
from jaxlm.tokens.special import Special
from jaxlm.tokens.tokenizer import (
    OBJECTIVES_TOKENS,
    ByteTokenizer,
    Tokenizer,
    lost,
    open_tokenizer,
)
from jaxlm.tokens.train import train_model
from jaxlm.workdir import Workdir
from tests.tokens.conftest import AWKWARD, CODE, TOPICS

# Characters that tokenizers lose: white space, SentencePiece's own marks, controls, byte order
# marks, unassigned and last code points; all others of Unicode beside them.
SPECIAL = " \n\t\r\x00\x0b\x85\xa0\u2028\u2581\u2585\u2047\ufeff\ufffd\uffff\U0010ffff<>s/0x"
TEXTS = st.text(st.one_of(st.sampled_from(SPECIAL), st.characters(exclude_categories=["Cs"])))


@pytest.fixture(scope="module")
def tokenizer(made: Workdir) -> Tokenizer:
    return load_tokenizer(made.tokenizer)


@given(text=TEXTS)
def test_round_trip_is_exact(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_bytes[ids].sum() == len(text.encode())
    assert tokenizer.bos_id not in ids
    assert tokenizer.eos_id not in ids


@given(text=TEXTS)
def test_bytes_round_trip(text: str) -> None:
    byte = ByteTokenizer()
    ids = byte.encode(text)
    assert byte.decode([256, *ids, 257]) == text
    assert ids == byte.encode_array(text).tolist() == list(text.encode())
    assert byte.token_bytes[ids].sum() == len(ids)


def test_every_character_round_trips(tokenizer: Tokenizer) -> None:
    text = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=st.text(st.sampled_from("ab \n\t.,12éß漢")))
def test_ids_are_sentencepieces_own(tokenizer: Tokenizer, made: Workdir, text: str) -> None:
    own = sentencepiece.SentencePieceProcessor(model_file=str(made.tokenizer / "tokenizer.model"))
    assert tokenizer.encode(text) == own.encode(text)


def test_ids_of_documents_are_sentencepieces_own(tokenizer: Tokenizer, made: Workdir) -> None:
    own = sentencepiece.SentencePieceProcessor(model_file=str(made.tokenizer / "tokenizer.model"))
    texts = [text for _, text in TOPICS + CODE]
    assert tokenizer.encode_batch(texts) == own.encode(texts)


def test_model_keeps_white_space_and_digits(tokenizer: Tokenizer, made: Workdir) -> None:
    own = sentencepiece.SentencePieceProcessor(model_file=str(made.tokenizer / "tokenizer.model"))
    pieces = [own.id_to_piece(i) for i in range(own.vocab_size())]
    assert "\u2581" * 4 in pieces, "runs of spaces are learned"
    assert any("\n" in piece for piece in pieces), "line ends are learned"
    assert not [p for p in pieces if not p.startswith("<0x") and sum(map(str.isdigit, p)) > 1]
    assert len(tokenizer.encode("2024")) == 4


def test_control_text_is_not_control_ids(tokenizer: Tokenizer) -> None:
    for text in ("<s>", "</s>", "<unk>", "<0x0A>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_decode_of_half_a_character(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("\U0001f9ff")
    assert tokenizer.decode(ids[:-1]).strip("\ufffd") == ""
    assert tokenizer.decode([tokenizer.bos_id, tokenizer.eos_id]) == ""


def test_manifest_names_the_model(made: Workdir, tokenizer: Tokenizer) -> None:
    manifest = json.loads((made.tokenizer / "manifest.json").read_text())
    assert manifest["hash"] == tokenizer.hash
    assert manifest["vocab_size"] == tokenizer.vocab_size == 1024 == len(tokenizer.token_bytes)
    assert (manifest["bos_id"], manifest["eos_id"]) == (1, 2)


def test_another_model_is_refused(made: Workdir, tmp_path: Path) -> None:
    shutil.copytree(made.tokenizer, tmp_path / "tokenizer")
    model = tmp_path / "tokenizer" / "tokenizer.model"
    model.write_bytes(train_model(Options(vocab_size=400), [TOPICS[0][1]]))
    with pytest.raises(UserError, match=r"tokenizer\.model: not the file"):
        load_tokenizer(tmp_path / "tokenizer")
    with pytest.raises(UserError, match="no tokenizer; run"):
        load_tokenizer(tmp_path / "nothing")
    (tmp_path / "tokenizer" / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="again"):
        load_tokenizer(tmp_path / "tokenizer")


def test_files_that_are_no_tokenizer_are_refused(made: Workdir) -> None:
    whole = (made.tokenizer / "tokenizer.model").read_bytes()
    for broken in (b"garbage", b"", whole[:1000], whole[:-5]):
        with pytest.raises(UserError, match=r"x\.model: not a tokenizer; give a SentencePiece"):
            open_tokenizer(broken, "x.model")
    with pytest.raises(UserError, match=r"which special token is the begin of a document; name it"):
        open_tokenizer(_train(bos_id=-1), "x.model")


def test_begin_of_document_may_be_named() -> None:
    model = _train(bos_id=-1, pad_id=3, control_symbols=["<x>"])
    plain = sentencepiece.SentencePieceProcessor(model_proto=model)
    pad = open_tokenizer(model, "x", Special(bos="<pad>"))
    assert (pad.bos_id, pad.vocab_size, pad.added) == (3, 500, ())
    other = open_tokenizer(model, "x", Special(bos="<begin>"))
    assert (other.bos_id, other.vocab_size, other.added) == (500, 501, ("<begin>",))
    assert other.specials.keys() == {"<pad>", "<x>"}
    assert len({pad.hash, other.hash, hashlib.sha256(model).hexdigest()}) == 3
    assert pad.encode(" x<begin>") == other.encode(" x<begin>") == plain.encode(" x<begin>")
    with pytest.raises(UserError, match=r"</s> cannot be both begin and end"):
        open_tokenizer(model, "x", Special(bos="</s>"))


def test_what_a_model_loses_is_told() -> None:
    lossy = open_tokenizer(_train(byte_fallback=False), "x.model")
    assert "comes back as" in (lost(lossy) or "")
    assert lossy.token_bytes[0] == 0, "what is unknown stands for no byte that is known"
    assert lost(ByteTokenizer()) is None


def test_a_model_with_a_leading_space_encodes_whole_texts() -> None:
    # LLaMA's tokenizer adds a space before a text, so its words cannot be looked up apart.
    model = _train(add_dummy_prefix=True, remove_extra_whitespaces=False)
    own = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokenizer = SentencePieceTokenizer(model, "x")
    for _, text in CODE:
        assert tokenizer.encode(text) == own.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text


def _train(**options: object) -> bytes:
    model = io.BytesIO()
    settings: dict[str, Any] = {
        "model_type": "bpe",
        "vocab_size": 500,
        "normalization_rule_name": "identity",
        "byte_fallback": True,
        "minloglevel": 2,
        **options,
    }
    lines = [line for _, text in CODE for line in text.splitlines()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, **settings
    )
    return model.getvalue()


def test_dtype_follows_the_vocabulary(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_array(AWKWARD[0][1]).dtype == np.uint16


NAMES = ("[MASK]", "<extra_id_0>", "<a>", "<extra_id_1>")


@pytest.fixture(scope="module")
def special() -> list[Tokenizer]:
    """A trained tokenizer with special tokens, and bytes with the same."""
    pieces = [text for _, text in CODE]
    model = train_model(Options(vocab_size=500), pieces, NAMES)
    return [SentencePieceTokenizer(model, "x"), ByteTokenizer(NAMES)]


@pytest.mark.parametrize("number", [0, 1])
def test_text_never_becomes_special_tokens(special: list[Tokenizer], number: int) -> None:
    tokenizer = special[number]
    assert tuple(tokenizer.specials) == NAMES
    ids = list(tokenizer.specials.values())
    assert sorted(ids) == list(range(ids[0], ids[0] + 4)), "in the order they were asked for"
    assert not set(ids) & {tokenizer.bos_id, tokenizer.eos_id}
    for text in (*NAMES, "".join(NAMES), "x [MASK]<extra_id_1> y"):
        assert not set(tokenizer.encode(text)) & set(ids)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.token_bytes[ids].tolist() == [0] * 4
    assert tokenizer.decode([*ids, *tokenizer.encode("x")]) == "x"
    assert len(tokenizer.token_bytes) == tokenizer.vocab_size


@pytest.mark.parametrize("number", [0, 1])
@given(
    # hypothesis takes strings from our sources too: of them, no names that are refused
    parts=st.lists(
        st.one_of(
            st.sampled_from(NAMES), TEXTS.filter(lambda text: not OBJECTIVES_TOKENS.search(text))
        )
    )
)
def test_special_tokens_can_be_written_by_name(
    special: list[Tokenizer], number: int, parts: list[str]
) -> None:
    tokenizer, text = special[number], "".join(parts)
    ids = encode_named(tokenizer, text)
    assert decode_named(tokenizer, ids) == text
    among = [i for i in ids if i in tokenizer.specials.values()]
    assert len(among) >= sum(part in NAMES for part in parts)
    # without the names it is plain text
    assert tokenizer.decode(ids) == re.sub("|".join(map(re.escape, NAMES)), "", text)


@pytest.mark.parametrize("name", ["[S2S]", "<extra_id_7>", "<fim_prefix>"])
def test_a_special_token_that_is_missing_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="it has <a>"):
        encode_named(ByteTokenizer(["<a>"]), f"<a>{name}x")


def test_special_tokens_are_part_of_the_hash(special: list[Tokenizer]) -> None:
    assert ByteTokenizer().hash == hashlib.sha256(b"jaxlm byte tokenizer 1").hexdigest()
    hashes = {ByteTokenizer(names).hash for names in ((), ("<a>",), ("<b>",), ("<a>", "<b>"))}
    assert len(hashes) == 4
    assert special[1].vocab_size == 262


def test_ids_know_their_characters_and_words(special: list[Tokenizer]) -> None:
    text = " one\ttwo\n\nthree 漢字🧿 x"
    for tokenizer in special:
        ids = tokenizer.encode_array(text)
        assert tokenizer.characters[ids].sum() == len(text)
        pieces = [tokenizer.decode([i]) for i in ids]
        for token, piece in zip(ids, pieces, strict=True):
            assert tokenizer.begins_word[token] == piece[:1].isspace()
    byte = special[1]
    assert byte.characters[list("é".encode())].tolist() == [1, 0]
    assert np.flatnonzero(byte.begins_word).tolist() == [9, 10, 11, 12, 13, 32]


def test_ids_know_where_words_go_on(special: list[Tokenizer]) -> None:
    text = "It's 3.5 café_x 漢字ab\tc"
    words = ["It", "'", "s", " ", "3", ".", "5", " ", "caf\xe9", "_", "x", " "]
    for tokenizer in special:
        ids = tokenizer.encode_array(text)
        first, last = tokenizer.word_ends[ids].T
        begins = np.flatnonzero(~(last[:-1] & first[1:])) + 1
        parts = [tokenizer.decode(part) for part in np.split(ids, begins)]
        assert "".join(parts) == text
        assert not tokenizer.word_ends[list(tokenizer.specials.values())].any()
    # bytes are told apart everywhere, but behind an ideograph
    assert parts == [*words, "漢", "字ab", "\t", "c"]
