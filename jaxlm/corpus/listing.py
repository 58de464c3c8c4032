"""A source's path -> its input files, sorted, with what shows that a file has changed."""

import fnmatch
import importlib.metadata
import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlm.config.corpus import Source
from jaxlm.errors import UserError

EXTRAS = {"hf": "hf", "s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "http",
          "https": "http"}  # fmt: skip
STAMPS = ("ETag", "etag", "sha", "blob_id", "LastModified", "updated", "mtime")
COMPRESSIONS = (".gz", ".zst")
SOURCE_TEXT = """
.txt .text .rst .org .py .pyi .c .h .cc .cpp .hpp .cu .rs .go .java .kt .scala .js .ts
.tsx .jsx .rb .php .pl .lua .r .jl .hs .ml .swift .cs .sh .sql .css .yaml .yml .toml .ini .cfg
.cmake .f90 .m .el .lisp .clj .ex .erl .zig .nim
"""
FORMATS = {
    **dict.fromkeys(SOURCE_TEXT.split(), "text"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    ".json": "json",
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    **dict.fromkeys((".md", ".markdown"), "markdown"),
    ".tex": "latex",
    ".ipynb": "notebook",
    **dict.fromkeys((".warc", ".wet"), "warc"),
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class InputFile:
    """One file. `name` is its path below the source's root and begins its documents' ids; its
    format is one of the config's, or "unknown"."""

    path: str
    name: str
    format: str
    size: int
    stamp: str
    """Changes when the file does: modification time, etag or package version."""


def files(source: Source) -> list[InputFile]:
    """The input files of a resolved source, sorted by name.

    Raises UserError when there are none, when one cannot be listed, or when neither the config
    nor the name of any tells a format.
    """
    path = source.path
    assert path is not None, "recipes are resolved"
    scheme, colon, rest = path.partition(":")
    if scheme == "python" and colon:
        found = list(_python(rest, source))
    elif scheme == "package" and colon:
        found = list(_package(rest, source))
    else:
        found = [file for part in braces(path) for file in _listed(part, source)]
    if not found:
        raise UserError(f"source {source.name!r}: no file matches {path}")
    if all(file.format == "unknown" for file in found):
        raise UserError(
            f"source {source.name!r}: the name of {found[0].path} does not tell its format; "
            "set format to text, jsonl, json, parquet, html, markdown, latex, notebook, code or "
            "warc"
        )
    return sorted(found, key=lambda file: file.name)


def _input(
    source: Source, path: str, name: str, size: int, stamp: str, auto: str | None = None
) -> InputFile:
    """`auto` is the format where the name does not tell it."""
    kind = source.format if source.format != "auto" else auto or FORMATS.get(plain_suffix(path))
    # a file name need not be UTF-8, but ids are
    name = os.fsencode(name).decode(errors="backslashreplace")
    return InputFile(path, name, kind or "unknown", size, stamp)


def braces(path: str) -> list[str]:
    """shard-{0,1}.jsonl -> shard-0.jsonl, shard-1.jsonl."""
    found = re.search(r"\{([^{}]*)\}", path)
    if found is None:
        return [path]
    head, tail = path[: found.start()], path[found.end() :]
    return [whole for part in found[1].split(",") for whole in braces(head + part + tail)]


def plain_suffix(path: str) -> str:
    """The suffix of a path in lower case, without that of a compression."""
    lower = path.lower()
    for suffix in COMPRESSIONS:
        lower = lower.removesuffix(suffix)
    return Path(lower).suffix


def _local(source: Source, path: Path, name: str, auto: str | None = None) -> InputFile:
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"source {source.name!r}: {path}: {error.strerror}") from None
    return _input(source, str(path), name, status.st_size, str(status.st_mtime_ns), auto)


def _listed(path: str, source: Source) -> list[InputFile]:
    """A path or glob of any file system that fsspec knows."""
    protocol = path.split("://")[0] if "://" in path else "file"
    try:
        import fsspec

        system, root = fsspec.core.url_to_fs(path)
        magic = re.search(r"[*?\[]", root)
        if magic:
            base = root[: magic.start()].rpartition("/")[0]
            listing: dict[str, Any] = system.glob(root, detail=True)
        else:
            base = root.rpartition("/")[0]
            listing = {root: system.info(root)}
    except (ImportError, ValueError) as error:
        extra = EXTRAS.get(protocol)
        hint = f"; pip install 'jaxlm[{extra}]'" if extra else ""
        raise UserError(f"source {source.name!r}: cannot open {path}: {error}{hint}") from None
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise UserError(f"source {source.name!r}: {path}: {reason}") from None
    except Exception as error:
        # a remote file system's own exceptions: no credentials, no access, no network
        if protocol == "file":
            raise
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"source {source.name!r}: cannot list {path}: {reason}") from None
    found = []
    for name, info in listing.items():
        if info["type"] == "directory":
            if not magic:
                raise UserError(
                    f"source {source.name!r}: {path} is a folder; name its files with a glob, "
                    f"such as {path.rstrip('/')}/**/*.txt"
                )
            continue
        below = name.removeprefix(base).lstrip("/")
        if protocol == "file":
            found.append(_local(source, Path(name), below))
        else:
            stamp = next((str(info[key]) for key in STAMPS if info.get(key)), "")
            url = system.unstrip_protocol(name)
            found.append(_input(source, url, below, int(info.get("size") or 0), stamp))
    return found


def _package(rest: str, source: Source) -> Iterator[InputFile]:
    """package:NAME/GLOB: files that an installed distribution lists, where * also matches /.

    Names are relative to site-packages; those of files outside it (share/doc) begin below the
    environment's root.
    """
    name, _, pattern = rest.partition("/")
    try:
        distribution = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise UserError(
            f"source {source.name!r}: the package {name!r} is not installed; pip install {name}"
        ) from None
    roots = [Path(sys.prefix), Path(os.path.normpath(str(distribution.locate_file(""))))]
    for file in distribution.files or ():
        below = re.sub(r"^(\.\./)+", "", file.as_posix())
        if fnmatch.fnmatchcase(below, pattern):
            path = Path(os.path.normpath(str(distribution.locate_file(file))))
            if not any(path.is_relative_to(root) for root in roots):
                raise UserError(
                    f"source {source.name!r}: the package {name!r} lists {file}, which lies "
                    "outside its environment; install it again"
                )
            yield _local(source, path, below)


def _python(what: str, source: Source) -> Iterator[InputFile]:
    """python:topics | stdlib | descriptions: text that comes with the interpreter and packages."""
    if what == "topics":
        spec = importlib.util.find_spec("pydoc_data.topics")
        if spec is None or spec.origin is None:
            raise UserError(
                f"source {source.name!r}: this Python comes without pydoc_data.topics; "
                "install its full standard library"
            )
        yield _local(source, Path(spec.origin), "topics", "pydoc")
    elif what == "stdlib":
        root = Path(sysconfig.get_path("stdlib"))
        apart = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
        for folder, below, names in os.walk(root):
            below[:] = [name for name in below if name not in apart]
            for name in names:
                path = Path(folder, name)
                if path.suffix == ".py" and path.is_file():
                    yield _local(source, path, path.relative_to(root).as_posix())
    elif what == "descriptions":
        seen = set()
        for entry in sys.path:
            for path in Path(entry).glob("*.dist-info/METADATA"):
                name = path.parent.name.removesuffix(".dist-info")
                if name not in seen:
                    seen.add(name)
                    yield _local(source, path, name, "metadata")
    else:
        raise UserError(
            f"source {source.name!r}: python:{what} is unknown; there are python:topics, "
            "python:stdlib and python:descriptions"
        )
