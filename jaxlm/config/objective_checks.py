"""Objectives that the architecture, the length or the tokenizer do not allow."""

from collections.abc import Iterator

from jaxlm.config.architecture import Problem
from jaxlm.config.lengths import layout, noise_of
from jaxlm.config.objective import (
    FIM,
    UL2,
    Component,
    Objective,
    PrefixLM,
    SpanCorruption,
    components,
)
from jaxlm.config.schema import Config

ROWS = ("lm", "prefix_lm", "fim", "span_corruption", "ul2")
TRAINS = {
    "decoder": ROWS,
    "prefix_decoder": ROWS,
    "encoder_decoder": ("prefix_lm", "span_corruption", "ul2"),
    "encoder": ("mlm",),
}
"""The objectives of each architecture."""


def unfit(config: Config) -> list[Problem]:
    """Objectives that do not go with model.kind or data.seq_len, and want of room for ids."""
    objective = config.objective
    several = isinstance(objective, tuple)
    found: list[Problem] = []
    for index, one in enumerate(objective if isinstance(objective, tuple) else (objective,)):
        place = f"objective.{index}" if several else "objective"
        if one.kind not in TRAINS[config.model.kind]:
            found.append(([f"{place}.kind", "model.kind"], _pair(one.kind, config.model.kind)))
            continue
        if several and isinstance(one, FIM) and one.level == "document":
            found.append((
                [f"{place}.level"],
                "documents are rearranged when they are tokenized, for all objectives of a list; "
                "use level: context, or no list",
            ))  # fmt: skip
        # what several of a mixture share is told once
        for component in components(one):
            found += [p for p in _lengths(place, one, component, config) if p not in found]
    return found + list(_ids(config))


def unlike(config: Config) -> list[Problem]:
    """Stages of a curriculum that would need the documents stored in another way."""
    stored = config.document_fim
    return [
        (
            [f"data.curriculum.{index}.objective", "objective"],
            f"documents are rearranged when they are tokenized, for all stages; give stage "
            f"{stage.name!r} the same objective, or use level: context",
        )
        for index, stage in enumerate(config.data.curriculum)
        if stored is not None and (stage.objective or config.objective) != stored
    ]


def _pair(objective: str, kind: str) -> str:
    if kind == "encoder":
        reason = "sees what it would have to predict"
    elif objective == "mlm":
        reason = "does not see what follows a hidden token"
    else:
        reason = f"would have nothing to read in its encoder with {objective}"
    return f"a model of kind {kind} {reason}; it trains on {', '.join(TRAINS[kind])}"


def _lengths(place: str, one: Objective, component: Component, config: Config) -> Iterator[Problem]:
    """What is wrong with one objective at this length."""
    seq_len = config.data.seq_len
    window = layout(component, config.model.kind, seq_len).window
    if window < 2:
        yield (
            [place, "data.seq_len"],
            f"rows of {seq_len} tokens do not hold a window of two with what is put around it; "
            "raise data.seq_len",
        )
        return
    if isinstance(component, PrefixLM) and not int(window * (component.suffix or 1)):
        yield (
            [f"{place}.suffix", "data.seq_len"],
            f"{component.suffix} of {window} tokens is not one token; raise it",
        )
    if isinstance(component, SpanCorruption):
        tokens, spans = noise_of(window, component)
        if spans > window - tokens:
            yield (
                [f"{place}.rate", f"{place}.mean_span"],
                f"of {window} tokens {tokens} are noise, in {spans} spans; the other "
                f"{window - tokens} cannot stand between so many; lower it, or raise mean_span",
            )
        if tokens < component.mean_span and not isinstance(one, UL2):
            yield (
                [f"{place}.mean_span", f"{place}.rate", "data.seq_len"],
                f"a mean of {component.mean_span:g} tokens is more than all the noise, {tokens} of "
                f"{window} tokens; lower it, or raise data.seq_len",
            )


def _ids(config: Config) -> Iterator[Problem]:
    """Want of room for special tokens in a tokenizer that is trained here."""
    tokenizer = config.tokenizer
    if tokenizer.path is not None or tokenizer.kind == "byte" or tokenizer.vocab_size is None:
        return
    both = [name for name in config.specials if name in tokenizer.user_symbols]
    if both:
        yield (
            ["tokenizer.user_symbols", "objective"],
            f"{both[0]} is a special token of the objective, which text never becomes",
        )
    named = len(config.specials) + len(tokenizer.user_symbols)
    # WordPiece has each byte twice: as it begins a word, and as it goes on
    needed_bytes = 512 if tokenizer.kind == "wordpiece" else 256
    least = 3 + needed_bytes + named
    if (named or tokenizer.kind == "wordpiece") and tokenizer.vocab_size <= least:
        kinds = "special tokens of the objective"
        if tokenizer.user_symbols:
            kinds = "special tokens and user symbols"
        elif not config.specials:
            kinds = "special tokens"
        yield (
            ["tokenizer.vocab_size", "objective", "data.seq_len"],
            f"{tokenizer.vocab_size} ids have no room for text beside {needed_bytes} bytes, 3 "
            f"control ids and {named} {kinds}; use more than {least}",
        )
