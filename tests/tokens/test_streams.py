"""Sources that are parted by a field of their documents, and documents that are sorted."""

import itertools
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.config import Config
from jaxlm.config.data import Data, SplitBy
from jaxlm.config.tokens import Tokenizer
from jaxlm.errors import UserError
from jaxlm.tokens import load_tokenizer, open_loader, tokenize, train_tokenizer, validation_batches
from jaxlm.tokens.store import SPLITS, Split, Store
from jaxlm.workdir import Workdir
from tests.tokens.conftest import CODE, make_config, write_corpus

LANGUAGE = SplitBy(field="language")
QUALITY = SplitBy(field="score", edges=(1.5, 3.0))


class Here:
    """A pool that works in this process, which begins faster; test_encode.py has real ones."""

    def __init__(self, workers: int, setup: Callable[..., None], *arguments: Any) -> None:
        setup(*arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        return map(function, items)


@pytest.fixture(autouse=True, scope="module")
def _in_this_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxlm.tokens.encode.Pool", Here)
        yield


def config_of(*splits: SplitBy, names: tuple[str, ...] = ("web",), **data: Any) -> Config:
    values: dict[str, Any] = {"seq_len": 8, "validation_fraction": 0.2, **data}
    return make_config(
        names, tokenizer=Tokenizer(kind="byte"), data=Data(split_by=splits, **values),
        prepare={"workers": 1},
    )  # fmt: skip


def texts_of(workdir: Workdir, stream: str, split: Split) -> list[str]:
    store, tokenizer = Store(workdir.tokens), load_tokenizer(workdir.tokenizer)
    tokens, offsets = store.tokens(stream, split), store.offsets(stream, split)
    places = offsets.read(0, offsets.length).tolist()
    ids = tokens.read(0, tokens.length)
    return [tokenizer.decode(ids[a + 1 : b - 1]) for a, b in itertools.pairwise(places)]


def made(
    folder: Path,
    config: Config,
    fields: dict[str, dict[str, Any]],
    per_shard: int = 7,
    others: dict[str, list[tuple[str, str]]] | None = None,
) -> Workdir:
    """A store of a source web, whose documents' texts begin with their ids, and of others."""
    workdir = Workdir(folder)
    documents = [(name, f"{name} " + "x" * (hash_of(name) % 50)) for name in fields]
    write_corpus(
        workdir.corpus, {"web": documents, **(others or {})}, per_shard,
        lambda name: fields.get(name, {}),
    )  # fmt: skip
    train_tokenizer(config, workdir)
    tokenize(config, workdir)
    return workdir


def hash_of(name: str) -> int:
    return sum(name.encode()) * 7919


def fields_of(count: int) -> dict[str, dict[str, Any]]:
    return {
        f"d{i}": {"language": ("de", "en", "fr")[i % 3], "score": i % 40 / 10} for i in range(count)
    }


def test_streams_and_their_tags(tmp_path: Path) -> None:
    fields = fields_of(60)
    config = config_of(LANGUAGE, QUALITY.model_copy(update={"sources": ("web",)}))
    workdir = made(tmp_path, config, fields)
    store = Store(workdir.tokens)
    assert list(store.manifest.sources) == [
        f"web@language={language}@score={k}" for language in ("de", "en", "fr") for k in range(3)
    ]
    for name, stream in store.streams(["web"]).items():
        assert stream.source == "web"
        assert name == "@".join(["web", *(f"{k}={v}" for k, v in stream.tags.items())])
        found = [text.split()[0] for split in SPLITS for text in texts_of(workdir, name, split)]
        assert sorted(found) == sorted(
            i for i, f in fields.items()
            if f["language"] == stream.tags["language"]
            and bisect_right((1.5, 3.0), f["score"]) == int(stream.tags["score"])
        )  # fmt: skip
        assert stream.valid.documents == max(round(0.2 * len(found)), 1)
    assert store.manifest.corpus["web"].documents == 60


def test_a_source_that_is_not_parted_is_held_apart_as_ever(tmp_path: Path) -> None:
    others = {"code": CODE}
    config = config_of(
        LANGUAGE.model_copy(update={"sources": ("web",)}), names=("web", "code"), sort_by="length"
    )
    parted = made(tmp_path / "a", config, fields_of(30), others=others)
    plain = made(tmp_path / "b", config_of(names=("web", "code")), fields_of(30), others=others)
    for split in SPLITS:
        assert sorted(texts_of(parted, "code", split)) == sorted(texts_of(plain, "code", split))


def test_training_and_evaluation_go_by_streams(tmp_path: Path) -> None:
    config = config_of(LANGUAGE.model_copy(update={"sources": ("web",)}), names=("code", "web"))
    workdir = made(tmp_path, config, fields_of(60), others={"code": CODE})
    loader = open_loader(config, workdir)
    names = ["code", "web@language=de", "web@language=en", "web@language=fr"]
    assert loader.names == names
    rows = Counter(np.concatenate([loader.sources_at(k) for k in range(100)]).tolist())
    store = Store(workdir.tokens)
    tokens = [store.size(name, "train").tokens for name in names]
    weights = [1.0, *(3.0 * t / sum(tokens[1:]) for t in tokens[1:])]
    for number, weight in enumerate(weights):
        assert abs(rows[number] - weight / 4 * 800) <= 1
    for name in names:
        assert sum(1 for _ in validation_batches(config, workdir, name, 4))


value = st.sampled_from(["a", "B-2", "x.y", "7", "07", 7, 12])
documents = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=4),
    st.fixed_dictionaries(
        {"score": st.floats(-2, 5) | st.integers(-2, 5)}, optional={"language": value}
    ),
    min_size=2, max_size=40,
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(
    fields=documents,
    sort_by=st.sampled_from([None, "length", "score"]),
    per_shard=st.integers(1, 9),
)
def test_all_documents_are_there_in_their_place_and_order(
    tmp_path_factory: pytest.TempPathFactory,
    fields: dict[str, dict[str, Any]],
    sort_by: str | None,
    per_shard: int,
) -> None:
    splits = (LANGUAGE.model_copy(update={"missing": "none"}), QUALITY)
    config = config_of(*splits, sort_by=sort_by)
    workdir = made(tmp_path_factory.mktemp("run"), config, fields, per_shard)
    order, seen = list(fields), list[str]()
    for name, stream in Store(workdir.tokens).streams(["web"]).items():
        both = 0
        for split in SPLITS:
            texts = texts_of(workdir, name, split)
            found = [text.split()[0] for text in texts]
            both += len(found)
            for i in found:
                assert str(fields[i].get("language", "none")) == stream.tags["language"]
                assert bisect_right((1.5, 3.0), fields[i]["score"]) == int(stream.tags["score"])
            keys = {
                None: lambda text: 0, "length": len,
                "score": lambda text: float(fields[text.split()[0]]["score"]),
            }  # fmt: skip
            key = keys[sort_by]
            assert texts == sorted(texts, key=lambda t: (key(t), order.index(t.split()[0])))
            seen += found
        assert stream.valid.documents == (max(round(0.2 * both), 1) if both > 1 else 0)
    assert sorted(seen) == sorted(fields)
    manifest = Store(workdir.tokens).manifest
    held = [s.train.documents + s.valid.documents for s in manifest.sources.values()]
    assert manifest.corpus["web"].documents == sum(held) == len(fields)


@pytest.mark.parametrize(
    ("bad", "data", "message"),
    [
        ({}, {}, "web-00001.jsonl.zst:3: document 'bad' has no language"),
        ({"language": "../x"}, {}, "document 'bad' has language '../x', which cannot name"),
        ({"language": True}, {}, "cannot name"),
        ({"language": "x" * 33}, {}, "cannot name"),
        ({"language": "de", "score": "high"}, {"sort_by": "score"}, "'high', not a number"),
        ({"language": "de", "score": 10**400}, {"sort_by": "score"}, "not a number"),
        ({"language": "de"}, {"sort_by": "score"}, "'bad' has score None, not a number"),
        ({"language": "de"}, {"split_by": [QUALITY]}, "not a number|has no score"),
    ],
)
def test_a_document_that_fits_nowhere_is_named(
    tmp_path: Path, bad: dict[str, Any], data: dict[str, Any], message: str
) -> None:
    config = config_of(LANGUAGE)
    config = config.model_copy(update={"data": config.data.model_copy(update=data)})
    with pytest.raises(UserError, match=message):
        made(tmp_path, config, {**fields_of(9), "bad": bad})


def test_too_many_streams_and_none_to_train_on(tmp_path: Path) -> None:
    fields = {f"d{i}": {"language": str(i)} for i in range(65)}
    with pytest.raises(UserError, match="more than 64 streams"):
        made(tmp_path / "a", config_of(LANGUAGE), fields)
    fields = {f"d{i}": {"language": "de" if i < 2 else "en"} for i in range(10)}
    with pytest.raises(UserError, match="stream web@language=de: no document is left to train on"):
        made(tmp_path / "b", config_of(LANGUAGE, validation_fraction=0.8), fields)


def test_a_store_that_is_parted_or_sorted_otherwise_is_refused(tmp_path: Path) -> None:
    workdir = made(tmp_path, config_of(LANGUAGE), fields_of(60))
    for other in (config_of(), config_of(QUALITY), config_of(LANGUAGE, sort_by="length")):
        with pytest.raises(UserError, match="run `jaxlm tokenize` again"):
            open_loader(other, workdir)
    open_loader(config_of(LANGUAGE), workdir)


def test_stores_of_earlier_versions(tmp_path: Path) -> None:
    workdir = made(tmp_path, config_of(), fields_of(60))
    path = workdir.tokens / "manifest.json"
    manifest = json.loads(path.read_text())
    for key in ("split_by", "sort_by", "corpus"):
        del manifest[key]
    for stream in manifest["sources"].values():
        del stream["source"], stream["tags"]
    path.write_text(json.dumps(manifest))
    assert Store(workdir.tokens).streams(["web"])["web"].source == "web"
    assert open_loader(config_of(), workdir).names == ["web"]
    with pytest.raises(UserError, match=r"has no source books \(it has web\)"):
        Store(workdir.tokens).streams(["books"])


def test_keys_that_cannot_be() -> None:
    for bad in (
        {"field": "text"}, {"field": "a/b"}, {"field": "x", "edges": (2.0, 1.0)},
        {"field": "x", "missing": "a/b"}, {"field": "x", "edges": ()},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="validation error"):
            SplitBy.model_validate(bad)
