"""From tokens to a trained model: state, step, loop, checkpoints, metrics."""

from jaxlm.training.loop import Stopped, train, use_compilation_cache

__all__ = ["Stopped", "train", "use_compilation_cache"]
