"""A trained model found on disk: by its run's folder or by one checkpoint."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from jaxlm.config import Config
from jaxlm.config.load import override, validate
from jaxlm.config.stages import config_at
from jaxlm.errors import UserError
from jaxlm.models import Transformer
from jaxlm.parallel import make_mesh
from jaxlm.parallel.processes import first_does
from jaxlm.tokens import Tokenizer, load_tokenizer
from jaxlm.training.checkpoints import find_checkpoints, first_whole, read_arrays, read_facts
from jaxlm.training.state import shapes_of_params
from jaxlm.workdir import Workdir


class Trained(NamedTuple):
    """Parameters on a mesh of this machine's devices, with all that is needed to use them."""

    config: Config
    workdir: Workdir
    tokenizer: Tokenizer
    mesh: Mesh
    params: Transformer
    step: int


HOW_TO_ATTEND = (
    "model.position", "model.attention.window", "model.attention.sinks",
    "model.attention.global_every", "model.attention.scale", "model.attention.softcap",
)  # fmt: skip
"""Keys of a config that need no other parameters, so that they can be changed after training."""

HOW_TO_SCORE = (*HOW_TO_ATTEND, "model.attention.kernel", "data.seq_len", "eval.batch_size")
"""The same where texts are read and not continued."""


def open_trained(
    path: str | Path,
    *,
    single_device: bool = False,
    overrides: Sequence[str] = (),
    allowed: Sequence[str] = HOW_TO_ATTEND,
) -> Trained:
    """Read WORKDIR (its newest whole checkpoint) or WORKDIR/checkpoints/STEP.

    The mesh is of all devices, which see different texts and have parts of the parameters, or of
    one; with the first, all processes must call this. Raises UserError when there is no
    checkpoint, it is damaged, or its tokenizer is not the one in the run's folder.

    overrides: KEY=VALUE of allowed keys, laid on the run's config; refused where they cannot be or
        need other parameters.
    """
    workdir, found = find_checkpoints(Path(path))
    tokenizer = load_tokenizer(workdir.tokenizer)
    devices = jax.local_devices()[:1] if single_device else jax.devices()
    if not single_device:
        found = list(map(Path, first_does("checkpoints", lambda: list(map(str, found)))))

    def read(checkpoint: Path) -> Trained:
        facts = read_facts(checkpoint)
        if tokenizer.hash != facts["tokenizer_hash"]:
            raise UserError(
                f"{workdir.tokenizer}: not the tokenizer that {checkpoint} was trained with; "
                "restore it or train again"
            )
        config = config_at(validate(facts["config"] | {"mesh": {}}), facts["step"])
        if overrides:
            config = _overridden(config, overrides, allowed, tokenizer)
        mesh = make_mesh(_for_scoring(config, len(devices)), devices)
        advice = "override no key that adds, removes or reshapes parameters"
        with jax.set_mesh(mesh):
            arrays = read_arrays(checkpoint, facts, advice, params=shapes_of_params(config))
        return Trained(config, workdir, tokenizer, mesh, arrays["params"], facts["step"])

    trained, _ = first_whole(found, read)
    return trained


def _overridden(
    config: Config, overrides: Sequence[str], allowed: Sequence[str], tokenizer: Tokenizer
) -> Config:
    """The config with overrides. Sentinels follow from data.seq_len, and embeddings do not."""
    changed = override(config, overrides, allowed)
    if missing := [name for name in changed.specials if name not in tokenizer.specials]:
        raise UserError(
            f"data.seq_len: {changed.data.seq_len} tokens need sentinels that this model was not "
            f"trained with, {missing[0]} the first; give at most {config.data.seq_len}, as in "
            "training"
        )
    model = changed.model.model_copy(update={"vocab_size": config.vocab_size})
    return changed.model_copy(update={"model": model})


def _for_scoring(config: Config, devices: int) -> Config:
    """The config for so many devices: parameters split as far as their width allows, and a batch
    that any mesh takes."""
    train = config.train.model_copy(update={"batch_size": devices, "microbatch_size": None})
    scoring = config.eval.model_copy(update={"batch_size": None})
    mesh = config.mesh.model_copy(update={"fsdp": math.gcd(config.model.d_model, devices)})
    return config.model_copy(update={"train": train, "eval": scoring, "mesh": mesh})
