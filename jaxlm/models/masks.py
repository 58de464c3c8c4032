"""What attention works from: descriptions of what a query sees and how it is scored.

Kernels make of them what they need; no array of T x S is handed on.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

# B batch, T queries, S keys, K key-value heads, G query heads a key head, H head width


class Mask(NamedTuple):
    """What changes from call to call of what a query sees: keys of its own document.

    Pattern (jaxlm/config/kernels.py) holds the rest.
    """

    segments_BT: jax.Array
    """Document number of each query in its row, int32; 0 is padding. Documents lie one after
    another, and neighbours have different numbers."""
    segments_BS: jax.Array
    """Document number of each key, int32."""
    first_B: jax.Array | None = None
    """Index, among the keys, of each row's first query, int32; None: queries have indexes from 0,
    as keys have."""
    prefix_BS: jax.Array | None = None
    """Keys, the first ones of a document, that all its queries see, whatever the order (but within
    the window); bool or int32."""
    places_BS: jax.Array | None = None
    """Place of the token in each slot of a cache that is not in order, int32, -1: empty. Such a row
    holds one document, which begins at place 0. None: a slot's index."""
    places_BT: jax.Array | None = None
    """Place of each query in its row, int32, where rows are parts of those that are cut over the
    context axis (jaxlm/parallel/context.py), as rows of keys are then; None: they are whole."""


class Far(NamedTuple):
    """Queries and keys as they are rotated for pairs at a distance of `Pattern.near` or more."""

    q_BTKGH: jax.Array
    k_BSKH: jax.Array


class Own(NamedTuple):
    """Keys and values that each query head has for itself, P of them, in one softmax with those
    that all share: what it found in a memory. They are distant: `Far` queries score them."""

    k_BTKGPH: jax.Array
    v_BTKGPH: jax.Array
    seen_BTP: jax.Array
    """Which of them there are, bool."""


type Bias = Callable[[jax.Array], jax.Array]
"""From distances, int32 [..., T, S], to what is added to scores, fp32 [..., K, G, T, S]. A pytree
(jax.tree_util.Partial), whose arrays end with axes K and G."""
