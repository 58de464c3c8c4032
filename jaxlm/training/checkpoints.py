"""Recovery checkpoints: written while training goes on, checked when they are read."""

import hashlib
import json
import logging
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import tensorstore as ts
from orbax.checkpoint import v1 as ocp

from jaxlm.errors import UserError
from jaxlm.models import Transformer
from jaxlm.parallel.processes import first_does, is_first, largest, several
from jaxlm.training.same_run import refuse_other_run
from jaxlm.training.state import State
from jaxlm.workdir import Workdir

FORMAT = 1
METADATA = "_CHECKPOINT_METADATA"  # where Orbax puts what it is given
LARGEST_METADATA = 1 << 28

# What Orbax logs of a failure it also raises, and a user is told in one line. It leaves tasks that
# failed, or were not begun, to the garbage collector, which would tell of them as well.
for _name in ("absl", "asyncio"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", message="coroutine '.*' was never awaited")


class DamagedError(UserError):
    """A checkpoint that cannot be read or is not what was written; an older one may do."""


class Checkpoints:
    """Writes the checkpoints/ folder of a run; each is a folder STEP that describes itself.

    Arrays lie under their dotted names, without regard to the mesh. The metadata holds the config,
    the tokenizer's hash, the data position, and the shape, type and checksum of every array.
    Opening removes what a killed save left behind: readers use the functions below.
    """

    def __init__(self, path: Path, keep: int = 3, keep_every: int | None = None) -> None:
        policies = ocp.training.preservation_policies
        keepers: list[Any] = [policies.LatestN(keep)]
        if keep_every:
            keepers.append(policies.EveryNSteps(keep_every))
        self.path = path
        self._orbax = ocp.training.Checkpointer(
            path.absolute(),
            preservation_policy=policies.AnyPreservationPolicy(keepers),
            cleanup_tmp_directories=True,
        )
        self._saving: Any = None

    def save(self, step: int, state: State, facts: dict[str, Any]) -> None:
        """Begin to write the state after `step` steps; returns when the arrays are copied.

        facts: what else a restart or a reader needs, as JSON. Raises UserError when this save or
        the one before cannot be written.
        """
        self.wait()
        trees = {"params": named(state.params), "optimizer": named(state.optimizer)}
        arrays = {name: _described(tree) for name, tree in trees.items()}
        metadata = {"format": FORMAT, "step": step, **facts, "arrays": arrays}
        try:
            self._saving = self._orbax.save_checkpointables_async(
                step, trees, force=True, custom_metadata={**metadata, "digest": _digest(metadata)}
            )
        except Exception as error:
            raise self._unwritten(error) from error

    def wait(self) -> None:
        """Return when the last save is on disk. Raises UserError when it could not be written."""
        saving, self._saving = self._saving, None
        if saving is not None:
            try:
                saving.result()
            except Exception as error:
                raise self._unwritten(error) from error

    def _unwritten(self, error: Exception) -> UserError:
        return UserError(
            f"{self.path}: a checkpoint could not be written ({_first_line(error)}); earlier ones "
            "are untouched: mend this, and the same command goes on from there"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the last save; what it raises gives way to an error that ended the run."""
        try:
            self.wait()
            self._orbax.close()
        except Exception:
            if error is None:
                raise


def find_checkpoints(path: Path) -> tuple[Workdir, list[Path]]:
    """The run at `path`, a run's folder or its checkpoints/STEP, and the checkpoints that are
    meant, newest first: all of the run, or the one. Raises UserError when there is none.
    """
    chosen = path.name.isdigit() and path.parent.name == "checkpoints"
    workdir = Workdir(path.parent.parent if chosen else path)
    found = checkpoints_in(workdir.checkpoints)
    if not found:
        raise UserError(
            f"{path}: no checkpoints here; give a run's folder or RUN/checkpoints/STEP, or make "
            "one with: jaxlm train CONFIG"
        )
    if not chosen:
        return workdir, found
    if not path.is_dir():
        known = ", ".join(checkpoint.name for checkpoint in found)
        raise UserError(f"{path}: no such checkpoint; steps found: {known}")
    return workdir, [path]


def checkpoints_in(folder: Path) -> list[Path]:
    """The finished checkpoints of a run, newest first."""
    found = [path for path in folder.glob("*") if path.name.isdigit() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def read_facts(path: Path) -> dict[str, Any]:
    """Metadata of a checkpoint. Raises DamagedError when it is not what was written."""
    file = path / METADATA
    try:
        if file.stat().st_size > LARGEST_METADATA:
            raise DamagedError(f"{file}: larger than metadata can be")
        facts = json.loads(file.read_bytes())["custom_metadata"]
        digest = facts.pop("digest")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedError(f"{file}: cannot be read ({_first_line(error)})") from error
    if digest != _digest(facts) or facts["step"] != int(path.name):
        raise DamagedError(f"{file}: has changed since it was written")
    if facts["format"] != FORMAT:
        raise UserError(f"{path}: made by another version of jaxlm, whose format is not read")
    return facts


SAME_RUN = "change the model and optimizer back, or choose another workdir for the new run"


def read_arrays(
    path: Path, facts: dict[str, Any], advice: str = SAME_RUN, **templates: Any
) -> dict[str, Any]:
    """Trees of a checkpoint (params=..., optimizer=...), on the devices of the templates.

    templates: trees of jax.ShapeDtypeStruct with shardings. Raises DamagedError when something
    cannot be read or does not agree with its checksum, UserError when there are other arrays in it
    (advice: what to do then).
    """
    wanted = {name: named(tree) for name, tree in templates.items()}
    for name, tree in wanted.items():
        _refuse_other_arrays(path, name, facts["arrays"][name], tree, advice)
    damaged: DamagedError | None = None
    try:
        for name in wanted:
            _read_index(path / name)
        with _context():
            loaded = ocp.load_checkpointables(path.absolute(), wanted)
    except Exception as error:
        damaged = DamagedError(f"{path}: cannot be read ({_first_line(error)})")
        damaged.__cause__ = error
    # each process reads its own part, and all are to go on or to look at an older one
    if several() and int(largest(damaged is not None)) and damaged is None:
        damaged = DamagedError(f"{path}: cannot be read by another process; see the other logs")
    if damaged is not None:
        raise damaged
    wrong = [
        f"{name}.{key}"
        for name in wanted
        for key, value in checksums(loaded[name]).items()
        if facts["arrays"][name][key]["checksum"] != value
    ]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise DamagedError(f"{path}: {wrong[0]}{more} does not agree with its checksum")
    return {
        name: jax.tree.unflatten(jax.tree.structure(tree), [loaded[name][k] for k in wanted[name]])
        for name, tree in templates.items()
    }


def _context() -> ocp.Context:
    """Of the processes whose devices are in the mesh that is set; Orbax waits for no others."""
    active = {device.process_index for device in jax.sharding.get_mesh().devices.flat}
    return ocp.Context(
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=min(active),
            active_processes=active if len(active) < jax.process_count() else None,
        )
    )


def first_whole[T](paths: list[Path], read: Callable[[Path], T]) -> tuple[T, list[Path]]:
    """What `read` makes of the first checkpoint that is whole, and the damaged ones before it.

    Those are told of on stderr, quiet or not. Raises UserError when all are damaged.
    """
    problems: list[str] = []
    for index, path in enumerate(paths):
        try:
            result = read(path)
        except DamagedError as error:
            problems += error.messages
            continue
        for problem in problems if is_first() else ():
            print(f"jaxlm: {problem}; {path} is used", file=sys.stderr)
        return result, paths[:index]
    advice = "no whole checkpoint is left; restore one, or move it away to start afresh"
    raise UserError([*problems, f"{paths[0].parent}: {advice}"])


def resume(
    paths: list[Path], run: dict[str, Any], template: State
) -> tuple[Path, State, dict[str, Any]]:
    """The newest whole checkpoint of `paths` with its state and facts.

    Damaged ones are told of and set aside as STEP.damaged, so that they count as kept no longer.
    Raises UserError when all are damaged, or when the newest readable one belongs to another run.
    """

    def read(path: Path) -> tuple[Path, State, dict[str, Any]]:
        facts = read_facts(path)
        refuse_other_run(facts, run, path)
        trees = read_arrays(path, facts, params=template.params, optimizer=template.optimizer)
        return path, State(**trees), facts

    found, damaged = first_whole(paths, read)

    def set_aside() -> None:
        for path in damaged:
            aside = path.with_name(f"{path.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)

    first_does("set damaged checkpoints aside", set_aside)
    return found


def start_from(
    path: str | Path, tokenizer_hash: str, template: Transformer
) -> tuple[Path, Transformer]:
    """The parameters of another run for a new one to start from, and which checkpoint has them.

    path: a run's folder (its newest whole checkpoint) or RUN/checkpoints/STEP; template: shapes
    with shardings. Raises UserError when there is none, its tokenizer is another one, or it holds
    other arrays.
    """

    def read(checkpoint: Path) -> tuple[Path, Transformer]:
        facts = read_facts(checkpoint)
        if facts["tokenizer_hash"] != tokenizer_hash:
            raise UserError(
                f"train.from_checkpoint: {checkpoint} was trained with another tokenizer; give its "
                "tokenizer.model as tokenizer.path and tokenize anew, or start from another run"
            )
        advice = "give `model` the keys that it was trained with, or start from another run"
        return checkpoint, read_arrays(checkpoint, facts, advice, params=template)["params"]

    _, found = find_checkpoints(Path(path))
    started, _ = first_whole(found, read)
    return started


def named(tree: Any) -> dict[str, Any]:
    """Arrays of a pytree under dotted names such as `blocks.attention.qkv`, in the tree's order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value"): leaf
        for path, leaf in leaves
    }


def checksums(arrays: dict[str, jax.Array]) -> dict[str, int]:
    """A number below 2^32 for each array, computed where it lies, the same on every mesh.

    The sum modulo 2^32 of each element's bits times an odd number that depends on its index: one
    changed element always changes it, and so do two that change places unless their bits are equal
    or the odds are against it.
    """
    return {name: int(value) for name, value in jax.device_get(_checksums(arrays)).items()}


@jax.jit
def _checksums(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    def checksum(array: jax.Array) -> jax.Array:
        words = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[array.dtype.itemsize]
        bits = jax.lax.bitcast_convert_type(array, words).astype(jnp.uint32)
        index = jnp.zeros(bits.shape, jnp.uint32)
        for axis in range(bits.ndim):
            iota = jnp.arange(bits.shape[axis], dtype=jnp.uint32)
            index = index * jnp.uint32(bits.shape[axis]) + jnp.expand_dims(
                iota, tuple(a for a in range(bits.ndim) if a != axis)
            )
        return jnp.sum(bits * (2 * index + 1), dtype=jnp.uint32)

    return {name: checksum(array) for name, array in arrays.items()}


def _read_index(tree: Path) -> None:
    """Find a damaged index in one place; Orbax would find it in many tasks that all complain."""
    base = {"driver": "file", "path": f"{tree.absolute()}/"}
    if not ts.KvStore.open({"driver": "ocdbt", "base": base}).result().list().result():
        raise FileNotFoundError(f"{tree.name} has no index")


def _described(arrays: dict[str, jax.Array]) -> dict[str, dict[str, Any]]:
    sums = checksums(arrays)
    return {
        name: {"shape": list(a.shape), "dtype": a.dtype.name, "checksum": sums[name]}
        for name, a in arrays.items()
    }


def _refuse_other_arrays(
    path: Path, tree: str, saved: dict[str, Any], wanted: dict[str, Any], advice: str
) -> None:
    was = {name: (tuple(a["shape"]), a["dtype"]) for name, a in saved.items()}
    new = {name: (a.shape, a.dtype.name) for name, a in wanted.items()}
    names = sorted(name for name in {*was, *new} if was.get(name) != new.get(name))
    if names:
        first, more = names[0], f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise UserError(
            f"{path}: holds other arrays than this config asks for: {tree}.{first} "
            f"({_layout(was.get(first))} there, {_layout(new.get(first))} here){more}; {advice}"
        )


def _layout(array: tuple[tuple[int, ...], str] | None) -> str:
    """`258 x 32 float32`"""
    return f"{' x '.join(map(str, array[0]))} {array[1]}".strip() if array else "none"


def _digest(metadata: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()


def _first_line(error: BaseException) -> str:
    """Of the message of what was at the bottom of it."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
