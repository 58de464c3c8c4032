"""Documents to token ids, token ids to batches."""

from jaxlm.tokens.encode import tokenize
from jaxlm.tokens.loader import (
    Loader,
    held_out,
    open_loader,
    stream_names,
    validation_batches,
)
from jaxlm.tokens.measure import measure_tokenizer
from jaxlm.tokens.tokenizer import Tokenizer, decode_named, encode_named, load_tokenizer
from jaxlm.tokens.train import notes, taken_over, train_tokenizer

__all__ = [
    "Loader",
    "Tokenizer",
    "decode_named",
    "encode_named",
    "held_out",
    "load_tokenizer",
    "measure_tokenizer",
    "notes",
    "open_loader",
    "stream_names",
    "taken_over",
    "tokenize",
    "train_tokenizer",
    "validation_batches",
]
