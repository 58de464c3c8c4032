"""Shares by Group DRO on a proxy (Xie et al. 2023, "DoReMi: Optimizing Data Mixtures Speeds Up
Language Model Pretraining", algorithm 1)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxlm.config import Config
from jaxlm.mixing.proxies import mesh_of, weights_key
from jaxlm.models import Transformer
from jaxlm.tokens import open_loader
from jaxlm.training.batches import ahead
from jaxlm.training.loss import token_nats
from jaxlm.training.state import State, optimizer_of, shapes_of_params
from jaxlm.training.step import make_step
from jaxlm.workdir import Progress, Workdir

STEP_SIZE = 1.0
"""Of the weights' exponentiated gradient (section 3)."""
SMOOTHING = 1e-3
"""Share of the uniform distribution in the weights after each step (algorithm 1)."""


def doremi(
    config: Config, workdir: Workdir, base_S: NDArray[np.float64], show: Progress
) -> NDArray[np.float64]:
    """The weights of the sources with a share, averaged over the steps, [S]; 0 for the others.

    config: of the proxy (proxy_config). A reference is trained on the base mixture. The proxy sees
    all sources equally; what it loses counts by their weights. Before each step these are
    multiplied by exp(how many nats a token the proxy is behind the reference, token by token and
    not less than 0); a source without a row in a step keeps what it was behind by. On one device.
    """
    steps, searched = config.steps, np.flatnonzero(base_S)
    uniform_S = np.where(base_S > 0, 1 / len(searched), 0.0)
    loader = open_loader(config, workdir)
    with jax.set_mesh(mesh_of(jax.local_devices()[:1])):
        optimizer = optimizer_of(config, shapes_of_params(config))
        step, nats = make_step(config, optimizer), jax.jit(partial(token_nats, config))

        def fresh() -> State:
            params = jax.jit(partial(Transformer, config.model, config.vocab_size))(
                weights_key(config.seed, 0)
            )
            return State(params, optimizer.init(params))

        seen = loader.with_weights(base_S.tolist(), seed=config.seed)
        reference = fresh()
        for number, host in enumerate(ahead(seen.batch_at, 0, steps)):
            show("reference", number + 1, steps, "steps")
            reference, _ = step(reference, jax.tree.map(lambda a: jnp.asarray(a[None]), host))
        seen = loader.with_weights(uniform_S.tolist(), seed=config.seed)
        proxy = fresh()
        weights_S, excess_S = uniform_S.copy(), np.zeros_like(uniform_S)
        total_S = np.zeros_like(uniform_S)
        for number, host in enumerate(ahead(seen.batch_at, 0, steps)):
            show("proxy", number + 1, steps, "steps")
            source_B, here = seen.sources_at(number), jax.tree.map(jnp.asarray, host)
            behind_BT = np.asarray(nats(proxy.params, here) - nats(reference.params, here))
            excess_S = excesses(excess_S, behind_BT, host.weights_BT, source_B)
            weights_S = updated(weights_S, excess_S, searched)
            total_S += weights_S
            # the step divides by the sum of the weights, whatever their unit
            by_row_B = jnp.asarray(len(searched) * weights_S[source_B], jnp.float32)
            here = here._replace(weights_BT=here.weights_BT * by_row_B[:, None])
            proxy, _ = step(proxy, jax.tree.map(lambda a: a[None], here))
    return total_S / steps


def excesses(
    before_S: NDArray[np.float64], behind_BT: NDArray[np.float32], counted_BT: NDArray[np.float32],
    source_B: NDArray[np.int64],
) -> NDArray[np.float64]:  # fmt: skip
    """Mean nats by which the tokens of each source are behind, none by less than 0; that of before
    for a source that is not there."""
    clipped_BT = np.maximum(behind_BT, 0.0).astype(np.float64)
    now_S = before_S.copy()
    for source in np.unique(source_B):
        rows = source_B == source
        now_S[source] = np.average(clipped_BT[rows], weights=counted_BT[rows] + 1e-30)
    return now_S


def updated(
    weights_S: NDArray[np.float64], excess_S: NDArray[np.float64], searched: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The weights after one step; sources that are not searched stay at 0."""
    grown = weights_S[searched] * np.exp(STEP_SIZE * excess_S[searched])
    new_S = np.zeros_like(weights_S)
    new_S[searched] = (1 - SMOOTHING) * grown / grown.sum() + SMOOTHING / len(searched)
    return new_S
