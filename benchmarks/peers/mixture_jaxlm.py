"""Peer of benchmarks/mixture.py: jaxlm's own mixture, as the loader asks it, batch by batch.

mixture_jaxlm.py WEIGHTS EXAMPLES RESUMES OUT
"""

import json
import sys
from importlib.metadata import version

import numpy as np

from benchmarks.peers.blocks import serve
from jaxlm.tokens.mixture import Mixture

BATCH = 512


def main() -> None:
    text, examples, resumes, out = sys.argv[1:]
    weights, total = json.loads(text), int(examples) // BATCH
    parts = []
    for number in range(int(resumes) + 1):
        mixture = Mixture(weights)  # made anew at each stop
        first, last = (total * k // (int(resumes) + 1) for k in (number, number + 1))
        parts += [mixture(np.arange(k * BATCH, (k + 1) * BATCH))[0] for k in range(first, last)]
    np.save(out, np.concatenate(parts))

    mixture, place = Mixture(weights), 0

    def run(batches: int) -> float:
        nonlocal place
        for k in range(place, place + batches):
            _, rank = mixture(np.arange(k * BATCH, (k + 1) * BATCH))
        place += batches
        return float(rank[-1])

    serve({"peer": f"jaxlm {version('jaxlm')}"}, run)


if __name__ == "__main__":
    main()
