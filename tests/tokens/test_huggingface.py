"""Files of other makers: what they say of their ids, what they lose, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from jaxlm.config.tokenizer_file import parse_file
from jaxlm.errors import UserError
from jaxlm.tokens import load_tokenizer, train_tokenizer
from jaxlm.tokens.special import Special
from jaxlm.tokens.tokenizer import lost, open_tokenizer
from jaxlm.tokens.train import notes, taken_over
from jaxlm.workdir import Workdir
from tests.tokens.conftest import make_config
from tests.tokens.kinds import TEXTS, like_bert, like_gpt2, like_llama2

BEGIN = Special(bos="<|begin|>")
ANY = st.text(st.characters(exclude_categories=["Cs"]))


def content(made: tokenizers.Tokenizer) -> bytes:
    return str(made.to_str()).encode()


@pytest.fixture(scope="module")
def gpt2() -> bytes:
    return content(like_gpt2())


@pytest.fixture(scope="module")
def bert() -> bytes:
    return content(like_bert())


@pytest.fixture(scope="module")
def llama2() -> bytes:
    return content(like_llama2())


def test_byte_level_bpe_is_the_librarys_own_and_keeps_everything(gpt2: bytes) -> None:
    own = tokenizers.Tokenizer.from_str(gpt2.decode())
    own.no_truncation()
    own.no_padding()
    ours = open_tokenizer(gpt2, "x", BEGIN)
    for text in TEXTS:
        assert ours.encode(text) == own.encode(text).ids
        assert ours.decode(ours.encode(text)) == text == own.decode(ours.encode(text))
    assert ours.encode_batch(TEXTS[:3]) == [ours.encode(text) for text in TEXTS[:3]]
    assert lost(ours) is None
    name = "x <|endoftext|> <|begin|>"
    assert ours.decode(ours.encode(name)) == name
    assert not {ours.eos_id, ours.bos_id} & set(ours.encode(name))
    assert (ours.eos_id, ours.bos_id, ours.vocab_size) == (0, 600, 601)


@given(text=ANY)
def test_bytes_of_byte_level_ids(gpt2: bytes, text: str) -> None:
    ours = open_tokenizer(gpt2, "x", BEGIN)
    ids = ours.encode(text)
    assert ours.decode(ids) == text
    assert b"".join(ours.pieces[i] for i in ids) == text.encode()


def test_llamas_conversion(llama2: bytes) -> None:
    ours = open_tokenizer(llama2, "x")
    own = tokenizers.Tokenizer.from_str(llama2.decode())
    assert (ours.bos_id, ours.eos_id, ours.kind) == (1, 2, "bpe")
    assert ours.decode(ours.encode("a\u2581b")) == "a b", "which `lost` tells"
    assert lost(ours) is not None
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == own.encode(text, add_special_tokens=False).ids
        assert ours.decode(ids) == text
        # a space is put before every text
        assert ours.token_bytes[ids].sum() == len(text.encode()) + 1


def test_berts_loss_is_told(bert: bytes) -> None:
    ours = open_tokenizer(bert, "x")
    own = tokenizers.Tokenizer.from_str(bert.decode())
    assert (ours.bos_id, ours.eos_id) == (2, 3)
    assert ours.specials == {"[PAD]": 0, "[MASK]": 4}
    for text in TEXTS:
        assert ours.encode(text) == own.encode(text, add_special_tokens=False).ids
    ids = ours.encode("The classes!")
    assert ours.token_bytes[ids].sum() == len("theclasses!")
    # whole words are told apart though no space is in any piece
    assert ours.begins_word[ids].tolist()[0]
    (note,) = notes(ours)
    assert note.startswith("this tokenizer does not keep text as it is: \"It's  café")
    assert ours.normalized("É x") == "e x"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.pop("model"), "not a tokenizer.json"),
        (lambda data: data["model"].update(vocab="x"), "not a tokenizer.json"),
        (lambda data: data["model"]["vocab"].update(x=1 << 40), "cannot be right"),
        (lambda data: data.update(added_tokens=3), "not a tokenizer.json"),
        (lambda data: data["model"].update(type="Foo"), "tokenizers cannot read it"),
        (lambda data: data.update(decoder={"type": "Nothing"}), "tokenizers cannot read it"),
        (lambda data: data.update(added_tokens=[]), "begin and end of a document; name it with"),
    ],
)
def test_broken_files_are_refused(bert: bytes, change: Any, said: str) -> None:
    data = json.loads(bert)
    change(data)
    with pytest.raises(UserError, match=f"x\\.json: .*{said}") as caught:
        open_tokenizer(json.dumps(data).encode(), "x.json")
    assert len(caught.value.messages) == 1
    for broken in (b"{", b"{}", b"[]", bert[:2000], b"\xff{", b'{"model": ' * 3000):
        with pytest.raises(UserError, match=r"x\.json: not a tokenizer"):
            open_tokenizer(broken, "x.json")


def test_what_stands_around_a_text_names_begin_and_end() -> None:
    made = like_gpt2()
    made.add_special_tokens(["<|x|>", "<|y|>"])
    assert parse_file(content(made), "x").bos is None
    made.post_processor = tokenizers.processors.Sequence([
        tokenizers.processors.ByteLevel(),
        tokenizers.processors.TemplateProcessing(
            single="<|x|> $A <|y|>", special_tokens=[("<|x|>", 600), ("<|y|>", 601)]
        ),
    ])  # fmt: skip
    file = parse_file(content(made), "x")
    assert (file.bos, file.eos, file.size) == ("<|x|>", "<|y|>", 602)
    roberta = tokenizers.processors.RobertaProcessing(("<|x|>", 600), ("<|y|>", 601))
    made.post_processor = roberta
    assert parse_file(content(made), "x")[5:] == ("<|y|>", "<|x|>")


def test_a_file_is_taken_and_kept(tmp_path: Path, gpt2: bytes) -> None:
    path = tmp_path / "some.file"
    path.write_bytes(gpt2)
    workdir = Workdir(tmp_path)
    config = make_config(tokenizer={"path": str(path), "bos": "<|begin|>", "specials": ["<a>"]})
    assert config.tokenizer.vocab_size is None
    train_tokenizer(config, workdir)
    loaded = load_tokenizer(workdir.tokenizer)
    assert (workdir.tokenizer / "tokenizer.json").read_bytes() == gpt2
    assert (loaded.bos_id, loaded.specials, loaded.vocab_size) == (600, {"<a>": 601}, 602)
    assert notes(loaded) == ["2 special tokens get ids behind those of the file: <|begin|>, <a>"]
    (workdir.tokenizer / "tokenizer.json").write_bytes(gpt2.replace(b'"merges"', b' "merges"'))
    with pytest.raises(UserError, match=r"tokenizer\.json: not the file that its manifest"):
        load_tokenizer(workdir.tokenizer)
    config = make_config(tokenizer={"path": str(path), "bos": "<|begin|>", "vocab_size": 600})
    with pytest.raises(UserError, match=r"has 600 ids and lacks <\|begin\|>, .*vocab_size=601"):
        taken_over(config, str(path))
    config = make_config(tokenizer={"path": str(path), "bos": "in"})
    with pytest.raises(UserError, match="text that is one token of the file cannot be a special"):
        taken_over(config, str(path))
