"""Files of JSON and of JSON lines, read with limits, and one clear error where one is broken."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import zstandard
from pydantic import BaseModel, ValidationError

from jaxlm.errors import UserError

MAX_LINE = 1 << 24
MAX_FILE = 1 << 28
MEND = "make it again or restore it"


def parse[R: BaseModel](model: type[R], text: bytes, where: str) -> R:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise UserError(f"{where}: {first_problem(error)}; {MEND}") from None


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, with its place inside the record."""
    detail = error.errors(include_url=False)[0]
    place = ".".join(map(str, detail["loc"]))
    message = detail["msg"].replace(" at line 1 column", " at column")
    return f"{place}: {message}" if place else message


def read_whole(path: Path) -> bytes | None:
    try:
        if path.stat().st_size > MAX_FILE:
            raise UserError(f"{path}: larger than {MAX_FILE} bytes; {MEND}")
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def read_json[R: BaseModel](path: Path, model: type[R]) -> R | None:
    data = read_whole(path)
    return None if data is None else parse(model, data, str(path))


def lines(path: Path, pieces: Iterable[bytes]) -> Iterator[tuple[int, bytes, bool]]:
    """Lines that are not blank, numbered from 1; False stands by a last one without its end."""
    number, rest = 0, b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            number += 1
            if line.strip():
                yield number, line, True
        if len(rest) > MAX_LINE:
            raise UserError(f"{path}:{number + 1}: a line of more than {MAX_LINE} bytes; {MEND}")
    if rest.strip():
        yield number + 1, rest, False


def pieces(path: Path, length: int = 1 << 16) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            while piece := file.read(length):
                yield piece
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def zstd_pieces(path: Path) -> Iterator[bytes]:
    """Decompressed pieces of a file of one or more zstd frames, the last of which must be whole."""
    frame = None
    # 2 KB of zstd expand to 64 MB at most: a hostile file cannot fill the memory
    for piece in pieces(path, 1 << 11):
        while piece:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                yield frame.decompress(piece)
            except zstandard.ZstdError as error:
                raise UserError(f"{path}: broken zstd data ({error}); {MEND}") from None
            piece = frame.unused_data
            if frame.eof:
                frame = None
    if frame is not None:
        raise UserError(f"{path}: the zstd data ends too early; {MEND}")
