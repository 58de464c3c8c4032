"""The same id, text or address."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from jaxlm.config.corpus import Source
from jaxlm.config.dedup import Dedup
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.stages import exact, shuffle
from jaxlm.corpus.stages.exact import address, normalised
from jaxlm.errors import UserError
from tests.corpus.stages.resolving import documents, resolved


def test_the_first_of_equal_texts_stays_across_batches() -> None:
    found = resolved("dedup.exact", [documents(["a b", "c"]), documents(["C", "d", "A  b\n", "c"])])
    assert [(d.batch, d.index, d.partner) for d in found] == [
        (1, 0, (0, 1)),
        (1, 2, (0, 0)),
        (1, 3, (0, 1)),
    ]


def test_ids_that_occur_twice_are_found_whatever_the_text() -> None:
    other = documents(["x"], ["1"], source=Source(name="other", path="y"))
    config = Dedup(keep="longest")
    found = resolved("ids", [documents(["x", "y", "zzz"], ["1", "2", "1"]), other], config)
    assert [(d.batch, d.index, d.partner) for d in found] == [(0, 2, (0, 0))]


@given(some.lists(some.text(max_size=20), max_size=4))
def test_normalised_texts_are_lower_case_with_single_spaces(texts: list[str]) -> None:
    encoded = [text.encode(errors="replace") for text in texts]
    codes, first = normalised(Strings.of(encoded))
    for i, text in enumerate(encoded):
        wanted = " ".join("".join(c.lower()[0] for c in text.decode()).split())
        assert "".join(map(chr, codes[first[i] : first[i + 1]])) == wanted


@settings(max_examples=40, deadline=None)
@given(some.lists(some.sampled_from("abcdefgh"), max_size=30), some.integers(2, 40))
def test_parts_of_the_keys_do_not_matter(texts: list[str], part: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for module in (shuffle, exact):
            patch.setattr(module, "RECORDS", part)
        found = resolved("dedup.exact", [documents(texts[:9]), documents(texts[9:])])
    wanted = [i for i, text in enumerate(texts) if text in texts[:i]]
    assert [d.index + d.batch * len(texts[:9]) for d in found] == wanted


@pytest.mark.parametrize("stage", ["dedup.exact", "dedup.url", "dedup.minhash"])
def test_copies_in_other_sources_stay_in_the_scope_of_a_source(stage: str) -> None:
    meta = ['{"url": "http://a.org"}'] * 2
    other = Source(name="t", path="y")
    batches = [documents(["a"], meta=meta[:1]), documents(["a", "a"], meta=meta, source=other)]
    assert len(resolved(stage, batches)) == 2
    found = resolved(stage, batches, Dedup(scope="source"))
    assert [(d.batch, d.index, d.partner) for d in found] == [(1, 1, (1, 0))]


def test_a_source_can_have_priority() -> None:
    batches = [documents(["a"]), documents(["a"], source=Source(name="t", path="y"))]
    found = resolved("dedup.exact", batches, Dedup(keep="source_priority", sources=("t",)))
    assert [(d.batch, d.partner) for d in found] == [(0, (1, 0))]


def test_what_no_document_has_cannot_decide_which_copy_stays() -> None:
    config = Dedup(keep="quality", quality="quality.gopher.words")
    batches = [documents(["a"]), documents(["a"])]
    tags = [{"quality.a.b": np.zeros(1)}, {"quality.gopher.words": np.zeros(1)}]
    assert [d.batch for d in resolved("dedup.exact", batches, config, tags)] == [0]
    with pytest.raises(UserError, match=r"no document has the attribute 'quality.gopher.words'"):
        resolved("dedup.exact", batches, config, tags[:1] * 2)
    with pytest.raises(UserError, match=r"no document has a date in its field 'date'"):
        resolved("dedup.minhash", batches, Dedup(keep="oldest"))


@pytest.mark.parametrize(
    "url",
    [
        "http://Example.org/a%7Eb/?b=2&a=1",
        "https://example.org:443/%61~b?a=1&b=2&utm_source=x&fbclid=y#part",
        "  https://user:secret@EXAMPLE.org./a~b?a=1&UTM_campaign=z&b=2",
    ],
)
def test_addresses_of_the_same_page_are_equal(url: str) -> None:
    assert address(url) == "example.org/a~b?a=1&b=2"


def test_addresses_of_other_pages_are_not() -> None:
    urls = ["http://a.org/x", "http://a.org/X", "http://a.org:8080/x", "http://b.a.org/x",
            "http://a.org/x?p=1", "http://a.org/x?p=2", "http://a.org/x%2Fy", "http://a.org/x/y",
            "http://a.org/x?p=1&p=2"]  # fmt: skip
    assert len({address(url) for url in urls}) == len(urls)


@given(some.text())
def test_any_text_is_an_address_or_none(text: str) -> None:
    found = address(text)
    assert found is None or address(f"http://{text}") != ""


@pytest.mark.parametrize("url", ["", "no scheme", "mailto:a@b.c", "http://[::1", "http://a:b/"])
def test_what_names_no_page_is_not_compared(url: str) -> None:
    assert address(url) is None


def test_documents_with_the_same_address() -> None:
    meta = ['{"url": "http://a.org/x/"}', "", '{"url": 3}', '{"url": "https://a.org/x"}', "{}"]
    found = resolved("dedup.url", [documents(list("abcde"), meta=meta)])
    assert [(d.index, d.rule, d.partner) for d in found] == [(3, "same_url", (0, 0))]
