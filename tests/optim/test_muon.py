"""The orthogonalisation in Muon."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.optim.muon import orthogonalise, scale_by_muon
from jaxlm.parallel import make_mesh
from tests.models.small import config_of


@pytest.fixture(autouse=True)
def one_device() -> Iterator[None]:
    with jax.set_mesh(make_mesh(config_of(), jax.devices()[:1])):
        yield


@pytest.mark.parametrize("shape", [(32, 32), (24, 48), (48, 24)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = np.asarray(orthogonalise(jnp.asarray(matrix), 5))
    u, _, vt = np.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ found @ vt.T
    values = np.diag(inside)
    assert values.min() > 0.65
    assert values.max() < 1.22
    np.testing.assert_allclose(inside - np.diag(values), 0, atol=1e-4)


def test_size_does_not_matter_and_layers_do_not_meet() -> None:
    stack = np.random.default_rng(1).standard_normal((3, 8, 12)).astype(np.float32)
    found = orthogonalise(jnp.asarray(stack), 5)
    for layer, matrix in enumerate(stack):
        alone = orthogonalise(jnp.asarray(1000 * matrix), 5)
        np.testing.assert_allclose(found[layer], alone, atol=1e-5)


def test_rows_of_zeros_stay_zeros() -> None:
    matrix = np.random.default_rng(2).standard_normal((12, 8)).astype(np.float32)
    matrix[5:] = 0
    found = np.asarray(orthogonalise(jnp.asarray(matrix), 5))
    assert np.isfinite(found).all()
    assert not found[5:].any()
    assert not np.asarray(orthogonalise(jnp.zeros((4, 4)), 5)).any()


def test_momentum_is_nesterovs_and_wide_outputs_are_scaled() -> None:
    rng = np.random.default_rng(3)
    gradients = [jnp.asarray(rng.standard_normal((1, 4, 16)), jnp.float32) for _ in range(3)]
    rule = scale_by_muon(0.9, 5)
    state = rule.init({"w": gradients[0]})
    momentum = np.zeros((1, 4, 16), np.float32)
    for gradient in gradients:
        updates, state = jax.jit(rule.update)({"w": gradient}, state)
        momentum = 0.9 * momentum + gradient
        expected = 2.0 * orthogonalise(jnp.asarray(0.9 * momentum + gradient), 5)
        np.testing.assert_allclose(updates["w"], expected, atol=1e-5)


def test_a_matrix_that_is_in_no_stack_is_one() -> None:
    gradient = jnp.asarray(np.random.default_rng(4).standard_normal((24, 5)), jnp.float32)
    rule = scale_by_muon(0.0, 5)
    updates, _ = rule.update({"w": gradient}, rule.init({"w": gradient}))
    np.testing.assert_allclose(updates["w"], orthogonalise(gradient, 5), atol=1e-5)
