"""Peer of benchmarks/mixture.py: Megatron-LM's blended data; run by a Python with megatron-core.

    mixture_megatron.py WEIGHTS EXAMPLES RESUMES OUT

The compiled module that computes the indices is loaded by itself, since the package wants torch.
Megatron makes the indices of a whole run before its first step; here of each block that is asked
for.
"""

import json
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.metadata import distribution
from importlib.util import module_from_spec, spec_from_loader
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.peers.blocks import serve

BATCH = 512


def main() -> None:
    text, examples, resumes, out = sys.argv[1:]
    package = distribution("megatron-core")
    (path,) = Path(str(package.locate_file("megatron/core/datasets"))).glob("helpers_cpp*.so")
    loader = ExtensionFileLoader("helpers_cpp", str(path))
    spec = spec_from_loader("helpers_cpp", loader)
    assert spec is not None
    helpers = module_from_spec(spec)
    loader.exec_module(helpers)
    weights = np.array(json.loads(text), np.float64)
    weights /= weights.sum()
    total = int(examples) // BATCH * BATCH

    def indices(count: int) -> tuple[np.ndarray, np.ndarray]:
        source, place = np.zeros(count, np.int16), np.zeros(count, np.int64)
        helpers.build_blending_indices(source, place, weights, len(weights), count, False)
        return source, place

    # a run that goes on makes all of its indices again
    ends = [total * k // (int(resumes) + 1) for k in range(int(resumes) + 2)]
    parts = [indices(last)[0][first:] for first, last in pairwise(ends)]
    np.save(out, np.concatenate(parts).astype(np.int32))

    def run(batches: int) -> float:
        return float(indices(batches * BATCH)[1][-1])

    serve({"peer": f"Megatron-LM's build_blending_indices, {package.version}"}, run)


if __name__ == "__main__":
    main()
