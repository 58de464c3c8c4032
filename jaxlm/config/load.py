"""YAML files and overrides -> `Config`, with errors that name the key, its place and a near name."""

import difflib
import json
import types
import typing
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from jaxlm.config.checks import impossible
from jaxlm.config.schema import Config
from jaxlm.errors import UserError

type Key = tuple[str | int, ...]
type Places = dict[Key, str]

MAX_BYTES = 1 << 20


def load(path: str | Path, overrides: typing.Sequence[str] = ()) -> Config:
    """Read a config file, the files it is based on, and KEY=VALUE overrides.

    YAML is read as version 1.2 (3e-4 is a number, `no` is a string). A file may name one to extend,
    relative to itself: `base: other.yaml`; mappings merge key by key, everything else is replaced.
    An override is a dotted path and a YAML value (`train.steps=100`, `sources.0.weight=2`).
    Raises UserError with every unknown key, wrong type and impossible combination at once.
    """
    places: Places = {}
    data = _read(Path(path), places, seen=())
    problems = [p for text in overrides if (p := _override(data, text, places))]
    if problems:
        raise UserError(problems)
    return validate(data, places)


def validate(data: dict[str, Any], places: Places | None = None) -> Config:
    """Check a plain mapping against the schema. `places` says where each key stands."""
    places = places or {}
    try:
        config = Config.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        raise UserError([_explain(detail, places) for detail in error.errors()]) from None
    if found := impossible(config):
        raise UserError(
            [f"{message}{_where(keys, places)}" for keys, message in found]
        )
    return config


def dump(config: Config) -> str:
    """The config as YAML that `load` reads back to an equal object."""
    out = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 100
    yaml.dump(json.loads(config.model_dump_json()), out)
    return out.getvalue()


def _read(path: Path, places: Places, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        chain = " -> ".join(str(p) for p in (*seen, path.resolve()))
        raise UserError(f"{path}: 'base' leads back to a file already read: {chain}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES} bytes; this is not a config")
        tree = YAML(typ="rt", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot read the config: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: the config is not UTF-8 text") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not YAML: {getattr(error, 'problem', error)}") from None
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a config is a mapping of sections; this is a {_kind(tree)}")
    own_places: Places = {}
    data = _plain(tree, (), path, own_places)
    base = data.pop("base", None)
    if base is not None:
        if not isinstance(base, str):
            raise UserError(f"{own_places[('base',)]}: 'base' is the name of one config file")
        data = _merge(_read(path.parent / base, places, (*seen, path.resolve())), data)
    places.update(own_places)
    return data


def _plain(tree: Any, key: Key, path: Path, places: Places) -> Any:
    """ruamel's tree as plain dicts and lists, noting the line of each key."""
    if isinstance(tree, dict):
        for name in tree:
            places[(*key, name)] = f"{path}:{tree.lc.key(name)[0] + 1}"
        return {str(k): _plain(v, (*key, str(k)), path, places) for k, v in tree.items()}
    if isinstance(tree, list):
        for index in range(len(tree)):
            places[(*key, index)] = f"{path}:{tree.lc.item(index)[0] + 1}"
        return [_plain(v, (*key, i), path, places) for i, v in enumerate(tree)]
    if isinstance(tree, bool | None):
        return tree
    # ruamel keeps the spelling of numbers and strings in subclasses
    return next((cast(tree) for cast in (int, float, str) if isinstance(tree, cast)), tree)


def _merge(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        # a union's section (optimizer, position) of another kind starts afresh
        if "kind" in base and "kind" in over and base["kind"] != over["kind"]:
            return over
        return base | {k: _merge(base[k], v) if k in base else v for k, v in over.items()}
    return over


def _override(data: dict[str, Any], text: str, places: Places) -> str | None:
    """Apply one KEY=VALUE in place; returns what is wrong with it, if anything."""
    name, equals, value_text = text.partition("=")
    if not equals or not name.strip():
        return f"{text!r}: an override is KEY=VALUE, for example train.steps=100"
    try:
        value = YAML(typ="safe", pure=True).load(value_text)
    except YAMLError:
        return f"{text!r}: the value is not YAML"
    *path, last = name.strip().split(".")
    node: Any = data
    key: Key = ()
    for part in path:
        if isinstance(node, list):
            if not (part.isdigit() and int(part) < len(node)):
                return f"{text!r}: {_dotted(key)} has items 0 to {len(node) - 1}, not {part!r}"
            node, key = node[int(part)], (*key, int(part))
        elif isinstance(node, dict):
            if node.get(part) is None:
                node[part] = {}
            node, key = node[part], (*key, part)
        else:
            return f"{text!r}: {_dotted(key)} is a single value and has no {part!r}"
    index: str | int = last
    if isinstance(node, list):
        if not (last.isdigit() and int(last) < len(node)):
            return f"{text!r}: {_dotted(key)} has items 0 to {len(node) - 1}, not {last!r}"
        index = int(last)
    elif not isinstance(node, dict):
        return f"{text!r}: {_dotted(key)} is a single value and has no {last!r}"
    node[index] = value
    places[(*key, index)] = "command line"
    return None


def _explain(detail: Any, places: Places) -> str:
    section, key = _locate(detail["loc"])
    name, where = _dotted(key), _where([_dotted(key)], places)
    match detail["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(str(key[-1]), section.model_fields, n=1, cutoff=0.5)
            elsewhere = _homes(str(key[-1]))
            hint = (
                f"did you mean {_dotted((*key[:-1], near[0]))}?" if near
                else f"it belongs at {elsewhere[0]}" if elsewhere
                else f"valid keys: {', '.join(section.model_fields)}"
            )  # fmt: skip
            return f"{name}: unknown key; {hint}{where}"
        case "missing":
            return f"{name}: this key is required{where}"
        case "literal_error" | "union_tag_invalid":
            context = detail["ctx"]
            expected = context.get("expected") or context.get("expected_tags")
            given = detail["input"] if detail["type"] == "literal_error" else context["tag"]
            options = [o.strip("' ") for o in expected.replace(" or ", ", ").split(",")]
            near = difflib.get_close_matches(str(given), options, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            return f"{name}: {given!r} is not one of {', '.join(options)}{hint}{where}"
        case _:
            given = json.dumps(detail["input"], default=str)
            given = "" if len(given) > 60 else f", not {given}"
            message = detail["msg"].removeprefix("Value error, ")
            return f"{name}: {message[0].lower()}{message[1:]}{given}{where}"


def _where(names: typing.Iterable[str], places: Places) -> str:
    """The place of the first of these dotted keys, or of its nearest parent, that was written."""
    dotted = {_dotted(key): place for key, place in places.items()}
    for name in names:
        parts = name.split(".")
        for end in range(len(parts), 0, -1):
            if place := dotted.get(".".join(parts[:end])):
                return f" ({place})"
    return ""


def _locate(loc: tuple[str | int, ...]) -> tuple[type[BaseModel], Key]:
    """The section that holds the last part of pydantic's location, and the key without union tags."""
    section: type[BaseModel] = Config
    annotation: Any = Config
    key: Key = ()
    for part in loc:
        models = _models(annotation)
        if isinstance(part, str) and len(models) > 1:
            tagged = [m for m in models if m.model_fields["kind"].default == part]
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
    if isinstance(annotation, types.GenericAlias | types.UnionType) or typing.get_args(annotation):
        return [model for part in typing.get_args(annotation) for model in _models(part)]
    return []


def _homes(name: str) -> list[str]:
    """Dotted keys of the schema that end in `name`."""
    found = []

    def visit(section: type[BaseModel], prefix: Key) -> None:
        for field, info in section.model_fields.items():
            if field == name:
                found.append(_dotted((*prefix, field)))
            for model in _models(info.annotation):
                visit(model, (*prefix, field))

    visit(Config, ())
    return found


def _dotted(key: Key) -> str:
    return ".".join(str(part) for part in key)


def _kind(value: Any) -> str:
    return {list: "list", str: "string"}.get(type(value), type(value).__name__)
