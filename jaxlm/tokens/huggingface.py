"""Tokenizers of Hugging Face's library `tokenizers`: any tokenizer.json, and WordPiece over bytes.

WordPiece as BERT has it loses case, accents, white space and what it does not know. Here it works
on bytes instead: words are cut by one pattern that leaves nothing out, every byte is a piece, and
what follows in a word is marked by a character that stands for no byte, so that nothing is lost.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.tokenizer_file import parse_file
from jaxlm.errors import UserError
from jaxlm.tokens.pieces import SPACELESS, Pieces, Words
from jaxlm.tokens.special import AS_IT_IS, Special, hash_of, special_ids

GOES_ON = "\u2040"
"""Before a piece of our WordPiece that does not begin a word."""
# Unicode's White_Space, as a range of a regular expression that Python and Oniguruma read alike
SPACES = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000"
    "\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
LONGEST_RUN, LONGEST_OTHER, LONGEST_SPACELESS = 32, 16, 8
"""Characters of a word, of signs, and of scripts without spaces that WordPiece takes at once; its
time grows with the square of their bytes."""


def library() -> Any:
    """The package tokenizers. Raises UserError where it is not installed."""
    try:
        import tokenizers
    except ImportError:
        raise UserError(
            "tokenizers is not installed, which WordPiece and tokenizer.json need; "
            "pip install 'jaxlm[hf]'"
        ) from None
    return tokenizers


class HuggingFaceTokenizer(Pieces):
    """A tokenizer.json.

    What the file adds around a text, cuts off or pads with is left out, and names of its special
    tokens in a text stay text. Whether a text comes back as it was is the file's to say; pieces
    that follow a space which is in none of them (BERT's) stand for their own bytes alone.
    """

    def __init__(
        self, content: bytes, name: str = "tokenizer.json", special: Special = AS_IT_IS
    ) -> None:
        """The content of a tokenizer.json; `name` is used in messages.

        special: see `special_ids`. Raises UserError where the library cannot read it, or it has no
        ids for begin and end of document.
        """
        file = parse_file(content, name)
        try:
            self._tokenizer = tokenizer = library().Tokenizer.from_str(content.decode())
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{name}: tokenizers cannot read it ({error})") from None
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        data = json.loads(content)
        model = data["model"]
        if model.get("dropout"):
            tokenizer.model.dropout = None  # ids are the same each time
        self.kind, self._size = str(model["type"]).lower(), file.size
        ids = special_ids(file, special)
        self.bos_id, self.eos_id, self.specials, self.added = ids
        self.hash = hash_of(file, ids)
        steps = list(_steps(data.get("decoder")))
        self._bytes = any(step["type"] == "ByteLevel" for step in steps)
        goes_on = model.get("continuing_subword_prefix") or ""
        ends = model.get("end_of_word_suffix") or ""
        falls_back = any(step["type"] == "ByteFallback" for step in steps)
        marked = "\u2581" in json.dumps(data.get("decoder"), ensure_ascii=False)

        def bytes_of(piece: str) -> bytes:
            if goes_on and piece.startswith(goes_on):
                piece = piece[len(goes_on) :]
            if falls_back and re.fullmatch("<0x[0-9A-F]{2}>", piece):
                return bytes([int(piece[3:5], 16)])
            if ends and piece.endswith(ends):
                piece = piece[: -len(ends)] + " "
            if marked:
                piece = piece.replace("\u2581", " ")
            if self._bytes and all(character in BYTE_OF for character in piece):
                return bytes(map(BYTE_OF.__getitem__, piece))
            return piece.encode(errors="replace")

        pieces = [b""] * (file.size + len(self.added))
        spaced = [False] * len(pieces)
        unknown = model.get("unk_token")
        apart = self.kind == "wordpiece" and not self._bytes
        for piece, i in tokenizer.get_vocab(with_added_tokens=False).items():
            if piece != unknown:
                pieces[i] = bytes_of(piece)
                spaced[i] = apart and not piece.startswith(goes_on)
        if self.kind == "unigram" and model.get("unk_id") is not None:
            pieces[model["unk_id"]] = b""
        taken_out = []
        for i, token in tokenizer.get_added_tokens_decoder().items():
            if not (token.special or token.normalized):
                taken_out.append(token.content)
            pieces[i] = b"" if token.special else token.content.encode()
            spaced[i] = False
        for i in file.specials.values():
            pieces[i] = b""
        self._know(pieces, spaced)
        self._taken_out = re.compile(f"({_any_of(taken_out)})") if taken_out else None
        ours = goes_on == GOES_ON and self._bytes
        space = f"[{SPACES}]"
        self._words = (
            Words(f"{space}*[^{SPACES}]+|{space}+", self._of_words)
            if ours and data.get("normalizer") is None
            else None
        )

    def _of_words(self, words: list[str]) -> Iterator[bytes]:
        for found in self._tokenizer.encode_batch_fast(words, add_special_tokens=False):
            yield np.array(found.ids, self._dtype).tobytes()

    def encode_array(self, text: str) -> NDArray[np.unsignedinteger]:
        packed = next(self._of_words([text])) if self._words is None else self._words.encode(text)
        return np.frombuffer(packed, self._dtype)

    def decode(self, ids: Iterable[int]) -> str:
        if self._bytes:
            return b"".join(self.pieces[int(i)] for i in ids).decode(errors="replace")
        return self._tokenizer.decode([i for i in map(int, ids) if i < self._size])

    def normalized(self, text: str) -> str:
        """The text as the model sees it; without a normalizer itself.

        Tokens that are taken out of a text before it is normalised, such as user symbols, part it.
        """
        normalizer = self._tokenizer.normalizer
        if normalizer is None:
            return text
        parts = self._taken_out.split(text) if self._taken_out else [text]
        return "".join(
            part if number % 2 else normalizer.normalize_str(part)
            for number, part in enumerate(parts)
        )


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """A decoder's steps, in order."""
    if part is not None and part["type"] == "Sequence":
        for step in part["decoders"]:
            yield from _steps(step)
    elif part is not None:
        yield part


def _alphabet() -> dict[str, int]:
    """GPT-2's characters for bytes: printable Latin-1 stands for itself, others from U+0100 on."""
    itself = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in itself]
    return {chr(b): b for b in itself} | {chr(256 + i): b for i, b in enumerate(others)}


BYTE_OF = _alphabet()


def train_wordpiece(
    pieces: Iterable[str],
    *,
    vocab_size: int,
    specials: Sequence[str] = (),
    user_symbols: Sequence[str] = (),
    max_piece_length: int,
    split_digits: bool,
    nfkc: bool,
) -> tuple[bytes, int]:
    """A tokenizer.json with WordPiece over bytes, and how many ids it has: vocab_size or fewer.

    Ids: the unknown (never used), BOS and EOS as in SentencePiece's; each byte as it begins a word
    and as it goes on; learned pieces, the most frequent first; special tokens and user symbols. The
    pieces are those of a byte pair encoding within words (as in the library's WordPieceTrainer).
    """
    tk = library()
    letters = r"\p{L}\p{M}"
    numbers = r"\p{N}" if split_digits else rf" ?\p{{N}}{{1,{LONGEST_RUN}}}"
    run, space = f"{{1,{LONGEST_RUN}}}", f"[{SPACES}]"
    pattern = (
        rf" ?[{SPACELESS}]{{1,{LONGEST_SPACELESS}}}| ?[{letters}]{run}|{numbers}"
        rf"| ?[^{letters}\p{{N}}{SPACES}]{{1,{LONGEST_OTHER}}}"
        rf"|{space}{run}(?![^{SPACES}])|{space}{run}"
    )
    into_words = tk.pre_tokenizers.Sequence([
        tk.pre_tokenizers.Split(tk.Regex(pattern), "isolated"),
        tk.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    normalizer = tk.normalizers.NFKC() if nfkc else None
    control = ["<unk>", "<s>", "</s>"]
    names = [*specials, *user_symbols]
    # In the order of bytes, and all of them first: with ids given in the order in which the library
    # meets them, which changes from run to run, ties would fall otherwise.
    alphabet = sorted(BYTE_OF, key=BYTE_OF.__getitem__)
    alphabet += [GOES_ON + character for character in alphabet]
    learner = tk.Tokenizer(tk.models.BPE(continuing_subword_prefix=GOES_ON))
    learner.pre_tokenizer = into_words
    if normalizer is not None:
        learner.normalizer = normalizer
    learner.train_from_iterator(
        (part for piece in pieces for part in _without(piece, user_symbols)),
        tk.trainers.BpeTrainer(
            # a piece that is the name of a special token is left out, so as many more
            vocab_size=max(vocab_size - len(control), len(alphabet)),
            special_tokens=alphabet,
            continuing_subword_prefix=GOES_ON,
            max_token_length=max_piece_length,
            show_progress=False,
        ),
    )
    ids = learner.get_vocab(with_added_tokens=True)
    learned = [
        piece for piece in sorted(ids, key=ids.__getitem__)[len(alphabet) :] if piece not in names
    ]
    room = vocab_size - len(control) - len(alphabet) - len(names)
    vocabulary = [*control, *alphabet, *learned[: max(room, 0)]]
    tokenizer = tk.Tokenizer(
        tk.models.WordPiece(
            {piece: i for i, piece in enumerate(vocabulary)},
            unk_token="<unk>",
            # what the pattern cuts is shorter: a space, and characters of four bytes
            max_input_chars_per_word=4 * LONGEST_RUN + 1,
            continuing_subword_prefix=GOES_ON,
        )
    )
    tokenizer.pre_tokenizer = into_words
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = tk.decoders.Sequence(
        [tk.decoders.Replace(GOES_ON, ""), tk.decoders.ByteLevel()]
    )
    tokenizer.add_special_tokens([
        tk.AddedToken(name, normalized=False, special=True) for name in [*control, *specials]
    ])  # fmt: skip
    tokenizer.add_tokens([tk.AddedToken(name, normalized=False) for name in user_symbols])
    size = len(vocabulary) + len(names)
    return (tokenizer.to_str(pretty=False) + "\n").encode(), size


def _without(text: str, names: Sequence[str]) -> list[str]:
    """The parts of a text between these names."""
    if not names:
        return [text]
    return re.split(_any_of(names), text)


def _any_of(names: Sequence[str]) -> str:
    """A regular expression; the longest name where several begin in one place."""
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
