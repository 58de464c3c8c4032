"""Dynamic mixtures: from what was monitored so far to the next shares of the sources.

A record is what was known at one step: held-out scores by source, tokens read, the shares in force.
`decide` is a pure function of the config, the mixture's own shares and the records so far, in
float64; what it returns is bounded and rounded, so that the log of decisions is the mixture.
"""

import importlib
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.dynamic import ADO, DoReMi, Dynamic, Function, SkillIt
from jaxlm.errors import UserError
from jaxlm.tokens.bounds import bounded
from jaxlm.tokens.tokenizer import load_tokenizer
from jaxlm.workdir import Workdir

LARGEST_EVALUATION = 1 << 24

ALPHAS = np.linspace(0.05, 0.8, 151)
"""Exponents of a scaling law that are tried; the published code of ADO keeps to the same range."""
FEWEST_RECORDS = 3
"""A law has three numbers."""


class Record(NamedTuple):
    """What was monitored after a step."""

    step: int
    """Optimizer steps of the run so far."""
    tokens: Mapping[str, int]
    """Tokens read so far, by source of the mixture."""
    scores: Mapping[str, Mapping[str, float]]
    """Held-out scores of every source with validation documents; "loss" in nats a token."""
    shares: Mapping[str, float]
    """In force up to this step, by source of the mixture."""


class Decision(NamedTuple):
    """The shares from the next step on, and what they were decided by."""

    shares: dict[str, float]
    """Multiples of 1e-4 that sum to one."""
    weights: dict[str, float]
    """What the method wanted before the bounds; they sum to one."""
    reasons: dict[str, dict[str, float]]
    """The method's figures, each by source."""


class Laws(NamedTuple):
    """A loss as a function of tokens n, epsilon + beta n^-alpha; arrays of one shape."""

    epsilon: NDArray[np.float64]
    beta: NDArray[np.float64]
    alpha: NDArray[np.float64]


def decide(dynamic: Dynamic, prior: Mapping[str, float], records: Sequence[Record]) -> Decision:
    """The shares after the newest record.

    prior: shares of the mixture in the config, of each source that takes part; they sum to one.
    records: in order, at least one. Raises UserError for losses that are not numbers, and for what
    a user's function does wrong.
    """
    names = list(prior)
    for record in records:
        _refuse_lost(dynamic, names, record)
    prior_S = np.array([prior[name] for name in names])
    reasons: dict[str, NDArray[np.float64]] = {}
    match dynamic.method:
        case ADO() as method:
            weights_S, reasons = _ado(method, names, prior_S, records)
        case DoReMi() as method:
            weights_S, reasons = _doremi(method, names, records[-1])
        case SkillIt() as method:
            weights_S, reasons = _skill_it(method, names, prior_S, records)
        case Function() as method:
            weights_S = _called(method, names, prior, records)
    weights_S = weights_S / weights_S.sum()
    in_force_S = np.array([records[-1].shares[name] for name in names])
    shares_S = bounded(
        weights_S,
        in_force_S,
        minimum=dynamic.minimum,
        maximum=dynamic.maximum,
        max_change=dynamic.max_change,
    )
    return Decision(
        dict(zip(names, shares_S.tolist(), strict=True)),
        dict(zip(names, weights_S.tolist(), strict=True)),
        {key: dict(zip(names, value.tolist(), strict=True)) for key, value in reasons.items()},
    )


def _refuse_lost(dynamic: Dynamic, names: list[str], record: Record) -> None:
    """Raise UserError where a source has no loss to decide by."""
    helped: list[str] = []
    if isinstance(dynamic.method, SkillIt):
        helped = [name for row in dynamic.method.graph.values() for name in row]
    losses = {name: record.scores.get(name, {}).get("loss", math.nan) for name in [*names, *helped]}
    lost = [f"{name} has {loss}" for name, loss in losses.items() if not math.isfinite(loss)]
    if lost:
        raise UserError(
            f"step {record.step}: no held-out loss to decide the mixture by: {', '.join(lost)}; "
            "start again from the last checkpoint with a lower optimizer.learning_rate, or leave "
            "data.mixture.dynamic out"
        )


def _losses(names: Sequence[str], records: Sequence[Record]) -> NDArray[np.float64]:
    """float64 [S, T]"""
    return np.array([[record.scores[name]["loss"] for record in records] for name in names])


def _ado(
    method: ADO, names: list[str], prior_S: NDArray[np.float64], records: Sequence[Record]
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Adaptive Data Optimization (Jiang et al. 2024, section 3 and algorithm 1).

    The preference is rho ~ mu * h^s * -dL/dn: the prior mu, a credit for what was trained on of
    late, h = gamma_1 pi + (1 - gamma_1) h, and the speed of learning by the source's law, whose
    derivative is -alpha (L - epsilon) / n. Shares are pi = gamma_2 rho + (1 - gamma_2) the average
    of rho over the run (which begins as mu).

    Adapted: laws are fitted to held-out losses, which are few and hardly noisy, and not to smoothed
    losses of batches; t counts records, not steps; pi in h is what was in force, after the bounds;
    the least share is `dynamic.minimum`. Before three records can be fitted, rho is mu. A
    source whose loss rises has speed 0.
    """
    counts_ST = np.array([[record.tokens[name] for record in records] for name in names], float)
    if method.tokens == "all":
        counts_ST = np.broadcast_to(counts_ST.sum(0), counts_ST.shape)
    losses_ST = _losses(names, records)
    use_T = np.array([record.step > method.ignore for record in records])
    fits = [fit_laws(n_T, loss_T, use_T) for n_T, loss_T in zip(counts_ST, losses_ST, strict=True)]
    laws = Laws(*map(np.array, zip(*fits, strict=True)))
    # the derivative at 0 tokens is never asked for: there is no law before
    speed_ST = laws.alpha * laws.beta * np.maximum(counts_ST, 1.0) ** (-laws.alpha - 1)
    credit_S = average_S = prior_S
    preference_S = prior_S
    for t, record in enumerate(records):
        in_force_S = np.array([record.shares[name] for name in names])
        credit_S = method.credit_smoothing * in_force_S + (1 - method.credit_smoothing) * credit_S
        raw_S = prior_S * credit_S**method.credit * speed_ST[:, t]
        usable = np.isfinite(raw_S).all() and raw_S.sum() > 0
        preference_S = raw_S / raw_S.sum() if usable else prior_S
        weights_S = method.smoothing * preference_S + (1 - method.smoothing) * average_S
        average_S = (preference_S + (t + 1) * average_S) / (t + 2)
    figures = {"preference": preference_S, "credit": credit_S}
    if np.isfinite(laws.alpha[:, -1]).all():
        figures |= {name: value[:, -1] for name, value in laws._asdict().items()}
        figures["speed"] = speed_ST[:, -1]
    return weights_S, figures


def fit_laws(
    counts_T: NDArray[np.float64], losses_T: NDArray[np.float64], use_T: NDArray[np.bool_]
) -> Laws:
    """The scaling law of a source's losses up to each record, float64 [T]; NaN before three.

    Least squares in epsilon and beta, both 0 or more, for each exponent of `ALPHAS`, of which the
    best is taken. So a law needs no start values and no iterations, has the same bits every time,
    and its exponent is exact to 0.005.

    counts_T: tokens. use_T: records that count; the others, and those without a token, do not.
    """
    use_T = use_T & (counts_T > 0)
    first = int(np.argmax(use_T))
    x_AT = np.where(use_T, np.maximum(counts_T, 1.0) ** -ALPHAS[:, None], 0.0)
    y_T = np.where(use_T, losses_T, 0.0)
    number_T = np.cumsum(use_T).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        # sums up to each record, of distances from the first: nearly equal losses keep their digits
        x0_A1, y0 = x_AT[:, first, None], y_T[first]
        dx_AT, dy_T = np.where(use_T, x_AT - x0_A1, 0.0), np.where(use_T, y_T - y0, 0.0)
        mean_x_AT, mean_y_T = dx_AT.cumsum(1) / number_T, dy_T.cumsum() / number_T
        xx_AT = (dx_AT**2).cumsum(1) - number_T * mean_x_AT**2
        xy_AT = (dx_AT * dy_T).cumsum(1) - number_T * mean_x_AT * mean_y_T
        yy_T = (dy_T**2).cumsum() - number_T * mean_y_T**2
        beta_AT = xy_AT / xx_AT
        epsilon_AT = y0 + mean_y_T - beta_AT * (x0_A1 + mean_x_AT)
        error_AT = yy_T - xy_AT * beta_AT
        # outside of the quadrant the best point is on the edge that was crossed: no rise, or ...
        rises_AT = beta_AT < 0
        epsilon_AT = np.where(rises_AT, y0 + mean_y_T, epsilon_AT)
        error_AT = np.where(rises_AT, yy_T, error_AT)
        # ... nothing that stays
        below_AT = epsilon_AT < 0
        product_AT = (x_AT * y_T).cumsum(1)
        through_AT = product_AT / (x_AT**2).cumsum(1)
        error_AT = np.where(below_AT, (y_T**2).cumsum() - product_AT * through_AT, error_AT)
    beta_AT = np.where(below_AT, through_AT, np.maximum(beta_AT, 0.0))
    enough_T = (number_T >= FEWEST_RECORDS) & np.isfinite(error_AT).all(0)
    best_T = np.argmin(np.where(enough_T, error_AT, 0.0), 0)
    T = np.arange(len(counts_T))
    return Laws(
        np.where(enough_T, np.maximum(epsilon_AT, 0.0)[best_T, T], np.nan),
        np.where(enough_T, beta_AT[best_T, T], np.nan),
        np.where(enough_T, ALPHAS[best_T], np.nan),
    )


def _doremi(
    method: DoReMi, names: list[str], record: Record
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """A step of DoReMi's domain weights (Xie et al. 2023, algorithm 1).

    alpha' = alpha exp(eta * excess), normalised, and smoothed with the uniform distribution; the
    excess is the loss above the reference's, or 0. Adapted: it is clipped by source and of held-out
    text, where the paper clips it token by token of a batch, and sources are sampled in these
    shares, where the paper weighs their losses.
    """
    if method.reference is None:
        raise ValueError("the reference has not been read; see `with_reference`")
    reference_S = np.array([method.reference[name] for name in names])
    excess_S = np.maximum(_losses(names, [record])[:, 0] - reference_S, 0.0)
    in_force_S = np.array([record.shares[name] for name in names])
    # the largest exponent is 0, so that none overflows
    raised_S = in_force_S * np.exp(method.step_size * (excess_S - excess_S.max()))
    c = method.smoothing
    return (1 - c) * raised_S / raised_S.sum() + c / len(names), {"excess": excess_S}


def _skill_it(
    method: SkillIt, names: list[str], prior_S: NDArray[np.float64], records: Sequence[Record]
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Skill-it's update (Chen et al. 2023, algorithm 1).

    p_i ~ exp(eta * sum over the window and over j of A_ij L_j). Adapted: times the mixture's own
    share, which is the paper's where that is uniform.
    """
    window = records[-method.window :]
    gain_S = np.array([
        sum(
            strength * record.scores[helped]["loss"]
            for record in window
            for helped, strength in method.graph.get(name, {}).items()
        )
        for name in names
    ])  # fmt: skip
    return prior_S * np.exp(method.eta * (gain_S - gain_S.max())), {"gain": gain_S}


def _called(
    method: Function, names: list[str], prior: Mapping[str, float], records: Sequence[Record]
) -> NDArray[np.float64]:
    """What a user's function returns for plain copies of the records."""
    function = load_function(method.call)
    given = [
        {
            "step": record.step,
            "tokens": dict(record.tokens),
            "losses": {name: scores["loss"] for name, scores in record.scores.items()},
            "scores": {name: dict(scores) for name, scores in record.scores.items()},
            "shares": dict(record.shares),
            "mixture": dict(prior),
        }
        for record in records
    ]
    where = f"data.mixture.dynamic.method.call: {method.call} at step {records[-1].step}"
    try:
        weights = function(given)
    except (Exception, SystemExit) as error:
        raise UserError(f"{where} raised {_told(error)}") from error
    if not isinstance(weights, Mapping):
        raise UserError(f"{where} returned {_short(weights)}, not {{source: weight}}")
    wrong = [f"no weight for {name}" for name in names if name not in weights]
    wrong += [f"an unknown source {_short(name)}" for name in weights if name not in prior]
    for name in names:
        if name in weights and not _is_weight(weights[name]):
            wrong.append(f"{_short(weights[name])} for {name}")
    if not wrong and not any(float(weights[name]) for name in names):
        wrong.append("0 for all sources")
    if wrong:
        raise UserError(
            f"{where} returned {', '.join(wrong)}; it must give each of {', '.join(names)} a "
            "finite weight of 0 or more, and one above 0"
        )
    weights_S = np.array([float(weights[name]) for name in names])
    return weights_S / weights_S.max()  # so that the sum of large ones is finite


@cache
def load_function(call: str) -> Callable[[list[dict[str, Any]]], Any]:
    """The function that FILE.py:NAME or MODULE:NAME names; a file is run once.

    Raises UserError where there is none.
    """
    place, _, name = call.rpartition(":")
    where = f"data.mixture.dynamic.method.call: {call}"
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location("dynamic_mixture", Path(place))
            if spec is None or spec.loader is None:
                raise ImportError("not a Python file")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # where dataclasses look for it
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
    except (Exception, SystemExit) as error:
        raise UserError(f"{where}: {place} cannot be imported ({_told(error)})") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"{where}: {place} has no function {name}")
    return function


def read_reference(run: str, tokenizer: Path) -> dict[str, float]:
    """Held-out losses by source in the eval.json of a run's folder.

    tokenizer: folder of the one in use. Raises UserError where there are none, or where they are of
    the tokens of another one.
    """
    key, other = "data.mixture.dynamic.method.reference_run", Workdir(run)
    path = other.evaluation
    try:
        if path.stat().st_size > LARGEST_EVALUATION:
            raise ValueError("larger than scores can be")
        sources = json.loads(path.read_bytes())["sources"]
        losses = {str(name): float(scores["loss"]) for name, scores in sources.items()}
        if not all(math.isfinite(loss) and loss > 0 for loss in losses.values()):
            raise ValueError("a loss is not a number above 0")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{key}: {path}: no losses by source ({error}); make them with: jaxlm eval {run}"
        ) from None
    if load_tokenizer(other.tokenizer).hash != load_tokenizer(tokenizer).hash:
        raise UserError(f"{key}: {run} has another tokenizer, so losses a token say nothing here")
    return losses


def with_reference(dynamic: Dynamic, references: Mapping[str, Mapping[str, float]]) -> Dynamic:
    """The section with the losses of method.reference_run, by its name, in method.reference."""
    method = dynamic.method
    if not isinstance(method, DoReMi) or method.reference_run is None:
        return dynamic
    losses = dict(references[method.reference_run])
    changed = method.model_copy(update={"reference": losses, "reference_run": None})
    return dynamic.model_copy(update={"method": changed})


def _is_weight(value: Any) -> bool:
    try:
        return math.isfinite(float(value)) and float(value) >= 0.0
    except (TypeError, ValueError, OverflowError):
        return False


def _told(error: BaseException) -> str:
    """An error of a user's function in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no message'}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
