"""Other thresholds for some documents, and what a wrong route is told."""

from typing import Any

import pytest

from jaxlm.config.corpus import Prepare, Source
from jaxlm.config.load import validate
from jaxlm.errors import UsageError

FORUM = Source(name="talk", path="x", kind="forum")
WEB = Source(name="web", path="x")


def routes(*given: dict[str, Any]) -> Prepare:
    return validate({"prepare": {"routes": list(given)}, "train": {"steps": 1}}).prepare


def min_words(config: Prepare, source: Source, language: str = "en") -> int | None:
    section = config.section("quality.gopher", source, language)
    return None if section is None else section.min_words  # type: ignore[attr-defined]


def test_a_later_route_wins_and_others_stay_as_they_are() -> None:
    config = routes(
        {"kinds": ["forum"], "set": {"quality.gopher.min_words": 20}},
        {"sources": ["talk"], "languages": ["de"], "set": {"quality.gopher.min_words": 10}},
        {"set": {"quality.gopher.languages": ["en", "de"]}},
    )
    assert min_words(config, FORUM) == 20
    assert min_words(config, FORUM, "de") == 10
    assert min_words(config, WEB) == 50
    assert config.quality.gopher.min_words == 50


def test_a_route_may_skip_a_stage() -> None:
    config = routes({"kinds": ["forum"], "skip": ["quality.gopher"]})
    assert config.section("quality.gopher", FORUM, "en") is None
    assert config.section("quality.gopher", WEB, "en") is not None


def test_sections_judge_their_kinds_and_languages_only() -> None:
    config = Prepare()
    code = Source(name="c", path="x", kind="code")
    assert config.section("quality.gopher", code, "en") is None
    assert config.section("quality.gopher", WEB, "zh") is None
    assert config.section("quality.code", code, "en") is config.quality.code


@pytest.mark.parametrize(
    ("route", "message"),
    [
        ({"set": {"quality.gopher.min_wrods": 1}}, "did you mean 'min_words'"),
        ({"set": {"quality.gopher.min_words": "many"}}, "routes.0.set: quality.gopher.min_words"),
        ({"set": {"quality.gopher.min_words": -1}}, "greater than or equal to 0"),
        ({"set": {"quality.gopher.min_words": 200_000}}, "above max_words"),
        ({"set": {"workers": 3}}, "does not begin with one of"),
        ({"set": {"dedup.minhash.threshold": 0.5}}, "does not begin with one of"),
        ({"skip": ["quality.gofer"]}, "'quality.gofer' is not one of"),
        ({"kinds": ["forums"]}, "did you mean 'forum'"),
    ],
)
def test_a_wrong_route_is_refused(route: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        routes(route)
