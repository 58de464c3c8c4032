"""Opening input files: local or remote, decompressed within bounds."""

import contextlib
import io
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from jaxlm.config.corpus import Limits
from jaxlm.corpus.listing import InputFile

FREE_EXPANSION = 64 << 20


class ExpansionError(Exception):
    """A compressed file grew beyond the limit."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        super().__init__(f"it expands to more than {factor:.1f} times its size")


def expands_too_far(file: InputFile, raw: Any, size: int, limits: Limits) -> None:
    """Raise ExpansionError when a file, open as `raw`, has grown to more bytes than it may."""
    # some servers do not say a file's size
    stored = max(file.size or raw.tell(), 1)
    if size > limits.max_expansion * stored + FREE_EXPANSION:
        raise ExpansionError(round(size / stored, 1))


def raw_file(file: InputFile) -> contextlib.AbstractContextManager[Any]:
    """The file as it is stored."""
    if "://" not in file.path:
        return open(file.path, "rb")
    import fsspec

    return cast(contextlib.AbstractContextManager[Any], fsspec.open(file.path, "rb"))


@contextlib.contextmanager
def open_file(file: InputFile, limits: Limits) -> Iterator[Any]:
    """The file's bytes, decompressed, and no more of them than limits.max_expansion allows.

    Reading raises zlib.error or EOFError where they are broken or cut off, ExpansionError where
    they grow too far.
    """
    with raw_file(file) as raw:
        path = file.path.lower()
        if not path.endswith((".gz", ".zst")):
            yield raw
            return
        inner = _gzip(raw) if path.endswith(".gz") else _zstd(raw)
        yield io.BufferedReader(_Pieces(inner, file, raw, limits), 1 << 20)


class _Pieces(io.RawIOBase):
    """A raw stream over an iterator of byte strings, with a bound on their sum."""

    def __init__(self, pieces: Iterator[bytes], file: InputFile, raw: Any, limits: Limits) -> None:
        self._pieces, self._file, self._raw, self._limits = pieces, file, raw, limits
        self._piece = memoryview(b"")
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._size += len(piece)
            expands_too_far(self._file, self._raw, self._size, self._limits)
            self._piece = memoryview(piece)
        n = min(len(buffer), len(self._piece))
        buffer[:n] = self._piece[:n]
        self._piece = self._piece[n:]
        return n


def _gzip(raw: BinaryIO) -> Iterator[bytes]:
    """Decompress gzip members; raises zlib.error or EOFError where they are broken or cut off."""
    stream: Any = None
    rest = b""
    while chunk := rest or raw.read(1 << 16):
        if stream is None:
            stream = zlib.decompressobj(wbits=31)
        yield stream.decompress(chunk, 1 << 22)
        rest = stream.unconsumed_tail
        if stream.eof:
            stream, rest = None, stream.unused_data.lstrip(b"\0")
    if stream is not None:
        yield stream.flush()
        if not stream.eof:
            raise EOFError("the gzip stream ends early")


def _zstd(raw: BinaryIO) -> Iterator[bytes]:
    """Decompress zstd frames; raises zlib.error or EOFError as `_gzip` does. A short input piece
    bounds what one call can expand to."""
    import zstandard

    stream: Any = None
    rest = b""
    try:
        while chunk := rest or raw.read(1 << 12):
            if stream is None:
                stream = zstandard.ZstdDecompressor().decompressobj()
            yield stream.decompress(chunk)
            rest = b""
            if stream.eof:
                stream, rest = None, stream.unused_data
    except zstandard.ZstdError as error:
        raise zlib.error(str(error)) from None
    if stream is not None:
        raise EOFError("the zstd stream ends early")


def whole(stream: BinaryIO, limit: int) -> tuple[bytes | None, int]:
    """All bytes, or None when there are more than `limit`; and how many were seen."""
    raw = stream.read(limit + 1)
    return (raw, len(raw)) if len(raw) <= limit else (None, len(raw))
