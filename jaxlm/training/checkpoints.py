"""Recovery checkpoints: written while training goes on, checked when they are read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from jaxlm.config import Config
from jaxlm.errors import UserError
from jaxlm.training.state import State

FORMAT = 1

# A run goes on from a checkpoint only when these agree: else its examples or arrays would differ.
SAME = ("seed", "sources", "tokenizer", "data", "objective", "model")


class Checkpoints:
    """The checkpoints/ folder of a run. Each is a folder STEP that describes itself.

    Arrays lie under their dotted names, without regard to the mesh. The metadata holds the config,
    the tokenizer's hash, the data position, and a checksum of every array that is computed on the
    devices before the save and again after a load.
    """

    def __init__(self, path: Path, keep: int = 3, keep_every: int | None = None) -> None:
        policies = ocp.training.preservation_policies
        keepers: list[Any] = [policies.LatestN(keep)]
        if keep_every:
            keepers.append(policies.EveryNSteps(keep_every))
        self.path = path
        self._orbax = ocp.training.Checkpointer(
            path.absolute(),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy(keepers),
            cleanup_tmp_directories=True,
        )
        self._saving: Any = None

    def save(self, step: int, state: State, facts: dict[str, Any]) -> None:
        """Begin to write the state after `step` steps; returns when the arrays are copied.

        facts: what else a restart or a reader needs, as JSON.
        """
        self.wait()
        trees = {"params": named(state.params), "optimizer": named(state.optimizer)}
        sums = {name: checksums(tree) for name, tree in trees.items()}
        metadata = {"format": FORMAT, "step": step, **facts, "checksums": sums}
        self._saving = self._orbax.save_checkpointables_async(
            step, trees, force=True, overwrite=True, custom_metadata=metadata
        )

    def wait(self) -> None:
        """Return when the last save is on disk. Raises UserError when it could not be written."""
        saving, self._saving = self._saving, None
        if saving is not None:
            try:
                saving.result()
            except Exception as error:
                raise UserError(
                    f"{self.path}: the checkpoint could not be written: {_first_line(error)}; "
                    "earlier checkpoints are untouched"
                ) from error

    def close(self) -> None:
        self.wait()
        self._orbax.close()

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, newest first."""
        return sorted((entry.step for entry in self._orbax.checkpoints), reverse=True)

    def facts(self, step: int) -> dict[str, Any]:
        """Metadata of a checkpoint. Raises UserError when it cannot be read."""
        where = self.path / str(step)
        try:
            metadata = self._orbax.checkpointables_metadata(step).custom_metadata
        except Exception as error:
            raise UserError(f"{where}: not a readable checkpoint: {_first_line(error)}") from error
        if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
            raise UserError(f"{where}: not a checkpoint of this version of jaxlm")
        return metadata

    def load(self, step: int, **templates: Any) -> dict[str, Any]:
        """Trees of a checkpoint (params=..., optimizer=...), on the devices of the templates.

        Raises UserError when something cannot be read or does not agree with its checksum.
        """
        where = self.path / str(step)
        sums = self.facts(step)["checksums"]
        shapes = {
            name: {
                key: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding)
                for key, a in named(tree).items()
            }
            for name, tree in templates.items()
        }
        try:
            loaded = self._orbax.load_checkpointables(step, shapes)
        except Exception as error:
            raise UserError(f"{where}: cannot be read: {_first_line(error)}") from error
        wrong = [
            f"{name}.{key}"
            for name, tree in loaded.items()
            for key, value in checksums(tree).items()
            if sums[name].get(key) != value
        ]
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise UserError(f"{where}: {wrong[0]}{more} does not agree with its checksum")
        return {
            name: jax.tree.unflatten(
                jax.tree.structure(tree), [loaded[name][key] for key in named(tree)]
            )
            for name, tree in templates.items()
        }

    def resume(
        self, config: Config, tokenizer_hash: str, state: State, say: Callable[[str], None]
    ) -> tuple[int, State, dict[str, Any]] | None:
        """Step, state and facts of the newest good checkpoint; None when there is none at all.

        A damaged checkpoint is told of and passed over. Raises UserError when all are damaged, or
        when the newest readable one belongs to another config.
        """
        steps = self.steps()
        for step in steps:
            try:
                facts = self.facts(step)
                refuse_other_run(facts, config, tokenizer_hash, self.path / str(step))
                trees = self.load(step, params=state.params, optimizer=state.optimizer)
            except OtherRunError:
                raise
            except UserError as error:
                say(f"{error}; the checkpoint before it is used")
                continue
            return step, State(**trees), facts
        if steps:
            raise UserError(
                f"{self.path}: none of {len(steps)} checkpoints can be read; restore one, or move "
                "the folder away to start afresh"
            )
        return None


class OtherRunError(UserError):
    """A checkpoint that belongs to another run."""


def refuse_other_run(
    facts: dict[str, Any], config: Config, tokenizer_hash: str, where: Path
) -> None:
    """Raise OtherRunError, naming every key, when the checkpoint's run saw or built other things."""
    now = json.loads(config.model_dump_json())
    then = facts["config"]
    keys = [(name,) for name in SAME] + [("optimizer", "kind"), ("train", "batch_size")]
    different = [
        f"{where}: {key} was {_short(was)} and is {_short(new)}"
        for path in keys
        for key, was, new in _differences(".".join(path), _at(then, path), _at(now, path))
    ]
    if facts["tokenizer_hash"] != tokenizer_hash:
        different.append(f"{where}: it was trained with another tokenizer")
    if different:
        raise OtherRunError(
            [*different, "change the config back, or choose another workdir for the new run"]
        )


def named(tree: Any) -> dict[str, jax.Array]:
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
    return {name: int(value) for name, value in _checksums(arrays).items()}


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


def _differences(key: str, was: Any, new: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(was, dict) and isinstance(new, dict):
        return [
            found
            for name in sorted({*was, *new})
            for found in _differences(f"{key}.{name}", was.get(name), new.get(name))
        ]
    if isinstance(was, list) and isinstance(new, list) and len(was) == len(new):
        return [
            found
            for index, pair in enumerate(zip(was, new, strict=True))
            for found in _differences(f"{key}.{index}", *pair)
        ]
    return [] if was == new else [(key, was, new)]


def _at(data: dict[str, Any], path: tuple[str, ...]) -> Any:
    for name in path:
        data = data.get(name, {})
    return data


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
