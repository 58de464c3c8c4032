"""Clean documents as the corpus stage left them, in blocks of whole lines."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from jaxlm.config.corpus import Source
from jaxlm.errors import UserError

BLOCK_BYTES = 1 << 20
LONGEST_LINE = 1 << 30


@dataclass(frozen=True)
class Shard:
    """One file of the corpus, with what the corpus stage said of it."""

    path: Path
    documents: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Block:
    """Consecutive lines of one shard."""

    shard: Path
    line: int
    """Number of the first line, from 1."""
    data: bytes


def corpus_shards(corpus: Path, source: str) -> list[Shard]:
    """The shards of one source, in order. Raises UserError where the corpus is not complete."""
    stats = read_stats(corpus)
    pattern = re.compile(re.escape(source) + r"-\d{5,}\.jsonl\.zst")
    try:
        shards = [
            Shard(
                corpus / "documents" / Path(entry["path"]).name,
                int(entry["documents"]),
                int(entry["bytes"]),
                str(entry["sha256"]),
            )
            for entry in stats["shards"]
            if pattern.fullmatch(Path(entry["path"]).name)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{corpus / 'stats.json'}: not readable ({error!r}); run `jaxlm prepare` again"
        ) from None
    if not any(shard.documents for shard in shards):
        raise UserError(
            f"{corpus}: no document of source {source} is left after cleaning; "
            "see the ledger beside it for what was dropped, and relax prepare or remove the source"
        )
    return sorted(shards, key=lambda shard: shard.path.name)


def read_stats(corpus: Path) -> dict[str, Any]:
    """corpus/stats.json. Raises UserError where it is missing or broken."""
    path = corpus / "stats.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{corpus}: there is no corpus; run `jaxlm prepare` first") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}; run `jaxlm prepare` again") from None


def tags_of(corpus: Path, source: Source) -> dict[str, str]:
    """kind and language of a source, which its recipe may have said when the corpus was made."""
    found = read_stats(corpus)["sources"].get(source.name, {})
    return {tag: str(found.get(tag, getattr(source, tag))) for tag in ("kind", "language")}


def read_blocks(shard: Shard) -> Iterator[Block]:
    """The lines of a shard in blocks of about a megabyte, memory bounded by the longest line.

    Raises UserError where the file is not the one that the corpus stage wrote.
    """
    line, held = 1, b""
    try:
        with open(shard.path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                raise UserError(
                    f"{shard.path}: is damaged (not the file that `jaxlm prepare` wrote: its "
                    "checksum differs); run `jaxlm prepare` again"
                )
            file.seek(0)
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            while chunk := reader.read(BLOCK_BYTES):
                held += chunk
                end = held.rfind(b"\n") + 1
                if end:
                    yield Block(shard.path, line, held[:end])
                    line += held.count(b"\n", 0, end)
                    held = held[end:]
                elif len(held) > LONGEST_LINE:
                    raise UserError(f"{shard.path}:{line}: a line is longer than 1 GiB")
    except (OSError, zstandard.ZstdError) as error:
        raise UserError(
            f"{shard.path}: cannot be read ({error}); run `jaxlm prepare` again"
        ) from None
    if held or line - 1 != shard.documents:
        raise UserError(
            f"{shard.path}: holds {line - 1} documents, stats.json says {shard.documents}; "
            "run `jaxlm prepare` again"
        )


def parse(block: Block) -> Iterator[tuple[int, dict[str, Any]]]:
    """The line and all fields of each document of a block; its text has no surrogates.

    Raises UserError naming a bad line.
    """
    for number, line in enumerate(block.data.split(b"\n")[:-1]):
        try:
            document = json.loads(line)
            document["id"], document["text"].encode()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{block.shard}:{block.line + number}: not a document ({error!r}); "
                "run `jaxlm prepare` again"
            ) from None
        yield block.line + number, document
