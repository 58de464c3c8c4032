"""The section `data.mixture`: how much of each source a run sees."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, NonNegativeFloat, PositiveFloat, Tag, model_validator

from jaxlm.config.base import Section
from jaxlm.config.dynamic import Dynamic


class Temperature(Section):
    """Shares in proportion to (weight x tokens)^(1 / temperature), as for languages of unequal size
    (Arivazhagan et al. 2019, section 4.1)."""

    kind: Literal["temperature"]
    """Smoothing."""
    temperature: Annotated[float, Field(ge=1.0)]
    """1: each token counts as its source's weight; the higher, the more alike are the shares."""


class UniMax(Section):
    """Equal shares, but no source more than max_epochs times (UniMax, Chung et al. 2023)."""

    kind: Literal["unimax"]
    """Smoothing."""
    max_epochs: PositiveFloat = 4.0
    """How often the text of a source may be seen."""


ALL, EACH = "<all>", "<each>"
"""pydantic's names for the two forms of max_epochs, as in jaxlm/config/objective.py."""


def _all_or_each(values: Any) -> str:
    return EACH if isinstance(values, dict) else ALL


class Mixture(Section):
    """Shares of sources. A key of a mapping is the name of a source, or TAG=VALUE, for all sources
    that have the tag: kind=code, language=de, or a field of data.split_by."""

    weights: dict[str, NonNegativeFloat] | None = None
    """Shares in any unit; what is not named, or has 0, takes no part. Sources with the same tag
    share its weight by their own weights. null: the sources' weights."""
    smoothing: Annotated[Temperature | UniMax, Field(discriminator="kind")] | None = None
    """Shares that depend on how much text there is; weights are then of each token, or (unimax) say
    who takes part."""
    max_epochs: (
        Annotated[
            Annotated[PositiveFloat, Tag(ALL)] | Annotated[dict[str, PositiveFloat], Tag(EACH)],
            Discriminator(_all_or_each),
        ]
        | None
    ) = None
    """How often the text of a source may be seen in the run, of all or by name or tag; what is over
    goes to the others in proportion to their shares. null: as often as its share asks for."""

    dynamic: Dynamic | None = None
    """Shares that change while training, from the ones above; null: they stay."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dynamic is not None and self.caps is not None:
            raise ValueError("dynamic: shares that change keep to no max_epochs; leave one out")
        if self.weights is not None and not any(self.weights.values()):
            raise ValueError("weights: none is above 0; nothing is left to train on")
        if isinstance(self.smoothing, UniMax) and self.max_epochs is not None:
            raise ValueError("max_epochs: unimax has its own (smoothing.max_epochs); leave it out")
        return self

    @property
    def caps(self) -> dict[str, float] | float | None:
        """How often sources may be seen, by whichever key says it."""
        return self.smoothing.max_epochs if isinstance(self.smoothing, UniMax) else self.max_epochs
