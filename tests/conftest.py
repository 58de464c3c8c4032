"""The machine that every test sees: eight CPU devices, and compiled programs kept between runs."""

import hashlib
import os
import random
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Read by JAX when it is first imported, and by the processes that tests start.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
).strip()


def compilation_cache() -> Path:
    """Folder of compiled programs for this kind of processor (they hold its instructions).

    It may be deleted at any time. A program from here is the same machine code that compiling it
    again gives, and runs on a user's machine come from such a cache too, so tests of bit-exact
    resumption are meant to pass with it and without it.
    """
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    kind = hashlib.sha256(features.encode()).hexdigest()[:12]
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jaxlm" / "tests" / kind


os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compilation_cache()))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# The first example of a property often compiles something, so there is no deadline.
hypothesis.settings.register_profile("jaxlm", deadline=None)
hypothesis.settings.load_profile("jaxlm")


@pytest.fixture
def tiny(tmp_path: Path) -> dict[str, Any]:
    """A config of a whole run that takes seconds, on text of its own, as plain data."""
    letters = random.Random(0)
    words = ["".join(letters.choices("abcdefgh", k=5)) for _ in range(50)]
    documents = [" ".join(letters.choices(words, k=40)) for _ in range(60)]
    (tmp_path / "text.txt").write_text("\n\n".join(documents))
    return {
        "workdir": str(tmp_path / "run"),
        "sources": [
            {
                "name": "words",
                "path": str(tmp_path / "text.txt"),
                "format": "text",
                "split": "\n\n",
            }
        ],
        "prepare": {"workers": 1, "stages": ["unicode"]},
        "tokenizer": {"kind": "byte"},
        "data": {"seq_len": 32, "validation_fraction": 0.1},
        "model": {"layers": 1, "d_model": 32, "heads": 2, "d_mlp": 64},
        "optimizer": {"schedule": {"warmup_steps": 1}},
        "train": {"steps": 4, "batch_size": 8},
        "checkpoint": {"every": 2},
        "eval": {"generate": {"prompts": ["abc"], "max_tokens": 4}},
        "logging": {"every": 1, "tensorboard": False},
    }
