"""What long rows cost with and without a window, on a CPU: reading, generating, training, memory.

    .venv/bin/python -m benchmarks.long_context [--longest 32768] [--repeat 2] [--kinds full ...]

A decoder of 4 layers, width 256 and 4 heads, float32, one row. For full attention, a sliding
window of 1024, LM-Infinite and StreamingLLM (4 sinks more), at 2048 tokens and each doubling:
CPU-seconds to read a prompt of that length and to generate each of 256 tokens behind it, bytes of
the key-value caches and of all temporary memory of the program, and CPU-seconds of a training step
on one row of that length (with a window). Times are the least of `--repeat` runs; beside each
stands its growth over half the length: 2 is linear, 1 constant. Figures of the CPU clock mean
something on a shared machine too.
"""

import argparse
import math
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.cpu_train import processor
from jaxlm.config import Config
from jaxlm.config.load import validate
from jaxlm.evaluation import Request
from jaxlm.evaluation.decoding import Job, Rows, decode, empty_caches
from jaxlm.objectives import Batch
from jaxlm.parallel import make_mesh, spec
from jaxlm.training.batches import place
from jaxlm.training.loss import DTYPES
from jaxlm.training.state import make_state, optimizer_of
from jaxlm.training.step import make_step

NEW, SHORTEST, WINDOW, VOCAB = 256, 2048, 1024, 2048
KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "sliding": {"window": WINDOW},
    "lm_infinite": {"window": WINDOW, "sinks": {"tokens": 4, "distance": "limit"}},
    "streaming": {"window": WINDOW, "sinks": {"tokens": 4, "distance": "slot"}},
}


def config_of(kind: str, length: int) -> Config:
    return validate(
        {
            "tokenizer": {"vocab_size": VOCAB},
            "data": {"seq_len": length},
            "model": {
                "layers": 4, "d_model": 256, "heads": 4, "d_mlp": 1024, "attention": KINDS[kind],
            },
            "train": {"steps": 1000, "batch_size": 1},
        }
    )  # fmt: skip


def least(repeat: int, run: Callable[[], Any]) -> float:
    """CPU-seconds, after one run that does not count."""
    jax.block_until_ready(run())
    seconds = []
    for _ in range(repeat):
        start = time.process_time()
        jax.block_until_ready(run())
        seconds.append(time.process_time() - start)
    return min(seconds)


def generating(config: Config, params: Any, length: int, repeat: int) -> dict[str, float]:
    """Of a prompt of `length` tokens and NEW tokens behind it."""
    rows = jax.NamedSharding(jax.sharding.get_mesh(), spec("batch"))
    tokens = np.random.default_rng(0).integers(3, VOCAB, (1, length), dtype=np.int32)
    prompt = Rows(*jax.device_put((tokens, np.array([length], np.int32)), rows))
    keys = jax.device_put(jax.random.split(jax.random.key(0), 1), rows)
    seconds, temporary = [], 0
    for new in (1, 1 + NEW):  # the first token comes with the prompt
        job = Job(config.model, DTYPES["fp32"], Request(new, 0.0), 1, -1, length + new)
        program = decode.lower(job, params, prompt, keys).compile()
        memory = program.memory_analysis()
        assert memory is not None
        temporary = memory.temp_size_in_bytes
        run = lambda program=program: program(params, prompt, keys)  # noqa: E731
        seconds.append(least(repeat, run))
    caches = jax.eval_shape(lambda: empty_caches(job, 1, length + NEW))
    return {
        "read s": seconds[0],
        "ms/token": 1e3 * max(seconds[1] - seconds[0], 0) / NEW,
        "cache MB": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(caches)) / 1e6,
        "temp MB": temporary / 1e6,
    }


def training(config: Config, length: int, repeat: int) -> float:
    """CPU-seconds of a step."""
    tokens = np.random.default_rng(0).integers(3, VOCAB, (1, length + 1), dtype=np.int32)
    ones = np.ones((1, length), np.int32)
    positions = np.arange(length, dtype=np.int32)[None]
    host = Batch(tokens[:, :-1], tokens[:, 1:], ones.astype(np.float32), ones, positions)
    batch = place(host, 1, jax.sharding.get_mesh())
    state = make_state(config)
    step = make_step(config, optimizer_of(config, state.params))

    def run() -> Any:
        nonlocal state
        state, metrics = step(state, batch)
        return state, metrics

    return least(repeat, run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--longest", type=int, default=32768)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    lengths = [SHORTEST << i for i in range(int(math.log2(options.longest / SHORTEST)) + 1)]

    print(f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}")
    names = ("read s", "ms/token", "cache MB", "temp MB", "step s")
    print(f"{'attention':12} {'tokens':>6}" + "".join(f" {name:>9} growth" for name in names))
    for kind in options.kinds:
        before: dict[str, float] = {}
        for length in lengths:
            config = config_of(kind, length)
            with jax.set_mesh(make_mesh(config, jax.devices()[:1])):
                figures = generating(config, make_state(config).params, length, options.repeat)
                if kind != "full":
                    figures["step s"] = training(config, length, options.repeat)
            line = f"{kind:12} {length:6}"
            for name, value in figures.items():
                grown = f"{value / before[name]:6.2f}" if before.get(name) else f"{'':6}"
                line += f" {value:9.3f} {grown}"
            print(line, flush=True)
            before = figures


if __name__ == "__main__":
    main()
