"""`prepare.routes`: other thresholds, or none, for some sources, kinds and languages."""

import difflib
import json
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from jaxlm.config.base import Section
from jaxlm.config.rules import Kind


class Route(Section):
    """What is different for documents that match all of sources, kinds and languages."""

    sources: tuple[str, ...] = ()
    """Names of sources; empty: all."""
    kinds: tuple[Kind, ...] = ()
    """Kinds of source; empty: all."""
    languages: tuple[str, ...] = ()
    """Languages of documents; empty: all."""
    skip: tuple[str, ...] = ()
    """Stages that leave these documents alone."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Keys below `prepare` with other values, such as quality.gopher.min_words: 20."""

    def matches(self, source: str, kind: Kind, language: str) -> bool:
        """Whether a document goes this way."""
        return (
            (not self.sources or source in self.sources)
            and (not self.kinds or kind in self.kinds)
            and (not self.languages or language in self.languages)
        )


def with_value[S: BaseModel](section: S, key: str, value: Any) -> S:
    """The section with the value at a dotted key exchanged.

    Raises ValueError with the nearest key where there is none, and where the value will not do.
    """
    name, _, rest = key.partition(".")
    if name not in type(section).model_fields:
        near = difflib.get_close_matches(name, type(section).model_fields, n=1)
        raise ValueError(f"unknown key {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    inner = getattr(section, name)
    if rest:
        if not isinstance(inner, BaseModel):
            raise ValueError(f"{name!r} has no keys of its own")
        return section.model_copy(update={name: with_value(inner, rest, value)})
    data = json.loads(section.model_dump_json()) | {name: value}
    try:
        return type(section).model_validate_json(json.dumps(data))
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        raise ValueError(detail["msg"][0].lower() + detail["msg"][1:]) from None
