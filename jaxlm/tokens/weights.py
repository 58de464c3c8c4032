"""The weights of a mixture: from what the config says, and how much text there is."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from jaxlm.config.mixture import Mixture, Temperature, UniMax
from jaxlm.errors import UserError
from jaxlm.tokens.bounds import round_to_whole
from jaxlm.tokens.mixture import SHORT_CYCLE, exact
from jaxlm.tokens.store import Manifest


@dataclass(frozen=True)
class Kept:
    """What the store has of a stream to train on (a source, or a part of one)."""

    name: str
    source: str
    tags: Mapping[str, str]
    """kind, language and the fields of data.split_by."""
    weight: float
    """Of its source in `sources`."""
    tokens: int

    def has(self, key: str) -> bool:
        """Whether a key of the config is its name, its source's, or a tag that it has."""
        tag, equals, value = key.partition("=")
        return key in (self.name, self.source) or (bool(equals) and self.tags.get(tag) == value)


def kept_of(name: str, manifest: Manifest, weight: float) -> Kept:
    """A stream of the store, with the tags and the weight of its source."""
    stream = manifest.sources[name]
    of_source = manifest.corpus[stream.source].tags if stream.source in manifest.corpus else {}
    tags = of_source | stream.tags
    return Kept(name, stream.source, tags, weight, stream.train.tokens)


def weights_of(mixture: Mixture, streams: Sequence[Kept], where: str) -> list[Fraction]:
    """The weight of each stream, in any unit; 0: it takes no part.

    A source's weight is shared by its streams in proportion to their tokens, that of a tag by its
    sources in proportion to their weights. where: the mixture's key, for messages. Raises UserError
    for keys that no stream has, or of which several fit one stream, and where nothing is left.
    """
    tokens: dict[str, int] = {}
    for stream in streams:
        tokens[stream.source] = tokens.get(stream.source, 0) + stream.tokens
    own = [
        exact(stream.weight) * Fraction(stream.tokens, max(tokens[stream.source], 1))
        for stream in streams
    ]
    each = [exact(stream.weight) for stream in streams]
    weights = own
    if mixture.weights:
        keys, problems = by_key(mixture.weights, streams, f"{where}.weights")
        weights, each = [Fraction(0)] * len(streams), [Fraction(0)] * len(streams)
        for key, weight in mixture.weights.items():
            members = [s for s, found in enumerate(keys) if found == key]
            among = own
            if len({streams[s].source for s in members}) == 1:  # named here, so that it takes part
                among = [Fraction(stream.tokens) for stream in streams]
            whole = sum((among[s] for s in members), Fraction(0))
            if members and weight and not whole:
                problems.append(
                    f"{where}.weights.{key}: its sources have weight 0 or no text; leave it out"
                )
            for s in members if whole else ():
                weights[s] = exact(weight) * among[s] / whole
                each[s] = exact(weight) if among[s] else Fraction(0)
        if problems:
            raise UserError(problems)
    match mixture.smoothing:
        case Temperature(temperature=temperature):
            weights = [
                Fraction(float(factor * stream.tokens) ** (1 / temperature))
                for factor, stream in zip(each, streams, strict=True)
            ]
        case UniMax():
            weights = [Fraction(weight > 0) for weight in weights]
    if not any(weights):
        raise UserError(f"{where}: nothing is left to train on; give a source with text a weight")
    return weights


def by_key(
    keys: Iterable[str], streams: Sequence[Kept], where: str
) -> tuple[list[str | None], list[str]]:
    """The key that each stream has, and what is wrong with them."""
    names = ", ".join(stream.name for stream in streams)
    found: list[str | None] = [None] * len(streams)
    problems = []
    for key in keys:
        members = [s for s, stream in enumerate(streams) if stream.has(key)]
        if not members:
            problems.append(f"{where}: no text has {key}; there are {names}")
        for s in members:
            if found[s] is not None:
                problems.append(
                    f"{where}: {streams[s].name} has both {found[s]} and {key}; give one of them"
                )
            found[s] = key
    return found, problems


def epochs_of(mixture: Mixture, streams: Sequence[Kept], where: str) -> list[float | None]:
    """How often each stream may be read in the run; None: there is no limit. Raises UserError."""
    caps = mixture.caps
    if not isinstance(caps, dict):
        return [caps] * len(streams)
    keys, problems = by_key(caps, streams, f"{where}.max_epochs")
    if problems:
        raise UserError(problems)
    return [None if key is None else caps[key] for key in keys]


def capped(
    weights: Sequence[Fraction], room: Sequence[int | None], examples: int
) -> list[Fraction] | None:
    """Weights with which no stream has more examples of so many than there is room for.

    What is over goes to the others in proportion to their weights (UniMax, Chung et al. 2023,
    algorithm 1, for weights that need not be equal). room: examples of each, None: no end.
    Returns None where all of them have too little.
    """
    # a mixture of many examples rounds shares to one in SHORT_CYCLE
    spare = 0 if examples <= SHORT_CYCLE else examples // SHORT_CYCLE + 2
    given = [Fraction(0)] * len(weights)
    free = [s for s, weight in enumerate(weights) if weight]
    left = Fraction(examples)
    while free:
        whole = sum((weights[s] for s in free), Fraction(0))
        full = [
            s
            for s in free
            if (space := room[s]) is not None and weights[s] * left / whole > max(space - spare, 0)
        ]
        if not full:
            break
        for s in full:
            given[s] = Fraction(max((room[s] or 0) - spare, 0))
        free = [s for s in free if s not in full]
        left = examples - sum(given, Fraction(0))
    if not free:
        return None if left > 0 else given
    whole = sum((weights[s] for s in free), Fraction(0))
    for s in free:
        given[s] = weights[s] * left / whole
    if examples <= SHORT_CYCLE:
        most_S = np.array([math.inf if space is None else space for space in room])
        counts_S = round_to_whole(np.array(given, float), most_S, examples)
        given = [Fraction(int(count)) for count in counts_S]
    return given
