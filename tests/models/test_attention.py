"""The kernel table: what each kernel computes, and what it refuses."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config.model import Attention
from jaxlm.errors import UserError
from jaxlm.models import attention as module
from jaxlm.models.attention import KERNELS, Mask, attention, visible
from jaxlm.parallel import make_mesh, spec
from tests.models.small import config_of

ROWS = spec("batch", None)
QUERIES = spec("batch", None, "heads", None, None)
KEYS = spec("batch", None, "heads", None)


class Inputs(NamedTuple):
    q: jax.Array
    k: jax.Array
    v: jax.Array
    mask: Mask


def inputs(B: int, T: int, K: int = 2, G: int = 2, H: int = 16, documents: int = 3) -> Inputs:
    rng = np.random.default_rng(0)
    q, k, v = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((B, T, K, G, H), (B, T, K, H), (B, T, K, H))
    )
    ends = np.sort(rng.integers(1, T, (B, documents)), axis=1)
    segments = 1 + (np.arange(T) >= ends[..., None]).sum(axis=1)
    segments[segments > documents] = 0  # the last part is padding
    segments_BT = jax.reshard(segments.astype(np.int32), ROWS)
    q_, k_, v_ = jax.reshard(q, QUERIES), jax.reshard(k, KEYS), jax.reshard(v, KEYS)
    return Inputs(q_, k_, v_, Mask(segments_BT, segments_BT))


def naive(q: jax.Array, k: jax.Array, v: jax.Array, mask: Mask) -> np.ndarray:
    """In float64 numpy, all scores at once."""
    q64, k64, v64 = (np.asarray(a, np.float64) for a in (q, k, v))
    segments = np.asarray(mask.segments_BT)
    same = segments[:, :, None] == segments[:, None, :]
    seen = same & np.tri(segments.shape[1], dtype=bool)
    scores = np.einsum("btkgh,bskh->bkgts", q64, k64) / q64.shape[-1] ** 0.5
    p = np.exp(np.where(seen[:, None, None], scores, -np.inf))
    return np.einsum("bkgts,bskh->btkgh", p / p.sum(axis=-1, keepdims=True), v64)


def with_gradients(run: Callable[..., jax.Array], given: Inputs) -> list[np.ndarray]:
    """Output, and gradients of a fixed combination of it, for q, k and v."""
    weight = jnp.cos(jnp.arange(given.q.size, dtype=jnp.float32)).reshape(given.q.shape)

    @jax.jit
    def compute(q: jax.Array, k: jax.Array, v: jax.Array, mask: Mask) -> tuple[jax.Array, ...]:
        out, pull = jax.vjp(lambda *a: run(*a, mask), q, k, v)
        return out, *pull(jax.reshard(weight, QUERIES))

    return [np.asarray(a) for a in compute(*given)]


@pytest.mark.parametrize("length", [48, 300])
def test_xla_is_softmax_attention_in_whole_and_in_blocks(length: int) -> None:
    # 300 queries are three blocks, the last one shorter
    with jax.set_mesh(make_mesh(config_of(), jax.devices()[:1])):
        given = inputs(2, length)
        out = attention(*given, kernel="xla")
    np.testing.assert_allclose(out, naive(*given), atol=2e-6)


def test_queries_of_a_cache_see_keys_from_their_own_index_on_back() -> None:
    with jax.set_mesh(make_mesh(config_of(), jax.devices()[:1])):
        q, k, v, _ = inputs(2, 24, documents=0)
        ones = jnp.ones((2, 24), jnp.int32)
        whole = attention(q, k, v, Mask(ones, ones))
        first = jnp.array([20, 3])
        part = jax.reshard(np.stack([np.asarray(q)[0, 20:23], np.asarray(q)[1, 3:6]]), QUERIES)
        out = attention(part, k, v, Mask(ones[:, :3], ones, first))
    np.testing.assert_allclose(out, np.stack([whole[0, 20:23], whole[1, 3:6]]), atol=1e-6)


def test_a_padding_row_sees_itself_and_gives_no_nan() -> None:
    segments = jnp.array([[1, 1, 0, 0]], jnp.int32)
    seen = visible(Mask(segments, segments), slice(None), slice(None))
    expected = [[[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]]
    np.testing.assert_array_equal(seen, np.array(expected, bool))
    # a cache may show a query nothing at all
    q, k = jnp.ones((1, 1, 1, 1, 8)), jnp.ones((1, 4, 1, 8))
    mask = Mask(jnp.array([[1]]), jnp.zeros((1, 4), jnp.int32), jnp.array([2]))
    with jax.set_mesh(make_mesh(config_of(), jax.devices()[:1])):
        assert np.isfinite(attention(q, k, k, mask)).all()


@pytest.mark.parametrize("sizes", [{"data": 1}, {"data": 2, "tensor": 2}])
def test_splash_gives_the_values_and_gradients_of_xla(sizes: dict[str, int]) -> None:
    config = config_of(mesh=sizes)
    devices = jax.devices()[: 4 if "tensor" in sizes else 1]
    with jax.set_mesh(make_mesh(config, devices)):
        given = inputs(2, 256)
        ours = with_gradients(partial(module._splash, interpret=True), given)
        theirs = with_gradients(module._xla, given)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6 * np.abs(b).max())


def test_a_kernel_that_was_asked_for_refuses_with_the_reason() -> None:
    with jax.set_mesh(make_mesh(config_of(), jax.devices()[:1])):
        given = inputs(1, 32)
        for kernel, platform in (("splash", "tpu"), ("cudnn", "gpu")):
            with pytest.raises(UserError) as refused:
                attention(*given, kernel=kernel)
            assert refused.value.messages == [
                f"model.attention.kernel: {kernel}: runs on {platform}, this is cpu"
            ]
        assert np.isfinite(attention(*given)).all(), "auto goes on to the next row"


@pytest.mark.parametrize(
    ("kernel", "shape", "dtype", "cached", "reason"),
    [
        ("cudnn", (1, 128, 2, 2, 64), "float32", False, "takes bf16 and fp16, not float32"),
        ("cudnn", (1, 128, 2, 2, 136), "bfloat16", False, "multiples of 8 up to 128, not 136"),
        ("cudnn", (1, 128, 2, 2, 20), "bfloat16", False, "multiples of 8 up to 128, not 20"),
        ("cudnn", (1, 127, 2, 2, 64), "bfloat16", False, "even length, not 127"),
        ("cudnn", (1, 128, 2, 2, 64), "bfloat16", True, "key-value cache"),
        ("cudnn", (1, 128, 2, 2, 64), "bfloat16", False, None),
        ("splash", (1, 200, 2, 2, 64), "bfloat16", False, "multiples of 128, not 200"),
        ("splash", (1, 128, 2, 2, 64), "float32", True, "key-value cache"),
        ("splash", (1, 384, 2, 2, 64), "float32", False, None),
    ],
)
def test_refusals(
    kernel: str, shape: tuple[int, ...], dtype: str, cached: bool, reason: str | None
) -> None:
    row = next(row for row in KERNELS if row.name == kernel)
    q: Any = jax.ShapeDtypeStruct(shape, dtype)
    segments = jnp.ones(shape[:2], jnp.int32)
    mask = Mask(segments, segments, jnp.zeros(1, jnp.int32) if cached else None)
    found = row.refuses(q, q, mask)
    assert (found is None) if reason is None else (reason in (found or ""))


def test_every_kernel_that_a_config_may_name_is_in_the_table() -> None:
    named = get_args(Attention.model_fields["kernel"].annotation)
    assert {"auto", *(row.name for row in KERNELS)} == set(named)
    assert KERNELS[-1].name == "xla", "the one that takes everything comes last"
