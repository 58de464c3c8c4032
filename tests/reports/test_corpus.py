"""The corpus part of the report: speed, and what is alarming."""

from typing import Any

import pytest

from jaxlm.reports import corpus, records, rules
from tests.reports.conftest import judged, one, stats


def config(**sections: Any) -> records.CorpusConfig:
    """A corpus config with these sections below quality."""
    stages = [f"quality.{name}" for name in sections]
    prepare = {"stages": stages, "quality": sections}
    return records.CorpusConfig.model_validate({"prepare": prepare})


@pytest.mark.parametrize(
    ("name", "threshold", "bins", "near"),
    [
        ("quality.max_x", 1000, {1: 9, 5: 1}, "the highest value is 400 to 500"),
        ("quality.max_x", 0.3, {11: 1}, "the highest value just reaches it"),
        ("quality.max_x", 0, {1: 1}, "the highest value just reaches it"),
        ("quality.max_x", 7, {0: 1}, "the highest value is below 0"),
        ("quality.min_x", 50, {12: 1, 31: 1}, "the lowest value is 55 to 60"),
        ("quality.min_x", 50, {31: 1}, "the lowest value is 150 or more"),
    ],
)
def test_a_rule_that_nothing_failed_says_how_near_it_came(
    name: str, threshold: float, bins: dict[int, int], near: str
) -> None:
    (line,) = corpus.never_failed(stats(), [one(name, judged(threshold, bins, 0, 0, 0))], None)
    assert line.startswith(f"{name} (at ")
    assert line.endswith(f"{sum(bins.values())} judged, {near}")


def test_a_rule_that_failed_something_is_no_alarm() -> None:
    rule = one("quality.max_x", judged(5, {20: 1, 1: 99}, 1, 0, 0))
    assert corpus.never_failed(stats(), [rule], None) == []
    assert corpus.alarms(stats(), [rule], None) == []


def test_alarm_of_a_rule_that_fails_a_source_another_rule_emptied() -> None:
    data = stats(**{"quality.max_x": judged(5, {20: 95, 1: 5}, 95, 3, 30)})
    (alarm,) = corpus.alarms(data, rules.rules(data, None, None), None)
    assert alarm == "quality.max_x fails 95 of the 100 documents of web"


def test_alarm_of_a_stage_whose_rules_emptied_a_source_together() -> None:
    counts = {f"quality.max_{x}": judged(5, {20: 50, 1: 50}, 50, 50, 9) for x in "ab"}
    data = stats(**counts).model_dump()
    data["sources"]["web"]["stages"][1]["documents"] = 4
    whole = records.CorpusStats.model_validate(data)
    (alarm,) = corpus.alarms(whole, rules.rules(whole, None, None), None)
    assert alarm == "quality took 96 of the 100 documents of web, by several rules"


def test_alarm_of_rules_that_judged_nothing() -> None:
    data = stats(
        **{
            "quality.gopher.min_words": judged(5, {20: 100}, 0, 0, 0),
            "quality.gopher.min_likes": judged(3, {}, 0, 0, 0),
        }
    )
    both: dict[str, Any] = {"kinds": ["web"], "languages": []}
    sections = {
        "gopher": both | {"min_words": 5, "min_likes": 3, "max_words": None},
        "chinese": both | {"languages": ["zh"], "min_words": 5, "max_words": 9},
        "mend": both,
        "lines": {"kinds": ["web"], "min_characters": 3},  # no set of thresholds
    }
    assert corpus.unjudged(data, config(**sections)) == [
        "No document was judged by quality.gopher.min_likes",
        "quality.chinese judged no document, with none of its rules (2). It is for kinds web and "
        "languages zh",
    ]
    # that it judged nothing is told once
    idle = corpus.never_failed(data, rules.rules(data, None, None), config(**sections))
    assert idle == [
        "quality.gopher.min_words (at least 5): 100 judged, the lowest value is 9.5 to 10",
        "quality.mend: dropped and changed nothing",
        "quality.lines: dropped and changed nothing",
    ]


def test_speed_is_of_the_text_that_reached_a_stage() -> None:
    timings = records.Timings(seconds=2, cpu_seconds={"web": {"quality": 0.5, "dedup": 0.001}})
    assert corpus.cpu_times(stats(), timings) == {"quality": (0.5, 2000.0), "dedup": (0.001, None)}
    assert corpus.speed(stats(), timings).startswith("1.00 kB in 2.0s, 500 B/s; 0.5s of CPU time")
