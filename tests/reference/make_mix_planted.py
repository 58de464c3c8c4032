"""The planted mixture by brute force: losses of the target on every mixture of a grid of 0.05.

    python tests/reference/make_mix_planted.py

takes a few minutes on two cores and writes mix_planted.json beside this file: shares, and the loss
after training on them, the mean over seeds. No regression takes part in it.
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from jaxlm.mixing.proxies import Proxies, Run
from jaxlm.workdir import Workdir, no_progress
from tests.mixing.planted import config_of, write_text
from tests.training.runs import make_tokens

STEPS = 20
SEEDS = 2


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_text(folder)
        config = config_of(folder, at_once=64)
        make_tokens(config)
        proxies = Proxies(config, Workdir(config.workdir), ["wanted"])
        grid = [
            (i / STEPS, j / STEPS, (STEPS - i - j) / STEPS, 0.0)
            for i in range(STEPS + 1)
            for j in range(STEPS + 1 - i)
        ]
        runs = [Run(shares, seed) for shares in grid for seed in range(SEEDS)]
        groups = proxies.groups(runs)
        losses = np.concatenate([proxies.train(g, len(groups[0]), no_progress) for g in groups])
        means = losses[:, 0].reshape(len(grid), SEEDS).mean(axis=1)
    table = {
        "shares": [shares[:3] for shares in grid],
        "losses": [round(loss, 5) for loss in means.tolist()],
    }
    Path(__file__).with_name("mix_planted.json").write_text(json.dumps(table) + "\n")


if __name__ == "__main__":
    main()
