"""Tagger: words and addresses that stand on lists."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from jaxlm.config.dolma import DolmaC4
from jaxlm.config.rules import Rules
from jaxlm.config.words import Lists
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.lists import list_path, read_list, word_list
from jaxlm.corpus.stages.base import Tags
from jaxlm.corpus.stages.words import meta_values, words
from jaxlm.corpus.statistics import Analysis

_ADDRESS = re.compile(r"(?:(?:[a-z][a-z0-9+.-]*:)?//)?(?:[^/?#@]*@)?([^/?#:]*)(?::\d*)?([^?#]*)",
                      re.IGNORECASE)  # fmt: skip


def lists(texts: Analysis, rules: Rules) -> Tags:
    """Occurrences of listed words (0 without lists), and whether an address is listed and has
    listed words (NaN without an address)."""
    assert isinstance(rules, Lists)
    n = len(texts.texts)
    hits = np.zeros(n)
    if rules.words:
        found = word_list(rules.words).find(texts.texts)
        hits = np.bincount(found.document, minlength=n).astype(np.float64)
    _, first = words(texts.texts, texts.space)
    tags: Tags = {
        "listed_words": hits,
        "listed_per_word": hits / np.maximum(np.diff(first), 1),
        "listed_per_line": hits / np.maximum(texts.lines.counts, 1),
        "listed_url": np.full(n, np.nan),
        "listed_url_words": np.full(n, np.nan),
    }
    if not (rules.urls or rules.url_words):
        return tags
    listed = _addresses(rules.urls)
    for i, url in enumerate(meta_values(texts.documents, rules.url_field)):
        if isinstance(url, str) and url.strip():
            tags["listed_url"][i] = any(part in listed for part in _covers(url))
            # words of addresses are often joined with _
            spaced = Strings.of([url.replace("_", " ").encode(errors="replace")])
            tags["listed_url_words"][i] = (
                len(word_list(rules.url_words).find(spaced).starts) if rules.url_words else 0
            )
    return tags


def spans(text: str, rules: Rules) -> dict[str, list[tuple[int, int]]]:
    """Where a text has listed words, in characters."""
    assert isinstance(rules, Lists)
    if not rules.words:
        return {}
    data = text.encode()
    found = word_list(rules.words).find(Strings.of([data]))
    places = [
        (len(data[:start].decode()), len(data[:end].decode()))
        for start, end in zip(found.starts.tolist(), found.ends.tolist(), strict=True)
    ]
    names = ("max_listed_words", "max_listed_per_word", "max_listed_per_line")
    return dict.fromkeys(names, places)


def _files(rules: Rules) -> list[Path]:
    """The files of a section's lists; they are read, so that one that is missing, empty or not text
    is a UserError at the beginning of a run."""
    if isinstance(rules, Lists):
        names = [*rules.words, *rules.urls, *rules.url_words]
    else:
        assert isinstance(rules, DolmaC4)
        names = [rules.naughty_words] if rules.naughty_words else []
    for name in names:
        read_list(name)
    return [list_path(name) for name in names]


FILES: dict[str, Callable[[Rules], list[Path]]] = {
    "quality.lists": _files,
    "quality.dolma_c4": _files,
}
TAGGERS: dict[str, Callable[[Analysis, Rules], Tags]] = {"quality.lists": lists}
SPANS: dict[str, Callable[[str, Rules], dict[str, list[tuple[int, int]]]]] = {
    "quality.lists": spans
}


@cache
def _addresses(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset("".join(_parts(entry)).rstrip("/") for name in names
                     for entry in read_list(name))  # fmt: skip


def _parts(url: str) -> tuple[str, str]:
    """Host in lower case without a final dot or a leading www., and path."""
    match = _ADDRESS.match(url.strip())
    assert match is not None  # all of it is optional
    host = match[1].lower().rstrip(".").removeprefix("www.").removeprefix("*.").removeprefix(".")
    return host, match[2]


def _covers(url: str) -> Iterator[str]:
    """What may stand on a list and covers the address: its host, the domains above it, and the
    host with each beginning of the path that ends at a slash."""
    host, path = _parts(url)
    labels = host.split(".")
    yield from (".".join(labels[k:]) for k in range(len(labels)))
    pieces = path.strip("/").split("/")
    yield from (f"{host}/{'/'.join(pieces[:k])}" for k in range(1, len(pieces) + 1))
