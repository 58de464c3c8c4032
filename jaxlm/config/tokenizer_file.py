"""What the file of an existing tokenizer says of its ids: how many, which are special tokens."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxlm.errors import UserError

LARGEST_FILE = 1 << 30
BEGIN_NAMES = (
    "<s>", "[CLS]", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<BOS>",
    "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
)  # fmt: skip
END_NAMES = (
    "</s>", "[SEP]", "<eos>", "<|end_of_text|>", "<|endoftext|>", "<EOS>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
)  # fmt: skip
"""Names of these tokens in published files; in each the first that the file has is taken."""


class TokenizerFile(NamedTuple):
    """The content of a tokenizer.model or tokenizer.json, and what it says of itself."""

    name: str
    """For messages."""
    format: Literal["sentencepiece", "huggingface"]
    content: bytes
    size: int
    """One more than the largest id."""
    specials: dict[str, int]
    """Ids that text never becomes, by name, BOS and EOS among them."""
    bos: str | None
    eos: str | None
    """None where the file does not say it, or has the same token for both (then the end)."""

    def lacks(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Those of these special tokens that are not in the file, and get ids behind its own."""
        return tuple(name for name in dict.fromkeys(names) if name not in self.specials)


def read_file(path: str | Path) -> TokenizerFile:
    """The file at tokenizer.path. Raises UserError where it is missing or no tokenizer."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"tokenizer.path {path}: not a file; give that of a tokenizer")
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path}: larger than 1 GiB; this is no tokenizer")
        return parse_file(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"tokenizer.path {path}: {error.strerror}") from None


def parse_file(content: bytes, name: str) -> TokenizerFile:
    """What a content says. Raises UserError where it is neither of the two formats."""
    if content.lstrip()[:1] == b"{":
        return _huggingface(content, name)
    return _sentencepiece(content, name)


def _sentencepiece(content: bytes, name: str) -> TokenizerFile:
    import sentencepiece

    processor: Any = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(content)
    except RuntimeError:
        raise UserError(
            f"{name}: not a tokenizer; give a SentencePiece tokenizer.model or a Hugging Face "
            "tokenizer.json that is whole"
        ) from None
    size = processor.vocab_size()
    specials = {processor.id_to_piece(i): i for i in range(size) if processor.is_control(i)}
    bos, eos = (
        processor.id_to_piece(i) if i in specials.values() else None
        for i in (processor.bos_id(), processor.eos_id())
    )
    return TokenizerFile(
        name, "sentencepiece", content, size, specials, None if bos == eos else bos, eos
    )


def _huggingface(content: bytes, name: str) -> TokenizerFile:
    """The keys of a tokenizer.json that tokenizers 0.23 writes."""
    try:
        data = json.loads(content)
        vocab = data["model"]["vocab"]
        if isinstance(vocab, list):  # unigram: pairs of piece and score, in the order of ids
            size = len(vocab)
        else:
            size = max(vocab.values(), default=-1) + 1
        added = {str(token["content"]): int(token["id"]) for token in data["added_tokens"]}
        size = max(size, *(i + 1 for i in added.values())) if added else size
        specials = {
            str(token["content"]): int(token["id"])
            for token in data["added_tokens"]
            if token["special"] and token["content"] != data["model"].get("unk_token")
        }
        begins, ends = _around(data.get("post_processor"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{name}: not a tokenizer.json as Hugging Face's tokenizers writes it, with a model, "
            "its vocabulary and added_tokens"
        ) from None
    if not 0 < size <= 1 << 24 or min(specials.values(), default=0) < 0:
        raise UserError(f"{name}: ids up to {size - 1} cannot be right")
    bos = next((n for n in (*begins, *BEGIN_NAMES) if n in specials), None)
    eos = next((n for n in (*ends, *END_NAMES) if n in specials), None)
    return TokenizerFile(
        name, "huggingface", content, size, specials, None if bos == eos else bos, eos
    )


def _around(processor: Any) -> tuple[list[str], list[str]]:
    """The special tokens that a post-processor puts before and behind a single text."""
    begins: list[str] = []
    ends: list[str] = []
    for step in _steps(processor):
        if step["type"] == "TemplateProcessing":
            side = begins
            for part in step["single"]:
                if "Sequence" in part:
                    side = ends
                else:
                    side.append(str(part["SpecialToken"]["id"]))
        elif step["type"] in ("BertProcessing", "RobertaProcessing"):
            begins.append(str(step["cls"][0]))
            ends.append(str(step["sep"][0]))
    return begins, ends


def _steps(processor: Any) -> Iterator[dict[str, Any]]:
    if processor is not None and processor["type"] == "Sequence":
        for step in processor["processors"]:
            yield from _steps(step)
    elif processor is not None:
        yield processor
