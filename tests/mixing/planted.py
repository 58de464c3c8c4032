"""A task whose best mixture is known: two languages, noise, and a target that needs both languages.

The documents of the target are chains of letters, of which 65 % of the steps are the first
language's and 35 % the second's. A model that sees one letter at a time (a window of 1) can do no
better than mix what it knows of both in that proportion, so a mixture of 65 and 35 % is the best.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxlm.config import Config
from jaxlm.config.load import validate

LETTERS = "abcdefghijkl"
SHARE = 0.65
SOURCES = ("first", "second", "noise", "wanted")


def write_text(folder: Path, documents: int = 400, length: int = 200) -> None:
    """Files of 80 KB each."""
    rng = random.Random(0)
    first, second = (
        dict(zip(LETTERS, rng.sample(LETTERS, len(LETTERS)), strict=True)) for _ in range(2)
    )

    def language(after: dict[str, str]) -> Callable[[str], str]:
        return lambda letter: after[letter] if rng.random() < 0.9 else rng.choice(LETTERS)

    one, two = language(first), language(second)
    steps: dict[str, Callable[[str], str]] = {
        "first": one,
        "second": two,
        "noise": lambda letter: rng.choice(LETTERS),
        "wanted": lambda letter: one(letter) if rng.random() < SHARE else two(letter),
    }
    for name, step in steps.items():
        texts = []
        for _ in range(documents):
            text = rng.choice(LETTERS)
            while len(text) < length:
                text += step(text[-1])
            texts.append(text)
        (folder / f"{name}.txt").write_text("\n\n".join(texts))


def config_of(folder: Path, **mix: Any) -> Config:
    """The search in `folder`; keywords are keys of `mix`."""
    return validate({
        "workdir": str(folder / "run"),
        "seed": 3,
        "sources": [
            {"name": name, "path": str(folder / f"{name}.txt"), "split": "\n\n",
             "weight": 0.0 if name == "wanted" else 1.0}
            for name in SOURCES
        ],
        "prepare": {"workers": 1, "stages": ["unicode"]},
        "tokenizer": {"kind": "byte"},
        "data": {"validation_fraction": 0.1, "seq_len": 16},
        "model": {"attention": {"window": 1}},
        "train": {"steps": 4},
        "mix": {
            "target": {"wanted": 1}, "proxies": 40, "steps": 200, "batch_size": 16, "seq_len": 16,
            "learning_rate": 5e-3, "model": {"layers": 1, "d_model": 16, "heads": 1, "d_mlp": 32},
            "scales": [], "confirm": 1, "seeds": 1, "validation_tokens": 8192,
        } | mix,
    })  # fmt: skip
