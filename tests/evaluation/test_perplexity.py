"""Scores against sums made by hand on a small token store."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore as ts

from jaxlm.config import Config
from jaxlm.evaluation import evaluate
from jaxlm.objectives import Batch
from jaxlm.parallel import make_mesh
from jaxlm.tokens import load_tokenizer, tokenize, train_tokenizer
from jaxlm.training.state import make_state
from jaxlm.workdir import Workdir
from tests.models.small import logits_of
from tests.tokens.conftest import write_corpus
from tests.training.runs import config_of

# é and 漢 are 2 and 3 bytes, so 3 and 4 targets with the end of the document
TEXTS = {
    "words": [
        "the cat sat",
        "é",
        "漢",
        "",
        "a much longer text " * 20,
        *("abc" * n for n in range(9)),
    ],
    "more": ["short", "and another one that is somewhat longer", "x", "yy", "zzz"],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the documents of both sources are held apart."""
    folder = tmp_path_factory.mktemp("store")
    config = of(folder)
    workdir = Workdir(config.workdir)
    documents = {
        name: [(str(number), text) for number, text in enumerate(texts)]
        for name, texts in TEXTS.items()
    }
    write_corpus(workdir.corpus, documents)
    train_tokenizer(config, workdir)
    tokenize(config, workdir)
    return folder


def of(folder: Path, **sections: Any) -> Config:
    data = {"seq_len": 16, "validation_fraction": 0.5}
    return config_of(folder, **{"data": data} | sections)


def scores_of(
    config: Config, *, nothing_known: bool = False, batches: int | None = None
) -> dict[str, dict[str, float]]:
    workdir = Workdir(config.workdir)
    with jax.set_mesh(make_mesh(config)):
        params = make_state(config).params
        if nothing_known:
            params = jax.tree.map(jnp.zeros_like, params)
        tokenizer = load_tokenizer(workdir.tokenizer)
        return evaluate(config, workdir, params, tokenizer, batches=batches)


def held_apart(folder: Path, source: str) -> list[list[int]]:
    """Ids of the validation documents, as the store holds them."""
    path = Workdir(of(folder).workdir).tokens / source / "valid" / "tokens"
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}}
    ids = ts.open(spec, open=True).result().read().result().astype(int).tolist()
    tokenizer = load_tokenizer(Workdir(of(folder).workdir).tokenizer)
    starts = [i for i, token in enumerate(ids) if token == tokenizer.bos_id] + [len(ids)]
    return [ids[a:b] for a, b in pairwise(starts)]


def test_a_model_that_knows_nothing_pays_the_same_for_every_target(store: Path) -> None:
    """Zero parameters give 258 equal probabilities, so every score is a count."""
    scores = scores_of(of(store), nothing_known=True)
    assert list(scores) == ["words", "more", "all"]
    targets = size = 0
    for name in TEXTS:
        documents = held_apart(store, name)
        assert 0 < len(documents) < len(TEXTS[name])
        # every token but the first of a document is a target; all but the last are bytes of text
        tokens = sum(len(document) - 1 for document in documents)
        text = sum(len(document) - 2 for document in documents)
        assert scores[name]["tokens"] == tokens
        assert scores[name]["loss"] == pytest.approx(math.log(258), rel=1e-6)
        assert scores[name]["perplexity"] == pytest.approx(258, rel=1e-5)
        assert scores[name]["bits_per_byte"] == pytest.approx(tokens * math.log2(258) / text)
        targets, size = targets + tokens, size + text
    assert scores["all"]["tokens"] == targets
    assert scores["all"]["bits_per_byte"] == pytest.approx(targets * math.log2(258) / size)


def test_the_first_batches_alone_are_scored_where_that_is_asked_for(store: Path) -> None:
    ids = np.concatenate(held_apart(store, "words"))
    rows, bos = 8, load_tokenizer(Workdir(of(store).workdir).tokenizer).bos_id
    for batches in (1, 2):
        seen = ids[1 : batches * rows * 16 + 1]
        found = scores_of(of(store), batches=batches)["words"]["tokens"]
        assert found == np.count_nonzero(seen != bos)
    assert scores_of(of(store), batches=99) == scores_of(of(store))


def test_losses_are_those_of_the_logits(store: Path) -> None:
    config = of(store, model={"init_std": 0.3})
    scores = scores_of(config)
    with jax.set_mesh(make_mesh(of(store, mesh={"data": 1}), jax.devices()[:1])):
        params = make_state(config).params
        for name in TEXTS:
            # windows of 16 inputs at a stride of 16 over the documents end to end
            ids = np.concatenate(held_apart(store, name))
            nats = []
            for first in range(0, len(ids) - 1, 16):
                window = ids[first : first + 17]
                inputs, targets = window[:-1], window[1:]
                begins = inputs == 256
                segments = np.cumsum(begins) + (0 if begins[0] else 1)
                positions = np.arange(len(inputs))
                positions -= np.maximum.accumulate(np.where(begins, positions, 0))
                row = (inputs, targets, np.ones_like(inputs), segments, positions)
                batch = Batch(*(jnp.asarray(a, jnp.int32)[None] for a in row))
                log_p = jax.nn.log_softmax(logits_of(params, config, batch)[0])
                nats += [-float(log_p[t, y]) for t, y in enumerate(targets) if y != 256]
            assert scores[name]["tokens"] == len(nats)
            assert scores[name]["loss"] == pytest.approx(np.mean(nats), rel=1e-5)


def test_the_batch_does_not_matter(store: Path) -> None:
    wanted = scores_of(of(store))
    for size, mesh in (
        (8, {"data": 2, "fsdp": 2, "tensor": 2}),
        (64, {"data": -1}),
        (12, {"data": 2, "tensor": 2, "fsdp": 2}),
    ):
        found = scores_of(of(store, eval={"batch_size": size}, mesh=mesh))
        assert [s["tokens"] for s in found.values()] == [s["tokens"] for s in wanted.values()]
        for name in wanted:
            assert found[name]["loss"] == pytest.approx(wanted[name]["loss"], rel=1e-5)


def test_a_source_without_validation_documents_has_no_score(store: Path, tmp_path: Path) -> None:
    config = of(tmp_path)
    workdir = Workdir(config.workdir)
    write_corpus(workdir.corpus, {"words": [("a", TEXTS["words"][4])], "more": [("b", "x" * 40)]})
    train_tokenizer(config, workdir)
    tokenize(config, workdir)
    held = [name for name in TEXTS if held_apart(tmp_path, name)]
    assert len(held) < 2, "one document cannot be both trained and evaluated on"
    assert list(scores_of(config)) == [*held, "all"] * bool(held)
