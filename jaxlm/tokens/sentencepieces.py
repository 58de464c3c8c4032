"""Tokenizers of SentencePiece: byte pair encoding and unigram models, trained here or elsewhere."""

import re
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from jaxlm.config.tokenizer_file import parse_file
from jaxlm.tokens.pieces import Pieces, Words
from jaxlm.tokens.special import AS_IT_IS, Special, hash_of, special_ids

SPACE_MARK = "\u2581"


class SentencePieceTokenizer(Pieces):
    """A SentencePiece model.

    U+2581, which SentencePiece uses for the space and so cannot tell from one, is written as the
    byte pieces of its UTF-8 form; SentencePiece's own decoder gives it back.

    Words of a byte pair encoding are looked up, where the model lets them be encoded one by one. A
    unigram model, which is as fast as that, takes the text as a whole: it adds up log probabilities
    in fp32 from the begin of what it is given, so that ties may fall otherwise in a word alone.
    """

    def __init__(
        self, model: bytes, name: str = "tokenizer.model", special: Special = AS_IT_IS
    ) -> None:
        """The content of a tokenizer.model; `name` is used in messages.

        special: see `special_ids`. Raises UserError where it is none, or has no ids for begin and
        end of document.
        """
        file = parse_file(model, name)
        self._processor = processor = sentencepiece.SentencePieceProcessor()
        processor.LoadFromSerializedProto(model)
        self.kind, self._size = _kind(model), file.size
        ids = special_ids(file, special)
        self.bos_id, self.eos_id, self.specials, self.added = ids
        self.hash = hash_of(file, ids)
        pieces = [processor.id_to_piece(i) for i in range(file.size)]
        byte_ids = {
            int(piece[3:5], 16): i for i, piece in enumerate(pieces) if processor.is_byte(i)
        }
        self._know(
            [
                bytes([int(piece[3:5], 16)])
                if processor.is_byte(i)
                else b""
                if processor.is_control(i) or processor.is_unknown(i) or processor.is_unused(i)
                else piece.replace(SPACE_MARK, " ").encode()
                for i, piece in enumerate(pieces)
            ]
            + [b""] * len(self.added)
        )
        self._code = np.dtype(self._dtype).char
        self._space_mark = (
            self._packed([byte_ids[byte] for byte in SPACE_MARK.encode()])
            if len(byte_ids) == 256
            else None  # what it does not know is lost, U+2581 too
        )
        # Where no piece holds a space behind another character, and nothing is put before a text
        # or taken away, what stands before a space and what follows are encoded alike apart and
        # together, so that words can be looked up.
        encode = processor.encode
        apart = (
            encode("a a") == encode("a") + encode(" a")
            and encode("a  a") == encode("a") + encode("  a")
            and encode("a ") == encode("a") + encode(" ")
            and not any(re.search(f"[^{SPACE_MARK}]{SPACE_MARK}", piece) for piece in pieces)
        )
        self._words = Words(r" *[^ ]+| +", self._of_words) if apart and self.kind == "bpe" else None

    def _packed(self, ids: list[int]) -> bytes:
        return array(self._code, ids).tobytes()

    def _of_words(self, words: list[str]) -> Iterator[bytes]:
        return map(self._packed, self._processor.encode(words, num_threads=1))

    def _of_text(self, text: str) -> bytes:
        return self._processor.encode_as_numpy(text).astype(self._dtype).tobytes()

    def encode_array(self, text: str) -> NDArray[np.unsignedinteger]:
        encode = self._of_text if self._words is None else self._words.encode
        if self._space_mark is None:
            return np.frombuffer(encode(text), self._dtype)
        parts = map(encode, text.split(SPACE_MARK))
        return np.frombuffer(self._space_mark.join(parts), self._dtype)

    def decode(self, ids: Iterable[int]) -> str:
        return self._processor.decode([i for i in map(int, ids) if i < self._size])

    def normalized(self, text: str) -> str:
        """The text as the model sees it; for an identity model itself."""
        return SPACE_MARK.join(
            self._processor.normalize(part).replace(SPACE_MARK, " ")
            for part in text.split(SPACE_MARK)
        )


def _kind(model: bytes) -> str:
    """bpe or unigram (or word or char, for files from elsewhere)."""
    from sentencepiece import sentencepiece_model_pb2

    messages: Any = sentencepiece_model_pb2
    spec = messages.ModelProto.FromString(model).trainer_spec
    return {1: "unigram", 2: "bpe", 3: "word", 4: "char"}[spec.model_type]
