"""Places in a text that make rules bite: they lie in it, and they are the ones meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from jaxlm.corpus.stages import SPANS
from jaxlm.corpus.stages.sets import SETS

STAGES = {
    chosen.stage: chosen.rules for chosen in SETS.values() if chosen.stage in SPANS
}  # fmt: skip
TEXTS = some.text("ab# \n-\u4e2d\u6587\u3002\u2026{x1,", max_size=80) | some.text()


@pytest.mark.parametrize("stage", list(STAGES))
@given(text=TEXTS)
def test_places_lie_in_the_text(stage: str, text: str) -> None:
    rules = STAGES[stage]
    for rule, places in SPANS[stage](text, rules).items():
        assert rule in type(rules).model_fields
        assert places == sorted(places)
        assert all(0 <= start <= end <= len(text) for start, end in places)


@pytest.mark.parametrize(
    ("stage", "text", "rule", "wanted"),
    [
        ("repeats", "well la la la done", "max_repeated_words", ["la la la"]),
        ("repeats", "a b c", "max_repeated_words", []),
        ("symbols", "#one ... two\u2026", "max_symbol_ratio", ["#", "...", "\u2026"]),
        ("chinese", "\u4e2d\u3002\n\u4e2d\u3002\n\u6f22", "max_duplicate_lines", ["\u4e2d\u3002"]),
        ("chinese", "\u4e2d\u6587\u3002\u6f22\u2605", "max_symbol_share", ["\u2605"]),
        ("chinese", "\u4e2d\u6587\u3002\u6f22\u2605", "max_traditional_share", ["\u6f22"]),
        ("code", "// DO NOT EDIT\nx = 1", "max_generated", ["DO NOT EDIT"]),
        ("code", "a\nlonger\nb", "max_line_length", ["longer"]),
        ("dolma_gopher", "a\n\nb\n\n", "max_duplicate_lines", ["", "", ""]),
        ("dolma_gopher", "1 2 3 4 5 x 1 2 3 4 5", "max_duplicate_5grams", ["1 2 3 4 5"] * 2),
        ("dolma_gopher", "- a\n * b\n* c", "max_bullet_lines", ["- a", "* c"]),
        ("dolma_c4", "no JavaScript", "max_javascript", ["JavaScript"]),
    ],
)  # fmt: skip
def test_places_are_those_meant(stage: str, text: str, rule: str, wanted: list[str]) -> None:
    places = SPANS[f"quality.{stage}"](text, STAGES[f"quality.{stage}"])[rule]
    assert [text[start:end] for start, end in places] == wanted
