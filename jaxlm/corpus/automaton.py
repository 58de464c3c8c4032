"""All occurrences of many fixed strings in one pass over the bytes (Aho and Corasick 1975)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.corpus.documents import Strings
from jaxlm.corpus.statistics import Ints


@dataclass(frozen=True)
class Matches:
    """Occurrences in the order of their ends: pattern (index), document, and the bytes
    starts[i]:ends[i] of the buffer, int64 [matches]."""

    pattern: Ints
    document: Ints
    starts: Ints
    ends: Ints


class Automaton:
    """Finds every occurrence of the patterns, overlapping ones too; ASCII letters match in either
    case. The table takes 8 bytes a character of the patterns and different byte in them."""

    def __init__(self, patterns: Sequence[bytes]) -> None:
        folded = [pattern.lower() for pattern in patterns]
        assert all(folded)
        alphabet = sorted(set(b"".join(folded)))
        self._symbol = np.zeros(256, np.uint8)  # 0: in no pattern
        for number, byte in enumerate(alphabet, start=1):
            self._symbol[byte] = number
            self._symbol[ord(chr(byte).upper()) if byte < 128 else byte] = number
        children: list[dict[int, int]] = [{}]
        output = [-1]
        same: list[int] = []  # the next pattern with the same bytes
        for index, pattern in enumerate(folded):
            state = 0
            for byte in pattern:
                symbol = int(self._symbol[byte])
                if symbol not in children[state]:
                    children[state][symbol] = len(children)
                    children.append({})
                    output.append(-1)
                state = children[state][symbol]
            same.append(output[state])
            output[state] = index
        following = np.zeros((len(children), len(alphabet) + 1), np.int64)
        # the longest proper suffix of a state that is a pattern too
        self._suffix = np.zeros(len(children), np.int32)
        fail = np.zeros(len(children), np.int32)
        queue = [0]
        for state in queue:
            if state:
                following[state] = following[fail[state]]
            for symbol, child in children[state].items():
                fail[child] = following[fail[state], symbol] if state else 0
                following[state, symbol] = child
                shorter = fail[child]
                self._suffix[child] = shorter if output[shorter] >= 0 else self._suffix[shorter]
                queue.append(child)
        self._output = np.array(output, np.int32)
        # where the next state's row begins, and whether something ends there: one load a byte
        ends = (self._output >= 0) | (self._suffix > 0)
        self._table = (
            (following * following.shape[1] * 2 + ends[following]).astype(np.uint64).ravel()
        )
        self._same = np.array([*same, -1], np.int32)
        self._size = np.array([*map(len, folded), 0], np.int64)

    def find(self, texts: Strings) -> Matches:
        """The occurrences in all texts; none crosses from one into the next."""
        pattern, document, ends = _find(
            np.ascontiguousarray(texts.buffer), texts.offsets, self._symbol, self._table,
            int(self._symbol.max()) + 1, self._output, self._same, self._suffix,
        )  # fmt: skip
        return Matches(pattern, document, ends - self._size[pattern], ends)


@njit(cache=True)
def _find(
    buffer: NDArray[np.uint8],
    offsets: Ints,
    symbol: NDArray[np.uint8],
    table: NDArray[np.uint64],
    row: int,
    output: NDArray[np.int32],
    same: NDArray[np.int32],
    suffix: NDArray[np.int32],
) -> tuple[Ints, Ints, Ints]:
    found = np.empty((256, 3), np.int64)
    n = 0
    for d in range(len(offsets) - 1):
        cell = np.uint64(0)
        for at in range(offsets[d], offsets[d + 1]):
            cell = table[(cell >> np.uint64(1)) + np.uint64(symbol[buffer[at]])]
            if not cell & np.uint64(1):
                continue
            state = np.int64(cell >> np.uint64(1)) // row
            here = state if output[state] >= 0 else np.int64(suffix[state])
            while here:
                index = output[here]
                while index >= 0:
                    if n == len(found):
                        grown = np.empty((2 * n, 3), np.int64)
                        grown[:n] = found
                        found = grown
                    found[n, 0], found[n, 1], found[n, 2] = index, d, at + 1
                    n += 1
                    index = same[index]
                here = np.int64(suffix[here])
    return found[:n, 0].copy(), found[:n, 1].copy(), found[:n, 2].copy()
