import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxlm.errors import UserError
from jaxlm.tokens.store import ArrayWriter, Store, TokenArray, checksums, context, kvstore_spec
from jaxlm.workdir import Workdir


@pytest.fixture
def copy(made: Workdir, tmp_path: Path) -> Path:
    """A store that a test may break."""
    return shutil.copytree(made.tokens, tmp_path / "tokens")


def shards(folder: Path) -> list[Path]:
    return sorted(
        (folder / "topics" / "train" / "tokens" / "c").iterdir(), key=lambda p: int(p.name)
    )


def read_all(folder: Path) -> None:
    store = Store(folder)
    array = store.tokens("topics", "train")
    array.read(0, array.length)


@pytest.mark.parametrize("address", ["{}/store", "file://{}/store", "memory://bucket/store"])
@pytest.mark.parametrize("dtype", ["uint16", "uint32", "int64"])
def test_written_items_are_read_back(address: str, dtype: str, tmp_path: Path) -> None:
    address, ctx = address.format(tmp_path), context()
    items = np.random.default_rng(0).integers(0, 60_000, 100_001).astype(dtype)
    writer = ArrayWriter(address, "s/train/tokens", dtype, 1 << 16, ctx)
    for part in np.split(items, [0, 1, 7, 30_000, 99_999]):
        writer.append(part)
    writer.close()
    array = TokenArray(address, "s/train/tokens", ctx)
    assert array.length == items.size
    assert array.dtype == dtype
    assert (array.read(0, items.size) == items).all()
    assert (array.read(32_767, 65_537) == items[32_767:65_537]).all()
    files = {file.path: file.size for file in checksums(address, "s/train/tokens", ctx)}
    assert len(files) == 1 + -(-items.nbytes // (1 << 16))
    assert items.nbytes <= sum(files.values()) < items.nbytes * 1.2 + 5000


def test_an_empty_array(tmp_path: Path) -> None:
    ArrayWriter(tmp_path, "x", "uint16", 1 << 16, context()).close()
    assert TokenArray(tmp_path, "x", context()).length == 0


def test_addresses() -> None:
    assert kvstore_spec("gs://b/some/path/") == {
        "driver": "gcs",
        "bucket": "b",
        "path": "some/path/",
    }
    assert kvstore_spec("s3://b") == {"driver": "s3", "bucket": "b", "path": ""}
    for bad in ("gs://", "ftp://x/y"):
        with pytest.raises(UserError, match=r"data\.store"):
            kvstore_spec(bad)


def test_every_flipped_bit_is_found(copy: Path) -> None:
    rng = np.random.default_rng(0)
    path = shards(copy)[1]
    good = path.read_bytes()
    for place in rng.integers(0, len(good), 20).tolist():
        bad = bytearray(good)
        bad[place] ^= 1 << (place % 8)
        path.write_bytes(bad)
        with pytest.raises(UserError, match=f"{path}: is damaged"):
            read_all(copy)
    path.write_bytes(good)
    read_all(copy)


def test_truncated_and_missing_shards_are_named_all_at_once(copy: Path) -> None:
    first, second = shards(copy)[:2]
    first.write_bytes(first.read_bytes()[:-1])
    second.unlink()
    with pytest.raises(UserError) as caught:
        Store(copy)
    assert len(caught.value.messages) == 2
    assert any(str(first) in m and "bytes" in m for m in caught.value.messages)
    assert any(str(second) in m and "missing" in m for m in caught.value.messages)


def test_a_shard_that_goes_while_a_run_reads(copy: Path) -> None:
    store = Store(copy)
    array = store.tokens("topics", "train")
    path = shards(copy)[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=str(path)):
        array.read(0, 100)


def test_changed_metadata_is_refused(copy: Path) -> None:
    path = copy / "topics" / "train" / "tokens" / "zarr.json"
    path.write_text(path.read_text().replace('"shape":[', '"shape":[1'))
    with pytest.raises(UserError, match=r"zarr\.json: has changed"):
        Store(copy)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"tokenizer_hash": 3}'])
def test_a_broken_manifest_is_refused(copy: Path, content: str) -> None:
    (copy / "manifest.json").write_text(content)
    with pytest.raises(UserError, match="not a manifest"):
        Store(copy)


def test_unknown_sources_and_missing_stores(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no stream other"):
        Store(copy).tokens("other", "train")
    with pytest.raises(UserError, match="jaxlm tokenize"):
        Store(tmp_path / "nothing")


def test_the_manifest_counts(made: Workdir) -> None:
    manifest = json.loads((made.tokens / "manifest.json").read_text())
    store = Store(made.tokens)
    for source in ("topics", "code"):
        for split in ("train", "valid"):
            size = manifest["sources"][source][split]
            offsets = store.offsets(source, split)
            assert offsets.length == size["documents"] + 1
            assert offsets.read(0, 1).tolist() == [0]
            assert offsets.read(offsets.length - 1, offsets.length).tolist() == [size["tokens"]]
