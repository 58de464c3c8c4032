"""The section `tokenizer`: what goes with what, candidates, sizes that a file says."""

import json
from pathlib import Path
from typing import Any

import pytest

from jaxlm.config.load import dump, load, validate
from jaxlm.config.tokens import Tokenizer
from jaxlm.errors import UsageError

MODEL: dict[str, Any] = {
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 5}, "merges": []},
    "added_tokens": [
        {"id": 6, "content": "<s>", "special": True},
        {"id": 7, "content": "</s>", "special": True},
        {"id": 8, "content": "word", "special": False},
    ],
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "tokenizer.json").write_text(json.dumps(MODEL))
    return str(tmp_path / "tokenizer.json")


def test_sizes_are_the_files(path: str) -> None:
    config = validate({"tokenizer": {"path": path}})
    assert config.tokenizer.vocab_size == config.vocab_size == 9
    assert json.loads(config.model_dump_json())["tokenizer"]["vocab_size"] == 9
    wanted = {"path": path, "specials": ["<a>"], "bos": "<begin>", "eos": "</s>"}
    config = validate({"tokenizer": wanted, "objective": {"kind": "fim"}})
    assert config.vocab_size == 9 + len(["<a>", "<begin>", "<fim_prefix>", "<fim_suffix>", "..."])
    config = validate({"tokenizer": {"path": path}, "model": {"vocab_size": 64}})
    assert (config.tokenizer_size, config.vocab_size) == (9, 64)
    with pytest.raises(UsageError, match=r"model\.vocab_size: 8 is smaller than .* 9"):
        validate({"tokenizer": {"path": path}, "model": {"vocab_size": 8}})
    given = validate({"tokenizer": {"path": path, "vocab_size": 12}})
    assert given.vocab_size == 12, "what is given is compared when the tokenizer is taken"


def test_a_file_that_is_not_there_can_be_planned_with(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.model")
    config = validate({"tokenizer": {"path": missing}, "model": {"vocab_size": 64}})
    assert (config.tokenizer_size, config.vocab_size) == (None, 64)
    (tmp_path / "again.yaml").write_text(dump(config))
    assert load(tmp_path / "again.yaml") == config
    with pytest.raises(UsageError, match=r"missing\.model: No such file"):
        validate({"tokenizer": {"path": missing}})
    config = validate({"tokenizer": {"path": missing, "vocab_size": 500}})
    assert config.vocab_size == 500
    for no_file in (str(tmp_path), "/dev/zero"):
        with pytest.raises(UsageError, match=f"tokenizer.path {no_file}: not a file"):
            validate({"tokenizer": {"path": no_file}})
    (tmp_path / "missing.model").write_text("no model")
    with pytest.raises(UsageError, match=r"missing\.model: not a tokenizer"):
        validate({"tokenizer": {"path": missing}, "model": {"vocab_size": 64}})


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"kind": "byte", "normalization": "nfkc"}, "normalization has no part in kind byte"),
        ({"kind": "byte", "split_digits": False}, "split_digits has no part in kind byte"),
        ({"kind": "wordpiece", "character_coverage": 0.99}, "character_coverage has no part in"),
        ({"path": "x", "user_symbols": ["[X]"]}, "user_symbols has no part in a file at path"),
        ({"path": "x", "normalization": "nfkc"}, "normalization has no part in a file at path"),
        ({"bos": "<s>"}, "bos has no part in kind bpe; leave it out"),
        ({"kind": "unigram", "eos": "<s>"}, "eos has no part in kind unigram"),
        ({"vocab_size": None}, "vocab_size: null is for a file at path"),
        ({"vocab_size": 200}, "200 ids do not hold the 256 bytes"),
        ({"vocab_size": 0}, "greater than or equal to 1"),
        ({"vocab_size": 1 << 30}, "less than or equal to 16777216"),
        ({"kind": "unigramm"}, "did you mean 'unigram'?"),
        ({"normalization": "nfc"}, "'nfc' is not one of identity, nfkc"),
        ({"user_symbol": ["x"]}, "did you mean tokenizer.user_symbols?"),
        ({"user_symbols": ["[X]", "[X]"]}, "user_symbols names a token twice"),
        ({"user_symbols": ["[X]"], "specials": ["[X]"]}, "is in specials, which text never"),
        ({"user_symbols": ["a b"]}, "string should match pattern"),
        ({"compare": ["byte", "byte"]}, "compare names a tokenizer twice"),
        ({"compare": ["bpo-8k"]}, "compare: 'bpo-8k' is no candidate; give KIND-SIZE"),
        ({"compare": ["bpe-8m"]}, "compare: 'bpe-8m' is no candidate"),
        ({"compare": ["bpe"]}, "compare: 'bpe' is no candidate"),
        ({"compare": ["bpe-100"]}, "100 ids do not hold the 256 bytes"),
        ({"kind": "wordpiece", "vocab_size": 500}, "no room for text beside 512 bytes, 3 control"),
        ({"vocab_size": 261, "user_symbols": ["[X]", "[Y]"]}, "2 special tokens and user symbols"),
    ],
)
def test_what_cannot_be_is_refused(section: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        validate({"tokenizer": section})
    (message,) = caught.value.messages
    assert said in message
    assert message.startswith("tokenizer")


def test_symbols_are_not_special_tokens_of_the_objective() -> None:
    with pytest.raises(UsageError, match=r"tokenizer\.user_symbols: <fim_prefix> is a special"):
        validate({"objective": {"kind": "fim"}, "tokenizer": {"user_symbols": ["<fim_prefix>"]}})


def test_candidates() -> None:
    names = ("bpe-8k", "unigram-32768", "wordpiece-32k", "byte", "my/tokenizer.model")
    options = Tokenizer(compare=names, normalization="nfkc", user_symbols=("[X]",))
    found = options.candidates()
    assert [(c.kind, c.vocab_size, c.path) for c in found.values()] == [
        ("bpe", 8000, None), ("unigram", 32_768, None), ("wordpiece", 32_000, None),
        ("byte", 258, None), ("bpe", None, "my/tokenizer.model"),
    ]  # fmt: skip
    assert [c.normalization for c in found.values()] == ["nfkc"] * 3 + ["identity"] * 2
    assert [c.user_symbols for c in found.values()] == [("[X]",)] * 4 + [()]
    taken = Tokenizer(path="x", bos="<b>", compare=("bpe-8k",)).candidates()["bpe-8k"]
    assert (taken.kind, taken.vocab_size, taken.path, taken.bos) == ("bpe", 8000, None, None)


def test_symbols_of_bytes_have_ids() -> None:
    config = validate({"tokenizer": {"kind": "byte", "specials": ["<a>"], "user_symbols": ["[X]"]}})
    assert config.vocab_size == 260
