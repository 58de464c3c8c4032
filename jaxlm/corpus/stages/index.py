"""All documents that a stage compares, and the index by which they outlive their corpus.

An index is a folder of .npy files, to which corpora are added:

    INDEX/CORPUS/STAGE/index.json             version, parameters, documents and sha256 of each file
    INDEX/CORPUS/STAGE/00000/STAGE.NAME.npy   the stage's signature of the documents that stayed
    INDEX/CORPUS/STAGE/00000/ids*.npy         their ids: bytes, and int64 offsets into them

Nothing else is needed to compare with them: bands are computed anew for each threshold.
"""

import bisect
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.dedup import Dedup
from jaxlm.corpus.documents import Strings, load_array, save_array
from jaxlm.corpus.stages.compare import Batch, Map, Partner
from jaxlm.corpus.stages.shuffle import DROPPED, GONE, Place, grouped, mapped
from jaxlm.errors import UserError
from jaxlm.workdir import write_json

VERSION = 1
PART_BYTES = 64 << 20


class Compared:
    """Documents with numbers: those of earlier corpora first, which stay, then the batches."""

    def __init__(
        self, stage: str, batches: Sequence[Batch], earlier: list[tuple[str, Place]], work: Path
    ) -> None:
        self.names = [name for name, _ in earlier]
        self.places = [place for _, place in earlier]
        self.earlier = self.documents = sum(place.documents for place in self.places)
        for batch in batches:
            self.places.append(Place(batch.folder, stage, self.documents, len(batch.keep)))
            self.documents += len(batch.keep)
        self.batches = self.places[len(earlier) :]
        self.state_path = work / "state.npy"
        self.state: NDArray[np.uint8] = mapped(self.state_path, self.documents, np.uint8)
        for place, batch in zip(self.batches, batches, strict=True):
            self.state[place.range][~batch.keep] = GONE
        self._starts = [place.start for place in self.places]

    def refuse_unranked(self, config: Dedup) -> None:
        """Raise UserError where no document has what `config.keep` goes by."""
        if config.keep in ("oldest", "quality") and self.batches:
            if any(np.isfinite(place.rank()).any() for place in self.batches):
                return
            key, found = (
                ("date_field", f"no document has a date in its field {config.date_field!r}")
                if config.keep == "oldest"
                else ("quality", f"no document has the attribute {config.quality!r} here; it is "
                      "computed by a stage between the comparing stages before and this one")
            )  # fmt: skip
            raise UserError(f"prepare.dedup.{key}: {found}")

    def partner(self, number: int) -> Partner:
        """How others speak of a document."""
        at = bisect.bisect_right(self._starts, number) - 1
        place = self.places[at]
        index = number - place.start
        if at >= len(self.names):
            return at - len(self.names), index
        return f"{self.names[at]}:{_ids(place.folder)[index].decode(errors='replace')}"


def earlier(config: Dedup, stage: str, parameters: dict[str, Any], run: Map) -> list[
    tuple[str, Place]
]:  # fmt: skip
    """The documents of the indexes in `config.against`: name of the corpus, where they lie.

    Raises UserError for a folder that is no index, is damaged, or was made with other parameters.
    """
    out: list[tuple[str, Place]] = []
    checks: list[tuple[Path, dict[str, str]]] = []
    start = 0
    for index in map(Path, config.against):
        found = sorted(index.glob(f"*/{stage}/index.json")) if index.is_dir() else []
        if not found:
            raise UserError(
                f"prepare.dedup.against: {index} holds no index of {stage}; a corpus that is "
                "prepared with this stage and with dedup.index makes one"
            )
        for path in found:
            name = path.parent.parent.name
            if name == config.name and config.index and index.samefile(config.index):
                continue
            data = _read(path)
            if data["parameters"] != parameters:
                raise UserError(
                    f"{path}: the index was made with {_shown(data['parameters'])}, but the config "
                    f"says {_shown(parameters)}; they have to be the same"
                )
            for part, documents in data["parts"]:
                out.append((name, Place(path.parent / part, stage, start, documents, False)))
                start += documents
            checks.append((path.parent, data["files"]))
    for _ in run(_verify, checks):
        pass
    return out


def add(
    config: Dedup,
    stage: str,
    parameters: dict[str, Any],
    names: Sequence[str],
    ragged: Sequence[str],
    compared: Compared,
    run: Map,
) -> None:
    """Add the documents that stayed to `config.index`, in place of what has the same name there.

    names: arrays with a row a document; ragged: arrays of which document d has the piece
    first[d]:first[d + 1].
    """
    if config.index is None:
        return
    folder = Path(config.index) / config.name / stage
    partial = folder.with_name(f"{stage}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    sizes = [
        sum(place.array(name).nbytes for name in (*names, *ragged)) for place in compared.batches
    ]
    tasks = (
        (partial / f"{number:05d}", group, compared.state_path, tuple(names), tuple(ragged))
        for number, group in enumerate(grouped(compared.batches, sizes, PART_BYTES))
    )
    parts: list[tuple[str, int]] = []
    files: dict[str, str] = {}
    for documents, checksums in run(_write_part, tasks):
        part = f"{len(parts):05d}"
        parts.append((part, documents))
        files |= {f"{part}/{name}": checksum for name, checksum in checksums.items()}
    write_json(
        partial / "index.json",
        {"version": VERSION, "stage": stage, "parameters": parameters, "parts": parts,
         "files": files},
    )  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _write_part(
    folder: Path,
    places: tuple[Place, ...],
    state_path: Path,
    names: tuple[str, ...],
    ragged: tuple[str, ...],
) -> tuple[int, dict[str, str]]:
    folder.mkdir()
    state = load_array(state_path)
    keeps = [state[place.range] < DROPPED for place in places]
    ids = [_ids(place.folder).take(keep).buffer for place, keep in zip(places, keeps, strict=True)]
    lengths = [_ids(place.folder).lengths[keep] for place, keep in zip(places, keeps, strict=True)]
    columns: dict[str, list[NDArray[Any]]] = {
        name: [place.array(name)[keep] for place, keep in zip(places, keeps, strict=True)]
        for name in names
    }
    for name in ragged:
        columns[name] = [
            place.array(name)[np.repeat(keep, np.diff(place.array("first")))]
            for place, keep in zip(places, keeps, strict=True)
        ]
    stage = places[0].stage
    for name, pieces in columns.items():
        save_array(folder / f"{stage}.{name}.npy", np.concatenate(pieces))
    if ragged:
        counts = [
            np.diff(place.array("first"))[keep] for place, keep in zip(places, keeps, strict=True)
        ]
        save_array(folder / f"{stage}.first.npy", _offsets(counts))
    save_array(folder / "ids.npy", np.concatenate(ids))
    save_array(folder / "ids_offsets.npy", _offsets(lengths))
    checksums = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    return sum(int(keep.sum()) for keep in keeps), checksums


def _offsets(counts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(counts))])


def _ids(folder: Path) -> Strings:
    return Strings(load_array(folder / "ids.npy"), load_array(folder / "ids_offsets.npy"))


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
        if data["version"] != VERSION:
            raise UserError(f"{path}: version {data['version']} of an index, not {VERSION}")
        {"parameters", "parts", "files"} <= data.keys() or data["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the description of an index ({error!r})") from None
    found: dict[str, Any] = data
    return found


def _verify(folder: Path, files: dict[str, str]) -> None:
    """Raise UserError where a file is missing or has another content than when it was written."""
    for name, checksum in files.items():
        path = folder / name
        if not path.is_file() or _sha256(path) != checksum:
            raise UserError(
                f"{path}: missing or damaged (its checksum differs); prepare that corpus again, "
                "or take its folder out of the index"
            )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shown(parameters: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in parameters.items())


def removed(state: NDArray[np.uint8], place: Place) -> Iterator[int]:
    """Indexes of the documents of a batch that repeat others."""
    yield from map(int, np.flatnonzero(state[place.range] == DROPPED))
