"""What `prepare.keep` leaves with the documents: language, and attributes that stages found."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxlm.corpus.documents import Documents


def kept_fields(
    documents: Documents, names: Sequence[str], tags: Sequence[Path]
) -> list[dict[str, Any]]:
    """The fields `names` of each document: `language`, or STAGE.ATTRIBUTE of a batch's tags.

    tags: the files of the batch in which these documents were read, and of what became of it. An
    attribute that was not found of a document, as no stage judged it, is left out.
    """
    import pyarrow.parquet as pq

    out: list[dict[str, Any]] = [
        {"language": str(language)} if "language" in names else {}
        for language in documents.languages
    ]
    places = {documents.id(i): i for i in range(len(documents))}
    for path in tags:
        file = pq.ParquetFile(path)
        if not (
            there := [name for name in names if name in file.schema_arrow.names and "." in name]
        ):
            continue
        rows: Any = file.read(columns=["id", "dropped", *there]).to_pylist()
        # of two rows with an id, the first that no stage dropped is the document's: `ids` drops
        # later ones
        for row in reversed(rows):
            if row["dropped"] is None and (i := places.get(row["id"])) is not None:
                out[i] |= {name: row[name] for name in there if row[name] is not None}
    return [{name: one[name] for name in names if name in one} for one in out]


def unknown(names: Sequence[str], tags: Path) -> dict[str, list[str]]:
    """The names that no file of attributes in a corpus's folder of tags has, and what there is."""
    import pyarrow.parquet as pq

    there = {name for path in tags.glob("*.parquet") for name in pq.read_schema(path).names}
    found = sorted(name for name in there if "." in name)
    return {name: found for name in names if name != "language" and name not in there}
