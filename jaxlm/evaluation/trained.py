"""A trained model found on disk: by its run's folder or by one checkpoint."""

from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from jaxlm.config import Config
from jaxlm.config.load import validate
from jaxlm.errors import UserError
from jaxlm.models import Decoder
from jaxlm.parallel import make_mesh
from jaxlm.tokens import Tokenizer, load_tokenizer
from jaxlm.training.checkpoints import Checkpoints
from jaxlm.training.state import make_params
from jaxlm.workdir import Workdir


class Trained(NamedTuple):
    """Parameters on a mesh of this machine's devices, with all that is needed to use them."""

    config: Config
    workdir: Workdir
    tokenizer: Tokenizer
    mesh: Mesh
    params: Decoder
    step: int


def open_trained(path: str | Path, *, single_device: bool = False) -> Trained:
    """Read WORKDIR (its newest good checkpoint) or WORKDIR/checkpoints/STEP.

    The mesh is data parallel over all devices, or of one. Raises UserError when there is no
    checkpoint, it is damaged, or its tokenizer is not the one in the run's folder.
    """
    path = Path(path)
    chosen = path.name.isdigit() and path.parent.name == "checkpoints"
    workdir = Workdir(path.parent.parent if chosen else path)
    if not workdir.checkpoints.is_dir():
        raise UserError(
            f"{path}: no checkpoints here; give a run's folder or RUN/checkpoints/STEP, or make "
            "one with: jaxlm train CONFIG"
        )
    checkpoints = Checkpoints(workdir.checkpoints)
    steps = [int(path.name)] if chosen else checkpoints.steps()
    if not steps or (chosen and not path.is_dir()):
        known = ", ".join(map(str, checkpoints.steps())) or "none"
        raise UserError(f"{path}: no such checkpoint; steps found: {known}")
    problems = []
    for step in steps:
        try:
            facts = checkpoints.facts(step)
            config = validate(facts["config"] | {"mesh": {}})
            tokenizer = load_tokenizer(workdir.tokenizer)
            if tokenizer.hash != facts["tokenizer_hash"]:
                raise UserError(
                    f"{workdir.tokenizer}: not the tokenizer that checkpoint {step} was trained "
                    "with; restore it or train again"
                )
            devices = jax.devices()[:1] if single_device else jax.devices()
            batch = config.eval.batch_size or config.train.batch_size
            while batch % len(devices):
                devices = devices[:-1]
            mesh = make_mesh(_for_scoring(config, batch), devices)
            with jax.set_mesh(mesh):
                params = checkpoints.load(step, params=make_params(config))["params"]
            return Trained(config, workdir, tokenizer, mesh, params, step)
        except UserError as error:
            problems += error.messages
    raise UserError(problems)


def _for_scoring(config: Config, batch: int) -> Config:
    """The config with the batch that is scored at once, so that the mesh's checks look at it."""
    train = config.train.model_copy(update={"batch_size": batch, "microbatch_size": None})
    return config.model_copy(update={"train": train})
