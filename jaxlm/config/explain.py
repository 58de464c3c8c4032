"""What is wrong with a config, in words that name the key, its place and the nearest valid name."""

import difflib
import json
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel

from jaxlm.config.mixture import ALL, EACH
from jaxlm.config.objective import LIST, ONE
from jaxlm.config.schema import Config

type Key = tuple[str | int, ...]
type Places = dict[Key, str]
"""Where each key was written: FILE:LINE, or "command line"."""

SECTIONS_AND_TYPES = {
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a string",
    "tuple_type": "must be a list",
    "model_type": "must be a section with keys",
    "model_attributes_type": "must be a section with keys",
}


def dotted(key: Key) -> str:
    """`sources.0.weight`"""
    return ".".join(str(part) for part in key)


def where(names: Iterable[str], places: Places) -> str:
    """The place of the first of these dotted keys, or of its nearest parent, that was written."""
    written = {dotted(key): place for key, place in places.items()}
    for name in names:
        parts = name.split(".")
        for end in range(len(parts), 0, -1):
            if place := written.get(".".join(parts[:end])):
                return f" ({place})"
    return ""


def explain(detail: Any, places: Places) -> str:
    """One of pydantic's errors as a message."""
    section, key = _locate(detail["loc"])
    match detail["type"]:
        case "extra_forbidden":
            message = f"unknown key; {_better_key(section, key)}"
        case "missing":
            message = "this key is required"
        case "literal_error" | "union_tag_invalid":
            context = detail["ctx"]
            if detail["type"] == "union_tag_invalid":
                key = (*key, "kind")
                given, expected = context["tag"], context["expected_tags"]
            else:
                given, expected = detail["input"], context["expected"]
            options = [o.strip("' ") for o in expected.replace(" or ", ", ").split(",")]
            near = difflib.get_close_matches(str(given), options, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            message = f"{given!r} is not one of {', '.join(options)}{hint}"
        case "union_tag_not_found":
            message = f"give its kind, one of {', '.join(_kinds(dotted((*_names(key), 'kind'))))}"
        case "value_error":  # our own, from a section's validator
            message = str(detail["ctx"]["error"])
        case kind:
            text = detail["msg"].replace("Input should be", "must be")
            message = SECTIONS_AND_TYPES.get(kind, text[0].lower() + text[1:])
            if detail["loc"][-1] == ONE:
                message += " or a list of them"
            given = json.dumps(detail["input"], default=str)
            message += f", not {given}" if len(given) <= 60 else ""
    return f"{dotted(key)}: {message}{where([dotted(key)], places)}"


def every_key() -> Iterator[tuple[Key, type[BaseModel]]]:
    """All keys of the schema with the section that holds them; items of a list have no index."""

    def visit(section: type[BaseModel], prefix: Key) -> Iterator[tuple[Key, type[BaseModel]]]:
        for name, field in section.model_fields.items():
            yield (*prefix, name), section
            for model in _models(field.annotation):
                yield from visit(model, (*prefix, name))

    return visit(Config, ())


def _better_key(section: type[BaseModel], key: Key) -> str:
    """What an unknown key may have been meant to be."""
    name = str(key[-1])
    homes: dict[str, list[str]] = {}
    # the shallowest keys of a name come first: they are what people mean
    for other in sorted(dict.fromkeys(k for k, _ in every_key()), key=len):
        homes.setdefault(str(other[-1]), []).append(dotted(other))
    here = dotted(_names(key))
    if here in homes.get(name, []):
        kind = _kind(section)
        return (
            f"it belongs to kind {' or '.join(_kinds(here))}, not {kind}; leave it out, or give "
            f"the whole section, as {dotted(key[:-1])}='{{kind: {kind}}}'"
        )
    if name in homes:
        return f"did you mean {_likely(homes[name])}?"
    if near := difflib.get_close_matches(name, section.model_fields, n=1, cutoff=0.6):
        return f"did you mean {dotted((*key[:-1], near[0]))}?"
    if near := difflib.get_close_matches(name, homes, n=1, cutoff=0.75):
        return f"did you mean {_likely(homes[near[0]])}?"
    return f"valid keys: {', '.join(section.model_fields)}"


def _names(key: Key) -> tuple[str, ...]:
    """A key without the indexes of items, as `every_key` has it."""
    return tuple(part for part in key if isinstance(part, str))


def _kinds(name: str) -> list[str]:
    """The kinds of a section that have this dotted key."""
    return [_kind(home) for key, home in every_key() if dotted(key) == name]


def _kind(section: type[BaseModel]) -> str:
    """The only value of a section's key `kind`."""
    (kind,) = typing.get_args(section.model_fields["kind"].annotation)
    return str(kind)


def _likely(keys: list[str]) -> str:
    """The least deep of these keys, three at most."""
    least = min(key.count(".") for key in keys)
    return " or ".join([key for key in keys if key.count(".") == least][:3])


def _locate(loc: Key) -> tuple[type[BaseModel], Key]:
    """The section that holds the last part of pydantic's location, and the key without tags."""
    section: type[BaseModel] = Config
    annotation: Any = Config
    key: Key = ()
    for part in loc:
        if part in (ONE, LIST, ALL, EACH):
            continue
        models = _models(annotation)
        if isinstance(part, str) and len(models) > 1:
            tagged = [m for m in models if _kind(m) == part]
            if tagged:
                annotation = tagged[0]
                continue
        key = (*key, part)
        if isinstance(part, str) and models:
            section = models[0]
            field = section.model_fields.get(part)
            annotation = field.annotation if field else None
    return section, key


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Section classes inside an annotation such as `tuple[Source, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if isinstance(annotation, typing.TypeAliasType):
        return _models(annotation.__value__)
    found = [model for part in typing.get_args(annotation) for model in _models(part)]
    return list(dict.fromkeys(found))
