"""Documents with the same id, the same text or the same address."""

import hashlib
import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.config.dedup import Dedup
from jaxlm.corpus import characters
from jaxlm.corpus.characters import CODES, decode
from jaxlm.corpus.documents import Documents, Strings, load_array, save_array
from jaxlm.corpus.stages.base import Tags
from jaxlm.corpus.stages.compare import Batch, Duplicate, Map, Signature, host, metadata, rank
from jaxlm.corpus.stages.index import Compared, add, earlier, removed
from jaxlm.corpus.stages.shuffle import (
    DROPPED,
    GONE,
    RECORDS,
    Place,
    grouped,
    mapped,
    opens,
    parts,
    read_part,
    write_run,
)


class _SameKey(ABC):
    """Documents with equal 128-bit keys."""

    name: ClassVar[str]
    rule: ClassVar[str]
    cuts = False

    def __init__(self, config: Dedup) -> None:
        self.config = config

    @abstractmethod
    def _keys(self, documents: Documents) -> NDArray[np.uint64]:
        """The keys, uint64 [D, 2]; zeros for a document that is not compared."""

    def signature(self, documents: Documents, tags: Tags) -> Signature:
        """keys: uint64 [D, 2], zeros where a document is not compared; rank: float64 [D]."""
        return {"keys": self._keys(documents), "rank": rank(documents, tags, self.config)}

    def resolve(self, batches: Sequence[Batch], work: Path, run: Map) -> Iterator[Duplicate]:
        """Every document but the one of its key that stays."""
        parameters = {"scope": self.config.scope}
        others = earlier(self.config, self.name, parameters, run)
        compared = Compared(self.name, batches, others, work)
        compared.refuse_unranked(self.config)
        leader = leaders(compared, "keys", work / "keys", run)
        for b, place in enumerate(compared.batches):
            for i in removed(compared.state, place):
                partner = compared.partner(int(leader[place.start + i]))
                yield Duplicate(b, i, self.rule, 1.0, 1.0, partner)
        add(self.config, self.name, parameters, ("keys",), (), compared, run)


class Ids(_SameKey):
    """Documents of one source with the same id; the first one stays."""

    name, rule = "ids", "duplicate"

    def __init__(self, config: Dedup) -> None:
        super().__init__(Dedup())

    def _keys(self, documents: Documents) -> NDArray[np.uint64]:
        prefix = documents.source.name.encode() + b"\0"
        return hashed((documents.ids[i] for i in range(len(documents))), prefix)


class Exact(_SameKey):
    """Documents with the same text but for case and white space."""

    name, rule = "dedup.exact", "same_text"

    def _keys(self, documents: Documents) -> NDArray[np.uint64]:
        codes, offsets = normalised(documents.texts)
        texts = (codes[a:b].data for a, b in itertools.pairwise(offsets))
        return hashed(texts, scope(documents, self.config))


class Url(_SameKey):
    """Documents with the same address."""

    name, rule = "dedup.url", "same_url"

    def _keys(self, documents: Documents) -> NDArray[np.uint64]:
        field = self.config.url.field
        found = (metadata(documents, i).get(field) for i in range(len(documents)))
        plain = (address(url) if isinstance(url, str) else None for url in found)
        return hashed((url.encode() if url else b"" for url in plain),
                      scope(documents, self.config))  # fmt: skip


def scope(documents: Documents, config: Dedup) -> bytes:
    """What begins the keys of documents that are compared with each other."""
    return documents.source.name.encode() + b"\0" if config.scope == "source" else b""


def hashed(items: Iterator[Any], prefix: bytes) -> NDArray[np.uint64]:
    """128 bits of BLAKE2b of each item and a prefix, uint64 [items, 2]; zeros for an empty one."""
    begin = hashlib.blake2b(prefix, digest_size=16)
    digests = []
    for item in items:
        if not len(item):
            digests.append(bytes(16))
            continue
        state = begin.copy()
        state.update(item)
        digests.append(state.digest())
    return np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)


def normalised(texts: Strings) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Code points of the texts in lower case, white space as single spaces and none at the ends,
    int32 [characters]; offsets of the documents, int64 [D + 1]."""
    buffer = np.ascontiguousarray(texts.buffer)
    return _normalised(buffer, texts.offsets, characters.lower(), _space())


def _space() -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = np.zeros(CODES, np.bool_)
    mask[[code for code in range(0x3001) if chr(code).isspace()]] = True
    return mask


@njit(cache=True)
def _normalised(
    buffer: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    lower: NDArray[np.int32],
    space: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    out = np.empty(len(buffer), np.int32)
    first = np.zeros(len(offsets), np.int64)
    n = 0
    for d in range(len(offsets) - 1):
        at = offsets[d]
        gap = False
        while at < offsets[d + 1]:
            code, width = decode(buffer, at)
            at += width
            if code < CODES:
                if space[code]:
                    gap = n > first[d]
                    continue
                code = int(lower[code])
            if gap:
                out[n] = 32
                n += 1
                gap = False
            out[n] = code
            n += 1
        first[d + 1] = n
    return out[:n].copy(), first


# Query parameters that say where a reader came from, not what is read.
TRACKING = re.compile(
    r"utm_\w+|gclid|gclsrc|dclid|gbraid|wbraid|fbclid|msclkid|yclid|twclid|igshid|mc_cid|mc_eid"
    r"|_hsenc|_hsmi|mkt_tok|ref_src",
    re.I,
)
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def address(url: str) -> str | None:
    """A URL as it is compared, None where it names no host.

    Equivalences of RFC 3986, section 6.2 (case of the host and of escapes, escaped unreserved
    characters, default ports), and by convention: no scheme, user, fragment, final slash, tracking
    parameters, and the query sorted.
    """
    name = host(url)
    if name is None:
        return None
    try:
        found = urlsplit(url.strip())
        port = found.port
    except ValueError:
        return None
    if port in (None, {"http": 80, "https": 443}.get(found.scheme.lower())):
        place = name
    else:
        place = f"{name}:{port}"
    path = _ESCAPE.sub(_unescaped, found.path).rstrip("/")
    pairs = parse_qsl(found.query, keep_blank_values=True, errors="surrogateescape")
    query = urlencode(
        sorted(pair for pair in pairs if not TRACKING.fullmatch(pair[0])), errors="surrogateescape"
    )
    return f"{place}{path}?{query}" if query else place + path


def _unescaped(match: re.Match[str]) -> str:
    character = chr(int(match.group(1), 16))
    return character if character in _UNRESERVED else match.group().upper()


def leaders(compared: Compared, name: str, work: Path, run: Map) -> NDArray[np.int64]:
    """The document that stays of those with the same key, for each that has DROPPED in
    `compared.state` afterwards, int64 [documents] mapped from a file in `work`."""
    work.mkdir()
    sizes = [place.documents for place in compared.places]
    total = sum(
        run(_scatter, (
            (work / "runs" / f"{number:06d}", name, group, compared.state_path)
            for number, group in enumerate(grouped(compared.places, sizes, RECORDS))
        ))
    )  # fmt: skip
    leader: NDArray[np.int64] = mapped(work / "leader.npy", compared.documents, np.int64)
    if not total:
        return leader
    count = parts(total)
    (work / "copies").mkdir()
    for found in run(
        _copies,
        (
            (work / "runs", part, count, work / "copies" / f"{part:06d}.npy")
            for part in range(count)
        ),
    ):
        copies = load_array(found)
        leader[copies[0]] = copies[1]
        compared.state[copies[0]] = DROPPED
    return leader


def _scatter(folder: Path, name: str, places: tuple[Place, ...], state_path: Path) -> int:
    """Write the keys of documents that are there as a run."""
    state = load_array(state_path)
    pieces: list[tuple[NDArray[Any], ...]] = []
    for place in places:
        keys = place.array(name)
        there = np.flatnonzero((state[place.range] != GONE) & (keys != 0).any(axis=1))
        pieces.append((keys[there], place.rank()[there], place.start + there))
    keys, ranks, numbers = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return write_run(
        folder,
        {"key": np.ascontiguousarray(keys[:, 0]), "low": keys[:, 1], "rank": ranks,
         "document": numbers},
    )  # fmt: skip


def _copies(runs: Path, part: int, count: int, out: Path) -> Path:
    """Save the documents of a part that are not the first of their key, and that first one."""
    found = read_part(runs, ("key", "low", "rank", "document"), part, count)
    order = np.lexsort((found["document"], found["rank"], found["low"], found["key"]))
    first = opens(found["key"][order], found["low"][order])
    documents = found["document"][order]
    stays = documents[np.flatnonzero(first)[np.cumsum(first) - 1]]
    save_array(out, np.stack([documents[~first], stays[~first]]))
    return out
