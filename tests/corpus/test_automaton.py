"""Occurrences of many strings against a search for each."""

from hypothesis import given
from hypothesis import strategies as some

from jaxlm.corpus.automaton import Automaton
from jaxlm.corpus.documents import Strings

SHORT = some.text("abAB\u00e9", min_size=1, max_size=4)


@given(some.lists(SHORT, min_size=1, max_size=6), some.lists(some.text("abAB\u00e9 "), max_size=4))
def test_finds_every_occurrence(patterns: list[str], texts: list[str]) -> None:
    packed = Strings.of(text.encode() for text in texts)
    found = Automaton([pattern.encode() for pattern in patterns]).find(packed)
    wanted = set()
    for d, text in enumerate(texts):
        low, begin = text.encode().lower(), int(packed.offsets[d])
        for p, pattern in enumerate(patterns):
            needle = pattern.encode().lower()
            for at in range(len(low)):
                if low.startswith(needle, at):
                    wanted.add((p, d, begin + at, begin + at + len(needle)))
    columns = (found.pattern, found.document, found.starts, found.ends)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    assert len(rows) == len(set(rows))
    assert set(rows) == wanted
