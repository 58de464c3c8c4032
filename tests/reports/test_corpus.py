"""The corpus part of the report: figures of rules, histograms, alarms, marks."""

import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlm.reports import corpus, records
from jaxlm.workdir import Workdir
from tests.reports.conftest import example, judged, write_lines


def stats(**rules: dict[str, Any]) -> records.CorpusStats:
    """A corpus of one source, of which `quality` left 60 of 100 documents."""
    stages = [
        {"stage": "read", "documents": 100, "bytes": 1000},
        {"stage": "quality", "documents": 60, "bytes": 600},
        {"stage": "dedup", "documents": 50, "bytes": 500},
    ]
    source = {"kind": "web", "stages": stages, "rules": rules}
    return records.CorpusStats.model_validate({"sources": {"web": source}})


def config(**sections: Any) -> records.CorpusConfig:
    """A corpus config with these sections below quality."""
    stages = [f"quality.{name}" for name in sections]
    prepare = {"stages": stages, "quality": sections}
    return records.CorpusConfig.model_validate({"prepare": prepare})


def one(name: str, count: dict[str, Any]) -> corpus.Rule:
    (rule,) = corpus.rules(stats(**{name: count}), None, None)
    return rule


def bars(path: str) -> list[int]:
    """Numbers of the bins that a path draws."""
    return [int(bar.split()[0]) // 10 for bar in path.split("M")[1:]]


def test_shares_are_of_what_a_rule_judged_or_what_reached_its_stage() -> None:
    found = corpus.rules(
        stats(
            **{
                "quality.max_x": judged(2, {1: 30, 20: 10}, 10, 4, 40),
                "dedup.same": {"documents": 10, "bytes": 100},
            }
        ),
        None,
        None,
    )
    assert [(r.name, r.documents, r.of, r.judged, r.failed, r.kept_of) for r in found] == [
        ("dedup.same", 10, 60, 0, 0, 0),
        ("quality.max_x", 4, 40, 40, 10, 30),
    ]
    assert found[1].limit == "at most 2"
    assert found[0].histogram is None


@pytest.mark.parametrize(
    ("name", "threshold", "bins", "failed", "at", "failing"),
    [
        ("q.max_x", 0.3, {1: 5, 10: 1, 11: 2, 31: 3}, 5, 110, [11, 31]),
        # two that have just the value of the threshold pass
        ("q.max_x", 3, {10: 1, 11: 2, 12: 3}, 3, 110, [12]),
        ("q.min_x", 3, {0: 1, 10: 1, 11: 2, 12: 3}, 2, 110, [0, 10]),
        ("q.max_x", 0, {1: 9, 2: 1}, 1, 10, [2]),
        ("q.min_x", 0, {0: 2, 1: 9}, 2, 10, [0]),
        ("q.max_x", -2, {0: 2, 1: 9}, 9, 5, [1]),
    ],
)
def test_histogram_has_the_threshold_where_it_is(
    name: str, threshold: float, bins: dict[int, int], failed: int, at: int, failing: list[int]
) -> None:
    drawn = one(name, judged(threshold, bins, failed, failed, 9)).histogram
    assert drawn is not None
    assert drawn.threshold == at
    assert bars(drawn.failing) == failing
    assert sorted(bars(drawn.failing) + bars(drawn.passing)) == sorted(bins)
    assert f"{failed} beyond the threshold" in drawn.alt


def test_histogram_is_labelled_in_values_or_in_thresholds() -> None:
    count = records.RuleStats.model_validate(judged(0.1, {1: 1}, 0, 0, 0))
    drawn = corpus.histogram("q.max_x", [count])
    assert drawn is not None
    assert [tick.label for tick in drawn.ticks] == ["0", "0.1", "0.2", "0.3+"]
    other = count.model_copy(update={"threshold": 0.5})
    drawn = corpus.histogram("q.max_x", [count, other])
    assert drawn is not None
    assert [tick.label for tick in drawn.ticks] == ["0", "1 x", "2 x", "3 x+"]
    negative = count.model_copy(update={"threshold": -0.5})
    assert corpus.histogram("q.max_x", [count, negative]) is None


@given(st.lists(st.integers(0, 10**9), min_size=32, max_size=32), st.booleans(),
       st.floats(-1e6, 1e6))  # fmt: skip
def test_any_histogram_stays_in_its_box(bins: list[int], least: bool, threshold: float) -> None:
    count = records.RuleStats.model_validate(
        judged(threshold, dict(enumerate(bins)), sum(bins) // 3, 0, 0)
    )
    drawn = corpus.histogram("q.min_x" if least else "q.max_x", [count])
    if drawn is None:
        assert not any(bins)
        return
    assert 0 <= drawn.threshold <= corpus.WIDTH
    for path in (drawn.passing, drawn.failing):
        for bar in path.split("M")[1:]:
            height = int(bar.split("v-")[1].split("h")[0])
            assert 0 < height <= corpus.HEIGHT
    ET.fromstring(f'<svg><path d="{drawn.passing}{drawn.failing}"/></svg>')


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
    (alarm,) = corpus.alarms(data, corpus.rules(data, None, None), None)
    assert alarm == "quality.max_x fails 95 of the 100 documents of web"


def test_alarm_of_a_stage_whose_rules_emptied_a_source_together() -> None:
    rules = {f"quality.max_{x}": judged(5, {20: 50, 1: 50}, 50, 50, 9) for x in "ab"}
    data = stats(**rules).model_dump()
    data["sources"]["web"]["stages"][1]["documents"] = 4
    whole = records.CorpusStats.model_validate(data)
    (alarm,) = corpus.alarms(whole, corpus.rules(whole, None, None), None)
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
        "quality.gopher.min_likes judged no document",
        "quality.chinese judged no document, with none of its 2 rules. It is for kinds web and "
        "languages zh",
    ]
    # that it judged nothing is told once
    idle = corpus.never_failed(data, corpus.rules(data, None, None), config(**sections))
    assert idle == [
        "quality.gopher.min_words (at least 5): 100 judged, the lowest value is 9.5 to 10",
        "quality.mend: dropped and changed nothing",
        "quality.lines: dropped and changed nothing",
    ]


@given(
    st.text(max_size=40), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=9)
)
def test_marks_leave_the_text_as_it_is(text: str, spans: list[tuple[int, int]]) -> None:
    pieces = list(corpus.marked(text, spans))
    assert "".join(piece for _, piece in pieces) == text
    inside = {i for a, b in spans for i in range(a, min(b, len(text)))}
    flags = [flag for flag, piece in pieces for _ in piece]
    assert {i for i, flag in enumerate(flags) if flag} == inside


def test_examples_are_shown_around_what_bites(workdir: Workdir) -> None:
    text = "a" * 400 + "BITE" + "b" * 1096
    write_lines(
        workdir.corpus / "examples.jsonl.zst",
        [example("web", "page", "max_x", True, text=text, spans=[[400, 404]], characters=9000,
                 **{"from": 1000})],
    )  # fmt: skip
    found = records.read_examples(workdir, 5)
    assert found is not None
    shown = corpus.of_example(found["quality.max_x", True][0])
    assert shown.pieces == [(False, "a" * 120), (True, "BITE"), (False, "b" * 376)]
    assert shown.facts[-1] == "characters 1,281 to 1,780 of 9,000"


def test_sources_take_turns_and_barely_kept_ones_come_nearest_first(workdir: Workdir) -> None:
    lines = [example("web", f"w{i}", "max_x", False, value=0.1 - i / 1000) for i in range(30)]
    lines += [example("code", f"c{i}", "max_x", False, value=-i) for i in range(2)]
    write_lines(workdir.corpus / "examples.jsonl.zst", reversed(lines))
    found = records.read_examples(workdir, 6)
    assert found is not None
    ids = [e.id for e in found["quality.max_x", False]]
    assert sorted(ids[:2]) == ["c0", "w0"]
    assert sorted(ids[2:4]) == ["c1", "w1"]
    assert ids[4:] == ["w2", "w3"]


def test_speed_is_of_the_text_that_reached_a_stage() -> None:
    timings = records.Timings(seconds=2, cpu_seconds={"web": {"quality": 0.5, "dedup": 0.001}})
    assert corpus.cpu_times(stats(), timings) == {"quality": (0.5, 2000.0), "dedup": (0.001, None)}
    assert corpus.speed(stats(), timings).startswith("1.00 kB in 2.0s, 500 B/s; 0.5s of CPU time")
