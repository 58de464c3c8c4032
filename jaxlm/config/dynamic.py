"""The section `data.mixture.dynamic`: shares of sources that change with what is monitored."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from jaxlm.config.base import Section

UNITS = 10_000
"""Shares are whole multiples of one in so many, so that what is logged is what is used."""


def in_units(share: float) -> int:
    """A share as a whole number of units, rounded."""
    return round(share * UNITS)


def _whole_units(share: float) -> float:
    if abs(share * UNITS - in_units(share)) > 1e-6:
        raise ValueError(f"{share} is not a multiple of {1 / UNITS:g}, to which shares are rounded")
    return share


type Bound = Annotated[float, Field(ge=0.0, le=1.0), AfterValidator(_whole_units)]
type Momentum = Annotated[float, Field(gt=0.0, le=1.0)]


class ADO(Section):
    """Prefers sources that are learned fast, by a scaling law fitted to each one's held-out loss.

    Adaptive Data Optimization (Jiang, Zhou, Feng, Malladi and Kolter 2024); the defaults are those
    of the paper, whose steps are decisions here.
    """

    kind: Literal["ado"]
    """How shares are decided."""
    smoothing: Momentum = 0.1
    """Part of the new preference in the shares, beside the average of all before (gamma_2)."""
    credit_smoothing: Momentum = 0.1
    """Part of the newest shares in the average that gives credit (gamma_1)."""
    credit: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Power of that average in the preference (s); 0: none."""
    tokens: Literal["all", "source"] = "all"
    """The loss of a source as a function of all tokens, as in the published code, or of its own."""
    ignore: NonNegativeInt = 0
    """Losses up to this step do not enter the fit."""


class DoReMi(Section):
    """Raises the shares of sources that are far from a reference model's held-out loss.

    DoReMi (Xie et al. 2023), algorithm 1, with the constants of the paper; a decision is a step.
    """

    kind: Literal["doremi"]
    """How shares are decided."""
    reference: Annotated[dict[str, PositiveFloat], Field(min_length=1)] | None = None
    """Losses of the reference model by source, in nats a token; give this or reference_run."""
    reference_run: Annotated[str, Field(min_length=1)] | None = None
    """Folder of the reference model's run, whose eval.json holds them."""
    step_size: PositiveFloat = 1.0
    """Of the exponentiated gradient (eta)."""
    smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 1e-3
    """Part of the shares that is the same for all sources (c)."""

    @model_validator(mode="after")
    def _check_reference(self) -> Self:
        if (self.reference is None) == (self.reference_run is None):
            raise ValueError("give either reference or reference_run")
        return self


class SkillIt(Section):
    """Raises the shares of sources that help those with a high held-out loss.

    Skill-it (Chen et al. 2023), algorithm 1: shares are in proportion to those of the mixture times
    exp(eta * sum of strength * loss), over the sources that are helped and the last decisions.
    """

    kind: Literal["skill"]
    """How shares are decided."""
    graph: Annotated[dict[str, dict[str, float]], Field(min_length=1)]
    """{FROM: {TO: STRENGTH}}: how much source FROM helps TO, itself included; what is not named
    is 0. In the paper 1 for itself and 0.5 for others."""
    eta: PositiveFloat = 0.2
    """Step size of the multiplicative weights."""
    window: PositiveInt = 3
    """Decisions whose losses are added up, the newest included."""

    @model_validator(mode="after")
    def _check_strengths(self) -> Self:
        strengths = [strength for helped in self.graph.values() for strength in helped.values()]
        if min(strengths, default=0.0) < 0.0 or not any(strengths):
            raise ValueError("graph: strengths are 0 or more, and one is above 0")
        return self


def _named_function(call: str) -> str:
    place, _, name = call.rpartition(":")
    if not place or not name.isidentifier():
        raise ValueError(f"{call!r} is neither FOLDER/FILE.py:FUNCTION nor PACKAGE.MODULE:FUNCTION")
    if not place.endswith(".py") and not all(part.isidentifier() for part in place.split(".")):
        raise ValueError(f"{place!r} is neither a file that ends in .py nor a module's name")
    return call


class Function(Section):
    """A Python function of your own decides."""

    kind: Literal["function"]
    """How shares are decided."""
    call: Annotated[str, AfterValidator(_named_function)]
    """FOLDER/FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION. It is given a list of records, the newest
    last, and returns {source: weight}; see docs/dynamic-mixtures.md."""


type Method = Annotated[ADO | DoReMi | SkillIt | Function, Field(discriminator="kind")]


class Dynamic(Section):
    """When shares of sources are decided anew, by what, and how far they may go."""

    method: Method
    """What decides: ado, doremi, skill or function."""
    every: PositiveInt = 1000
    """Steps between two records of held-out losses, and so between two decisions."""
    warmup: NonNegativeInt = 0
    """Steps before the first decision; records are made in them too."""
    minimum: Bound = 0.001
    """Least share of a source."""
    maximum: Bound = 1.0
    """Largest share of a source."""
    max_change: Annotated[Bound, Field(gt=0.0)] = 0.1
    """Largest change of a share in one decision."""

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum:g} is above maximum {self.maximum:g}")
        return self


def misplaced(dynamic: Dynamic, shares: Mapping[str, float], held_out: set[str]) -> list[str]:
    """What of the section cannot work with these sources, each with the key's name in front.

    shares: of the sources that take part, which sum to one; held_out: sources with validation
    documents.
    """
    found: list[str] = []
    names, count = ", ".join(shares), len(shares)
    if blind := [name for name in shares if name not in held_out]:
        found.append(
            f"dynamic: {' and '.join(blind)} has no validation documents to decide by; raise "
            "data.validation_fraction, or leave dynamic out"
        )
    low, high = dynamic.minimum, dynamic.maximum
    if in_units(low) * count > UNITS:
        found.append(
            f"dynamic.minimum: {low:g} of each of {count} sources is more than 1; give at most "
            f"{UNITS // count / UNITS:g}"
        )
    elif in_units(high) * count < UNITS:
        found.append(
            f"dynamic.maximum: {high:g} of each of {count} sources is less than 1; give at least "
            f"{-(-UNITS // count) / UNITS:g}"
        )
    else:
        found += [
            f"dynamic.{key}: the mixture gives {name} {share:.4f} to begin with; give "
            f"{key} at {'most' if key == 'minimum' else 'least'} this, or change the mixture"
            for name, share in shares.items()
            for key, outside in (
                ("minimum", share < low - 0.5 / UNITS),
                ("maximum", share > high + 0.5 / UNITS),
            )
            if outside
        ]
    match dynamic.method:
        case DoReMi(reference=dict() as reference):
            if missing := [name for name in shares if name not in reference]:
                found.append(f"dynamic.method.reference: no loss of {' and '.join(missing)}")
            found += _unknown("dynamic.method.reference", reference, {*shares, *held_out})
        case SkillIt(graph=graph):
            if strange := [name for name in graph if name not in shares]:
                found.append(
                    f"dynamic.method.graph: no source of the mixture is named "
                    f"{' or '.join(strange)}; there are {names}"
                )
            helped = dict.fromkeys(to for row in graph.values() for to in row)
            found += _unknown("dynamic.method.graph", helped, held_out)
    return found


def _unknown(key: str, given: Mapping[str, object], known: set[str]) -> list[str]:
    if strange := [name for name in given if name not in known]:
        held_out = ", ".join(sorted(known)) or "none"
        return [f"{key}: no source is named {' or '.join(strange)}; there are {held_out}"]
    return []
