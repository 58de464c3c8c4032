"""Recipes: how a public corpus is read, one YAML file each in data/recipes."""

import difflib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from ruamel.yaml import YAML

import jaxlm
from jaxlm.config.base import Section
from jaxlm.config.corpus import Format, Source
from jaxlm.config.rules import Kind
from jaxlm.errors import UserError


class Recipe(Section):
    """A public corpus: where it comes from, under which licence, and how it is read."""

    title: str
    """The corpus' name."""
    homepage: str
    """Where it is described."""
    licence: str
    """Terms of the collection and, where they differ, of the texts in it."""
    notes: str = ""
    """What a user should know: size, access, choices of configuration."""
    requires: str | None = None
    """The extra of jaxlm that brings what reading it takes; null: none."""
    path: Annotated[str, Field(min_length=1)]
    """As in a source, and so are all keys below."""
    format: Format
    kind: Kind
    language: str
    text_field: str = "text"
    id_field: str | None = None
    meta_fields: tuple[str, ...] = ()
    split: str | None = None
    extract: Literal["main", "plain"] = "main"
    encoding: str = "auto"
    notebook_outputs: bool = False


def data_folder() -> Path:
    """The folder with recipes and word lists: inside an installed jaxlm, or beside it."""
    package = Path(jaxlm.__file__).parent
    for folder in (package / "data", package.parent / "data"):
        if (folder / "recipes").is_dir():
            return folder
    raise UserError(
        f"no folder data/recipes in {package} or beside it; install jaxlm again, "
        "or install it from its checkout with pip install -e ."
    )


def names() -> list[str]:
    """The recipes that exist."""
    return sorted(path.stem for path in (data_folder() / "recipes").glob("*.yaml"))


def load(name: str) -> Recipe:
    """Read one recipe. Raises UserError when there is none of this name or it is not valid."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names())}"
        raise UserError(f"recipe {name!r}: unknown; {hint}")
    path = data_folder() / "recipes" / f"{name}.yaml"
    content: Any = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    try:
        return Recipe.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise UserError(
            [f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        ) from None


def resolve(source: Source) -> Source:
    """The source with its recipe's values for every key that the config does not set."""
    if source.recipe is None:
        return source
    recipe = load(source.recipe)
    filled = {
        key: getattr(recipe, key) for key in Recipe.model_fields if key in Source.model_fields
    }
    given = {key: getattr(source, key) for key in source.model_fields_set}
    return Source.model_validate(filled | given)
