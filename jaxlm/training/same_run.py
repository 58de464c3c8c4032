"""Whether a checkpoint belongs to the run that wants to go on from it."""

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jaxlm.config import Config
from jaxlm.errors import UserError

# A run goes on from a checkpoint only when these agree: else its examples or arrays would differ.
SAME = (
    "seed", "sources", "tokenizer", "data", "objective", "model", "optimizer.kind",
    "train.batch_size", "train.batch_ramp", "train.from_checkpoint",
)  # fmt: skip
# Places of the same things, and how the same thing is computed.
FREE = (
    "sources.*.path", "tokenizer.path", "tokenizer.compare*", "tokenizer.measure_bytes",
    "data.store", "model.attention.kernel",
    "data.curriculum.*.microbatch_size", "data.curriculum.*.learning_rate",
    "data.curriculum.*.schedule*",
)  # fmt: skip


def refuse_other_run(was: dict[str, Any], now: dict[str, Any], where: Path) -> None:
    """Raise UserError, naming every key, when the checkpoint's run saw or built other things.

    was, now: {"config": as JSON, "tokenizer_hash": ..., "store": ...} of the checkpoint and of
    the run that starts.
    """
    before, data = _with_defaults(was["config"]), now["config"]["data"]
    last = len(data["curriculum"]) - 1
    same, free = [*SAME], [*FREE]
    if _depends_on_length(data):
        same += ["train.steps", "train.tokens"]
    else:  # like train.steps, the length of the last stage may change
        free += [f"data.curriculum.{last}.steps", f"data.curriculum.{last}.tokens"]
    different = [
        f"{where}: {key} was {_short(old)} and is {_short(new)}"
        for name in same
        for key, old, new in _differences(name, _at(before, name), _at(now["config"], name))
        if not any(fnmatchcase(key, pattern) for pattern in free)
    ]
    if was["tokenizer_hash"] != now["tokenizer_hash"]:
        different.append(f"{where}: it was trained with another tokenizer")
    elif was["store"] != now["store"]:
        different.append(f"{where}: it was trained on other tokens than the store holds now")
    if different:
        raise UserError([*different, "change this back, or choose another workdir for the new run"])


def _with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """A config of an earlier version, with the keys that there are now; as it was where it is none
    any more."""
    try:
        return json.loads(Config.model_validate_json(json.dumps(config)).model_dump_json())
    except ValidationError:
        return config


def _depends_on_length(data: dict[str, Any]) -> bool:
    """Whether the examples of the last stage, or of all, depend on how long the run is."""
    stage = data["curriculum"][-1] if data["curriculum"] else {}
    mixture = stage.get("mixture") or data.get("mixture", {})
    unimax = (mixture.get("smoothing") or {}).get("kind") == "unimax"
    capped = mixture.get("max_epochs") is not None or unimax
    shared = stage.get("share") is not None  # then so do the borders of all stages
    return shared or capped or stage.get("order", "random") != "random"


def _differences(key: str, was: Any, new: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(was, list) and isinstance(new, list) and len(was) == len(new):
        was, new = (dict(enumerate(value)) for value in (was, new))
    if isinstance(was, dict) and isinstance(new, dict):
        return [
            found
            for name in sorted({*was, *new})
            for found in _differences(f"{key}.{name}", was.get(name), new.get(name))
        ]
    return [] if was == new else [(key, was, new)]


def _at(data: dict[str, Any], key: str) -> Any:
    for name in key.split("."):
        data = data.get(name, {})
    return data


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
