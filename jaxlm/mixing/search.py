"""`jaxlm mix`: from a run's tokens to shares of its sources, with what speaks for them."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxlm.config import Config, dump
from jaxlm.config.mixture import Mixture
from jaxlm.errors import UsageError, UserError
from jaxlm.mixing.doremi import doremi
from jaxlm.mixing.proxies import Proxies, Run, proxy_config
from jaxlm.mixing.regression import (
    SIMULATED,
    Array,
    best_mixture,
    draw,
    fit,
    fit_near_best,
    least_proxies,
    promising,
    rounded,
    spearman,
)
from jaxlm.tokens import open_loader
from jaxlm.tokens.shuffle import key_of
from jaxlm.workdir import Progress, Workdir, write_json, write_text

# N mixtures, S streams of the run, s of them that are searched, J that are scored, C candidates

WELL, IN_PART = 0.8, 0.5
"""Rank correlations from which a ranking carried over, or did in part."""
LARGEST_RECORD = 1 << 28


class Show(Protocol):
    """Who is told how far the search is (reports.Terminal is one)."""

    def __call__(self, task: str, done: int, total: int | None, unit: str) -> None: ...
    def line(self, text: str) -> None: ...


class Found(NamedTuple):
    """A mixture, and how it was come by."""

    shares_S: Array
    predicted: float | None = None
    regression: list[dict[str, Any]] | None = None
    predict: Callable[[Array], Array] | None = None


def refuse(config: Config) -> None:
    """Raise UserError for a search that cannot be, as far as it shows before any work."""
    mix, data = config.mix, config.data
    names = [source.name for source in config.sources]
    found: list[str] = []
    if data.mixture.weights is None and not data.split_by:
        found += _unfit(config, sum(source.weight > 0 for source in config.sources))
    found += [
        f"mix.target.{name}: no source is named {name!r}; there are {', '.join(names)}"
        for name in mix.target or ()
        if name.partition("@")[0] not in names
    ]
    if data.validation_fraction == 0:
        found.append(
            "data.validation_fraction: is 0, so there is nothing to judge a mixture by; raise it"
        )
    for scale in (1.0, *mix.scales):
        try:
            proxy_config(config, scale)
        except UserError as error:
            found += [message for message in error.messages if message not in found]
    if found:
        raise UsageError(found)


def _unfit(config: Config, sources: int) -> list[str]:
    """What is wrong with a search among so many sources (or streams)."""
    mix, found = config.mix, []
    if sources < 2:
        found.append(
            f"sources: {'one has' if sources else 'none has'} a weight, and a mixture is of at "
            "least two; give more of them one"
        )
    elif mix.method == "regmix" and mix.proxies < least_proxies(sources):
        found.append(
            f"mix.proxies: {mix.proxies} mixtures are too few for a regression on {sources} "
            f"sources; give at least {least_proxies(sources)}"
        )
    if sources > 1 and mix.minimum * sources >= 1:
        found.append(
            f"mix.minimum: {mix.minimum:g} for each of {sources} sources leaves nothing to "
            f"choose; give less than {1 / sources:g}"
        )
    return found


def search(config: Config, workdir: Workdir, show: Show) -> dict[str, Any]:
    """Find a mixture, and write it with its record and report into WORKDIR/mix.

    Models that were trained before, in a search that was stopped or with other settings that do not
    concern them, are not trained again. Returns the record (summary.json).
    """
    mix, folder = config.mix, workdir.path / "mix"
    folder.mkdir(exist_ok=True)
    run = open_loader(_with_length(config), workdir)
    names, base_S = run.names, np.array(run.weights)
    searched = np.flatnonzero(base_S)
    if problems := _unfit(config, len(searched)):
        raise UsageError(problems)
    if unknown := [name for name in mix.target or () if name not in names]:
        raise UsageError([
            f"mix.target.{name}: no source or stream is named so; there are {', '.join(names)}"
            for name in unknown
        ])  # fmt: skip
    scored = list(mix.target or names)
    small = Proxies(config, workdir, scored)
    weights_J = np.array([(mix.target or {}).get(name, 1.0) for name in scored])
    weights_J /= weights_J.sum()
    trained = _Trained(folder / "trained.jsonl", workdir, show)

    def whole(shares_Ns: Array) -> Array:
        """Shares of the searched streams as those of all."""
        shares_NS = np.zeros((len(shares_Ns), len(names)))
        shares_NS[:, searched] = rounded(shares_Ns)
        return shares_NS

    prior_s = base_S[searched] / base_S.sum()
    base_S, uniform_S = whole(np.stack([prior_s, np.full(len(searched), 1 / len(searched))]))

    def rng_of(purpose: str) -> np.random.Generator:
        return np.random.default_rng(key_of(config.seed, "mix", purpose))

    def drawn(count: int, purpose: str) -> Array:
        return draw(
            prior_s, count, concentration=mix.concentration, temperature=mix.temperature,
            minimum=mix.minimum, rng=rng_of(purpose),
        )  # fmt: skip

    tried_NS = np.stack([base_S, uniform_S])
    if mix.method == "regmix":
        show.line(
            f"mix: {mix.proxies} mixtures of {len(searched)} sources, each a model of "
            f"{small.parameters:,} parameters for {mix.steps} steps"
        )
        simulated_Ns = drawn(SIMULATED, "simulated")
        last = min(int(mix.refine * mix.proxies), mix.proxies - least_proxies(len(searched)))
        tried_NS = np.concatenate([tried_NS, whole(drawn(mix.proxies - last - 2, "tried"))])
        losses_NJ = trained.losses(small, runs_of(tried_NS), "proxies")
        fitted = fit(tried_NS[:, searched], losses_NJ, weights_J, rng_of("folds"))
        if last:
            good_Ns = promising(fitted.predict, simulated_Ns)
            more_NS = whole(rng_of("refined").choice(good_Ns, last, replace=False))
            tried_NS = np.concatenate([tried_NS, more_NS])
            more_NJ = trained.losses(small, runs_of(more_NS), "refine")
            losses_NJ = np.concatenate([losses_NJ, more_NJ])
            fitted = fit(tried_NS[:, searched], losses_NJ, weights_J, rng_of("folds"))
        near = fit_near_best(tried_NS[:, searched], losses_NJ, weights_J, rng_of("folds"))
        if near.r2 <= 0:  # among those it tells nothing apart
            near = fitted
        best_s = best_mixture(near.predict, promising(fitted.predict, simulated_Ns))
        found = Found(
            whole(best_s[None])[0],
            float(near.predict(best_s[None])[0]),
            [
                {
                    "mixtures": which, "form": one.form, "spearman": one.rank_correlation,
                    "r2": one.r2, "errors": one.errors,
                }
                for which, one in (("all", fitted), ("the better half", near))
            ],
            fitted.predict,
        )  # fmt: skip
    else:
        tried_NS = np.concatenate([tried_NS, whole(drawn(max(mix.candidates - 3, 0), "tried"))])
        losses_NJ = trained.losses(small, runs_of(tried_NS), "proxies")
        found = Found(whole(doremi(small.config, workdir, base_S, show)[searched][None])[0])
    target_N = losses_NJ @ weights_J
    order_N = np.argsort(target_N, kind="stable")

    # the mixture found, the best that were tried, the config's own and the uniform one, again
    again = {"found": found.shares_S}
    others = [n for n in order_N.tolist() if n > 1]
    again |= {f"tried {n}": tried_NS[n] for n in others[: mix.confirm - 1]}
    again |= {"config": base_S, "uniform": uniform_S}
    runs = [Run(tuple(row.tolist()), seed) for row in again.values() for seed in range(mix.seeds)]
    losses = trained.losses(small, runs, "confirm") @ weights_J
    confirmed = {name: losses[i * mix.seeds : (i + 1) * mix.seeds] for i, name in enumerate(again)}
    chosen = _choose(confirmed)
    summary: dict[str, Any] = {
        "method": mix.method,
        "sources": [names[s] for s in searched],
        "shares": _named(names, again[chosen]),
        "chosen": chosen,
        "target": dict(zip(scored, weights_J.tolist(), strict=True)),
        "parameters": small.parameters,
        "steps": mix.steps,
        "predicted": found.predicted,
        "regression": found.regression,
        "surface": found.predict and _surface(found.predict, again[chosen][searched]),
        "confirmed": [
            {
                "mixture": name, "shares": _named(names, again[name]),
                "loss": float(values.mean()), "spread": float(values.std()),
                "losses": values.tolist(),
            }
            for name, values in confirmed.items()
        ],
    }  # fmt: skip
    summary["transfer"] = None
    if mix.scales:
        summary["transfer"] = _transfer(
            config, workdir, scored, weights_J, trained,
            _candidates(mix.candidates, found.shares_S, tried_NS, order_N), small,
        )  # fmt: skip
    lines = [
        {"shares": _named(names, row), "losses": dict(zip(scored, losses_J, strict=True)),
         "target": target}
        for row, losses_J, target in zip(
            tried_NS, losses_NJ.tolist(), target_N.tolist(), strict=True
        )
    ]  # fmt: skip
    write_text(folder / "results.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    write_json(folder / "summary.json", summary)
    write_text(folder / "best.yaml", best_config(config, summary))
    return summary


def best_config(config: Config, summary: dict[str, Any]) -> str:
    """The run's config with the shares found as its mixture, which stays, as YAML."""
    weights = {name: share for name, share in summary["shares"].items() if share}
    mixture = Mixture(weights=weights, max_epochs=config.data.mixture.max_epochs)
    data = config.data.model_copy(update={"mixture": mixture})
    head = f"# Shares found by jaxlm mix ({summary['method']}) on {summary['parameters']:,} "
    return f"{head}parameters.\n" + dump(config.model_copy(update={"data": data}))


def _with_length(config: Config) -> Config:
    """A config that may be without a length, with one."""
    train = config.train
    if config.data.curriculum or train.steps is not None or train.tokens is not None:
        return config
    return config.model_copy(update={"train": train.model_copy(update={"steps": config.mix.steps})})


def _choose(confirmed: dict[str, Array]) -> str:
    """The mixture found, unless one that was tried did better by twice what the mean of its
    difference may err."""
    own = confirmed["found"]
    chosen, best = "found", 0.0
    for name, values in confirmed.items():
        gain = own - values  # the same seeds see the same data in the same order
        error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.inf
        if gain.mean() > max(2 * error, best):
            chosen, best = name, float(gain.mean())
    return chosen


def _candidates(count: int, found_S: Array, tried_NS: Array, order_N: Any) -> Array:
    """The mixture found, the config's own, the uniform one, and others from the best that was
    tried to the worst, evenly by rank, without repetition [C, S]."""
    rows = [found_S, *tried_NS[:2]]
    others = [n for n in order_N.tolist() if n > 1]
    wanted = min(count - 3, len(others))
    places = np.linspace(0, len(others) - 1, wanted).round().astype(int) if wanted > 0 else ()
    rows += [tried_NS[others[place]] for place in places]
    return np.unique(np.round(rows, 3), axis=0)


def _surface(predict: Callable[[Array], Array], best_s: Array) -> dict[str, Any]:
    """Predictions for a picture: all over the triangle of three sources; else, for each source, as
    its share changes and the others keep their ratios."""
    if len(best_s) == 3:
        i, j = (a.ravel() for a in np.meshgrid(np.arange(41), np.arange(41), indexing="ij"))
        inside = i + j <= 40
        shares_Ns = np.stack([i, j, 40 - i - j], axis=1)[inside] / 40
        return {"shares": shares_Ns.tolist(), "predicted": predict(shares_Ns).tolist()}
    share_N = np.linspace(0, 1, 51)
    slices = []
    for source in range(len(best_s)):
        others_s = best_s.copy()
        others_s[source] = 0.0
        if not others_s.any():
            others_s += 1.0
            others_s[source] = 0.0
        shares_Ns = (1 - share_N[:, None]) * others_s / others_s.sum()
        shares_Ns[:, source] = share_N
        slices.append(predict(shares_Ns).tolist())
    return {"share": share_N.tolist(), "predicted": slices}


def _transfer(
    config: Config, workdir: Workdir, scored: Sequence[str], weights_J: Array,
    trained: "_Trained", candidates_CS: Array, small: Proxies,
) -> dict[str, Any]:  # fmt: skip
    """How the order of mixtures on the proxies compares with that on larger models."""
    runs = runs_of(candidates_CS)
    own_C = trained.losses(small, runs, "candidates") @ weights_J
    checks = []
    for scale in config.mix.scales:
        larger = Proxies(config, workdir, scored, scale)
        losses_C = trained.losses(larger, runs, f"{scale:g} x larger") @ weights_J
        first = int(own_C.argmin())
        regret = float(losses_C[first] - losses_C.min())
        rank = spearman(own_C, losses_C)
        checks.append({
            "scale": scale, "parameters": larger.parameters,
            "times": larger.parameters / small.parameters, "spearman": rank,
            "same_best": first == int(losses_C.argmin()), "regret": regret,
            "relative_regret": regret / float(losses_C.min()), "losses": losses_C.tolist(),
            "sentence": sentence(rank, first == int(losses_C.argmin()), regret,
                                 len(runs), larger.parameters / small.parameters),
        })  # fmt: skip
    return {
        "candidates": [_named(small.loader.names, row) for row in candidates_CS],
        "losses": own_C.tolist(),
        "checks": checks,
    }


def sentence(rank: float, same_best: bool, regret: float, count: int, times: float) -> str:
    """What a check says, in words."""
    verdict = (
        "carried over" if rank >= WELL else "carried over in part" if rank >= IN_PART
        else "did not carry over"
    )  # fmt: skip
    best = (
        "the proxies' best is its best too" if same_best
        else f"the proxies' best is {regret:.4f} nats a token worse than its best"
    )  # fmt: skip
    return (
        f"the ranking {verdict} to a model {times:.3g} times larger: rank correlation {rank:.2f} "
        f"over {count} mixtures, and {best}"
    )


def runs_of(shares_NS: Array) -> list[Run]:
    """One run of each mixture, with the config's seed."""
    return [Run(tuple(row)) for row in shares_NS.tolist()]


class _Trained:
    """Losses of models that were trained, in a file, so that none is trained twice."""

    def __init__(self, path: Path, workdir: Workdir, show: Progress) -> None:
        self._path, self._workdir, self._show = path, workdir, show
        self._known: dict[str, list[float]] = {}
        if path.exists():
            if path.stat().st_size > LARGEST_RECORD:
                raise UserError(f"{path}: larger than this record can be; move it away")
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            good = [line for line in lines if self._learns(line)]
            if good != lines:  # cut off when a search was killed: that model is trained again
                write_text(path, "".join(good))

    def _learns(self, line: str) -> bool:
        """Whether this is a whole record, which is known from now on."""
        try:
            record = json.loads(line)
            self._known[str(record["run"])] = [float(loss) for loss in record["losses"]]
        except (ValueError, TypeError, KeyError):
            return False
        return line.endswith("\n")

    def losses(self, proxies: Proxies, runs: Sequence[Run], task: str) -> Array:
        """Losses of runs by scored source, [N, J]: those that are not known are trained, in groups
        that do not depend on what is known."""
        identity = proxies.identity(self._workdir)
        keys = [_key(identity, run) for run in runs]
        names = dict(zip(keys, runs, strict=True))  # a mixture may come twice
        groups = proxies.groups(list(names.values()))
        total = len(groups) * proxies.config.steps
        for number, group in enumerate(groups):
            if all(_key(identity, run) in self._known for run in group):
                continue

            def show(_: str, done: int, __: int | None, unit: str, before: int = number) -> None:
                self._show(task, before * proxies.config.steps + done, total, unit)

            losses_NJ = proxies.train(group, len(groups[0]), show)
            lines = []
            for run, losses_J in zip(group, losses_NJ.tolist(), strict=True):
                key = _key(identity, run)
                if key in self._known:
                    continue  # one of a group that was cut off
                self._known[key] = losses_J
                lines.append(json.dumps({"run": key, "losses": losses_J}) + "\n")
            with open(self._path, "a", encoding="utf-8") as file:
                file.write("".join(lines))
        self._show(task, total, total, "steps")
        return np.array([self._known[key] for key in keys])


def _key(identity: str, run: Run) -> str:
    return hashlib.sha256(json.dumps([identity, run.shares, run.seed]).encode()).hexdigest()[:32]


def _named(names: Sequence[str], shares_S: Array) -> dict[str, float]:
    return {name: round(share, 3) for name, share in zip(names, shares_S.tolist(), strict=True)}
