"""The protocol of a peer of benchmarks/cpu_train.py, standard library only (any interpreter).

The parent writes `run N` lines to the child's stdin. The child answers each with one JSON line on
stdout, {"steps", "wall_s", "cpu_s", "loss"}, after N training steps are really finished. `exit` or
the end of stdin ends it. The first line that a child prints describes it: {"peer": ..., versions}.
"""

import json
import os
import sys
import time
from collections.abc import Callable

# Libraries print to stdout as they like, some when imported: from here on that goes to stderr, and
# the answers to a copy of stdout that only this module knows.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def serve(describe: dict[str, object], run: Callable[[int], float]) -> None:
    """`run(n)` does n training steps, waits until they are finished and returns the last loss."""
    run(2)  # compile, allocate
    print(json.dumps(describe), file=ANSWERS, flush=True)
    for line in sys.stdin:
        words = line.split()
        if words == ["exit"]:
            break
        if len(words) != 2 or words[0] != "run":
            sys.exit(f"unknown command {line!r}: want 'run N' or 'exit'")
        steps = int(words[1])
        wall, cpu = time.perf_counter(), time.process_time()
        loss = run(steps)
        measured = {
            "steps": steps,
            "wall_s": time.perf_counter() - wall,
            "cpu_s": time.process_time() - cpu,
            "loss": loss,
        }
        print(json.dumps(measured), file=ANSWERS, flush=True)
