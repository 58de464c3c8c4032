"""What a model is trained on: one batch of sequences."""

from typing import NamedTuple


class Batch[Array](NamedTuple):
    """B sequences of T tokens, as NumPy arrays on the host or JAX arrays on the devices."""

    tokens_BT: Array
    """Inputs, int32."""
    targets_BT: Array
    """What is to be predicted at each input, int32."""
    weights_BT: Array
    """1 where the target counts, else 0; float32."""
    segments_BT: Array
    """Number of the document in its row, from 1; 0 is padding; int32."""
    positions_BT: Array
    """Place in the document's part of the row, from 0; int32."""
