"""Many small models of one size, each trained on a mixture of its own, at once on all devices.

An axis of models is in front of every array: parameters, optimizer state, batches. Devices share
it; on each, one program advances all of its models. What a model sees depends on its mixture and
seed alone, and it is never added up with another, so neither the devices nor the other models
change its losses by more than rounding.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType
from numpy.typing import NDArray

from jaxlm.config import Config
from jaxlm.config.load import validate
from jaxlm.config.optim import AdamW, Schedule
from jaxlm.errors import UsageError, UserError
from jaxlm.models import Transformer, parameter_count
from jaxlm.objectives import Batch
from jaxlm.tokens import open_loader, validation_batches
from jaxlm.tokens.shuffle import key_of
from jaxlm.training.batches import ahead
from jaxlm.training.loss import loss_sum
from jaxlm.training.state import State, optimizer_of, shapes_of_params
from jaxlm.training.step import make_update
from jaxlm.workdir import Progress, Workdir

# P models, S sources, B rows, T tokens

MODELS = jax.P("models")
ROWS = 64
"""Rows that are scored at once, at most."""
LONGEST_PIECE = 32
LARGEST_PIECE = 1 << 20
"""Steps and tokens of the batches that a device gets at once, for all its models."""


class Run(NamedTuple):
    """What tells one model of a size from another."""

    shares: tuple[float, ...]
    """Of each source, in the order of the loader; they add up to 1."""
    seed: int = 0
    """Of the initial weights and the order of the data; 0: that of the config."""


def proxy_config(config: Config, scale: float = 1.0) -> Config:
    """The config that a proxy is trained with: the run's, with the sizes and length of `mix`.

    scale: how many times more parameters than the proxy's it has, about: heads are added of the
    same width, and the MLP grows with d_model. Raises UsageError for a model that cannot be.
    """
    mix = config.mix
    if mix.model.d_model % mix.model.heads:
        raise UsageError(
            f"mix.model.d_model: {mix.model.d_model} is not a multiple of mix.model.heads "
            f"{mix.model.heads}"
        )
    smallest = _sized(config, mix.model.heads)
    if scale == 1.0:
        return smallest
    wanted = scale * parameter_count(smallest)
    heads = mix.model.heads
    while parameter_count(_sized(config, 2 * heads)) < wanted:
        heads *= 2
    around = range(heads, 2 * heads + 1)
    counts = {each: parameter_count(_sized(config, each)) for each in around}
    return _sized(config, min(around, key=lambda each: abs(counts[each] - wanted)))


def _sized(config: Config, heads: int) -> Config:
    """A proxy with so many heads of the width that `mix` says."""
    mix = config.mix
    wider = heads / mix.model.heads
    plain = json.loads(config.model_dump_json())
    rate = mix.learning_rate / wider
    schedule = Schedule(kind="cosine", warmup_steps=mix.steps // 10, floor=0.1)
    plain["model"] |= {
        "layers": mix.model.layers, "decoder_layers": None, "heads": heads, "kv_heads": None,
        "head_dim": None, "d_model": mix.model.d_model // mix.model.heads * heads,
        "d_mlp": round(mix.model.d_mlp * wider), "dropout": 0.0,
    }  # fmt: skip
    # each proxy has shares of its own; those of the run say only who takes part
    mixture = {"weights": plain["data"]["mixture"]["weights"]}
    plain["data"] |= {"seq_len": mix.seq_len, "curriculum": [], "mixture": mixture}
    plain["optimizer"] = json.loads(AdamW(learning_rate=rate, schedule=schedule).model_dump_json())
    plain["train"] |= {
        "steps": mix.steps, "tokens": None, "batch_size": mix.batch_size, "microbatch_size": None,
        "batch_ramp": None, "from_checkpoint": None, "remat": "none", "unroll_layers": True,
    }  # fmt: skip
    plain["mesh"] = {}
    try:
        return validate(plain)
    except UsageError as error:
        raise UsageError([f"mix: the proxy model cannot be: {m}" for m in error.messages]) from None


class Proxies:
    """Models of one size, and the data that they are trained and scored on."""

    def __init__(
        self, config: Config, workdir: Workdir, scored: Sequence[str], scale: float = 1.0
    ) -> None:
        """config: the run's. scored: sources whose validation loss is wanted.

        Raises UserError for sources that are too short, or without validation documents.
        """
        mix = config.mix
        self.scale, self.config = scale, proxy_config(config, scale)
        self.parameters = parameter_count(self.config)
        self._most = max(1, int(mix.at_once / scale))
        most = max(1, LARGEST_PIECE // (self._most * mix.batch_size * mix.seq_len))
        self._piece = max(
            n for n in range(1, min(LONGEST_PIECE, most, mix.steps) + 1) if mix.steps % n == 0
        )
        # a piece of the run is a batch of the loader: which examples it holds does not depend on
        # how they are cut into steps
        self.loader = open_loader(_with_batch(self.config, self._piece * mix.batch_size), workdir)
        devices = jax.local_devices()
        self._mesh = mesh_of(devices)
        self._vmap = devices[0].platform != "cpu" if mix.vmap is None else mix.vmap
        self.valid = {
            name: _validation(self.config, workdir, name, mix.validation_tokens) for name in scored
        }
        if empty := [name for name, batches in self.valid.items() if not batches]:
            raise UserError([
                f"source {name}: has no validation documents, so no mixture can be judged by it; "
                "raise data.validation_fraction, bring more text, or leave it out of mix.target"
                for name in empty
            ])  # fmt: skip
        with jax.set_mesh(self._mesh):
            optimizer = optimizer_of(self.config, shapes_of_params(self.config))
            update = make_update(self.config, optimizer)

            def begin(params: Transformer) -> State:
                return State(params, optimizer.init(params))

            def advance(state: State, batches: Batch[jax.Array]) -> tuple[State, jax.Array]:
                def step(state: State, batch: Batch[jax.Array]) -> tuple[State, jax.Array]:
                    state, figures = update(state, batch)
                    return state, figures["loss"]

                return jax.lax.scan(step, state, batches)

            self._fresh = jax.jit(partial(Transformer, self.config.model, self.config.vocab_size))
            self._begin = jax.jit(self._on_devices(begin))
            self._advance = jax.jit(self._on_devices(advance), donate_argnums=0)
            self._score = jax.jit(self._on_devices(partial(loss_sum, self.config), shared=1))

    def _on_devices(self, function: Callable[..., Any], shared: int = 0) -> Callable[..., Any]:
        """The function of one model for all of them; its last `shared` arguments are the same for
        all."""

        def on_one(*args: Any) -> Any:
            own, same = args[: len(args) - shared], args[len(args) - shared :]
            if self._vmap:
                return jax.vmap(lambda *each: function(*each, *same))(*own)
            return jax.lax.map(lambda each: function(*each, *same), own)

        def on_all(*args: Any) -> Any:
            specs = (*(MODELS,) * (len(args) - shared), *(jax.P(),) * shared)
            # nothing is sent between devices, and the model's scans do not say over which axes
            # they vary
            return jax.shard_map(on_one, in_specs=specs, out_specs=MODELS, check_vma=False)(*args)

        return on_all

    def groups(self, runs: Sequence[Run]) -> list[list[Run]]:
        """The runs in as many groups as it takes, of one size but for the last."""
        devices = self._mesh.size
        rounds = max(1, math.ceil(len(runs) / (devices * self._most)))
        size = devices * math.ceil(len(runs) / (devices * rounds))
        return [list(runs[first : first + size]) for first in range(0, len(runs), size)]

    def train(self, group: Sequence[Run], size: int, show: Progress) -> NDArray[np.float64]:
        """Validation losses of trained models by scored source, nats a target, float64 [runs, S].

        size: models of the program, at least; what is missing to it, or to a multiple of the
            devices, is trained in vain.
        Raises UserError for a loss that is not finite, and for too little memory.
        """
        try:
            return self._train(group, size, show)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise UserError(
                f"mix: {self._most} models of {self.parameters:,} parameters, each with "
                f"{self.config.train.batch_size} rows of {self.config.data.seq_len} tokens, do not "
                "fit into a device; lower mix.at_once, mix.batch_size or mix.seq_len"
            ) from None

    def _train(self, group: Sequence[Run], size: int, show: Progress) -> NDArray[np.float64]:
        devices = self._mesh.size
        size = -(-size // devices) * devices
        padded = [*group, *(group[0],) * (size - len(group))]
        loaders = [
            self.loader.with_weights(run.shares, seed=_data_seed(self.config.seed, run.seed))
            for run in padded
        ]
        with jax.set_mesh(self._mesh):
            split = jax.NamedSharding(self._mesh, MODELS)

            steps, rows = self._piece, self.config.train.batch_size

            def make(piece: int) -> Batch[jax.Array]:
                found = [loader.batch_at(piece) for loader in loaders]
                stacked = jax.tree.map(
                    lambda *arrays: np.stack(arrays).reshape(
                        len(loaders), steps, 1, rows, *arrays[0].shape[1:]
                    ),
                    *found,
                )
                return jax.device_put(stacked, split)

            state = self._begin(jax.device_put(self._weights([run.seed for run in padded]), split))
            for done, batches in enumerate(ahead(make, 0, self.config.steps // steps)):
                show("proxies", done * steps, self.config.steps, "steps")
                state, loss_Pn = self._advance(state, batches)
                loss_Pn.block_until_ready()
            losses_PS = np.stack(
                [self._loss(state.params, batches) for batches in self.valid.values()], axis=1
            )[: len(group)]
        if not np.isfinite(losses_PS).all():
            raise UserError(
                f"mix: a model of {self.parameters:,} parameters ended with a loss that is not "
                "finite; lower mix.learning_rate"
            )
        return losses_PS

    def _weights(self, seeds: Sequence[int]) -> Transformer:
        """Initial parameters of each model, with an axis of models in front, on the host."""
        fresh = {
            seed: jax.device_get(self._fresh(weights_key(self.config.seed, seed)))
            for seed in dict.fromkeys(seeds)
        }
        return jax.tree.map(lambda *arrays: np.stack(arrays), *(fresh[seed] for seed in seeds))

    def _loss(self, params: Transformer, batches: Sequence[Batch[Any]]) -> NDArray[np.float64]:
        nats_P = [self._score(params, batch) for batch in batches]
        targets = sum(float(batch.weights_BT.sum()) for batch in batches)
        return np.sum([np.asarray(n, np.float64) for n in nats_P], axis=0) / targets

    def identity(self, workdir: Workdir) -> str:
        """What losses of a run depend on besides the run, as a digest."""
        manifest = json.loads((workdir.tokens / "manifest.json").read_bytes())
        del manifest["address"]
        parts = [
            json.loads(self.config.model_dump_json(include={"seed", "model", "objective", "data",
                                                            "optimizer", "train"})),
            self.config.vocab_size, manifest, self.loader.names,
            {name: len(batches) for name, batches in self.valid.items()},
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _with_batch(config: Config, size: int) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"batch_size": size})})


def _validation(
    config: Config, workdir: Workdir, source: str, tokens: int
) -> list[Batch[NDArray[Any]]]:
    """The first validation tokens of a source, at most so many, in batches."""
    rows = max(1, tokens // config.data.seq_len)
    size = min(ROWS, rows)
    return list(islice(validation_batches(config, workdir, source, size), rows // size))


def mesh_of(devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
    """One axis, of models: none that a model could be split over."""
    return jax.sharding.Mesh(np.array(devices), ("models",), axis_types=(AxisType.Explicit,))


def _data_seed(seed: int, number: int) -> int:
    return seed if number == 0 else key_of(seed, "mix data", number)


def weights_key(seed: int, number: int) -> jax.Array:
    """The key of the initial weights of a run with this seed of the config and number."""
    # compiled in a fifth of the time that the default generator takes for every size of model
    own = seed if number == 0 else key_of(seed, "mix weights", number) >> 32
    return jax.random.key(own, impl="rbg")
