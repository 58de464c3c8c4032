"""What stages give back: attributes of documents, and rewritten texts with what was changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from jaxlm.corpus.documents import Strings

type Tags = dict[str, NDArray[np.float64]]
"""Attribute -> its value for each document, float64 [D]; NaN where it does not apply."""


@dataclass(frozen=True)
class Changes:
    """C pieces of old texts that were cut or replaced, in the order of the documents.

    names: what changed them; document, name (index into names), start, end: int64 [C], the last
    two in bytes from the beginning of the document.
    """

    names: tuple[str, ...]
    document: NDArray[np.int64]
    name: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.document)


@dataclass(frozen=True)
class Edit:
    """The result of an editor: attributes of the old texts, the new texts, what differs."""

    tags: Tags
    texts: Strings
    changes: Changes
    notes: Mapping[int, str] = field(default_factory=dict)
    """Document -> what it matched, for the ledger."""


def replaced(
    texts: Strings,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    fills: Sequence[bytes] | bytes = b"",
) -> Strings:
    """The texts with bytes starts[i]:ends[i] of their buffer exchanged for fills[i].

    The pieces rise and do not overlap, and none crosses from one document into the next; one
    `bytes` is put in every place.
    """
    if not len(starts):
        return texts
    pieces = [fills] * len(starts) if isinstance(fills, bytes) else fills
    view = memoryview(np.ascontiguousarray(texts.buffer))
    parts: list[bytes | memoryview] = []
    at = 0
    for start, end, fill in zip(starts.tolist(), ends.tolist(), pieces, strict=True):
        parts += (view[at:start], fill)
        at = end
    parts.append(view[at:])
    sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
    grown = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes - (ends - starts))])
    # an offset moves by what the pieces that begin before it have grown
    offsets = texts.offsets + grown[np.searchsorted(starts, texts.offsets)]
    return Strings(np.frombuffer(b"".join(parts), np.uint8), offsets)
