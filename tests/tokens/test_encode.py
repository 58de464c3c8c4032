import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import zstandard

from jaxlm.config import Config
from jaxlm.config.data import Data
from jaxlm.config.objective import FIM
from jaxlm.config.tokens import Tokenizer
from jaxlm.errors import UserError
from jaxlm.objectives.fim import fim_ids
from jaxlm.tokens import load_tokenizer, measure_tokenizer, tokenize, train_tokenizer
from jaxlm.tokens.store import SPLITS, Split, Store
from jaxlm.workdir import Workdir
from tests.tokens.conftest import AWKWARD, CODE, TOPICS, make_config, write_corpus


def documents(workdir: Workdir, source: str, split: Split) -> list[str]:
    """The texts of a store, each checked to lie between BOS and EOS."""
    store, tokenizer = Store(workdir.tokens), load_tokenizer(workdir.tokenizer)
    tokens, offsets = store.tokens(source, split), store.offsets(source, split)
    places = offsets.read(0, offsets.length).tolist()
    texts = []
    for start, end in itertools.pairwise(places):
        ids = tokens.read(start, end)
        assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
        texts.append(tokenizer.decode(ids[1:-1]))
    return texts


def with_tokenizer(made: Workdir, folder: Path) -> Workdir:
    shutil.copytree(made.tokenizer, folder / "tokenizer")
    return Workdir(folder)


def test_what_is_told_to_begin_is_told_to_end(tmp_path: Path) -> None:
    workdir, told = Workdir(tmp_path), dict[str, tuple[int, int | None]]()

    def progress(task: str, done: int, total: int | None, unit: str) -> None:
        told[task] = done, total

    write_corpus(workdir.corpus, {"topics": TOPICS[:40], "code": CODE})
    train_tokenizer(make_config(), workdir, progress)
    measure_tokenizer(make_config(), workdir, progress)
    tokenize(make_config(), workdir, progress)
    assert set(told) == {"sample text", "text to measure", "streams", "tokenize", "store"}
    assert all(done == total for done, total in told.values()), told


def test_every_document_is_there_once_and_exact(made: Workdir) -> None:
    for source, given in (("topics", TOPICS + AWKWARD), ("code", CODE)):
        train, valid = documents(made, source, "train"), documents(made, source, "valid")
        assert sorted(train + valid) == sorted(text for _, text in given)
        assert len(valid) == max(round(0.1 * len(given)), 1)
        order = [text for _, text in given]
        assert [text for text in order if text in set(train)] == train, "in the corpus's order"


def test_the_manifest_is_right(made: Workdir) -> None:
    manifest = json.loads((made.tokens / "manifest.json").read_text())
    assert manifest["tokenizer_hash"] == load_tokenizer(made.tokenizer).hash
    assert manifest["dtype"] == "uint16"
    for source in ("topics", "code"):
        for split in SPLITS:
            texts, size = documents(made, source, split), manifest["sources"][source][split]
            assert size["documents"] == len(texts)
            assert size["bytes"] == sum(len(text.encode()) for text in texts)


def test_workers_and_shards_make_no_difference(made: Workdir, tmp_path: Path) -> None:
    workdir = with_tokenizer(made, tmp_path)
    write_corpus(workdir.corpus, {"topics": TOPICS + AWKWARD, "code": CODE}, per_shard=9)
    tokenize(make_config(prepare={"workers": 3}), workdir)
    old, new = (json.loads((w.tokens / "manifest.json").read_text()) for w in (made, workdir))
    assert old.pop("corpus") != new.pop("corpus"), "it knows the shards of the corpus"
    assert old == new, "files with their checksums too"


def test_the_split_depends_on_the_seed_and_the_document(made: Workdir, tmp_path: Path) -> None:
    valid = documents(made, "topics", "valid")
    workdir = with_tokenizer(made, tmp_path)
    write_corpus(workdir.corpus, {"topics": (TOPICS + AWKWARD)[::-1], "code": CODE})
    tokenize(make_config(), workdir)
    assert sorted(documents(workdir, "topics", "valid")) == sorted(valid)
    tokenize(make_config(seed=1), workdir)
    assert sorted(documents(workdir, "topics", "valid")) != sorted(valid)


def test_many_documents_are_split_by_the_fraction(made: Workdir, tmp_path: Path) -> None:
    workdir = with_tokenizer(made, tmp_path)
    write_corpus(workdir.corpus, {"many": [(str(i), "word " * 5) for i in range(4000)]}, 4000)
    tokenize(make_config(["many"]), workdir)
    assert 340 < len(documents(workdir, "many", "valid")) < 460  # 400, three deviations of 19
    tokenize(make_config(["many"], data=Data(validation_bytes=500)), workdir)
    assert len(documents(workdir, "many", "valid")) == 4000 * 500 // 100_000
    tokenize(make_config(["many"], data=Data(validation_fraction=0.0)), workdir)
    assert len(documents(workdir, "many", "valid")) == 0


def test_small_sources(made: Workdir, tmp_path: Path) -> None:
    workdir = with_tokenizer(made, tmp_path)
    write_corpus(workdir.corpus, {"one": TOPICS[:1], "two": TOPICS[:2]})
    tokenize(make_config(["one", "two"]), workdir)
    assert [len(documents(workdir, "one", split)) for split in SPLITS] == [1, 0]
    assert [len(documents(workdir, "two", split)) for split in SPLITS] == [1, 1]


def test_what_cannot_be_tokenized(made: Workdir, tmp_path: Path) -> None:
    workdir = with_tokenizer(made, tmp_path)
    with pytest.raises(UserError, match="no corpus"):
        tokenize(make_config(), workdir)
    write_corpus(workdir.corpus, {"topics": TOPICS[:5]})
    with pytest.raises(UserError, match="no document of source code is left"):
        tokenize(make_config(), workdir)
    one = make_config(["topics"])
    tokenize(one, workdir)
    before = (workdir.tokens / "manifest.json").read_bytes()
    path = workdir.corpus / "documents" / "topics-00000.jsonl.zst"
    good = path.read_bytes()
    for bad in (good[:-5], good[:100] + b"\xff" + good[101:], b""):
        path.write_bytes(bad)
        with pytest.raises(UserError, match=f"{path}: is damaged"):
            tokenize(one, workdir)
    path.unlink()
    with pytest.raises(UserError, match=f"{path}: cannot be read"):
        tokenize(one, workdir)
    shutil.rmtree(workdir.tokenizer)
    with pytest.raises(UserError, match="no tokenizer"):
        tokenize(one, workdir)
    assert (workdir.tokens / "manifest.json").read_bytes() == before, "nothing was lost"


def test_a_line_that_is_no_document_is_named(made: Workdir, tmp_path: Path) -> None:
    workdir = with_tokenizer(made, tmp_path)
    write_corpus(workdir.corpus, {"topics": TOPICS[:3]})
    path = workdir.corpus / "documents" / "topics-00000.jsonl.zst"
    lines = zstandard.decompress(path.read_bytes()).splitlines(keepends=True)
    lines[1] = b'{"id": "x"}\n'
    path.write_bytes(zstandard.compress(b"".join(lines)))
    stats = json.loads((workdir.corpus / "stats.json").read_text())
    stats["shards"][0]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (workdir.corpus / "stats.json").write_text(json.dumps(stats))
    with pytest.raises(UserError, match=r"topics-00000\.jsonl\.zst:2: not a document"):
        tokenize(make_config(["topics"]), workdir)


def test_a_dtype_that_is_too_small_or_wide(made: Workdir, tmp_path: Path) -> None:
    workdir = with_tokenizer(made, tmp_path)
    write_corpus(workdir.corpus, {"topics": TOPICS[:5]})
    tokenize(make_config(["topics"], data=Data(dtype="uint32")), workdir)
    assert Store(workdir.tokens).tokens("topics", "train").dtype == np.uint32
    assert len(documents(workdir, "topics", "train")) == 4


def test_bytes_end_to_end_in_another_place(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path / "run")
    write_corpus(workdir.corpus, {"topics": TOPICS + AWKWARD})
    config: Config = make_config(
        ["topics"], tokenizer=Tokenizer(kind="byte"), data=Data(store=str(tmp_path / "elsewhere"))
    )
    train_tokenizer(config, workdir)
    tokenize(config, workdir)
    assert [p.name for p in workdir.tokens.iterdir()] == ["manifest.json"]
    texts = documents(workdir, "topics", "train") + documents(workdir, "topics", "valid")
    assert sorted(texts) == sorted(text for _, text in TOPICS + AWKWARD)


def test_workers_do_not_import_jax() -> None:
    code = "import sys, jaxlm.tokens, jaxlm.objectives; sys.exit('jax' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


@pytest.mark.parametrize("cut", ["character", "token"])
def test_documents_are_rearranged_before_packing(
    tmp_path: Path, cut: Literal["character", "token"]
) -> None:
    workdir = Workdir(tmp_path)
    write_corpus(workdir.corpus, {"code": CODE * 20})
    fim = FIM(level="document", rate=0.8, spm_rate=0.5, cut=cut)
    config = make_config(["code"], tokenizer=Tokenizer(vocab_size=600), objective=fim)
    train_tokenizer(config, workdir)
    tokenize(config, workdir)
    tokenizer, store = load_tokenizer(workdir.tokenizer), Store(workdir.tokens)
    before, behind, between = fim_ids(tokenizer)
    texts = {text for _, text in CODE}
    tokens, offsets = store.tokens("code", "train"), store.offsets("code", "train")
    cut_documents = 0
    places = offsets.read(0, offsets.length).tolist()
    for start, end in itertools.pairwise(places):
        ids = tokens.read(start, end).tolist()
        assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
        ids = ids[1:-1]
        if ids[0] != before:
            assert tokenizer.decode(ids) in texts
            continue
        cut_documents += 1
        a, b = ids.index(behind), ids.index(between)
        prefix, suffix, middle = (
            tokenizer.decode(part) for part in (ids[1:a], ids[a + 1 : b], ids[b + 1 :])
        )
        # of SPM the prefix is empty, and the middle has both
        assert prefix + middle + suffix in texts
    share = cut_documents / (len(places) - 1)
    assert abs(share - 0.8) < 4.5 * (0.16 / len(places)) ** 0.5
    # what is held apart is as it was written
    assert set(documents(workdir, "code", "valid")) <= texts
    size = store.size("code", "train")
    assert size.bytes == sum(len(text.encode()) for _, text in CODE * 20) - store.size(
        "code", "valid").bytes  # fmt: skip


def test_rearranging_needs_its_special_tokens(made: Workdir, tmp_path: Path) -> None:
    workdir = with_tokenizer(made, tmp_path)
    write_corpus(workdir.corpus, {"topics": TOPICS[:5]})
    with pytest.raises(UserError, match=f"{workdir.tokenizer} lacks special tokens .*<fim_prefix>"):
        tokenize(make_config(["topics"], objective=FIM(level="document")), workdir)
