"""Input file -> records: a document's id, text and metadata, or the reason why it has none.

What is broken becomes a `Bad`, and reading goes on: with the next record, where one can be found,
else with the next file. What a config got wrong raises UserError.
"""

import contextlib
import zlib
from collections.abc import Callable, Iterator

from jaxlm.config.corpus import Limits, Source
from jaxlm.corpus.files import ExpansionError
from jaxlm.corpus.listing import InputFile
from jaxlm.corpus.readers import archive, pages, rows
from jaxlm.corpus.readers.records import Bad, BrokenFileError, Record, split, too_long
from jaxlm.errors import UserError

__all__ = ["Bad", "Record", "read"]


def read(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """The records of one file, in its order.

    A file that breaks off, or that grows beyond limits.max_expansion, ends with a `Bad` of its
    name. Raises UserError naming the file when it cannot be opened or lacks the text column.
    """
    reader = _READERS[file.format]
    with contextlib.closing(split(source, _whole(source, file, limits, reader))) as records:
        for record in records:
            if isinstance(record, Record):
                if len(record.text) > limits.max_document_bytes:
                    record = too_long(
                        record.id, len(record.text), limits.max_document_bytes, record.text
                    )
                elif not record.text or record.text.isspace():
                    record = Bad(record.id, "empty", len(record.text))
            yield record


type Reader = Callable[[Source, InputFile, Limits], Iterator[Record | Bad]]


def _whole(
    source: Source, file: InputFile, limits: Limits, reader: Reader
) -> Iterator[Record | Bad]:
    """What a reader gives, and a last `Bad` where it broke off."""
    try:
        yield from reader(source, file, limits)
    except UserError:
        raise
    except ExpansionError as error:
        yield Bad(file.name, "max_expansion", file.size, error.factor, limits.max_expansion)
    except (BrokenFileError, EOFError, zlib.error) as error:
        yield Bad(file.name, "broken_file", file.size, str(error)[:300])
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            reason = "no such file"
        else:
            reason = error.strerror or str(error)
        raise UserError(f"source {source.name!r}: {file.path}: {reason}") from None
    except Exception as error:
        # a remote file system's own exceptions; ours would be a defect and must show
        if "://" not in file.path:
            raise
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"source {source.name!r}: {file.path} cannot be read: {reason}; try again, "
            "or leave it out of the source's path"
        ) from None


def _unknown(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """A file among others whose name does not tell its format."""
    yield Bad(file.name, "unknown_format", file.size, file.name)


_READERS: dict[str, Reader] = {
    "text": pages.plain,
    "html": pages.html,
    "markdown": pages.markdown,
    "latex": pages.latex,
    "notebook": pages.notebook,
    "code": pages.code,
    "pydoc": pages.pydoc,
    "metadata": pages.metadata,
    "jsonl": rows.jsonl,
    "json": rows.json_array,
    "parquet": rows.parquet,
    "warc": archive.warc,
    "unknown": _unknown,
}
