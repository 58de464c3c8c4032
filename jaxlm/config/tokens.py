"""The section `tokenizer`: text to token ids."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from jaxlm.config.base import Section, SpecialName

BYTE_VOCABULARY = 258
"""256 bytes, begin and end of document."""
TRAINED = ("bpe", "unigram", "wordpiece")
CANDIDATE = re.compile(r"([a-z]+)-([0-9]+)(k?)")

type TokenName = Annotated[str, Field(min_length=1, max_length=256)]


class Tokenizer(Section):
    """How text becomes token ids."""

    kind: Literal["bpe", "unigram", "wordpiece", "byte"] = "bpe"
    """Byte pair encoding or a unigram model by SentencePiece, both with byte fallback; WordPiece
    over bytes, by Hugging Face's tokenizers (needs jaxlm[hf]); or one id a UTF-8 byte. With `path`
    the file says it."""
    vocab_size: Annotated[int, Field(ge=1, le=1 << 24)] | None = 32_000
    """Ids in all, special tokens, control ids and the 256 bytes included; for kind byte 258, to
    which the special tokens are added. With `path` it is the file's where it is left out (null)."""
    path: Annotated[str, Field(min_length=1)] | None = None
    """An existing SentencePiece tokenizer.model or Hugging Face tokenizer.json to take; null: train
    one on the corpus. Special tokens that the file lacks get ids behind its own."""
    bos: TokenName | None = None
    """Special token at the begin of a document, for a file at `path` that does not say it."""
    eos: TokenName | None = None
    """Special token at the end of a document, for a file at `path` that does not say it."""
    sample_bytes: PositiveInt = 64 << 20
    """Text that the tokenizer is trained on, at most, drawn by the shares of data.mixture."""
    normalization: Literal["identity", "nfkc"] = "identity"
    """identity keeps every text exactly; nfkc makes compatible characters (full width, ligatures,
    no-break spaces) one, so that a text comes back as its NFKC form."""
    split_digits: bool = True
    """Every digit is a token of its own."""
    character_coverage: Annotated[float, Field(gt=0.9, le=1.0)] = 0.9999
    """Share of the sample's characters that get an id of their own; the rest become bytes. For bpe
    and unigram."""
    max_piece_length: Annotated[int, Field(ge=1, le=512)] = 16
    """Longest piece, in characters; for wordpiece in bytes."""
    specials: Annotated[tuple[SpecialName, ...], Field(strict=False)] = ()
    """Special tokens besides those that the objective needs, which text never becomes."""
    user_symbols: Annotated[tuple[SpecialName, ...], Field(strict=False)] = ()
    """Strings that are one token each wherever a text holds them, such as [EMAIL_ADDRESS]."""
    measure_bytes: PositiveInt = 4 << 20
    """Text that the tokenizer is measured on, at most, drawn like the sample it was trained on and
    apart from it while there is enough."""
    compare: Annotated[tuple[TokenName, ...], Field(strict=False)] = ()
    """Tokenizers that `jaxlm tokenizer` measures beside that of the run: KIND-SIZE, such as bpe-32k
    (k: 1,000) or unigram-32768, which are trained on the same sample; byte; paths of files."""

    @model_validator(mode="before")
    @classmethod
    def _size_of_its_own(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("kind") == "byte":
            if values.get("vocab_size", BYTE_VOCABULARY) != BYTE_VOCABULARY:
                raise ValueError(f"kind byte has a vocab_size of {BYTE_VOCABULARY}; leave it out")
            if values.get("path") is not None:
                raise ValueError("kind byte has no file; leave path out")
            return {**values, "vocab_size": BYTE_VOCABULARY}
        if values.get("path") is not None:
            return {"vocab_size": None, **values}
        return values

    @model_validator(mode="after")
    def _parts_fit(self) -> "Tokenizer":
        for key in ("specials", "user_symbols", "compare"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                what = "tokenizer" if key == "compare" else "token"
                raise ValueError(f"{key} names a {what} twice")
        if both := set(self.specials) & set(self.user_symbols):
            raise ValueError(
                f"{min(both)} is in specials, which text never becomes, and in user_symbols"
            )
        if self.path is None and self.vocab_size is None:
            raise ValueError("vocab_size: null is for a file at path, which says it; give a number")
        if self.path is None and self.vocab_size is not None and self.vocab_size < BYTE_VOCABULARY:
            raise ValueError(
                f"vocab_size: {self.vocab_size} ids do not hold the 256 bytes, begin and end of "
                f"document; use {BYTE_VOCABULARY} or more"
            )
        what = "a file at path" if self.path is not None else f"kind {self.kind}"
        for key in self._without_effect():
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} has no part in {what}; leave it out")
        for name in self.compare:
            self._candidate(name)
        return self

    def _without_effect(self) -> tuple[str, ...]:
        """Keys that say nothing for this kind, or for a file."""
        if self.path is not None:
            return (
                "normalization", "split_digits", "character_coverage", "max_piece_length",
                "user_symbols",
            )  # fmt: skip
        if self.kind == "byte":
            return (
                "normalization", "split_digits", "character_coverage", "max_piece_length", "bos",
                "eos",
            )  # fmt: skip
        if self.kind == "wordpiece":
            return "character_coverage", "bos", "eos"
        return "bos", "eos"

    def candidates(self) -> dict[str, "Tokenizer"]:
        """The tokenizers of `compare` by name, each a section of its own."""
        return {name: self._candidate(name) for name in self.compare}

    def _candidate(self, name: str) -> "Tokenizer":
        """What a name of `compare` stands for. Raises ValueError where it is none."""
        kept = self.model_dump() | {"compare": (), "bos": None, "eos": None, "path": None}
        shape = CANDIDATE.fullmatch(name)
        if name == "byte":
            changes: dict[str, Any] = {"kind": "byte", "vocab_size": BYTE_VOCABULARY}
        elif shape and shape[1] in TRAINED and shape[2] != "0":
            changes = {"kind": shape[1], "vocab_size": int(shape[2]) * (1000 if shape[3] else 1)}
        elif "/" in name or name.endswith((".model", ".json")):
            changes = {"path": name, "vocab_size": None, "kind": "bpe"}
        else:
            raise ValueError(
                f"compare: {name!r} is no candidate; give KIND-SIZE with a kind of "
                f"{', '.join(TRAINED)} (bpe-32k), byte, or the path of a .model or .json file"
            )
        values = kept | changes
        probe = self.model_copy(update=values)
        defaults = {key: type(self).model_fields[key].default for key in probe._without_effect()}
        return Tokenizer.model_validate(values | defaults)
