"""Changes of a config that make it fit, or faster: each compiled, not guessed."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from jaxlm.config import Config
from jaxlm.config.load import validate
from jaxlm.errors import UserError
from jaxlm.planning.record import plan
from jaxlm.planning.topology import Hardware

type Change = dict[str, Any]
"""Dotted keys and their values."""

REMAT = ("none", "dots", "full")
MOST = 12
"""Programs that a search compiles at most."""


def search(
    config: Config,
    hardware: Hardware,
    devices: Sequence[jax.Device],
    record: dict[str, Any],
    show: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """The three best changes: of a config that does not fit those that make it fit, else those that
    raise its bound on tokens a second; by that bound, and then by memory.

    record: what `plan` found of the config as it is. One step of each of remat policy, microbatch
    and mesh shape is tried, and where nothing fits, steps of those that came nearest. Each result
    is {"change": {key: value}, fits, peak_bytes, step_seconds_bound, ...}.
    """
    tried: list[dict[str, Any]] = []
    seen: list[Config] = [config]
    waiting: list[tuple[Change, Config, float]] = [({}, config, too_large(record))]
    while waiting and len(tried) < MOST:
        base, start, times = waiting.pop(0)
        for change in neighbours(start, record["mesh"] | _mesh_of(base), record["fits"], times):
            together = base | change
            changed = with_changes(config, together)
            if changed is None or changed in seen or len(tried) >= MOST:
                continue
            seen.append(changed)
            show("tries " + words(together))
            try:
                found = plan(changed, hardware, devices)
            except UserError:
                continue  # a mesh that these devices do not make
            tried.append({"change": together} | found)
            if not record["fits"] and not found["fits"]:
                waiting.append((together, changed, too_large(found)))
        waiting.sort(key=lambda item: _peak(tried, item[0]))
        if any(found["fits"] for found in tried) or record["fits"]:
            break
    better = [f for f in tried if f["fits"] and (not record["fits"] or _faster(f, record))]
    better.sort(key=lambda f: (f["step_seconds_bound"], f["peak_bytes"]))
    return [{key: f[key] for key in KEPT} for f in better[:3]]


KEPT = (
    "change", "fits", "peak_bytes", "step_seconds_bound", "mfu_bound", "tokens_per_second_bound",
    "bound", "hours", "chip_hours",
)  # fmt: skip


def too_large(record: dict[str, Any]) -> float:
    """By what the temporaries would have to be divided for a program to fit; at least 1. Infinite
    where the state alone does not."""
    left = record["hbm_bytes"] - record["argument_bytes"]
    return max(1.0, record["temp_bytes"] / left) if left > 0 else math.inf


def neighbours(
    config: Config, mesh: dict[str, int], fits: bool, times: float = 1.0
) -> Iterator[Change]:
    """Single changes, those first that save memory where the config does not fit.

    mesh: sizes of all axes, none of them -1.
    times: by what temporaries are too large. They are mostly tokens, so of the halves of a
        microbatch those come first that would be as much smaller.
    """
    train = config.train
    micro = train.microbatch_size or train.batch_size
    place = REMAT.index(train.remat)
    for remat in REMAT[place + 1 :] if not fits else REMAT[:place]:
        yield {"train.remat": remat}
    if not fits and times < math.inf:
        halvings = max(1, math.ceil(math.log2(times)))
        for part in (2 ** (halvings + more) for more in range(3 if times > 1 else 1)):
            if micro % part == 0:
                yield {"train.microbatch_size": micro // part}
    if fits and micro * 2 <= train.batch_size:
        yield {"train.microbatch_size": micro * 2}
    # a factor of two from one axis to another; copies of the model first
    order = ("data", "fsdp", "tensor", "context", "stage")
    for source in order:
        for target in ("fsdp", "tensor", "context", "data", "stage"):
            if source == target or mesh[source] % 2:
                continue
            yield {f"mesh.{source}": mesh[source] // 2, f"mesh.{target}": mesh[target] * 2}


def with_changes(config: Config, change: Change) -> Config | None:
    """The config with other values; None where they cannot be together."""
    data = config.model_dump(mode="json")
    for key, value in change.items():
        section, _, name = key.partition(".")
        data[section][name] = value
    try:
        return validate(data)
    except UserError:
        return None


def words(change: Change) -> str:
    """As it is typed."""
    return " ".join(f"{key}={value}" for key, value in change.items())


def _mesh_of(change: Change) -> dict[str, int]:
    return {key.removeprefix("mesh."): v for key, v in change.items() if key.startswith("mesh.")}


def _peak(tried: list[dict[str, Any]], change: Change) -> float:
    return next((f["peak_bytes"] for f in tried if f["change"] == change), math.inf)


def _faster(found: dict[str, Any], record: dict[str, Any]) -> bool:
    return bool(found["step_seconds_bound"] < record["step_seconds_bound"])
