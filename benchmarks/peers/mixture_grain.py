"""Peer of benchmarks/mixture.py: grain's mixtures; run by a Python that has grain.

    mixture_grain.py map|iter WEIGHTS EXAMPLES RESUMES OUT

Elements say which source they are of and which of its examples: source << 40 | number.
"""

import json
import sys
from importlib.metadata import version

import grain  # type: ignore[import-not-found]
import numpy as np

from benchmarks.peers.blocks import serve

BATCH = 512
LONG = 1 << 40


def mixed(kind: str, weights: list[float]) -> "grain.MapDataset | grain.IterDataset":
    sources = [grain.MapDataset.range(s * LONG, (s + 1) * LONG) for s in range(len(weights))]
    if kind == "map":
        return grain.MapDataset.mix(sources, weights).batch(BATCH)
    # without threads that read ahead: what a batch costs, on one core
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    each = [source.to_iter_dataset(options) for source in sources]
    return grain.IterDataset.mix(each, weights).batch(BATCH)


def main() -> None:
    kind, text, examples, resumes, out = sys.argv[1:]
    weights, total = json.loads(text), int(examples) // BATCH

    # the sequence, by datasets made anew at each stop, from what they say of where they were
    parts, state = [], None
    for number in range(int(resumes) + 1):
        first, last = (total * k // (int(resumes) + 1) for k in (number, number + 1))
        dataset = mixed(kind, weights)
        if kind == "map":
            parts += [dataset[k] for k in range(first, last)]
            continue
        iterator = iter(dataset)
        if state is not None:
            iterator.set_state(state)
        parts += [next(iterator) for _ in range(first, last)]
        state = json.loads(json.dumps(iterator.get_state()))
    np.save(out, (np.concatenate(parts) // LONG).astype(np.int32))

    dataset = mixed(kind, weights)
    iterator, place = iter(dataset) if kind == "iter" else None, 0

    def run(batches: int) -> float:
        nonlocal place
        for k in range(place, place + batches):
            batch = dataset[k] if iterator is None else next(iterator)
        place += batches
        return float(batch[-1] % LONG)

    serve(
        {"peer": f"grain.{'Map' if kind == 'map' else 'Iter'}Dataset.mix {version('grain')}"}, run
    )


if __name__ == "__main__":
    main()
