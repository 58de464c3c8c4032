"""Thousands of documents as columns: one byte buffer and offsets for texts, ids and metadata."""

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.corpus import Source

LANGUAGE = "<U8"
"""NumPy's type of a column of language codes."""


@dataclass(frozen=True)
class Strings:
    """N byte strings: string i is buffer[offsets[i]:offsets[i + 1]].

    buffer: uint8 [bytes]; offsets: int64 [N + 1], from 0, never falling.
    """

    buffer: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, items: Iterable[bytes]) -> Self:
        """Pack byte strings."""
        items = list(items)
        lengths = np.fromiter(map(len, items), np.int64, len(items))
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return cls(np.frombuffer(b"".join(items), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> bytes:
        return self.buffer[self.offsets[index] : self.offsets[index + 1]].tobytes()

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Bytes of each string, int64 [N]."""
        return np.diff(self.offsets)

    def take(self, keep: NDArray[np.bool_]) -> "Strings":
        """The strings where keep (bool [N]) is true, in order."""
        return Strings(
            self.buffer[np.repeat(keep, self.lengths)],
            np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths[keep])]),
        )

    def replace(self, items: dict[int, bytes]) -> "Strings":
        """The same strings with those at the keys of `items` exchanged."""
        return Strings.of(items[i] if i in items else self[i] for i in range(len(self)))


@dataclass(frozen=True)
class Documents:
    """A batch of documents of one source. Texts are valid UTF-8; meta is a JSON object or empty;
    languages are ISO 639 codes, str [D]: the source's until the stage `language` has looked."""

    source: Source
    texts: Strings
    ids: Strings
    meta: Strings
    languages: NDArray[np.str_]

    @classmethod
    def of(
        cls,
        source: Source,
        texts: Iterable[bytes],
        ids: Iterable[bytes] | None = None,
        meta: Iterable[bytes] | None = None,
    ) -> Self:
        """Pack documents; without ids they are numbered, without meta they have none."""
        packed = Strings.of(texts)
        n = len(packed)
        return cls(
            source,
            packed,
            Strings.of(ids if ids is not None else (str(i).encode() for i in range(n))),
            Strings.of(meta if meta is not None else [b""] * n),
            np.full(n, source.language, LANGUAGE),
        )

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, keep: NDArray[np.bool_]) -> "Documents":
        """The documents where keep (bool [N]) is true, in order."""
        if keep.all():
            return self
        return Documents(
            self.source,
            self.texts.take(keep),
            self.ids.take(keep),
            self.meta.take(keep),
            self.languages[keep],
        )

    def at(self, where: NDArray[np.int64]) -> "Documents":
        """The documents at these rising indexes."""
        keep = np.zeros(len(self), np.bool_)
        keep[where] = True
        return self.take(keep)

    def id(self, index: int) -> str:
        """The id of one document."""
        return self.ids[index].decode()

    def excerpt(self, index: int, characters: int = 300) -> str:
        """The beginning of one text, at most `characters` long."""
        start, end = self.texts.offsets[index : index + 2]
        head = self.texts.buffer[start : min(end, start + 4 * characters)].tobytes()
        return head.decode(errors="ignore")[:characters]

    def characters(self, index: int, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Spans of one text, given in bytes, in characters."""
        start, end = self.texts.offsets[index : index + 2]
        before = np.cumsum((self.texts.buffer[start:end] & 0xC0) != 0x80)
        places = np.concatenate([np.zeros(1, np.int64), before])
        return [(int(places[a]), int(places[b])) for a, b in spans]

    def save(self, folder: Path) -> None:
        """Write the columns as .npy files that `load` maps into memory."""
        for name in ("texts", "ids", "meta"):
            column: Strings = getattr(self, name)
            save_array(folder / f"{name}.npy", column.buffer)
            save_array(folder / f"{name}_offsets.npy", column.offsets)
        save_array(folder / "languages.npy", self.languages)

    @classmethod
    def load(cls, source: Source, folder: Path) -> Self:
        """Map what `save` wrote; the pages are read when they are used."""
        texts, ids, meta = (
            Strings(load_array(folder / f"{name}.npy"), load_array(folder / f"{name}_offsets.npy"))
            for name in ("texts", "ids", "meta")
        )
        return cls(source, texts, ids, meta, load_array(folder / "languages.npy"))


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write a .npy file. Unlike np.save, an error says what the system said (a full disk)."""
    array = np.ascontiguousarray(array)
    with open(path, "wb") as file:
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(array.data)


def load_array(path: Path) -> NDArray[Any]:
    """Map a .npy file for reading; an empty array cannot be mapped and is read."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        array = np.load(path, allow_pickle=False)
    return array


def load_arrays(path: Path, most_bytes: int) -> dict[str, NDArray[Any]]:
    """Read a .npz file. Raises ValueError, before it unpacks, for one that holds more bytes."""
    with zipfile.ZipFile(path) as packed:
        if sum(part.file_size for part in packed.infolist()) > most_bytes:
            raise ValueError(f"{path.name} holds more than {most_bytes} bytes")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
