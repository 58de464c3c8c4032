"""A small corpus of real text, its tokenizer and its token store."""

import hashlib
import json
import pydoc_data.topics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from jaxlm.config import Config
from jaxlm.config.corpus import Source
from jaxlm.config.data import Data
from jaxlm.config.tokens import Tokenizer
from jaxlm.config.train import Train
from jaxlm.tokens import tokenize, train_tokenizer
from jaxlm.workdir import Workdir

TOPICS = list(pydoc_data.topics.topics.items())
CODE = [
    (path.name, path.read_text("utf-8")) for path in sorted(Path(json.__file__).parent.glob("*.py"))
]
AWKWARD = [
    (
        "awkward",
        "a\u2581b\u2585\x00\ufeff\r\n\t\t  x  \n\n<s></s><0x0A><unk>\u2047 123 é😀\U0010ffff",
    ),
    ("spaces", "   \n  \t " * 50),
    ("empty", ""),
]


def write_corpus(
    folder: Path,
    sources: dict[str, list[tuple[str, str]]],
    per_shard: int = 50,
    fields: Callable[[str], dict[str, Any]] = lambda name: {},
) -> None:
    """What the corpus stage leaves: shards of documents and stats.json. fields: further fields of
    the document with this id."""
    (folder / "documents").mkdir(parents=True, exist_ok=True)
    shards = []
    for name, documents in sources.items():
        for number in range(-(-len(documents) // per_shard)):
            part = documents[number * per_shard : (number + 1) * per_shard]
            lines = (
                json.dumps({"id": i, "source": name, "text": text, **fields(i)}, ensure_ascii=False)
                + "\n"
                for i, text in part
            )
            path = folder / "documents" / f"{name}-{number:05d}.jsonl.zst"
            path.write_bytes(zstandard.compress("".join(lines).encode()))
            shards.append(
                {
                    "path": f"documents/{path.name}",
                    "documents": len(part),
                    "bytes": sum(len(text.encode()) for _, text in part),
                    "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                }
            )
    (folder / "stats.json").write_text(json.dumps({"sources": {}, "shards": shards}))


def make_config(names: Iterable[str] = ("topics", "code"), **sections: object) -> Config:
    """A config with sources of weights 1, 3, 5, ..."""
    values: dict[str, object] = {
        "tokenizer": Tokenizer(vocab_size=1024),
        "data": Data(seq_len=64, validation_fraction=0.1, shard_bytes=1 << 16),
        "train": Train(steps=1000),
        **sections,
    }
    sources = tuple(
        Source(name=name, path="unused", weight=2.0 * i + 1) for i, name in enumerate(names)
    )
    return Config.model_validate({"sources": sources, **values})


@pytest.fixture(scope="session")
def config() -> Config:
    """The config that the session's workdir was made with."""
    return make_config()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, config: Config) -> Workdir:
    """A workdir with corpus, tokenizer and tokens; not to be changed by a test."""
    workdir = Workdir(tmp_path_factory.mktemp("made"))
    write_corpus(workdir.corpus, {"topics": TOPICS + AWKWARD, "code": CODE})
    train_tokenizer(config, workdir)
    tokenize(config, workdir)
    return workdir
