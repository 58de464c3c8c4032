"""metrics.jsonl and TensorBoard events: one record a logged step, none twice, none missing."""

import json
import os
from pathlib import Path
from typing import Any

from jaxlm.errors import UserError
from jaxlm.workdir import Workdir, write_text


class Metrics:
    """Appends records; a restart at step `start` first removes those of later steps."""

    def __init__(self, workdir: Workdir, start: int, tensorboard: bool) -> None:
        if workdir.metrics.exists():
            write_text(workdir.metrics, "".join(_until(workdir.metrics, start)))
        self._file = open(workdir.metrics, "a", encoding="utf-8")  # noqa: SIM115
        self._events: Any = None
        if tensorboard:
            from tensorboardX import SummaryWriter  # an import of 0.2 s that not every run needs

            self._events = SummaryWriter(
                str(workdir.path / "tensorboard"),
                purge_step=start + 1,
                flush_secs=10,
                filename_suffix=f".{start}",  # the name's clock has seconds only
            )

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; it is on disk when this returns."""
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._events is not None:
            for name, value in record.items():
                if name not in ("step", "time") and isinstance(value, int | float):
                    self._events.add_scalar(name, value, record["step"])

    def close(self) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()


def _until(path: Path, last: int) -> list[str]:
    """The lines of steps up to `last`; one that a killed process left half-written is dropped."""
    kept = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            step = int(json.loads(line)["step"])
        except (ValueError, TypeError, KeyError):
            raise UserError(
                f"{path}:{number}: not a record of a step; mend the line or move the file away"
            ) from None
        if step <= last:
            kept.append(f"{line}\n")
    return kept
