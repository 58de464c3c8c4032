"""From the shares of sources to a loss: mixtures are drawn, a regression is fitted to what models
trained on them lost, and the best of many mixtures that nobody trained on is its answer.

RegMix (Liu et al. 2024, "RegMix: Data Mixture as Regression for Language Model Pre-training").
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.stats import rankdata

from jaxlm.tokens.bounds import round_to_whole

# N mixtures, S sources, J sources that are scored, F features

type Array = NDArray[np.float64]

STEP = 1e-3
"""Shares are whole multiples of this, so that what is written is what was trained on."""
FOLDS = 8
PROMISING = 20
"""One of so many simulated mixtures is worth a closer look after a first fit."""
SIMULATED = 100_000
BEST = 100
"""Mixtures that are simulated, and those of them with the least prediction whose mean is the
answer, as RegMix does it with more of both."""


def rounded(shares_NS: Array) -> Array:
    """Shares as multiples of STEP that still add up to 1, by largest remainder."""
    slots = round(1 / STEP)
    exact_NS = shares_NS / shares_NS.sum(axis=-1, keepdims=True) * slots
    # what was a multiple before stays one
    exact_NS = np.where(np.abs(exact_NS - np.rint(exact_NS)) < 1e-9, np.rint(exact_NS), exact_NS)
    no_end_S = np.full(shares_NS.shape[-1], np.inf)
    return np.stack([round_to_whole(exact_S, no_end_S, slots) for exact_S in exact_NS]) / slots


def draw(
    prior_S: Array, count: int, *, concentration: float, temperature: float, minimum: float,
    rng: np.random.Generator,
) -> Array:  # fmt: skip
    """Mixtures around a prior, [N, S]: Dirichlet draws with the prior ^ temperature, normalised,
    times concentration * S as parameters, above a least share of each source."""
    S = len(prior_S)
    tempered_S = prior_S**temperature
    alpha_S = concentration * S * tempered_S / tempered_S.sum()
    return minimum + (1 - S * minimum) * rng.dirichlet(alpha_S, count)


class Fit(NamedTuple):
    """The chosen regression."""

    form: str
    predict: Callable[[Array], Array]
    """From shares [N, S] to the target's loss [N]."""
    rank_correlation: float
    """Spearman's, between predictions of mixtures that were left out of a fit and their losses."""
    r2: float
    """Coefficient of determination of the same."""
    errors: dict[str, float]
    """Root mean square of the same errors by form; only forms that the mixtures suffice for."""


def fit(shares_NS: Array, losses_NJ: Array, weights_J: Array, rng: np.random.Generator) -> Fit:
    """The form that predicts mixtures best which are left out of its fit, fitted to all of them.

    weights_J: of each scored source in the target, they add up to 1. A form is fitted to the loss
    of each of these, and the predictions are added up.
    """
    N = len(shares_NS)
    target_N = losses_NJ @ weights_J
    folds = np.array_split(rng.permutation(N), min(FOLDS, N))
    left_out: dict[str, Array] = {}
    for name, form in FORMS.items():
        if N - len(folds[0]) <= form.parameters(shares_NS.shape[1]):
            continue
        left_out[name] = np.empty(N)
        for fold in folds:
            kept = np.setdiff1d(np.arange(N), fold)
            predict = _of_target(form, shares_NS[kept], losses_NJ[kept], weights_J)
            left_out[name][fold] = predict(shares_NS[fold])
    errors = {
        name: float(np.sqrt(np.mean((guess_N - target_N) ** 2)))
        for name, guess_N in left_out.items()
    }
    best = min(errors, key=lambda name: errors[name])
    variance = float(np.var(target_N))
    return Fit(
        best,
        _of_target(FORMS[best], shares_NS, losses_NJ, weights_J),
        spearman(left_out[best], target_N),
        1 - errors[best] ** 2 / variance if variance else 0.0,
        errors,
    )


def promising(predict: Callable[[Array], Array], simulated_NS: Array) -> Array:
    """The simulated mixtures that are predicted to be among the best, one of PROMISING."""
    order_N = np.argsort(predict(simulated_NS), kind="stable")
    return simulated_NS[order_N[: len(simulated_NS) // PROMISING]]


def fit_near_best(
    shares_NS: Array, losses_NJ: Array, weights_J: Array, rng: np.random.Generator
) -> Fit:
    """`fit` to the better half of the mixtures: a law that holds there alone tells them apart more
    finely than one that has the worst to fit too."""
    better = np.argsort(losses_NJ @ weights_J, kind="stable")
    better = better[: max(len(better) // 2, least_proxies(shares_NS.shape[1]))]
    return fit(shares_NS[better], losses_NJ[better], weights_J, rng)


def best_mixture(predict: Callable[[Array], Array], simulated_NS: Array) -> Array:
    """The mean of the simulated mixtures that are predicted to lose least, [S]."""
    order_N = np.argsort(predict(simulated_NS), kind="stable")
    return rounded(simulated_NS[order_N[:BEST]].mean(axis=0)[None])[0]


def spearman(a_N: Array, b_N: Array) -> float:
    """Correlation of ranks, ties sharing theirs; 0 where all of one are equal."""
    ranks = np.stack([rankdata(a_N), rankdata(b_N)])
    spread = ranks.std(axis=1)
    return float(np.corrcoef(ranks)[0, 1]) if spread.all() else 0.0


def least_proxies(sources: int) -> int:
    """The fewest mixtures that the simplest form can be fitted to with any left out."""
    return 2 * FORMS["linear"].parameters(sources)


class Form(NamedTuple):
    """A family of functions of the shares."""

    parameters: Callable[[int], int]
    """How many it has for so many sources."""
    fit: Callable[[Array, Array], Callable[[Array], Array]]
    """From shares [N, S] and losses [N] to a function of shares."""


def _of_target(
    form: Form, shares_NS: Array, losses_NJ: Array, weights_J: Array
) -> Callable[[Array], Array]:
    parts = [form.fit(shares_NS, loss_N) for loss_N in losses_NJ.T]
    return lambda x_NS: np.sum(
        [weight * part(x_NS) for weight, part in zip(weights_J, parts, strict=True)], axis=0
    )


def _least_squares(features: Callable[[Array], Array]) -> Callable[..., Callable[[Array], Array]]:
    def fitted(shares_NS: Array, loss_N: Array) -> Callable[[Array], Array]:
        coefficients_F = np.linalg.lstsq(features(shares_NS), loss_N, rcond=1e-8)[0]
        return lambda x_NS: features(x_NS) @ coefficients_F

    return fitted


def _quadratic(shares_NS: Array) -> Array:
    """Scheffé's quadratic polynomial of a mixture (1958): shares and products of two of them; the
    constant and the squares follow from these, as shares add up to 1."""
    first, second = np.triu_indices(shares_NS.shape[1], 1)
    return np.hstack([shares_NS, shares_NS[:, first] * shares_NS[:, second]])


def _exponentials(terms: int) -> Callable[[Array, Array], Callable[[Array], Array]]:
    """c + a sum of exp(t . shares), the law of Ye et al. (2024, "Data Mixing Laws", section 3):
    one term for a domain, several where a target is of domains that are not known. Their factor of
    each term is in its t, as shares add up to 1."""

    def value(p: Array, shares_NS: Array) -> Array:
        t_KS = p[1:].reshape(terms, -1)
        return p[0] + np.exp(np.minimum(shares_NS @ t_KS.T, 50.0)).sum(axis=1)

    return _searched(value, lambda S: terms * S, starts=1 if terms == 1 else STARTS)


def _logarithms(terms: int) -> Callable[[Array, Array], Callable[[Array], Array]]:
    """c - a sum of w log(p . shares), all w and p positive: what a target loses if a model that was
    trained on a mixture predicts as the mixture of models of the sources, and so gives each of some
    kinds of what the target holds the mean of the probabilities p that these give it. Convex, and
    steep where nothing is left of a source that is needed."""

    def value(p: Array, shares_NS: Array) -> Array:
        w_K, p_KS = np.exp(np.clip(p[1 : 1 + terms], -9, 5)), p[1 + terms :].reshape(terms, -1)
        mean_NK = shares_NS @ np.exp(np.clip(p_KS, -9, 5)).T
        return p[0] - np.log(mean_NK + 1e-6) @ w_K

    return _searched(value, lambda S: terms + terms * S, starts=STARTS)


def _searched(
    value: Callable[[Array, Array], Array], unknowns: Callable[[int], int], starts: int
) -> Callable[[Array, Array], Callable[[Array], Array]]:
    """Nonlinear least squares of value(parameters, shares), the best from some starting points; the
    first parameter is a constant near the least loss."""

    def fitted(shares_NS: Array, loss_N: Array) -> Callable[[Array], Array]:
        count = unknowns(shares_NS.shape[1])
        spread = float(np.ptp(loss_N)) or 1.0
        low, scaled_N = float(loss_N.min()), (loss_N - loss_N.min()) / spread
        rng = np.random.default_rng(0)
        found = [
            least_squares(
                lambda p: value(p, shares_NS) - scaled_N,
                np.concatenate([[0.0], rng.normal(-1.0, 1.0, count)]),
                max_nfev=100,
                ftol=1e-6,
            )
            for _ in range(starts)
        ]
        best = min(found, key=lambda result: result.cost).x
        return lambda x_NS: low + spread * value(best, x_NS)

    return fitted


STARTS = 3
FORMS = {
    "linear": Form(lambda S: S, _least_squares(lambda shares_NS: shares_NS)),
    "quadratic": Form(lambda S: S * (S + 1) // 2, _least_squares(_quadratic)),
    "exponential": Form(lambda S: 1 + S, _exponentials(1)),
    "exponentials": Form(lambda S: 1 + 3 * S, _exponentials(3)),
    "logarithms": Form(lambda S: 4 + 3 * S, _logarithms(3)),
}
