"""Documents to token ids, token ids to batches."""

from jaxlm.tokens.encode import tokenize
from jaxlm.tokens.loader import Loader, open_loader
from jaxlm.tokens.measure import measure_tokenizer
from jaxlm.tokens.tokenizer import Tokenizer, decode_named, encode_named, load_tokenizer
from jaxlm.tokens.train import check_tokenizer, notes, train_tokenizer
from jaxlm.tokens.validation import held_out, stream_names, validation_batches

__all__ = [
    "Loader",
    "Tokenizer",
    "check_tokenizer",
    "decode_named",
    "encode_named",
    "held_out",
    "load_tokenizer",
    "measure_tokenizer",
    "notes",
    "open_loader",
    "stream_names",
    "tokenize",
    "train_tokenizer",
    "validation_batches",
]
