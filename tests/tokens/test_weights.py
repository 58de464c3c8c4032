"""Weights of a mixture: by name and tag, smoothed, and with no source read too often."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlm.config.mixture import Mixture as Options
from jaxlm.errors import UserError
from jaxlm.tokens.mixture import SHORT_CYCLE, Mixture
from jaxlm.tokens.weights import Kept, capped, weights_of


def kept(name: str, tokens: int = 100, weight: float = 1.0, **tags: str) -> Kept:
    source = name.partition("@")[0]
    tags = {"kind": "web", "language": "en", **tags}
    return Kept(name, source, tags, weight, tokens)


STREAMS = [
    kept("crawl@quality=0", 600, 2.0, quality="0"), kept("crawl@quality=1", 200, 2.0, quality="1"),
    kept("wiki", 100, 1.0, kind="wiki"), kept("german", 50, 1.0, language="de"),
]  # fmt: skip


def shares(**mixture: object) -> list[Fraction]:
    weights = weights_of(Options.model_validate(mixture), STREAMS, "data.mixture")
    return [weight / sum(weights) for weight in weights]


def of(*parts: int) -> list[Fraction]:
    return [Fraction(part, sum(parts)) for part in parts]


def test_streams_share_the_weight_of_their_source() -> None:
    assert shares() == of(6, 2, 4, 4)
    assert shares(weights={"crawl": 1, "wiki": 3}) == of(3, 1, 12, 0)


def test_tags_share_by_the_weights_of_their_sources() -> None:
    assert shares(weights={"kind=web": 0.9, "wiki": 0.1}) == of(45, 15, 10, 30)
    assert shares(weights={"language=en": 3, "language=de": 1}) == of(6, 2, 4, 4)
    assert shares(weights={"quality=1": 0.25, "crawl@quality=0": 0.75}) == of(3, 1, 0, 0)


def test_decimals_are_exact() -> None:
    found = weights_of(Options(weights={"wiki": 0.1, "german": 0.2}), STREAMS, "x")
    assert found[2] * 2 == found[3] == Fraction(1, 5)


def test_a_source_named_takes_part_whatever_its_own_weight() -> None:
    streams = [kept("a", weight=0.0), kept("b")]
    assert weights_of(Options(weights={"a": 1}), streams, "x") == [1, 0]


def test_temperature_makes_shares_more_alike() -> None:
    one = shares(smoothing={"kind": "temperature", "temperature": 1})
    assert [float(s) for s in one] == pytest.approx(
        [1200 / 1750, 400 / 1750, 100 / 1750, 50 / 1750]
    )
    # Devlin's exponent for mBERT is 0.7; XLM-R's 0.3 (Conneau et al. 2020, section 3.1)
    alpha = [float(s) for s in shares(smoothing={"kind": "temperature", "temperature": 1 / 0.3})]
    wanted = [n**0.3 for n in (1200, 400, 100, 50)]
    assert alpha == pytest.approx([w / sum(wanted) for w in wanted])


def test_unimax_is_uniform() -> None:
    assert shares(smoothing={"kind": "unimax"}) == of(1, 1, 1, 1)
    assert shares(smoothing={"kind": "unimax"}, weights={"crawl": 5, "wiki": 1}) == of(1, 1, 1, 0)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"quality=7": 1}, "x.weights: no text has quality=7; there are crawl@quality=0, crawl@"),
        ({"crawl": 1, "quality=1": 1}, "crawl@quality=1 has both crawl and quality=1; give one"),
        ({"kind=web": 1, "german": 2}, "x.weights: german has both kind=web and german"),
    ],
)
def test_keys_that_fit_nothing_or_too_much(weights: dict[str, float], said: str) -> None:
    with pytest.raises(UserError) as caught:
        weights_of(Options(weights=weights), STREAMS, "x")
    assert said in caught.value.messages[0]


def test_smoothing_gives_nothing_to_a_source_that_a_tag_leaves_out() -> None:
    streams = [kept("a", weight=0.0), kept("b"), kept("c")]
    smoothed = Options.model_validate(
        {"weights": {"kind=web": 1}, "smoothing": {"kind": "temperature", "temperature": 2}}
    )
    assert weights_of(smoothed, streams, "x")[0] == 0


def test_a_tag_whose_sources_have_no_weight() -> None:
    streams = [kept("a", weight=0.0), kept("b", weight=0.0), kept("c", kind="wiki")]
    with pytest.raises(UserError, match="kind=web: its sources have weight 0 or no text"):
        weights_of(Options(weights={"kind=web": 1, "c": 1}), streams, "x")
    with pytest.raises(UserError, match="nothing is left to train on"):
        weights_of(Options(), streams[:2], "data.mixture")


def test_unimax_as_published() -> None:
    """Chung et al. 2023, algorithm 1: languages in the order of their size, each an equal part of
    what is left, or its epochs where these are fewer."""
    sizes, epochs, budget = [10, 40, 300, 5000], 4, 2000
    left, wanted = float(budget), []
    for done, size in enumerate(sizes):
        wanted.append(min(left / (len(sizes) - done), size * epochs))
        left -= wanted[-1]
    found = capped([Fraction(1)] * 4, [size * epochs for size in sizes], budget)
    assert found is not None
    assert [float(count) for count in found] == pytest.approx(wanted, abs=1)


@given(
    weights=st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(any),
    room=st.lists(st.none() | st.integers(0, 300), min_size=6, max_size=6),
    examples=st.integers(1, 400) | st.integers(SHORT_CYCLE, 1 << 40),
)
def test_no_source_has_more_than_its_room(
    weights: list[int], room: list[int | None], examples: int
) -> None:
    room = room[: len(weights)]
    found = capped([Fraction(w) for w in weights], room, examples)
    used = [s for s, weight in enumerate(weights) if weight]
    if found is None:
        assert all(room[s] is not None for s in used)
        assert sum(room[s] or 0 for s in used) < examples
        return
    assert sum(found) == examples
    for s, count in enumerate(found):
        space = room[s]
        assert space is None or count <= space
        assert count == 0 or weights[s]
    free = [s for s in used if room[s] is None]
    ratios = [found[s] / weights[s] for s in free]
    rounded = 1 if examples <= SHORT_CYCLE else 0
    if ratios:
        assert max(ratios) - min(ratios) <= rounded
        assert all(found[s] <= weights[s] * (max(ratios) + rounded) + 1 for s in used)


@pytest.mark.parametrize("seed", range(20))
def test_a_limit_holds_for_examples_as_they_are_counted(seed: int) -> None:
    """Of more of them than a cycle has slots, so that shares are rounded once more."""
    rng = np.random.default_rng(seed)
    examples = int(rng.integers(SHORT_CYCLE, 1 << 28))
    weights = [Fraction(int(w)) for w in rng.integers(1, 1000, 5)]
    room = [int(part * examples) for part in rng.uniform(0.02, 0.15, 4)]
    found = capped(weights, [*room, None], examples)
    assert found is not None
    counts = Mixture(found).before(examples)
    assert counts.sum() == examples
    full = [count / space for count, space in zip(counts, room, strict=False)]
    assert 0.99 < max(full) <= 1
