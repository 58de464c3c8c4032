"""A mixture that changes while the run goes on: when it is decided anew, and the log of decisions.

The log is all there is to a dynamic mixture. It goes into every checkpoint, and a resumed run takes
the decisions from it instead of deciding again; what a policy knows of the past comes from it too.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxlm.config import Config
from jaxlm.config.dynamic import DoReMi, Dynamic, Function, misplaced
from jaxlm.config.stages import Resolved, stages
from jaxlm.errors import UserError
from jaxlm.parallel.processes import first_does
from jaxlm.tokens import Loader, held_out
from jaxlm.tokens.policies import (
    Decision,
    Record,
    decide,
    load_function,
    read_reference,
    with_reference,
)
from jaxlm.workdir import Workdir

MOST_SHOWN = 8
"""Sources that are told of on the terminal."""

type Change = dict[str, dict[str, Any]]
"""What metrics.jsonl has of a decision: shares before and after it, held-out losses, what the
method wanted before the bounds, and its figures."""
type Scores = Mapping[str, Mapping[str, float]]


class DynamicMixture:
    """The loader of a run, whose mixture changes after some of its steps.

    With a config that has no dynamic mixture nothing is ever due.
    """

    def __init__(
        self, config: Config, workdir: Workdir, loader: Loader, facts: Mapping[str, Any]
    ) -> None:
        """facts: those of the checkpoint that the run goes on from, or nothing. Raises UserError
        where a section does not fit the sources, or what it names cannot be read.
        """
        kept = facts.get("mixture", {"references": {}, "log": []})
        self._stages = stages(config)
        self._log: list[dict[str, Any]] = list(kept["log"])
        self._references: dict[str, dict[str, float]] = dict(kept["references"])
        self._begin = [self._begin_of(number) for number in range(len(self._stages))]
        self._priors = [loader.shares_at(begin) for begin in self._begin]
        problems: list[str] = []
        for number, stage in enumerate(self._stages):
            dynamic = stage.config.data.mixture.dynamic
            if dynamic is not None and self._begin[number] == stage.first:
                where = "data.mixture" if stage.name is None else f"stage {stage.name}: mixture"
                problems += self._prepare(dynamic, self._priors[number], workdir, where)
        if problems:
            raise UserError(problems)
        self.loader = loader.changed(
            [(entry["step"], entry["after"]) for entry in self._log if entry["after"] is not None]
        )

    def _prepare(
        self, dynamic: Dynamic, prior: Mapping[str, float], workdir: Workdir, where: str
    ) -> list[str]:
        """Read what the section names, and say what of it does not fit."""
        match dynamic.method:
            case DoReMi(reference_run=str() as run) if run not in self._references:
                self._references[run] = first_does(
                    "reference", lambda: read_reference(run, workdir.tokenizer)
                )
            case Function(call=call):
                # a mistake shows now, not at the first decision
                first_does("function", lambda: bool(load_function(call)))
        own = with_reference(dynamic, self._references)
        return [f"{where}.{problem}" for problem in misplaced(own, prior, held_out(workdir))]

    def _begin_of(self, number: int) -> int:
        """Steps of the run before the mixture of a stage: stages in a row may have the same."""
        while number and self._same_mixture(self._stages[number], self._stages[number - 1]):
            number -= 1
        return self._stages[number].first

    @staticmethod
    def _same_mixture(one: Resolved, other: Resolved) -> bool:
        return one.config.data.mixture == other.config.data.mixture

    def _stage_of(self, step: int) -> int:
        """Number of the stage that has this step (from 1)."""
        return next(
            (number for number, stage in enumerate(self._stages) if step <= stage.last),
            len(self._stages) - 1,
        )

    def _in_force(self, number: int) -> dict[str, float]:
        """Shares of the newest step, of a stage with this number."""
        decided = [
            entry["after"]
            for entry in self._log
            if entry["step"] > self._begin[number] and entry["after"] is not None
        ]
        return dict(decided[-1] if decided else self._priors[number])

    @property
    def facts(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""
        if all(stage.config.data.mixture.dynamic is None for stage in self._stages):
            return {}
        return {"mixture": {"references": dict(self._references), "log": list(self._log)}}

    def due(self, step: int) -> bool:
        """Whether a record is to be made after this step (from 1)."""
        number = self._stage_of(step)
        dynamic = self._stages[number].config.data.mixture.dynamic
        if dynamic is None or step % dynamic.every:
            return False
        # nothing is decided for a mixture that ends here
        after = self._stages[number + 1 :][:1] if step == self._stages[number].last else []
        return all(self._same_mixture(stage, self._stages[number]) for stage in after)

    def stretch(self, step: int, last: int) -> int:
        """Up to which step the mixture is known behind so many steps, at most `last` of a stage."""
        dynamic = self._stages[self._stage_of(last)].config.data.mixture.dynamic
        return last if dynamic is None else min(last, step - step % dynamic.every + dynamic.every)

    def record(self, step: int, read_S: NDArray[np.int64], scores: Scores) -> Change | None:
        """Take up what was monitored after a step, and decide on the shares from the next one on.

        read_S: tokens read of each stream of the loader. Returns None in the warm-up. Raises
        UserError for a loss that is not a number, or what a user's function does wrong.
        """
        number = self._stage_of(step)
        dynamic, prior = self._stages[number].config.data.mixture.dynamic, self._priors[number]
        assert dynamic is not None
        read = dict(zip(self.loader.names, read_S.tolist(), strict=True))
        entry: dict[str, Any] = {
            "step": step,
            "tokens": {name: read[name] for name in prior},
            "scores": {name: dict(values) for name, values in scores.items()},
            "shares": self._in_force(number),
            "after": None,
        }
        self._log.append(entry)
        if step <= self._begin[number] + dynamic.warmup:
            return None
        own = with_reference(dynamic, self._references)
        records = [
            Record(past["step"], past["tokens"], past["scores"], past["shares"])
            for past in self._log
            if past["step"] > self._begin[number]
        ]
        # by one process: a user's function may not give the same everywhere
        found = Decision(**first_does("mixture", lambda: decide(own, prior, records)._asdict()))
        entry["after"] = found.shares
        self.loader = self.loader.changed([(step, found.shares)])
        return {
            "before": entry["shares"],
            "after": found.shares,
            "losses": {name: scores[name]["loss"] for name in prior},
            "weights": found.weights,
            "reasons": found.reasons,
        }


def told(change: Change) -> str:
    """`shares words 0.6700 (+0.0033), more 0.3300 (-0.0033)`; of many those that changed most."""
    before, after = change["before"], change["after"]
    most = sorted(after, key=lambda name: -abs(after[name] - before[name]))[:MOST_SHOWN]
    parts = [
        f"{name} {share:.4f} ({share - before[name]:+.4f})"
        for name, share in after.items()
        if name in most
    ]
    more = [f"and {len(after) - len(most)} more"] if len(after) > len(most) else []
    return f"shares {', '.join(parts + more)}"
