"""What follows from the bytes that each id stands for."""

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

CACHED_WORDS = 1 << 18
LONGEST_CACHED_WORD = 64
# Thai to Tibetan, Burmese, Khmer, kana, ideographs: written without spaces between words
SPACELESS = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0002fa1f"
)


def id_dtype(vocab_size: int) -> type[np.unsignedinteger]:
    """The smallest type that holds every id."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


class Pieces(ABC):
    """A vocabulary, and what a tokenizer does with nothing but its `encode_array`."""

    pieces: list[bytes]
    """The UTF-8 bytes that each id stands for; none for control ids."""
    vocab_size: int
    token_bytes: NDArray[np.int32]
    characters: NDArray[np.int32]
    begins_word: NDArray[np.bool_]
    word_ends: NDArray[np.bool_]

    def _know(self, pieces: list[bytes], spaced: Sequence[bool] | None = None) -> None:
        """Set what follows from the pieces. spaced: which of them follow a space that is in none,
        as WordPiece has it where spaces are not kept."""
        self.pieces, self.vocab_size = pieces, len(pieces)
        self._dtype = id_dtype(len(pieces))
        self.token_bytes = np.array([len(piece) for piece in pieces], np.int32)
        # all bytes but those of the form 10xxxxxx begin a character
        self.characters = np.array(
            [sum(b & 0xC0 != 0x80 for b in piece) for piece in pieces], np.int32
        )
        if spaced is not None:
            pieces = [b" " + p if s else p for p, s in zip(pieces, spaced, strict=True)]
        self.begins_word = np.array([piece[:1].isspace() for piece in pieces])
        self.word_ends = np.array([(_in_word(piece, 0), _in_word(piece, -1)) for piece in pieces])

    @abstractmethod
    def encode_array(self, text: str) -> NDArray[np.unsignedinteger]:
        """The ids of a text without BOS and EOS."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without BOS and EOS."""
        return self.encode_array(text).tolist()

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without BOS and EOS."""
        return [self.encode(text) for text in texts]


# as BERT's tokenizer has them: Unicode's blocks of CJK ideographs, without kana and hangul
IDEOGRAPHS = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2CEAF), (0x2F800, 0x2FA1F),
)  # fmt: skip


def _in_word(piece: bytes, place: int) -> bool:
    """Whether the first (0) or last (-1) character of a piece is one that words are made of.

    As BERT's tokenizer parts words: at white space, at punctuation (ASCII but letters and digits,
    and Unicode's categories P), and on both sides of an ideograph. Some bytes of a character go
    with what is around them, unless they begin one of U+4000 to U+9FFF.
    """
    if not piece:
        return False
    try:
        character = piece.decode()[place]
    except UnicodeDecodeError:
        return bool(place) or not 0xE4 <= piece[0] <= 0xE9
    if character.isascii():
        return character.isalnum()
    if character.isspace() or unicodedata.category(character)[0] == "P":
        return False
    return not any(first <= ord(character) <= last for first, last in IDEOGRAPHS)


class Words:
    """The packed ids of words that were met before; most words of a corpus are few."""

    def __init__(self, pattern: str, encode: Callable[[list[str]], Iterable[bytes]]) -> None:
        """pattern: cuts a text into words that are encoded alike apart and together.

        encode: the packed ids of words, which come many at a time: a call costs as much as a word.
        """
        self._find = re.compile(pattern).findall
        self._encode = encode
        self._known: dict[str, bytes] = {}

    def encode(self, text: str) -> bytes:
        """The packed ids of a text."""
        words = self._find(text)
        new = list(set(words).difference(self._known))
        if len(self._known) + len(new) > CACHED_WORDS:
            self._known.clear()
            new = list(set(words))
        if new:
            self._known.update(zip(new, self._encode(new), strict=True))
        ids = b"".join(map(self._known.__getitem__, words))
        for word in new:
            if len(word) > LONGEST_CACHED_WORD:
                del self._known[word]
        return ids
