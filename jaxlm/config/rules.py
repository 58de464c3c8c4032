"""What all rule sets of `prepare` share: thresholds, and which documents they judge."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jaxlm.config.base import Section

Kind = Literal["web", "book", "wiki", "forum", "code", "science", "docs", "other"]
PROSE: tuple[Kind, ...] = ("web", "book", "wiki", "forum", "science", "docs", "other")
EVERY: tuple[Kind, ...] = (*PROSE, "code")

Share = Annotated[float, Field(ge=0, le=1)]


class Rules(Section):
    """Thresholds of one rule set. A field min_X or max_X bounds the attribute X; null: no rule."""

    kinds: tuple[Kind, ...] = EVERY
    """Kinds of source that are judged."""
    languages: tuple[str, ...] = ()
    """Languages that are judged; empty: all."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in type(self).model_fields:
            if name.startswith("min_"):
                low, high = getattr(self, name), getattr(self, f"max_{name[4:]}", None)
                if low is not None and high is not None and low > high:
                    raise ValueError(f"{name} ({low}) is above max_{name[4:]} ({high})")
        return self
