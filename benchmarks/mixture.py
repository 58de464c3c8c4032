"""How well mixtures keep their proportions, and how fast: jaxlm beside grain and Megatron-LM.

    python benchmarks/mixture.py --grain-python ENV/bin/python --megatron-python ENV/bin/python
        [--examples 1000000] [--resumes 9] [--rounds 7] [--batches 200]

ENVs of their own: pip install grain; pip install --no-deps megatron-core numpy (its compiled helper
alone is loaded). Each peer is a process that first writes down of which source each of so many
examples is, stopped and begun anew at some of them, and then computes sources and places of batches
of 512 examples in turns with the others (peers/blocks.py), all on one core; ratios are formed
within a round. Tokens are those of 2,048 an example, and no text is read. From the sequences: the
largest difference between how often a source came and its share, over all sources and all prefixes,
over those that end between two stops, and over all windows of some lengths.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.cpu_train import PEERS, Peer, processor
from jaxlm.config import load

MIXTURES = PEERS.parents[1] / "configs" / "mixtures"
BATCH, SEQ_LEN = 512, 2048
WINDOWS = (100, 1000, 10_000, 100_000)


def published() -> dict[str, list[float]]:
    """Weights of presets, and three of which no short cycle is made."""
    found = {"three": [0.7, 0.2 + 1 / 300, 0.1 - 1 / 300]}
    for name in ("llama", "pile"):
        weights = load(MIXTURES / f"{name}.yaml").data.mixture.weights
        assert weights is not None
        found[name] = list(weights.values())
    return found


def errors(source: NDArray[np.int32], weights: list[float]) -> dict[str, float]:
    """Largest |count - share x length| over sources and prefixes, and over windows by length."""
    parts = [Fraction(repr(weight)) for weight in weights]
    found = dict.fromkeys(("prefix", *map(str, WINDOWS)), 0.0)
    length = np.arange(len(source) + 1)
    for s, part in enumerate(parts):
        count = np.concatenate([[0], np.cumsum(source == s)])
        over = count - length * float(part / sum(parts))
        found["prefix"] = max(found["prefix"], float(np.abs(over).max()))
        for window in WINDOWS:
            if window < len(source):
                worst = float(np.abs(over[window:] - over[:-window]).max())
                found[str(window)] = max(found[str(window)], worst)
    return found


def resumed(source: NDArray[np.int32], stops: int, weights: list[float]) -> list[float]:
    """Largest difference over the prefixes that end in each of the parts between stops."""
    parts = [Fraction(repr(weight)) for weight in weights]
    share_S = np.array([float(part / sum(parts)) for part in parts])
    batches = len(source) // BATCH
    ends = [batches * k // (stops + 1) * BATCH for k in range(stops + 2)]
    worst = []
    for first, last in pairwise(ends):
        count_S = np.bincount(source[:first], minlength=len(parts))
        largest = 0.0
        for s, share in enumerate(share_S):
            count = count_S[s] + np.cumsum(source[first:last] == s)
            over = count - np.arange(first + 1, last + 1) * share
            largest = max(largest, float(np.abs(over).max()))
        worst.append(largest)
    return worst


def start(
    options: argparse.Namespace, weights: list[float], folder: Path
) -> tuple[list[Peer], list[str]]:
    """The peers that answered, and why the others did not."""
    common = [json.dumps(weights), str(options.examples), str(options.resumes)]
    wanted = {
        "jaxlm": (sys.executable, "mixture_jaxlm.py", []),
        "grain-map": (options.grain_python, "mixture_grain.py", ["map"]),
        "grain-iter": (options.grain_python, "mixture_grain.py", ["iter"]),
        "megatron": (options.megatron_python, "mixture_megatron.py", []),
    }
    peers, missing = [], []
    for name, (python, program, arguments) in wanted.items():
        if python is None:
            missing.append(f"{name}: not run, no --{name.split('-')[0]}-python given")
            continue
        try:
            out = str(folder / f"{name}.npy")
            peers.append(Peer(name, python, PEERS / program, *arguments, *common, out))
        except (OSError, ValueError) as error:  # ChildProcessError is an OSError
            missing.append(f"{name}: not run, {error}")
    return peers, missing


def report(peers: list[Peer], weights: list[float], stops: int, folder: Path) -> None:
    columns = ("prefix", *map(str, WINDOWS))
    print(f"{'':12}" + "".join(f"{name:>9}" for name in columns) + "  largest error, of windows")
    for peer in peers:
        source = np.load(folder / f"{peer.name}.npy")
        found = errors(source, weights)
        print(f"{peer.name:12}" + "".join(f"{found[name]:9.3f}" for name in columns))
        parts = resumed(source, stops, weights)
        print(f"{'':12}after each stop: " + " ".join(f"{part:.2f}" for part in parts))
    print(f"{'':12}{'examples/CPU s':>15}{'tokens/s':>12}   jaxlm's speed over it, by rounds")
    first = peers[0]
    for peer in peers:
        cpu = median(peer.seconds("cpu_s")) / BATCH
        ratios = [b / a for a, b in zip(first.seconds("cpu_s"), peer.seconds("cpu_s"), strict=True)]
        spread = f"{median(ratios):8.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
        told = "" if peer is first else spread
        print(f"{peer.name:12}{1 / cpu:15,.0f}{SEQ_LEN / cpu:12.2e}   {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--grain-python")
    parser.add_argument("--megatron-python")
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--resumes", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=200)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(f"{platform.platform()}, {processor()}, one core, load {os.getloadavg()[0]:.2f}")
    print(
        f"{options.examples:,} examples, {options.resumes} stops, {options.rounds} rounds of "
        f"{options.batches} batches of {BATCH}"
    )
    for name, weights in published().items():
        with tempfile.TemporaryDirectory() as made:
            peers, missing = start(options, weights, Path(made))
            for _ in range(options.rounds):
                for peer in peers:
                    peer.run(options.batches)
            print(f"\n{name}, {len(weights)} sources: {', '.join(f'{w:.6g}' for w in weights)}")
            for peer in peers:
                print(f"  {peer.description['peer']}")
            report(peers, weights, options.resumes, Path(made))
            for peer in peers:
                peer.stop()
        for line in missing:
            print(line)


if __name__ == "__main__":
    main()
