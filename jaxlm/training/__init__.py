"""From tokens to a trained model: state, step, loop, checkpoints, metrics."""

from jaxlm.training.checkpoints import Checkpoints
from jaxlm.training.loop import Stopped, train, use_compilation_cache
from jaxlm.training.state import State, make_state

__all__ = ["Checkpoints", "State", "Stopped", "make_state", "train", "use_compilation_cache"]
