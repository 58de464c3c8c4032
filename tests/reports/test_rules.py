"""What is shown of a rule: shares, histograms, examples, marks."""

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlm.reports import records, rules
from jaxlm.workdir import Workdir
from tests.reports.conftest import example, judged, one, stats, write_lines


def bars(path: str) -> list[int]:
    """Numbers of the bins that a path draws."""
    return [int(bar.split()[0]) // 10 for bar in path.split("M")[1:]]


def test_shares_are_of_what_a_rule_judged_or_what_reached_its_stage() -> None:
    found = rules.rules(
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
    drawn = rules.histogram("q.max_x", [count])
    assert drawn is not None
    assert [tick.label for tick in drawn.ticks] == ["0", "0.1", "0.2", "0.3+"]
    other = count.model_copy(update={"threshold": 0.5})
    drawn = rules.histogram("q.max_x", [count, other])
    assert drawn is not None
    assert [tick.label for tick in drawn.ticks] == ["0", "1 x", "2 x", "3 x+"]
    negative = count.model_copy(update={"threshold": -0.5})
    assert rules.histogram("q.max_x", [count, negative]) is None


@given(st.lists(st.integers(0, 10**9), min_size=32, max_size=32), st.booleans(),
       st.floats(-1e6, 1e6))  # fmt: skip
def test_any_histogram_stays_in_its_box(bins: list[int], least: bool, threshold: float) -> None:
    count = records.RuleStats.model_validate(
        judged(threshold, dict(enumerate(bins)), sum(bins) // 3, 0, 0)
    )
    drawn = rules.histogram("q.min_x" if least else "q.max_x", [count])
    if drawn is None:
        assert not any(bins)
        return
    assert 0 <= drawn.threshold <= rules.WIDTH
    for path in (drawn.passing, drawn.failing):
        for bar in path.split("M")[1:]:
            height = int(bar.split("v-")[1].split("h")[0])
            assert 0 < height <= rules.HEIGHT
    ET.fromstring(f'<svg><path d="{drawn.passing}{drawn.failing}"/></svg>')


@given(
    st.text(max_size=40), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=9)
)
def test_marks_leave_the_text_as_it_is(text: str, spans: list[tuple[int, int]]) -> None:
    pieces = list(rules.marked(text, spans))
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
    shown = rules.of_example(found["quality.max_x", True][0])
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
