"""The section `objective`: what a model is trained to predict."""

import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PositiveFloat,
    Tag,
    model_validator,
)

from jaxlm.config.base import Section, SpecialName

type Rate = Annotated[float, Field(ge=0.0, le=1.0)]
type Part = Annotated[float, Field(gt=0.0, lt=1.0)]


class _Objective(Section):
    weight: PositiveFloat = 1.0
    """Share of the examples in a list of objectives."""


class LM(_Objective):
    """Next-token prediction."""

    kind: Literal["lm"] = "lm"
    """Every next token of a document."""


class PrefixLM(_Objective):
    """A document is split, and its rest predicted from its beginning (Raffel et al. 2020)."""

    kind: Literal["prefix_lm"] = "prefix_lm"
    """The suffix of each document from its prefix."""
    suffix: Part | None = None
    """Share of the tokens that are the suffix (UL2's S-denoiser: 0.25); null: uniform split."""
    mode: SpecialName | None = None
    """A token that the prefix begins with, such as UL2's [S2S]; null: none."""


class FIM(_Objective):
    """Fill in the middle (Bavarian et al. 2022): a document's middle is moved to its end."""

    kind: Literal["fim"] = "fim"
    """Prefix and suffix, then the middle; every token is predicted."""
    rate: Rate = 0.5
    """Share of the documents that are cut; the others stay as they are."""
    spm_rate: Rate = 0.5
    """Share of those in the order suffix, prefix, middle; the others are prefix, suffix, middle."""
    level: Literal["document", "context"] = "context"
    """Cut whole documents when they are tokenized, before packing; or what a window holds of
    them, anew each time."""
    cut: Literal["character", "token"] = "character"
    """Cut between characters, each part tokenized by itself; or between tokens."""


class SpanCorruption(_Objective):
    """T5's denoising (Raffel et al. 2020): spans become sentinels, and are predicted."""

    kind: Literal["span_corruption"] = "span_corruption"
    """Spans of noise, each replaced by one sentinel."""
    rate: Part = 0.15
    """Share of the tokens that are noise."""
    mean_span: Annotated[float, Field(ge=1.0)] = 3.0
    """Mean length of a span; the number of spans is that of the noise over it."""
    mode: SpecialName | None = None
    """A token that the input begins with, such as UL2's [NLU]; null: none."""


class MLM(_Objective):
    """BERT's masked language model (Devlin et al. 2019)."""

    kind: Literal["mlm"] = "mlm"
    """Chosen tokens are hidden and predicted in place."""
    rate: Part = 0.15
    """Share of the tokens that are predicted."""
    mask: Rate = 0.8
    """Share of those that become [MASK]."""
    random: Rate = 0.1
    """Share of those that become another token; the rest stay as they are."""
    whole_word: bool = False
    """Choose all tokens of a word or none; words end at white space, punctuation and ideographs."""

    @model_validator(mode="after")
    def _fates(self) -> "MLM":
        if self.mask + self.random > 1:
            raise ValueError(
                f"mask {self.mask} and random {self.random} are shares of the same tokens and "
                "come to more than 1; lower one of them"
            )
        return self


class UL2(_Objective):
    """A mixture of denoisers (Tay et al. 2022)."""

    kind: Literal["ul2"] = "ul2"
    """R-, S- and X-denoising."""
    mix: Literal["ul2", "ul2r", "palm2"] = "ul2"
    """The published seven settings; those of UL2R's continued training (Tay et al. 2022, U-PaLM);
    or, in the manner of PaLM 2, whose own is not published, those of T5Gemma 2. A setting whose
    mean span is longer than all the noise of a sequence has one span."""
    mode_tokens: bool = True
    """Begin each input with the token of its kind: [NLU], [S2S] or [NLG]."""


type Component = LM | PrefixLM | FIM | SpanCorruption | MLM
"""An objective that is no mixture of others."""


def _lm_by_default(values: Any) -> Any:
    return {"kind": "lm", **values} if isinstance(values, dict) else values


ONE, LIST = "<one>", "<list>"
"""pydantic's names for the two forms, which stand in the places that it gives to errors."""


def one_or_list(values: Any) -> str:
    """Which of the forms a value has."""
    return LIST if isinstance(values, list | tuple) else ONE


def _not_empty(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("the list is empty; give it an objective, or leave the key out for lm")
    return values


type Objective = Annotated[
    LM | PrefixLM | FIM | SpanCorruption | MLM | UL2,
    Field(discriminator="kind"),
    BeforeValidator(_lm_by_default),
]
type Objectives = Annotated[
    Annotated[Objective, Tag(ONE)]
    | Annotated[tuple[Objective, ...], AfterValidator(_not_empty), Tag(LIST)],
    Discriminator(one_or_list),
]
"""One objective, or a list of which each has its weight."""

REGULAR, SEQUENTIAL, EXTREME = "[NLU]", "[S2S]", "[NLG]"
"""Mode tokens of R-, S- and X-denoising, as the released UL2 checkpoint has them."""

# share of the examples, and either rate and mean span or the share of the suffix
MIXES: dict[str, list[tuple[int, tuple[float, float] | float | None]]] = {
    # Tay et al. 2022 (UL2), table 1, in equal shares
    "ul2": [
        (1, (0.15, 3)), (1, (0.15, 8)), (1, 0.25),
        (1, (0.5, 3)), (1, (0.5, 8)), (1, (0.15, 64)), (1, (0.5, 64)),
    ],
    # Tay et al. 2022 (U-PaLM), section 3.3: half S with a uniform split, a quarter R, a quarter X
    "ul2r": [(2, (0.15, 3)), (4, None), (1, (0.15, 32)), (1, (0.5, 3))],
    # Zhang et al. 2025 (T5Gemma 2): four denoisers alike, and as much of S
    "palm2": [(1, (0.15, 3)), (1, (0.5, 12)), (1, (0.15, 32)), (1, (0.5, 32)), (4, 0.75)],
}  # fmt: skip


def components(objective: Objective | tuple[Objective, ...]) -> tuple[Component, ...]:
    """The objectives of a list with mixtures spread out; their weights are in proportion.

    Whole numbers stay whole, so that shares of a seventh are exact.
    """
    given = objective if isinstance(objective, tuple) else (objective,)
    scale = math.lcm(*(_total(one) for one in given if isinstance(one, UL2)))
    found: list[Component] = []
    for one in given:
        if isinstance(one, UL2):
            found += _denoisers(one, scale // _total(one))
        else:
            found.append(one.model_copy(update={"weight": one.weight * scale}))
    return tuple(found)


def _total(ul2: UL2) -> int:
    return sum(share for share, _ in MIXES[ul2.mix])


def _denoisers(ul2: UL2, scale: int) -> list[Component]:
    found: list[Component] = []
    for share, setting in MIXES[ul2.mix]:
        weight = ul2.weight * share * scale
        if isinstance(setting, tuple):
            rate, span = setting
            # X has long spans or much noise (UL2, section 3.1.2)
            mode = EXTREME if span >= 12 or rate >= 0.3 else REGULAR
            found.append(
                SpanCorruption(
                    weight=weight, rate=rate, mean_span=span, mode=mode if ul2.mode_tokens else None
                )
            )
        else:
            found.append(
                PrefixLM(
                    weight=weight, suffix=setting, mode=SEQUENTIAL if ul2.mode_tokens else None
                )
            )
    return found
