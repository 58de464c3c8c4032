"""Drawing mixtures, fitting losses to them, and finding the best."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from jaxlm.mixing.regression import (
    FORMS,
    best_mixture,
    draw,
    fit,
    fit_near_best,
    least_proxies,
    promising,
    rounded,
    spearman,
)

ONE = np.ones(1)


def simplex(count: int, sources: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(sources), count)


@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=40))
def test_rounded_shares_are_near_and_add_up(weights: list[float]) -> None:
    shares = np.array(weights) / sum(weights)
    found = rounded(shares[None])[0]
    assert round(found.sum(), 9) == 1
    assert np.abs(found - shares).max() <= 1e-3
    np.testing.assert_allclose(found * 1000, np.round(found * 1000), atol=1e-9)
    np.testing.assert_array_equal(rounded(found[None])[0], found)


def test_draws_are_around_the_prior_and_above_the_minimum() -> None:
    prior = np.array([0.64, 0.32, 0.04])

    def drawn(**changes: float) -> np.ndarray:
        how = {"concentration": 1.0, "temperature": 1.0, "minimum": 0.0} | changes
        return draw(prior, 20_000, rng=np.random.default_rng(0), **how)

    np.testing.assert_allclose(drawn().mean(axis=0), prior, atol=0.01)
    np.testing.assert_allclose(drawn(temperature=0.0).mean(axis=0), [1 / 3] * 3, atol=0.01)
    assert (drawn(concentration=50.0).std(axis=0) < 0.2 * drawn().std(axis=0)).all()
    held = drawn(minimum=0.1)
    assert held.min() >= 0.1
    np.testing.assert_allclose(held.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("form", "loss"),
    [
        ("linear", lambda x: 2 + x @ [0.5, -0.3, 1.0]),
        ("quadratic", lambda x: 2 + (x[:, 0] - 0.6) ** 2 + x[:, 1] * x[:, 2]),
        ("exponential", lambda x: 1.5 + 0.4 * np.exp(x @ [-3.0, -1.0, 0.5])),
        ("exponentials", lambda x: 1 + np.exp(-4 * x[:, 0]) + 0.5 * np.exp(-3 * x[:, 1])),
        ("logarithms", lambda x: 1 - 0.6 * np.log(x[:, 0] + 0.05) - 0.4 * np.log(x[:, 1] + 0.05)),
    ],
)
def test_a_form_finds_what_is_of_its_kind(form: str, loss: object) -> None:
    assert callable(loss)
    shares, unseen = simplex(40), simplex(200, seed=1)
    found = FORMS[form].fit(shares, loss(shares))(unseen)
    np.testing.assert_allclose(found, loss(unseen), atol=0.02)


def test_the_form_that_predicts_best_is_chosen_and_finds_the_minimum() -> None:
    shares = simplex(48)
    noise = np.random.default_rng(1).normal(0, 0.005, 48)
    # least at 65 and 35 %: the derivative of both terms is 1 there
    losses = 1 - 0.65 * np.log(shares[:, 0] + 1e-3) - 0.35 * np.log(shares[:, 1] + 1e-3) + noise
    found = fit(shares, losses[:, None], ONE, np.random.default_rng(0))
    assert found.form == "logarithms"
    assert found.rank_correlation > 0.98
    assert found.r2 > 0.95
    assert found.errors["logarithms"] < 0.5 * found.errors["linear"]
    best = best_mixture(found.predict, simplex(20_000, seed=2))
    np.testing.assert_allclose(best, [0.65, 0.35, 0.0], atol=0.04)


def test_weights_of_the_target_count() -> None:
    shares = simplex(30)
    both = np.stack([1 - shares[:, 0], 1 - shares[:, 1]], axis=1)
    predict = fit(shares, both, np.array([0.9, 0.1]), np.random.default_rng(0)).predict
    np.testing.assert_allclose(predict(shares), both @ [0.9, 0.1], atol=1e-6)


def test_forms_with_more_parameters_than_mixtures_are_left_out() -> None:
    few = least_proxies(4)
    shares = simplex(few, 4)
    found = fit(shares, shares[:, :1], ONE, np.random.default_rng(0))
    assert {"linear"} <= set(found.errors) < set(FORMS)


def test_promising_mixtures_are_among_the_best() -> None:
    some = promising(lambda x: x[:, 0], simplex(2000))
    assert len(some) == 100
    assert some[:, 0].max() <= np.quantile(simplex(2000)[:, 0], 0.05)


def test_near_the_best_the_worst_do_not_count() -> None:
    shares = simplex(60)
    losses = 1 + (shares[:, 0] - 0.6) ** 2
    wrong = np.where(losses > np.median(losses), 9.0, losses)
    predict = fit_near_best(shares, wrong[:, None], ONE, np.random.default_rng(0)).predict
    np.testing.assert_allclose(predict(shares), losses, atol=1e-6)


@given(st.lists(st.integers(-5, 5), min_size=3, max_size=20), st.integers(0, 1000))
def test_rank_correlation_is_that_of_scipy(values: list[int], seed: int) -> None:
    other = np.random.default_rng(seed).integers(-3, 3, len(values)).astype(float)
    if len(set(values)) == 1 or len(set(other)) == 1:
        assert spearman(np.array(values, float), other) == 0
    else:
        wanted = spearmanr(values, other).statistic
        assert spearman(np.array(values, float), other) == pytest.approx(wanted)
