"""What a model is trained on: one batch of sequences."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Batch(NamedTuple):
    """B sequences of T tokens."""

    tokens_BT: NDArray[np.int32]
    """Inputs."""
    targets_BT: NDArray[np.int32]
    """What is to be predicted at each input."""
    weights_BT: NDArray[np.float32]
    """1 where the target counts, else 0."""
    segments_BT: NDArray[np.int32]
    """Number of the document in its row, from 1; 0 is padding."""
    positions_BT: NDArray[np.int32]
    """Place in the document's part of the row, from 0."""
