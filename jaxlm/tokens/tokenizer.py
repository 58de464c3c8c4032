"""Text to token ids and back, exactly."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.lengths import FIM_TOKENS, MASK_TOKEN
from jaxlm.config.objective import EXTREME, REGULAR, SEQUENTIAL
from jaxlm.config.tokenizer_file import parse_file
from jaxlm.config.tokens import BYTE_VOCABULARY
from jaxlm.errors import UserError
from jaxlm.tokens.huggingface import HuggingFaceTokenizer
from jaxlm.tokens.pieces import Pieces
from jaxlm.tokens.sentencepieces import SentencePieceTokenizer
from jaxlm.tokens.special import AS_IT_IS, Special
from jaxlm.workdir import write_json

MODEL, JSON, MANIFEST = "tokenizer.model", "tokenizer.json", "manifest.json"


class Tokenizer(Protocol):
    """Text to ids and back.

    decode(encode(text)) == normalized(text) for every text without surrogates, but for files from
    elsewhere that lose more (see `lost`); normalized(text) is the text itself where nothing is
    normalised.
    """

    kind: str
    vocab_size: int
    bos_id: int
    eos_id: int
    hash: str
    """sha256 of what defines the ids; recorded wherever ids are stored."""
    pieces: list[bytes]
    """The UTF-8 bytes that each id stands for; none for control ids and the unknown."""
    token_bytes: NDArray[np.int32]
    """How many they are, int32 [vocab_size]."""
    specials: dict[str, int]
    """Ids of special tokens (sentinels, modes and the like) by name; BOS and EOS are not."""
    added: tuple[str, ...]
    """Special tokens that are not in the tokenizer's file; their ids follow its own."""
    characters: NDArray[np.int32]
    """Characters that begin in each id's bytes, int32 [vocab_size]."""
    begins_word: NDArray[np.bool_]
    """Whether each id's bytes begin with white space, bool [vocab_size]."""
    word_ends: NDArray[np.bool_]
    """Whether each id's bytes begin, and whether they end, with a character that words are made
    of, bool [vocab_size, 2]; a word goes on where the one meets the other."""

    def encode_array(self, text: str) -> NDArray[np.unsignedinteger]:
        """The ids of a text without BOS and EOS; uint16, or uint32 for more than 65536 ids."""
        ...

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without BOS and EOS."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without BOS and EOS."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; control ids are empty, bytes that are not UTF-8 become U+FFFD."""
        ...

    def normalized(self, text: str) -> str:
        """The text as the tokenizer keeps it."""
        ...


class ByteTokenizer(Pieces):
    """One id a UTF-8 byte; BOS is 256, EOS 257; special tokens and user symbols follow."""

    kind = "byte"
    bos_id, eos_id = 256, 257
    added: tuple[str, ...] = ()

    def __init__(self, specials: Sequence[str] = (), user_symbols: Sequence[str] = ()) -> None:
        self.specials = {name: BYTE_VOCABULARY + i for i, name in enumerate(specials)}
        first = BYTE_VOCABULARY + len(specials)
        self._symbols = {name: first + i for i, name in enumerate(user_symbols)}
        names = ["jaxlm byte tokenizer 1", *specials]
        if user_symbols:
            names += ["", *user_symbols]
        self.hash = hashlib.sha256("\0".join(names).encode()).hexdigest()
        control = [b""] * (first - 256)
        self._know([bytes([i]) for i in range(256)] + control + [s.encode() for s in user_symbols])
        # longer names first: one may begin with another
        longest = sorted(user_symbols, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, longest))})").split

    def encode_array(self, text: str) -> NDArray[np.unsignedinteger]:
        if not self._symbols:
            return np.frombuffer(text.encode(), np.uint8).astype(np.uint16)
        parts = self._split(text)
        ids = [
            np.array([self._symbols[part]], np.uint16)
            if number % 2
            else np.frombuffer(part.encode(), np.uint8).astype(np.uint16)
            for number, part in enumerate(parts)
        ]
        return np.concatenate(ids)

    def decode(self, ids: Iterable[int]) -> str:
        return b"".join(self.pieces[int(i)] for i in ids).decode(errors="replace")

    def normalized(self, text: str) -> str:
        """The text itself."""
        return text


OBJECTIVES_TOKENS = re.compile(
    r"<extra_id_\d+>|"
    + "|".join(map(re.escape, (*FIM_TOKENS, MASK_TOKEN, REGULAR, SEQUENTIAL, EXTREME)))
)


def encode_named(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text in which names of special tokens stand for these; without BOS and EOS.

    Raises UserError for the name of an objective's token that this tokenizer does not have.
    """
    found = set(OBJECTIVES_TOKENS.findall(text))
    if missing := sorted(found - set(tokenizer.specials)):
        raise UserError(
            f"{', '.join(missing)}: no special token of this tokenizer; it has "
            f"{', '.join(list(tokenizer.specials)[:8]) or 'none'}"
        )
    if not tokenizer.specials:
        return tokenizer.encode(text)
    # longer names first: one may begin with another
    names = sorted(tokenizer.specials, key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, names))})", text)
    ids: list[int] = []
    for number, part in enumerate(parts):
        ids += [tokenizer.specials[part]] if number % 2 else tokenizer.encode(part)
    return ids


def decode_named(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    """The text of ids in which special tokens are written by their names."""
    names = {i: name for name, i in tokenizer.specials.items()}
    runs = itertools.groupby(map(int, ids), key=names.get)
    return "".join(
        tokenizer.decode(run) if name is None else name * len(list(run)) for name, run in runs
    )


def open_tokenizer(content: bytes, name: str, special: Special = AS_IT_IS) -> Tokenizer:
    """A tokenizer.model or tokenizer.json; `name` is used in messages. Raises UserError."""
    if parse_file(content, name).format == "huggingface":
        return HuggingFaceTokenizer(content, name, special)
    return SentencePieceTokenizer(content, name, special)


PROBE = "It's  caf\xe9 no. 3.5 \t(na\xefve)\n\n  x \ufb01 \u6f22\u5b57 \U0001f9ff\x00\u2581\ue000 "
"""What tokenizers lose: case, accents, white space, ligatures, controls, characters they lack."""


def lost(tokenizer: Tokenizer) -> str | None:
    """How a text comes back that the tokenizer does not keep; None where it keeps it exactly."""
    back = tokenizer.decode(tokenizer.encode(PROBE))
    return None if back == PROBE else f"{PROBE!r} comes back as {back!r}"


def save_tokenizer(
    directory: Path,
    tokenizer: Tokenizer,
    content: bytes,
    special: Special = AS_IT_IS,
    user_symbols: Sequence[str] = (),
    **facts: Any,
) -> None:
    """Write tokenizer.model or tokenizer.json (an empty model for kind byte) and manifest.json.

    special: what the tokenizer was opened with.
    """
    file = JSON if isinstance(tokenizer, HuggingFaceTokenizer) else MODEL
    (directory / file).write_bytes(content)
    asked = {"bos": special.bos, "eos": special.eos, "added": list(tokenizer.added)}
    write_json(
        directory / MANIFEST,
        {
            "kind": tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "hash": tokenizer.hash,
            "bos_id": tokenizer.bos_id,
            "eos_id": tokenizer.eos_id,
            **({"file": file} if file != MODEL else {}),
            **({"specials": list(tokenizer.specials)} if tokenizer.specials else {}),
            **({"user_symbols": list(user_symbols)} if user_symbols else {}),
            **{key: value for key, value in asked.items() if value},
            **facts,
        },
    )


def read_manifest(directory: Path) -> dict[str, Any]:
    """manifest.json of a workdir's tokenizer. Raises UserError where it is missing or broken."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        return dict(manifest)
    except FileNotFoundError:
        raise UserError(
            f"{directory}: there is no tokenizer; run `jaxlm tokenizer` first"
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{directory}: {error!r}; run `jaxlm tokenizer` again") from None


def load_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a workdir. Raises UserError where it is missing, broken or exchanged."""
    manifest = read_manifest(directory)
    try:
        kind, expected = manifest["kind"], manifest["hash"]
        path = directory / (JSON if manifest.get("file") == JSON else MODEL)
        content = path.read_bytes()
        special = Special(
            manifest.get("bos"), manifest.get("eos"), tuple(manifest.get("added", ()))
        )
    except FileNotFoundError:
        raise UserError(
            f"{directory}: there is no tokenizer; run `jaxlm tokenizer` first"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{directory}: {error!r}; run `jaxlm tokenizer` again") from None
    tokenizer: Tokenizer
    if kind == "byte":
        tokenizer = ByteTokenizer(manifest.get("specials", []), manifest.get("user_symbols", []))
    else:
        tokenizer = open_tokenizer(content, str(path), special)
        if tokenizer.hash != expected:
            raise UserError(
                f"{path}: not the file that its manifest.json names (the checksum "
                "differs); put the right one back, or run `jaxlm tokenizer` again"
            )
    if tokenizer.hash != expected:
        raise UserError(f"{directory / MANIFEST}: names another tokenizer than the one beside it")
    return tokenizer
