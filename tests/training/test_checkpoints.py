"""Checksums, and what becomes of a checkpoint that is damaged in any of its files."""

import random
import resource
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.errors import UserError
from jaxlm.parallel import make_mesh
from jaxlm.training.checkpoints import (
    DamagedError,
    checkpoints_in,
    checksums,
    first_whole,
    named,
    read_arrays,
    read_facts,
)
from jaxlm.training.state import shapes_of_state
from jaxlm.workdir import Workdir
from tests.training.runs import (
    arrays_of,
    config_of,
    copy_of,
    ended,
    figures,
    same_bits,
    start,
    train_here,
    write_config,
)

type Damage = Callable[[Path], object]


def by_hand(array: np.ndarray) -> int:
    bits = array.reshape(-1).view({4: np.uint32, 2: np.uint16, 1: np.uint8}[array.itemsize])
    return sum(int(b) * (2 * i + 1) for i, b in enumerate(bits)) % 2**32


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["float32", "int32", "bfloat16", "uint8"]))
def test_a_checksum_sees_every_flipped_bit(seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 256, 6 * 8 * jnp.dtype(dtype).itemsize, np.uint8)
    whole = array.view(jnp.dtype(dtype)).reshape(6, 8)
    assert checksums({"a": jnp.asarray(whole)}) == {"a": by_hand(whole)}
    array[rng.integers(array.size)] ^= np.uint8(1 << rng.integers(8))
    assert by_hand(whole) != checksums({"a": jnp.asarray(array.view(whole.dtype))})["a"] or (
        whole.tobytes() == array.tobytes()
    )


def test_a_checksum_sees_a_flip_in_a_large_array_and_does_not_depend_on_the_mesh() -> None:
    array = np.random.default_rng(0).normal(size=(4096, 512)).astype(np.float32)
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        split = jax.device_put(array, jax.NamedSharding(mesh, jax.P("x", "y")))
        sharded = checksums({"a": split})
    assert sharded == checksums({"a": jnp.asarray(array)})
    for place in (0, 1_000_003, array.size - 1):
        flipped = array.copy()
        flipped.reshape(-1).view(np.uint32)[place] ^= 1
        assert checksums({"a": jnp.asarray(flipped)}) != sharded
    swapped = array.copy()
    swapped[[7, 9]] = swapped[[9, 7]]
    assert checksums({"a": jnp.asarray(swapped)}) != sharded


def flip(path: Path, place: float, bit: int) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[min(int(place * len(data)), len(data) - 1)] ^= 1 << bit
        path.write_bytes(data)


def truncate(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


DAMAGES: list[Damage] = [
    *(partial(flip, place=place, bit=bit) for place, bit in ((0.3, 7), (1, 5))),
    partial(truncate, share=0.0),
    partial(truncate, share=0.5),
    Path.unlink,
]


@pytest.mark.filterwarnings("ignore")  # what Orbax leaves to the garbage collector
def test_damage_in_any_file_is_seen_or_harmless(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is damaged, what is read are the bits that were written, of this checkpoint or of
    the one before; and each file that holds arrays or metadata is needed."""
    config = config_of(trained)
    folder = Workdir(config.workdir).checkpoints
    with jax.set_mesh(make_mesh(config)):
        shapes = shapes_of_state(config)

        def read(path: Path) -> tuple[str, dict[str, bytes]]:
            trees = read_arrays(
                path, read_facts(path), params=shapes.params, optimizer=shapes.optimizer
            )
            return path.name, {
                f"{tree}.{name}": np.asarray(array).tobytes()
                for tree, arrays in trees.items()
                for name, array in named(arrays).items()
            }

        right = dict(read(path) for path in checkpoints_in(folder))
        assert list(right) == ["12", "8", "4"]
        files = [p.relative_to(folder / "12") for p in (folder / "12").rglob("*") if p.is_file()]
        rng = random.Random(0)
        seen: dict[str, int] = {}
        for file in files:
            large = "process_0/d/" in str(file)
            extra = [
                partial(flip, place=rng.random(), bit=rng.randrange(8)) for _ in range(6 * large)
            ]
            for damage in DAMAGES + extra:
                broken = tmp_path / "broken"
                shutil.copytree(folder / "12", broken / "12")
                damage(broken / "12" / file)
                (name, arrays), damaged = first_whole([broken / "12", folder / "8"], read)
                assert arrays == right[name]
                assert (name == "8") == bool(damaged)
                told = capsys.readouterr().err
                assert told.count("\n") == len(damaged)
                if damaged:
                    assert told.startswith(f"jaxlm: {broken / '12'}")
                    assert told.endswith(f"; {folder / '8'} is used\n")
                seen[str(file)] = seen.get(str(file), 0) + bool(damaged)
                shutil.rmtree(broken)
    assert seen["_CHECKPOINT_METADATA"] == len(DAMAGES)
    for tree in ("params", "optimizer"):
        count = {file: n for file, n in seen.items() if file.startswith(f"{tree}/")}
        assert count[f"{tree}/manifest.ocdbt"] == len(DAMAGES)
        indexes = [n for file, n in count.items() if file.startswith(f"{tree}/d/")]
        assert indexes == [len(DAMAGES)]
        flips = [n for file, n in count.items() if "process_0/d/" in file]
        # a flip in an index that the last one replaced changes nothing
        assert len(flips) == 1
        assert flips[0] >= len(DAMAGES) + 2


def test_all_damaged_is_one_error(copied: Path) -> None:
    config = config_of(copied, train={"steps": 13})
    folder = Workdir(config.workdir).checkpoints
    for path in checkpoints_in(folder):
        (path / "_CHECKPOINT_METADATA").write_bytes(b"")
    code, said = ended(start("train", write_config(config, copied), "--quiet"))
    *each, last = said.splitlines()
    assert code == 1
    for line, step in zip(each, (12, 8, 4), strict=True):
        assert line.startswith(f"jaxlm: {folder}/{step}/_CHECKPOINT_METADATA: cannot be read")
    assert last == (
        f"jaxlm: {folder}: no whole checkpoint is left; restore one, or move it away to start "
        "afresh"
    )
    assert len(checkpoints_in(folder)) == 3, "nothing is lost"


def test_a_damaged_checkpoint_is_set_aside_and_made_again(
    trained: Path, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(copied, checkpoint={"every": 4, "keep": 2})
    folder = Workdir(config.workdir).checkpoints
    data = max((folder / "12/optimizer").rglob("*"), key=lambda path: path.stat().st_size)
    flip(data, 0.5, 2)
    (folder / "16.orbax-checkpoint-tmp/params").mkdir(parents=True)
    train_here(config)
    assert capsys.readouterr().err.startswith(f"jaxlm: {folder}/12: optimizer.")
    assert sorted(path.name for path in folder.iterdir()) == ["12", "12.damaged", "8"]
    assert figures(config) == figures(config_of(trained))
    assert same_bits(arrays_of(config, 12), arrays_of(config_of(trained), 12))


def test_a_full_disk_is_one_line_and_older_checkpoints_stay(copied: Path) -> None:
    config = config_of(copied, train={"steps": 20})
    before = arrays_of(config, 12)
    limit = 60_000  # bytes of any one file, which the arrays of a checkpoint exceed
    process = start("train", write_config(config, copied))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    code, said = ended(process)
    lines = [line for line in said.splitlines() if line.startswith("jaxlm: ")]
    assert code == 1
    assert len(lines) == 1, said
    assert "a checkpoint could not be written" in lines[0]
    assert "Traceback" not in said
    folder = Workdir(config.workdir).checkpoints
    assert [path.name for path in checkpoints_in(folder)] == ["12", "8", "4"]
    assert same_bits(arrays_of(config, 12), before)
    train_here(config)
    assert [path.name for path in checkpoints_in(folder)] == ["20", "16", "12"]


def test_checkpoints_at_multiples_stay(fresh: Path) -> None:
    train_here(config_of(fresh, checkpoint={"every": 2, "keep": 1, "keep_every": 4}))
    folder = Workdir(config_of(fresh).workdir).checkpoints
    assert [path.name for path in checkpoints_in(folder)] == ["12", "8", "4"]


def test_reading_leaves_a_save_under_way_alone(copied: Path) -> None:
    folder = Workdir(config_of(copied).workdir).checkpoints
    under_way = folder / "16.orbax-checkpoint-tmp"
    under_way.mkdir()
    arrays_of(config_of(copied), 12)
    assert under_way.is_dir()


def test_a_copied_folder_under_another_number_is_no_checkpoint(copied: Path) -> None:
    folder = Workdir(config_of(copied).workdir).checkpoints
    copy_of(folder / "8", folder / "99")
    with pytest.raises(DamagedError, match="99/_CHECKPOINT_METADATA: has changed"):
        read_facts(folder / "99")


def test_another_format_is_refused(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxlm.training.checkpoints.FORMAT", 2)
    with pytest.raises(UserError, match="made by another version"):
        read_facts(Workdir(config_of(copied).workdir).checkpoints / "8")
