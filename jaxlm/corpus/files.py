"""Opening input files: local or remote, decompressed within bounds, whole or refused."""

import contextlib
import io
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from jaxlm.config.corpus import Limits, Source
from jaxlm.corpus.listing import InputFile
from jaxlm.errors import UserError

FREE_EXPANSION = 64 << 20


def broken(source: Source, file: InputFile, reason: str) -> str:
    return (
        f"source {source.name!r}: {file.path} is broken or unreadable: {reason}; "
        "fetch the file again or leave it out of the source's path"
    )


def raw_file(file: InputFile) -> contextlib.AbstractContextManager[Any]:
    """The file as it is stored."""
    if "://" not in file.path:
        return open(file.path, "rb")
    import fsspec

    return cast(contextlib.AbstractContextManager[Any], fsspec.open(file.path, "rb"))


@contextlib.contextmanager
def open_file(source: Source, file: InputFile, limits: Limits) -> Iterator[Any]:
    """The file's bytes, decompressed, and no more of them than limits.max_expansion allows."""
    with raw_file(file) as raw:
        path = file.path.lower()
        if not path.endswith((".gz", ".zst")):
            yield raw
            return
        inner = _gzip(raw) if path.endswith(".gz") else _zstd(raw, source, file)
        allowed = limits.max_expansion * max(file.size, 1) + FREE_EXPANSION
        message = (
            f"source {source.name!r}: {file.path} expands to more than {limits.max_expansion} "
            "times its size; if that is right, raise prepare.limits.max_expansion"
        )
        yield io.BufferedReader(_Pieces(inner, allowed, message), 1 << 20)


class _Pieces(io.RawIOBase):
    """A raw stream over an iterator of byte strings, with a bound on their sum."""

    def __init__(self, pieces: Iterator[bytes], allowed: int, message: str) -> None:
        self._pieces, self._allowed, self._message = pieces, allowed, message
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._allowed -= len(piece)
            if self._allowed < 0:
                raise UserError(self._message)
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


def _zstd(raw: BinaryIO, source: Source, file: InputFile) -> Iterator[bytes]:
    """Decompress zstd frames. A short input piece bounds what one call can expand to."""
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
        raise UserError(broken(source, file, str(error))) from None
    if stream is not None:
        raise EOFError("the zstd stream ends early")


def whole(stream: BinaryIO, limit: int) -> tuple[bytes | None, int]:
    """All bytes, or None when there are more than `limit`; and how many were seen."""
    raw = stream.read(limit + 1)
    return (raw, len(raw)) if len(raw) <= limit else (None, len(raw))
