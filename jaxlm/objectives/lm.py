"""Next-token prediction."""

import numpy as np
from numpy.typing import NDArray

from jaxlm.objectives.batch import Batch


def lm(
    windows_BT1: NDArray[np.unsignedinteger],
    bos_id: int,
    lengths_B: NDArray[np.int64] | None = None,
) -> Batch:
    """Windows of T + 1 stored tokens become inputs and the tokens that follow them.

    Documents lie end to end as BOS, tokens, EOS. Each BOS begins a segment, whose positions
    restart at 0; the target after an EOS is the next document's BOS and weighs nothing.

    windows_BT1: stored ids, uint16 or uint32 [B, T + 1].
    lengths_B: how many tokens of each row are real; the rest is padding: token 0, segment 0,
        weight 0. None: all are.
    """
    T = windows_BT1.shape[1] - 1
    tokens_BT = windows_BT1[:, :-1].astype(np.int32)
    targets_BT = windows_BT1[:, 1:].astype(np.int32)
    starts_BT = windows_BT1[:, :-1] == bos_id
    starts_BT[:, 0] = True
    segments_BT = np.cumsum(starts_BT, axis=1, dtype=np.int32)
    # Where each segment began: a row's last start so far, carried forward by the running maximum.
    columns_T = np.arange(T, dtype=np.int32)
    positions_BT = np.where(starts_BT, columns_T, np.int32(0))
    np.maximum.accumulate(positions_BT, axis=1, out=positions_BT)
    np.subtract(columns_T, positions_BT, out=positions_BT)
    weights_BT = (windows_BT1[:, 1:] != bos_id).astype(np.float32)
    if lengths_B is not None:
        padding_BT = columns_T >= lengths_B[:, None]
        for array_BT in (tokens_BT, segments_BT, positions_BT):
            array_BT[padding_BT] = 0
        beyond_BT = columns_T + 1 >= lengths_B[:, None]
        targets_BT[beyond_BT] = 0
        weights_BT[beyond_BT] = 0
    return Batch(tokens_BT, targets_BT, weights_BT, segments_BT, positions_BT)
