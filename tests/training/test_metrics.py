"""metrics.jsonl across restarts, and event files that others read."""

import json
import struct
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event

from jaxlm.training.metrics import Metrics
from jaxlm.workdir import Workdir


def record(step: int, loss: float) -> dict[str, Any]:
    return {"step": step, "loss": loss, "mfu": None, "time": 1e9, "source_tokens": {"a": step}}


def events_in(path: Path) -> list[Any]:
    """TFRecords: length, its CRC, an Event, its CRC."""
    data, events = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events


def test_a_restart_takes_back_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    first = Metrics(workdir, 0, tensorboard=False)
    for step in (1, 2, 3):
        first.write(record(step, 3.0 - step))
    first.close()
    with open(workdir.metrics, "a") as file:
        file.write('{"step": 4, "lo')  # killed here
    again = Metrics(workdir, 2, tensorboard=False)
    again.write(record(3, 0.5))
    again.close()
    lines = [json.loads(line) for line in workdir.metrics.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 2.0), (2, 1.0), (3, 0.5)]


def test_event_files_hold_the_numbers(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    for start in (0, 2):
        metrics = Metrics(workdir, start, tensorboard=True)
        metrics.write(record(start + 1, 0.25))
        metrics.close()
    files = sorted((tmp_path / "tensorboard").iterdir())
    events = [event for file in files for event in events_in(file)]
    scalars = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]
    assert sorted(scalars) == [(1, "loss", 0.25), (3, "loss", 0.25)]
    assert [e.step for e in events if e.session_log.status] == [1, 3], "what is purged from there"
