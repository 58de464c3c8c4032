"""Small tokenizers of each kind, made here and in the manner of published files."""

import functools
import json

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from jaxlm.config.tokens import Tokenizer as Options
from jaxlm.tokens.sample import pieces_of
from jaxlm.tokens.tokenizer import ByteTokenizer, Tokenizer, open_tokenizer
from jaxlm.tokens.train import train_model
from tests.tokens.conftest import CODE, TOPICS

TEXTS = [text for _, text in TOPICS[:40] + CODE]
SPECIALS = ("[MASK]", "<a>", "the", "<extra_id_0>")
SYMBOLS = ("[EMAIL_ADDRESS]", "[IP_ADDRESS]", "[EMAIL", "class")


def options(kind: str, **keys: object) -> Options:
    """The section of a small one with user symbols."""
    values = {"kind": kind, "vocab_size": 1200, "user_symbols": SYMBOLS}
    return Options.model_validate(values | keys)


@functools.cache
def trained(kind: str, **keys: object) -> bytes:
    """The file of a small one; made once."""
    pieces = [piece for text in TEXTS for piece in pieces_of(text)]
    return train_model(options(kind, **keys), pieces, SPECIALS)


def tokenizer_of(kind: str, **keys: object) -> Tokenizer:
    """A small one with special tokens and user symbols."""
    if kind == "byte":
        return ByteTokenizer(SPECIALS, SYMBOLS)
    return open_tokenizer(trained(kind, **keys), kind)


def like_gpt2() -> tokenizers.Tokenizer:
    """Byte-level BPE with one special token; cuts texts short, as some files do."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXTS, trainer)
    made.enable_truncation(50)
    made.enable_padding(length=60)
    return made


def like_bert() -> tokenizers.Tokenizer:
    """WordPiece of lower-cased words."""
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=names, show_progress=False)
    made.train_from_iterator(TEXTS, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


def like_llama2() -> tokenizers.Tokenizer:
    """What the conversion of LLaMA's SentencePiece model gives."""
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    learner = tokenizers.Tokenizer(models.BPE())
    learner.normalizer = normalizer
    learner.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=300, show_progress=False, max_token_length=8)
    )
    learned = json.loads(learner.to_str())["model"]
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    made = tokenizers.Tokenizer(
        models.BPE(
            {piece: i for i, piece in enumerate([*first, *learned["vocab"]])},
            [tuple(merge) for merge in learned["merges"]],
            byte_fallback=True,
            unk_token="<unk>",
            fuse_unk=True,
        )
    )
    made.normalizer = normalizer
    made.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    return made
