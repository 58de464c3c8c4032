"""Loss, perplexity and bits per byte on the validation split."""

import math
from functools import partial
from itertools import islice

import jax
import numpy as np
from numpy.typing import NDArray

from jaxlm.config import Config
from jaxlm.models import Transformer
from jaxlm.objectives import Batch
from jaxlm.parallel import shards
from jaxlm.tokens import Tokenizer, stream_names, validation_batches
from jaxlm.training.batches import place
from jaxlm.training.loss import loss_sum
from jaxlm.training.pipeline import loss_by_turns
from jaxlm.workdir import Workdir

type Scores = dict[str, dict[str, float]]


def evaluate(
    config: Config,
    workdir: Workdir,
    params: Transformer,
    tokenizer: Tokenizer,
    *,
    batches: int | None = None,
) -> Scores:
    """Scores of each stream with validation documents, and of all together under "all".

    A stream is what the store holds under one name: a source, or a part of one.
    config: without a curriculum (jaxlm/config/stages.py); its objective says what is predicted.
    loss: nats a target token, over every target of the split; perplexity: its exponential;
    bits_per_byte: all nats, those for the ends of documents and special tokens included, over ln 2
    times the UTF-8 bytes that the targets stand for; tokens: the number of targets. Empty when no
    source has validation documents. batches: of each stream at most, the first; None: all.
    """
    totals = {
        name: _totals(config, workdir, name, params, tokenizer, batches)
        for name in stream_names(config, workdir)
    }
    totals = {name: total_3 for name, total_3 in totals.items() if total_3[1] > 0}
    if totals:
        totals["all"] = np.sum(list(totals.values()), axis=0)
    return {name: _scores(*total_3.tolist()) for name, total_3 in totals.items()}


def _totals(
    config: Config,
    workdir: Workdir,
    stream: str,
    params: Transformer,
    tokenizer: Tokenizer,
    batches: int | None,
) -> NDArray[np.float64]:
    """Nats, targets and bytes of one stream."""
    mesh = jax.sharding.get_mesh()
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    wanted = config.eval.batch_size or config.train.batch_size
    total_3 = np.zeros(3)
    running: jax.Array | float = 0.0  # read when the next batch is under way
    split = validation_batches(config, workdir, stream, -(-wanted // parts) * parts)
    for host in islice(split, batches):
        nats = sum_of_nats(config, params, place(host, 1, mesh))
        counted_BT = tokenizer.token_bytes[host.targets_BT] * host.weights_BT
        total_3 += (float(running), host.weights_BT.sum(), counted_BT.sum(dtype=np.float64))
        running = nats
    total_3[0] += float(running)
    return total_3


def sum_of_nats(config: Config, params: Transformer, batch: Batch[jax.Array]) -> jax.Array:
    """Weighted nats of the batch [1, B, T] that `place` makes of one microbatch, fp32 scalar."""
    # what the program depends on: other keys need not be hashable, nor compile it anew
    return _sum_of_nats(Config(model=config.model, train=config.train), params, batch)


@partial(jax.jit, static_argnums=0)
def _sum_of_nats(config: Config, params: Transformer, batch: Batch[jax.Array]) -> jax.Array:
    if shards("layers") > 1:
        return loss_by_turns(config, params, batch, turns=1)
    return loss_sum(config, params, jax.tree.map(lambda a: a[0], batch))


def _scores(nats: float, targets: float, size: float) -> dict[str, float]:
    loss = nats / targets
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),  # beyond it a float has no exponential
        "bits_per_byte": nats / (math.log(2) * max(size, 1.0)),
        "tokens": int(targets),
    }
