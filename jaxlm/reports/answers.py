"""Answers of `jaxlm prepare --what-if` and `--explain` as lines for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxlm.reports.units import percent, size, whole


def what_if_lines(changes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """By source: what reached the stages in question, what they keep before and after, examples.

    changes: what `jaxlm.corpus.explain.what_if` gives.
    """
    width = max(map(len, changes), default=0)
    for name, change in changes.items():
        before, after = change["kept_before"], change["kept_after"]
        grown = change["kept_bytes_after"] - change["kept_bytes_before"]
        sign = "+" if grown >= 0 else "-"
        yield (
            f"{name:{width}}  {whole(change['documents'])} documents; kept {whole(before)} "
            f"({percent(before, change['documents'])}) -> {whole(after)} "
            f"({percent(after, change['documents'])}), text {sign}{size(abs(grown))}"
        )
        for verb, key in (("would drop", "newly_dropped"), ("would keep", "newly_kept")):
            for example in change[key]:
                yield (
                    f"{'':{width}}  {verb} {example['id']}: {example['rule']} "
                    f"{_short(example['value'])} against {_short(example['threshold'])}"
                )
                yield f"{'':{width}}      {_line(example['excerpt'])}"
    yield "Later stages are not done again: what they would drop of this is not known."


def story_lines(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Every step of one document: its attributes with their bounds, and its lines of the ledger.

    steps: what `jaxlm.corpus.explain.story` gives.
    """
    dropped = None
    for step in steps:
        if step["step"] == "tagged":
            yield (
                f"{step['source']}: {', '.join(step['stages'])} saw {size(step['bytes'])} in "
                f"language {step['language']}: {_line(step['excerpt'], 60)}"
            )
            width = max((len(a["name"]) for a in step["attributes"]), default=0)
            for attribute in step["attributes"]:
                bounds = [f"{name} {_short(attribute[name])}" for name in ("min", "max")
                          if name in attribute]  # fmt: skip
                mark = "  FAILED" if attribute["failed"] else ""
                yield (
                    f"  {attribute['name']:{width}}  {_short(attribute['value']):>10}  "
                    f"{', '.join(bounds)}{mark}"
                )
            continue
        more = [f"{key} {step[key]}" for key in ("partner", "note") if key in step]
        verb = {"drop": "dropped by", "change": "changed by", "error": "could not be read:"}
        threshold = step.get("threshold")
        value = "" if step["value"] is None else f": {_short(step['value'])}"
        yield (
            f"{step['source']}: {verb[step['step']]} {step['stage']}.{step['rule']}{value}"
            + (f" against {_short(threshold)}" if threshold is not None else "")
            + (f" ({', '.join(more)})" if more else "")
        )
        if step["step"] != "change":
            dropped = f"{step['stage']}.{step['rule']}"
    yield "It is not in the corpus." if dropped else "It is in the corpus."


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _line(text: str, most: int = 100) -> str:
    """The beginning of a text on one line, without what a terminal would obey."""
    one = "".join(c if c.isprintable() else " " for c in " ".join(text[: 4 * most].split()))
    return one if len(one) <= most else f"{one[:most]}..."
