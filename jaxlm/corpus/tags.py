"""What was found of every document, kept as Parquet: WORKDIR/corpus/tags/GROUP-SOURCE.parquet.

A row is a document that a group of stages saw, also one that it dropped: id, language, bytes, the
stage that dropped it or null, the beginning of its text, and a column stage.attribute for each
attribute, null where the stage did not judge it. So thresholds can be tried again without the text.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxlm.corpus.apply import KEPT, Tagged

EXCERPT_CHARACTERS = 300
OWN = ("id", "language", "bytes", "dropped", "excerpt")


@dataclass(frozen=True)
class TagTable:
    """The rows of one batch. dropped: as in `Tagged`; columns: float64 [D], NaN where null."""

    stages: tuple[str, ...]
    ids: Sequence[str]
    languages: NDArray[np.str_]
    bytes: NDArray[np.int64]
    dropped: NDArray[np.int64]
    excerpts: Sequence[str]
    columns: dict[str, NDArray[np.float64]]


def write_tags(tagged: Tagged, path: Path) -> None:
    """Write the rows of one batch."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    documents = tagged.documents
    names = np.array([*tagged.stages, None], object)  # KEPT is -1: the last
    columns = {
        "id": pa.array([documents.id(i) for i in range(len(documents))], pa.string()),
        "language": pa.array(documents.languages.tolist(), pa.string()),
        "bytes": pa.array(documents.texts.lengths),
        "dropped": pa.array(names[tagged.dropped].tolist(), pa.string()),
        "excerpt": pa.array(
            [documents.excerpt(i, EXCERPT_CHARACTERS) for i in range(len(documents))], pa.string()
        ),
    }
    for name, values in tagged.columns.items():
        columns[name] = pa.array(values, pa.float64(), from_pandas=True)
    table = pa.table(columns).replace_schema_metadata({"stages": json.dumps(tagged.stages)})
    pq.write_table(table, path, compression="zstd")


def merge_tags(path: Path, parts: Sequence[Path]) -> None:
    """Join the files of batches into one, a row group a batch, in order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schemas = [pq.read_schema(part) for part in parts]
    # a batch in which a stage judged nothing lacks its columns
    schema = pa.unify_schemas(schemas).with_metadata(schemas[0].metadata)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for part in parts:
            table = pq.read_table(part)
            for number, name in enumerate(schema.names):
                if name not in table.column_names:
                    nulls = pa.nulls(len(table), schema.field(number).type)
                    table = table.append_column(name, nulls)
            writer.write_table(table.select(schema.names), row_group_size=max(1, len(table)))


def read_tags(path: Path, columns: Sequence[str] | None = None) -> Iterator[TagTable]:
    """The rows of a file, batch by batch; `columns`: only these attributes."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    stages = tuple(json.loads(file.schema_arrow.metadata[b"stages"]))
    numbers = {stage: k for k, stage in enumerate(stages)} | {None: KEPT}
    names = [name for name in file.schema_arrow.names if name not in OWN]
    wanted = [name for name in names if columns is None or name in columns]
    for group in range(file.num_row_groups):
        table: Any = file.read_row_group(group, columns=[*OWN, *wanted])
        yield TagTable(
            stages,
            table["id"].to_pylist(),
            np.array(table["language"].to_pylist(), np.str_),
            table["bytes"].to_numpy(),
            np.array([numbers[name] for name in table["dropped"].to_pylist()], np.int64),
            table["excerpt"].to_pylist(),
            {name: table[name].to_numpy().astype(np.float64) for name in wanted},
        )
