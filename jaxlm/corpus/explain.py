"""Questions to a corpus that is there: what other thresholds would change, and what became of one
document. Both read what was written down, and touch no text."""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ruamel.yaml import YAML

from jaxlm.config.corpus import Prepare, Source
from jaxlm.config.routes import with_value
from jaxlm.corpus.apply import KEPT
from jaxlm.corpus.examples import Verdict, judged
from jaxlm.corpus.ledger import number
from jaxlm.corpus.tags import read_tags
from jaxlm.errors import UsageError, UserError
from jaxlm.workdir import Workdir

EXAMPLES = 3


@dataclass
class Change:
    """What other thresholds do to the documents of one source that reach their stages."""

    documents: int = 0
    bytes: int = 0
    kept_before: int = 0
    kept_after: int = 0
    kept_bytes_before: int = 0
    kept_bytes_after: int = 0
    newly_dropped: list[dict[str, Any]] = field(default_factory=list)
    """Examples: id, rule, value, threshold, excerpt."""
    newly_kept: list[dict[str, Any]] = field(default_factory=list)


def what_if(workdir: Workdir, settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What KEY=VALUE settings of thresholds would change: by source the fields of a `Change`.

    Every document that reached the stages in question is decided again from its attributes, among
    the taggers that ran beside them; what later stages would do is not known and not guessed.
    Raises UsageError for a key that is no threshold, or of a stage that did not run.
    """
    config, sources = _config(workdir)
    other = config
    stages = set()
    for setting in settings:
        stage, key, value = _setting(config, setting)
        other = with_value(other, key, value)
        stages.add(stage)
    out = {source.name: Change() for source in sources}
    for path, source in _tag_files(workdir, sources):
        for batch, table in enumerate(read_tags(path)):
            if batch == 0 and not stages & set(table.stages):
                break
            change = out[source.name]
            old, new = list(judged(table, source, config)), list(judged(table, source, other))
            before, after = _alive(len(table.ids), old), _alive(len(table.ids), new)
            change.documents += len(table.ids)
            change.bytes += int(table.bytes.sum())
            change.kept_before += int(before.sum())
            change.kept_after += int(after.sum())
            change.kept_bytes_before += int(table.bytes[before].sum())
            change.kept_bytes_after += int(table.bytes[after].sum())
            for mask, verdicts, examples in (
                (before & ~after, new, change.newly_dropped),
                (after & ~before, old, change.newly_kept),
            ):
                for row in np.flatnonzero(mask)[: EXAMPLES - len(examples)].tolist():
                    _, rule, threshold, value = _failures(verdicts, row)[0]
                    examples.append(
                        {"id": table.ids[row], "rule": rule, "value": value,
                         "threshold": threshold, "excerpt": table.excerpts[row]}
                    )  # fmt: skip
    return {name: asdict(change) for name, change in out.items()}


def story(workdir: Workdir, id: str) -> list[dict[str, Any]]:
    """What became of the documents with this id, in the order of the stages.

    One record a step: `source`, `step` (tagged, or an action of the ledger) and, for tagged: the
    stages, their verdict and every attribute with its value and thresholds; for the ledger: its
    line. Raises UserError when no document of the corpus had this id.
    """
    config, sources = _config(workdir)
    steps: list[dict[str, Any]] = []
    for path, source in _tag_files(workdir, sources):
        for table in read_tags(path):
            for row in (i for i, other in enumerate(table.ids) if other == id):
                language = str(table.languages[row])
                failed = {(stage, rule) for stage, rule, *_ in _failures(
                    list(judged(table, source, config)), row)}  # fmt: skip
                attributes = []
                for name, values in table.columns.items():
                    stage, _, attribute = name.rpartition(".")
                    section = config.section(stage, source, language)
                    bounds = {
                        rule: getattr(section, rule, None)
                        for rule in (f"min_{attribute}", f"max_{attribute}")
                    }
                    if not np.isnan(values[row]):
                        attributes.append({
                            "name": name,
                            "value": number(float(values[row])),
                            **{rule[:3]: bound for rule, bound in bounds.items()
                               if bound is not None},
                            "failed": any((stage, rule) in failed for rule in bounds),
                        })  # fmt: skip
                k = int(table.dropped[row])
                steps.append({
                    "source": source.name, "step": "tagged", "stages": table.stages,
                    "language": language, "bytes": int(table.bytes[row]),
                    "dropped_by": None if k == KEPT else table.stages[k],
                    "attributes": attributes, "excerpt": table.excerpts[row],
                })  # fmt: skip
    for line in _ledger(workdir):
        if line["id"] == id:
            steps.append({"step": line.pop("action"), **line})
    if not steps:
        raise UserError(f"{workdir.corpus}: no document had the id {id!r}")
    return steps


def _alive(documents: int, verdicts: Sequence[Verdict]) -> NDArray[np.bool_]:
    alive = np.ones(documents, np.bool_)
    for *_, where, _, failed in verdicts:
        alive[where[failed]] = False
    return alive


def _failures(verdicts: Sequence[Verdict], row: int) -> list[tuple[str, str, float, float]]:
    """Stage, rule, threshold and value of each rule that a row fails."""
    out = []
    for stage, rule, threshold, where, values, failed in verdicts:
        at = int(np.searchsorted(where, row))
        if at < len(where) and where[at] == row and failed[at]:
            out.append((stage, rule, threshold, number(float(values[at]))))
    return out


def _config(workdir: Workdir) -> tuple[Prepare, list[Source]]:
    """The config that the corpus was made with."""
    path = workdir.corpus / "config.json"
    if not path.is_file():
        raise UserError(f"{workdir.corpus}: no corpus yet; give jaxlm prepare CONFIG first")
    data = json.loads(path.read_text())
    sources = [Source.model_validate_json(json.dumps(source)) for source in data["sources"]]
    return Prepare.model_validate_json(json.dumps(data["prepare"])), sources


def _setting(config: Prepare, setting: str) -> tuple[str, str, Any]:
    """Stage, key below prepare, and value of one KEY=VALUE."""
    key, equals, text = setting.partition("=")
    key = key.removeprefix("prepare.")
    stage, _, name = key.rpartition(".")
    if not equals or not stage:
        raise UsageError(f"{setting!r} is not KEY=VALUE, such as quality.gopher.min_words=20")
    if stage not in config.stages:
        raise UsageError(
            f"{key}: the stage {stage!r} did not run; there are {', '.join(config.stages)}"
        )
    if not name.startswith(("min_", "max_")):
        raise UsageError(
            f"{key}: not a threshold (min_..., max_...); for anything else prepare the text again"
        )
    value = YAML(typ="safe", pure=True).load(text)
    try:
        with_value(config, key, value)
    except ValueError as error:
        raise UsageError(f"{key}: {error}") from None
    return stage, key, value


def _tag_files(workdir: Workdir, sources: list[Source]) -> Iterator[tuple[Path, Source]]:
    for path in sorted((workdir.corpus / "tags").glob("*.parquet")):
        name = path.stem.partition("-")[2]
        yield from ((path, source) for source in sources if source.name == name)


def _ledger(workdir: Workdir) -> Iterator[dict[str, Any]]:
    import zstandard

    with (
        open(workdir.corpus / "ledger.jsonl.zst", "rb") as raw,
        zstandard.ZstdDecompressor().stream_reader(raw) as stream,
    ):
        for line in io.TextIOWrapper(stream, "utf-8", newline="\n"):
            yield json.loads(line)
