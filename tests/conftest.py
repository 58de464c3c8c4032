"""The machine that every test sees: eight CPU devices, and compiled programs kept between runs."""

import hashlib
import os
from pathlib import Path

import hypothesis

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
