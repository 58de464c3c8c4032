"""Peer: jaxlm's own training step, as `jaxlm train` builds it, on random tokens.

Batches are packed documents' shape (segments, positions, weights), one document a row. Speaks the
protocol of blocks.py: echo 'run 3' | python -m benchmarks.peers.jaxlm_train
"""

import jax
import numpy as np

from benchmarks.peers.blocks import serve
from jaxlm.config.load import validate
from jaxlm.objectives import Batch
from jaxlm.parallel import make_mesh
from jaxlm.training.batches import place
from jaxlm.training.state import make_state, optimizer_of
from jaxlm.training.step import make_step

CONFIG = validate(
    {
        "tokenizer": {"vocab_size": 8192},
        "data": {"seq_len": 256},
        "model": {"layers": 4, "d_model": 256, "heads": 4, "d_mlp": 1024},
        "optimizer": {"kind": "adamw", "schedule": {"kind": "constant", "warmup_steps": 0}},
        "train": {"steps": 1000, "batch_size": 8, "unroll_layers": True, "loss_chunk": 256},
    }
)


def main() -> None:
    rng = np.random.default_rng(0)
    B, T = CONFIG.train.batch_size, CONFIG.data.seq_len
    tokens = rng.integers(0, CONFIG.vocab_size, (B, T + 1), dtype=np.int32)
    ones = np.ones((B, T))
    positions = np.broadcast_to(np.arange(T, dtype=np.int32), (B, T))
    host = Batch(
        tokens[..., :-1], tokens[..., 1:], ones.astype(np.float32), ones.astype(np.int32), positions
    )
    mesh = make_mesh(CONFIG)
    with jax.set_mesh(mesh):
        state = make_state(CONFIG)
        step = make_step(CONFIG, optimizer_of(CONFIG, state.params))

        def run(steps: int) -> float:
            nonlocal state
            for _ in range(steps):
                state, metrics = step(state, place(host, 1, mesh))
            jax.block_until_ready(state)
            return float(metrics["loss"])

        serve({"peer": "jaxlm", "jax": jax.__version__}, run)


if __name__ == "__main__":
    main()
