"""Writes sampling.npz: which tokens transformers' temperature, top-k and top-p filters keep.

Made with Python 3.11.7, torch 2.13.0 (CPU), transformers 5.23.0, numpy 2.4.6. To repeat, in an
environment of its own (the project does not depend on torch):

    python3.11 -m venv ENV && ENV/bin/pip install torch==2.13.0 transformers==5.23.0
    ENV/bin/python tests/reference/make_sampling.py

    logits [8,97]           random, no two alike in a row; rows from almost uniform to sharp peaks
    temperature, top_k, top_p [C]   the cases; top_k 0 and top_p 1 are off
    kept [C,8,97] bool      tokens that may still be drawn
    probabilities [C,8,97]  softmax of what is left
The order is transformers' own: temperature, then top-k, then top-p of the renormalised rest. Top-p
keeps the smallest set of best tokens whose probability reaches top_p, so at least the best one.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

# temperature, top_k, top_p
CASES = [
    (1.0, 0, 1.0),
    (1.0, 1, 1.0),
    (1.0, 5, 1.0),
    (1.0, 40, 1.0),
    (1.0, 97, 1.0),
    (1.0, 0, 0.1),
    (1.0, 0, 0.5),
    (1.0, 0, 0.9),
    (1.0, 0, 0.999),
    (0.5, 0, 0.9),
    (2.0, 0, 0.9),
    (0.7, 20, 0.8),
    (1.3, 3, 0.95),
]


def main() -> None:
    rng = np.random.default_rng(0)
    spread = np.geomspace(0.1, 8, 8)[:, None]
    logits = (rng.standard_normal((8, 97)) * spread).astype(np.float32)
    kept, probabilities = [], []
    for temperature, top_k, top_p in CASES:
        filters = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
        if top_k:
            filters.append(TopKLogitsWarper(top_k))
        if top_p < 1:
            filters.append(TopPLogitsWarper(top_p))
        left = filters(torch.zeros(8, 0, dtype=torch.long), torch.tensor(logits))
        kept.append(torch.isfinite(left).numpy())
        probabilities.append(left.softmax(-1).numpy())
    columns = np.array(CASES).T
    path = Path(__file__).parent / "sampling.npz"
    np.savez_compressed(
        path,
        logits=logits,
        temperature=columns[0].astype(np.float32),
        top_k=columns[1].astype(np.int32),
        top_p=columns[2].astype(np.float32),
        kept=np.stack(kept),
        probabilities=np.stack(probabilities),
    )
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
