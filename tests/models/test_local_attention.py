"""Every kernel computes from parts of rows, on the devices that have them, what whole rows give."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.models.attention import Pattern
from jaxlm.models.fused_attention import cudnn, splash
from jaxlm.models.local_attention import of_parts
from jaxlm.models.xla_attention import xla
from jaxlm.parallel import make_mesh
from jaxlm.parallel.context import order, parts, places
from tests.models.small import config_of
from tests.models.test_attention import (
    CASES,
    Asked,
    Inputs,
    agree,
    call,
    dense,
    inputs,
    on_mesh,
    small_blocks,  # noqa: F401 - a fixture
    with_gradients,
)


def from_parts(
    kernel: Callable[..., jax.Array], pattern: Pattern, asked: Asked, given: Inputs
) -> jax.Array:
    """What the kernel makes of whole rows that are cut before it and put together behind it."""
    count = parts()

    def cut(a: jax.Array) -> jax.Array:
        B, T = a.shape[:2]
        a = a[:, order(T, count)].reshape(B, count, T // count, *a.shape[2:])
        return jnp.swapaxes(a, 0, 1).reshape(count * B, T // count, *a.shape[3:])

    mask = jax.tree.map(lambda a: cut(jnp.asarray(a)), given.mask)
    arrays: Any = (*map(cut, given[:5]), *given[5:7], mask)
    own = on_mesh(Inputs(*arrays))
    own = own._replace(mask=own.mask._replace(places_BT=places(own.mask.segments_BT)))
    out = call(partial(of_parts, kernel), pattern, asked, own)
    out = jax.reshard(out, jax.P())
    B, T = given.q.shape[:2]
    out = jnp.swapaxes(out.reshape(count, B, T // count, *out.shape[2:]), 0, 1)
    return out.reshape(given.q.shape)[:, np.argsort(order(T, count))]


def eight_devices(context: int) -> Any:
    return jax.set_mesh(make_mesh(config_of(mesh={"context": context, "tensor": 2, "data": -1})))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("case", [0, 3, 4, 5, 6, 8])
def test_xla_takes_all_keys_or_those_of_the_window(case: int) -> None:
    pattern, asked = CASES[case]
    given = inputs(2, 160, G=1 + case % 2)
    with eight_devices(context=4 if case % 2 else 2):
        ours = with_gradients(partial(from_parts, xla, pattern, asked), given)
    agree(ours, with_gradients(partial(dense, pattern, asked), given))


def test_queries_find_the_encoded_tokens_of_their_document() -> None:
    given = inputs(2, 72, 48)
    with eight_devices(context=2):
        ours = with_gradients(partial(from_parts, xla, Pattern(causal=False), Asked()), given)
    agree(ours, with_gradients(partial(dense, Pattern(causal=False), Asked()), given))


FUSED = [
    (Pattern(), Asked(prefix=True)),
    (Pattern(window=150), Asked()),
    (Pattern(softcap=2.0), Asked(sink_logits=True)),
]


@pytest.mark.parametrize("case", range(len(FUSED)))
def test_splash_knows_the_places_of_its_queries(case: int) -> None:
    pattern, asked = FUSED[case]
    given = inputs(1, 1024, H=8, documents=2)
    with eight_devices(context=4):
        kernel = partial(splash, interpret=True)
        ours = with_gradients(partial(from_parts, kernel, pattern, asked), given)
    agree(ours, with_gradients(partial(dense, pattern, asked), given))


@pytest.mark.parametrize("case", range(2))
def test_cudnn_is_told_the_order_of_parts(case: int) -> None:
    pattern, asked = FUSED[case]
    given = inputs(2, 320)
    with eight_devices(context=4):
        kernel = partial(cudnn, implementation="xla")
        ours = with_gradients(partial(from_parts, kernel, pattern, asked), given)
    agree(ours, with_gradients(partial(dense, pattern, asked), given))
