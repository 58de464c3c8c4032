"""Loss, perplexity and bits per byte on the validation split."""

import math
from functools import partial

import jax
import numpy as np

from jaxlm.config import Config
from jaxlm.models import Decoder
from jaxlm.objectives import Batch
from jaxlm.tokens import Tokenizer, validation_batches
from jaxlm.training.batches import place, split
from jaxlm.training.step import loss_sum
from jaxlm.workdir import Workdir

type Scores = dict[str, dict[str, float]]


def evaluate(config: Config, workdir: Workdir, params: Decoder, tokenizer: Tokenizer) -> Scores:
    """Scores of each source with validation documents, and of all together under "all".

    loss: nats a target token, over every target of the split; perplexity: its exponential;
    bits_per_byte: all nats, those for the ends of documents included, over ln 2 times the UTF-8
    bytes that the targets stand for; tokens: the number of targets.
    """
    totals = {
        source.name: _totals(config, workdir, source.name, params, tokenizer)
        for source in config.sources
    }
    totals = {name: total for name, total in totals.items() if total[1] > 0}
    everything = np.sum(list(totals.values()), axis=0) if totals else np.zeros(3)
    return {name: _scores(*total) for name, total in (*totals.items(), ("all", everything))}


def _totals(
    config: Config, workdir: Workdir, source: str, params: Decoder, tokenizer: Tokenizer
) -> tuple[float, float, float]:
    """Nats, targets and bytes of one source."""
    mesh = jax.sharding.get_mesh()
    batch_size = config.eval.batch_size or config.train.batch_size
    nats = []
    targets = size = 0.0
    for host in validation_batches(config, workdir, source, batch_size):
        nats.append(_nats(config, params, place(split(host, 1), mesh)))
        targets += float(host.weights_BT.sum())
        size += float((tokenizer.token_bytes[host.targets_BT] * host.weights_BT).sum())
    return math.fsum(float(n) for n in nats), targets, size


@partial(jax.jit, static_argnums=0)
def _nats(config: Config, params: Decoder, batch: Batch) -> jax.Array:
    return loss_sum(config, params, jax.tree.map(lambda a: a[0], batch))


def _scores(nats: float, targets: float, size: float) -> dict[str, float]:
    loss = nats / max(targets, 1)
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "bits_per_byte": nats / (math.log(2) * max(size, 1)),
        "tokens": int(targets),
    }
