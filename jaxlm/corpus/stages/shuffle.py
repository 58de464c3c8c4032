"""Records sorted on disk by a 64-bit key, so that tasks can take a range of keys each.

A run is a folder with one .npy file a column, sorted by the column `key`; many runs are one set of
records. Nothing is held in memory but one run while it is written and one part while it is read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxlm.corpus.documents import load_array, save_array

type Columns = dict[str, NDArray[Any]]

RECORDS = 1 << 20
"""Records a run or part, about: tens of megabytes."""

OPEN, KEPT, DROPPED, GONE = range(4)
"""State of a document: not decided, stays, repeats one that stays, is not compared."""


@dataclass(frozen=True)
class Place:
    """Where a batch's signature lies, in a form that tasks are sent: files FOLDER/STAGE.NAME.npy of
    documents numbered from `start`; `ranked`: there is an array `rank`, else they come first."""

    folder: Path
    stage: str
    start: int
    documents: int
    ranked: bool = True

    def array(self, name: str) -> NDArray[Any]:
        """One array of the signature, mapped from disk."""
        return load_array(self.folder / f"{self.stage}.{name}.npy")

    @property
    def range(self) -> slice:
        """The numbers of its documents."""
        return slice(self.start, self.start + self.documents)

    def rank(self) -> NDArray[np.float64]:
        """Place of each document among its copies, float64 [D]."""
        return self.array("rank") if self.ranked else np.full(self.documents, -np.inf)


def grouped(
    places: Sequence[Place], sizes: Sequence[int], limit: int
) -> Iterator[tuple[Place, ...]]:
    """Neighbouring places until their sizes reach `limit`."""
    group: list[Place] = []
    total = 0
    for place, size in zip(places, sizes, strict=True):
        if group and total + size > limit:
            yield tuple(group)
            group, total = [], 0
        group.append(place)
        total += size
    if group:
        yield tuple(group)


def write_run(folder: Path, columns: Columns) -> int:
    """Save records sorted by `key` (uint64); returns how many."""
    folder.mkdir(parents=True)
    order = np.argsort(columns["key"], kind="stable")
    for name, column in columns.items():
        save_array(folder / f"{name}.npy", column[order])
    return len(order)


def read_part(folder: Path, names: Sequence[str], part: int, parts: int) -> Columns:
    """The records of all runs in a folder whose keys lie in part `part` of `parts` equal ranges."""
    return read_range(folder, names, (part << 64) // parts, (part + 1 << 64) // parts - 1)


def read_range(folder: Path, names: Sequence[str], low: int, high: int) -> Columns:
    """The records of all runs in a folder with keys from `low` to `high`, both included."""
    pieces: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    for run in sorted(folder.iterdir()):
        key = load_array(run / "key.npy")
        begin = np.searchsorted(key, np.uint64(low))
        end = np.searchsorted(key, np.uint64(high), "right")
        for name in names:
            pieces[name].append(load_array(run / f"{name}.npy")[begin:end])
    return {name: np.concatenate(found) for name, found in pieces.items()}


def parts(records: int) -> int:
    """How many parts to read so many records in."""
    return max(1, -(-records // RECORDS))


def opens(*columns: NDArray[Any]) -> NDArray[np.bool_]:
    """True where a record differs from the one before it in one of the columns."""
    out = np.zeros(len(columns[0]), np.bool_)
    out[:1] = True
    for column in columns:
        out[1:] |= column[1:] != column[:-1]
    return out


def mapped(path: Path, shape: int, dtype: type[np.generic]) -> NDArray[Any]:
    """A new .npy file of zeros, mapped for writing; an empty array in memory for shape 0."""
    if shape == 0:
        empty = np.zeros(0, dtype)
        save_array(path, empty)
        return empty
    return np.lib.format.open_memmap(path, "w+", np.dtype(dtype), (shape,))
