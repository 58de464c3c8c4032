"""YAML files and overrides -> `Config`."""

import json
import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from jaxlm.config.checks import impossible
from jaxlm.config.explain import Key, Places, dotted, explain, where
from jaxlm.config.schema import Config
from jaxlm.config.tokenizer_file import read_file
from jaxlm.errors import UsageError, UserError

MAX_BYTES = 1 << 20


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file, the files it is based on, and KEY=VALUE overrides.

    YAML is read as version 1.2 (3e-4 is a number, `no` is a string). A file may name one to extend,
    relative to itself: `base: other.yaml`, or several, of which the later ones win; mappings merge
    key by key, a section of another `kind` starts afresh, everything else is replaced. An override
    is a dotted path and a YAML value (`train.steps=100`, `sources.0.weight=2`). Raises UsageError
    with every unknown key, wrong type and bad override at once, or else with every impossible
    combination.
    """
    places: Places = {}
    data = _read(Path(path), places, seen=())
    problems = [p for text in overrides if (p := _override(data, text, places))]
    try:
        config = validate(data, places)
    except UsageError as error:
        raise UsageError(problems + error.messages) from None
    if problems:
        raise UsageError(problems)
    return config


def override(config: Config, overrides: Sequence[str], allowed: Sequence[str]) -> Config:
    """A config with KEY=VALUE overrides of keys that are allowed, or lie below one that is.

    Raises UsageError with every other key and bad value at once, or else as `validate` does.
    """
    data = json.loads(config.model_dump_json())
    places: Places = {}
    problems = []
    for text in overrides:
        name = text.partition("=")[0].strip()
        if any(f"{name}.".startswith(f"{key}.") for key in allowed) or "=" not in text:
            problems.append(_override(data, text, places))
        else:
            problems.append(
                f"{text!r}: not to be changed here; keys that are: {', '.join(allowed)}"
            )
    if found := [problem for problem in problems if problem]:
        raise UsageError(found)
    return validate(data, places) if overrides else config


def validate(data: dict[str, Any], places: Places | None = None) -> Config:
    """Check a plain mapping against the schema. `places` says where each key stands."""
    places = places or {}
    try:
        config = Config.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        raise UsageError([explain(detail, places) for detail in error.errors()]) from None
    config = _sized(config, places)
    if found := impossible(config):
        raise UsageError([f"{message}{where(keys, places)}" for keys, message in found])
    return config


def _sized(config: Config, places: Places) -> Config:
    """With the vocab_size of the file at tokenizer.path, where it was left out.

    A file that is not there is needed first when the tokenizer is: model.vocab_size is enough to
    plan a run.
    """
    options = config.tokenizer
    if options.path is None or options.vocab_size is not None:
        return config
    if config.model.vocab_size is not None and not Path(options.path).exists():
        return config
    try:
        file = read_file(options.path)
    except UserError as error:
        place = where(["tokenizer.path"], places)
        raise UsageError([f"{message}{place}" for message in error.messages]) from None
    names = [name for name in (options.bos, options.eos) if name is not None]
    size = file.size + len(file.lacks((*names, *config.specials)))
    return config.model_copy(update={"tokenizer": options.model_copy(update={"vocab_size": size})})


def dump(config: Config) -> str:
    """The config as YAML that `load` reads back to an equal object."""
    out = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 100
    text = config.model_dump_json()
    data = json.loads(text)
    for source, plain in zip(config.sources, data["sources"], strict=True):
        if source.recipe is not None:  # it fills in what is not given, so defaults are not
            for key in plain.keys() - source.model_fields_set:
                del plain[key]
    # ruamel does not escape the line breaks of Unicode by themselves
    yaml.allow_unicode = not any(mark in text for mark in "\x85\u2028\u2029")
    yaml.dump(data, out)
    return out.getvalue()


def _read(path: Path, places: Places, seen: tuple[Path, ...], named_in: str = "") -> dict[str, Any]:
    """One file and its bases as a plain mapping; `places` takes the line of each key."""
    if path.resolve() in seen:
        chain = " -> ".join(str(p) for p in (*seen, path.resolve()))
        raise UsageError(f"{path}: 'base' leads back to a file already read: {chain}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path}: larger than {MAX_BYTES} bytes; this is not a config")
        tree = YAML(typ="rt", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot read the config: {error.strerror}{named_in}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: the config is not UTF-8 text") from None
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply for a config") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise UsageError(f"{path}{line}: not YAML: {problem.splitlines()[0]}") from None
    own_places: Places = {}
    data = {} if tree is None else _plain(tree, (), path, own_places, set())
    if not isinstance(data, dict):
        kind = "list" if isinstance(data, list) else "single value"
        raise UsageError(f"{path}: a config is a mapping of sections; this is a {kind}")
    base = data.pop("base", None)
    if base is not None:
        at = own_places[("base",)]
        bases = base if isinstance(base, list) else [base]
        if not bases or not all(isinstance(name, str) for name in bases):
            raise UsageError(f"{at}: 'base' is the name of a config file, or a list of names")
        seen, below = (*seen, path.resolve()), dict[str, Any]()
        for name in bases:
            found: Places = {}
            over = _read(path.parent / name, found, seen, named_in=f" (base in {at})")
            below = _merge(below, over, (), places)
            places.update(found)
        data = _merge(below, data, (), places)
    places.update(own_places)
    return data


def _plain(tree: Any, key: Key, path: Path, places: Places, seen: set[int]) -> Any:
    """ruamel's tree as plain dicts and lists, noting the line of each key."""
    if isinstance(tree, CommentedMap | CommentedSeq):
        # a few lines of nested aliases can stand for more than memory holds
        if id(tree) in seen or getattr(tree, "merge", None):
            raise UsageError(
                f"{path}:{tree.lc.line + 1}: aliases of sections (*name, <<) are not read; "
                "write the keys out or put them in a file that 'base' names"
            )
        seen.add(id(tree))
    if isinstance(tree, CommentedMap):
        for name in tree:
            places[(*key, str(name))] = f"{path}:{tree.lc.key(name)[0] + 1}"
        return {str(k): _plain(v, (*key, str(k)), path, places, seen) for k, v in tree.items()}
    if isinstance(tree, CommentedSeq):
        for index in range(len(tree)):
            places[(*key, index)] = f"{path}:{tree.lc.item(index)[0] + 1}"
        return [_plain(v, (*key, i), path, places, seen) for i, v in enumerate(tree)]
    return _number(tree)


def _number(value: Any) -> Any:
    """A scalar; 1e9 is a whole number also where an integer is wanted."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _merge(base: Any, over: Any, key: Key, places: Places) -> Any:
    """`over` laid on `base`; what is replaced is taken out of the base's `places`."""
    if isinstance(base, dict) and isinstance(over, dict):
        kind, new_kind = base.get("kind"), over.get("kind")
        if new_kind is None or kind is None or kind == new_kind:
            return base | {
                k: _merge(base[k], v, (*key, k), places) if k in base else v
                for k, v in over.items()
            }
    _forget(key, places)
    return over


def _forget(key: Key, places: Places) -> None:
    for other in [k for k in places if k[: len(key)] == key]:
        del places[other]


def _override(data: dict[str, Any], text: str, places: Places) -> str | None:
    """Apply one KEY=VALUE in place; returns what is wrong with it, if anything."""
    name, equals, value_text = text.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        return f"{text!r}: an override is KEY=VALUE, for example train.steps=100"
    try:
        value = YAML(typ="safe", pure=True).load(value_text)
    except (YAMLError, RecursionError):
        return f"{text!r}: the value is not YAML"
    if re.search(r"[{,]\s*[\w.=@-]+:[^\s\"']", value_text) and isinstance(value, dict):
        return f"{text!r}: a space belongs behind a colon, as in '{name}={{key: 1}}' (in quotes)"
    node: Any = data
    key: Key = ()
    for depth, part in enumerate(parts, 1):
        step: str | int = part
        if isinstance(node, list):
            if not (part.isdecimal() and int(part) < len(node)):
                has = f"has items 0 to {len(node) - 1}" if node else "is empty"
                return f"{text!r}: {dotted(key)} {has}; there is no {part!r}"
            step = int(part)
        elif not isinstance(node, dict):
            return f"{text!r}: {dotted(key)} is a single value and has no {part!r}"
        key = (*key, step)
        if depth == len(parts):
            node[step] = _number(value)
        else:
            if isinstance(node, dict) and node.get(part) is None:
                node[part] = {}
                places[key] = "command line"
            node = node[step]
    _forget(key, places)
    places[key] = "command line"
    return None
