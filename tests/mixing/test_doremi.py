"""DoReMi's weights, by hand and on the planted task."""

from pathlib import Path

import numpy as np

from jaxlm.mixing.doremi import doremi, excesses, updated
from jaxlm.mixing.proxies import proxy_config
from jaxlm.workdir import Workdir, no_progress
from tests.mixing.planted import config_of


def test_an_update_by_hand() -> None:
    weights = np.array([0.5, 0.25, 0.25, 0.0])
    found = updated(weights, np.array([0.0, np.log(2), np.log(4), 5.0]), np.array([0, 1, 2]))
    # 0.5, 0.5 and 1 of 2, and a thousandth of the uniform distribution
    wanted = 0.999 * np.array([0.25, 0.25, 0.5]) + 0.001 / 3
    np.testing.assert_allclose(found, [*wanted, 0.0])


def test_the_excess_is_clipped_by_token_and_kept_for_who_is_not_there() -> None:
    behind = np.array([[1.0, -3.0], [0.5, 0.5], [0.0, 9.0]], np.float32)
    counted = np.array([[1, 1], [1, 1], [1, 0]], np.float32)
    found = excesses(np.array([7.0, 7.0, 7.0]), behind, counted, np.array([0, 0, 2]))
    np.testing.assert_allclose(found, [(1 + 0 + 0.5 + 0.5) / 4, 7.0, 0.0], atol=1e-12)


def test_noise_which_is_learnt_at_once_gets_less(planted: Path) -> None:
    config = config_of(planted, steps=60, method="doremi")
    base = np.array([1 / 3, 1 / 3, 1 / 3, 0.0])
    own, workdir = proxy_config(config), Workdir(config.workdir)
    found = doremi(own, workdir, base, no_progress)
    np.testing.assert_allclose(found.sum(), 1)
    assert found[3] == 0
    assert found[2] < found[:2].min()
