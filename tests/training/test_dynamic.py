"""Mixtures that change while training: what is decided, logged, kept, and done again to the bit."""

import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from jaxlm.config import Config
from jaxlm.errors import UserError
from jaxlm.training import Stopped
from jaxlm.training.checkpoints import read_facts
from jaxlm.training.dynamic import told
from jaxlm.workdir import Workdir
from tests.training.runs import (
    ROOT,
    Said,
    arrays_of,
    config_of,
    copy_of,
    ended,
    figures,
    records,
    same_bits,
    start,
    train_here,
    wait_for,
    write_config,
)
from tests.training.test_loop import stop_at

DOREMI = {"kind": "doremi", "reference": {"words": 2.0, "more": 6.0}, "step_size": 0.2}
"""The reference of `words` is never reached, that of `more` at once."""


def dynamic_of(
    folder: Path,
    method: Any = DOREMI,
    keys: Any = MappingProxyType({}),
    mixture: Any = MappingProxyType({}),
    **sections: Any,
) -> Config:
    """12 steps with decisions after steps 3, 6, 9 and 12."""
    dynamic = {"method": method, "every": 3, "minimum": 0.05}
    base = {
        "seq_len": 32, "validation_fraction": 0.1, "mixture": {"dynamic": dynamic | keys} | mixture
    }  # fmt: skip
    # of the same length in longer runs
    rate = {"learning_rate": 3e-3, "schedule": {"warmup_steps": 2, "decay_steps": 12}}
    return config_of(folder, **{"data": base, "optimizer": rate} | sections)


def decisions(config: Config) -> list[tuple[int, dict[str, Any]]]:
    """Step and shares, of the metrics."""
    return [(r["step"], r["mixture"]) for r in records(config) if "mixture" in r]


@pytest.fixture(scope="module")
def straight(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run that nobody stopped."""
    folder = copy_of(prepared, tmp_path_factory.mktemp("dynamic"))
    config = dynamic_of(folder)
    said = train_here(config)
    told = [line for line in said.lines if line.startswith("step ")]
    assert [line.split(":")[0] for line in told] == ["step 3", "step 6", "step 9", "step 12"]
    assert told[0].startswith("step 3: shares words 0.7"), told
    return config


def test_shares_follow_the_losses_and_batches_follow_the_shares(straight: Config) -> None:
    found = decisions(straight)
    assert [step for step, _ in found] == [3, 6, 9, 12]
    shares = [2 / 3] + [change["after"]["words"] for _, change in found]
    assert shares == sorted(shares)
    assert shares[-1] > 0.7
    for (_, change), before in zip(found, shares, strict=False):
        assert change["before"]["words"] == pytest.approx(before)
        assert sum(round(share * 10_000) for share in change["after"].values()) == 10_000
        excess = change["reasons"]["excess"]
        assert excess["words"] == pytest.approx(change["losses"]["words"] - 2.0)
        assert excess["more"] == 0.0
    # what was read of each source is exact to an example, decision after decision
    read = {0: 0} | {r["step"]: r["source_tokens"]["words"] for r in records(straight)}
    wanted = 0.0
    for step in range(1, 13):
        wanted += shares[(step - 1) // 3] * 8 * 32
        assert abs(read[step] - wanted) <= 32 * (1 + (step - 1) // 3)


def test_of_many_sources_those_that_changed_most_are_told() -> None:
    before = {f"s{n}": 0.1 for n in range(10)}
    after = before | {"s1": 0.1001, "s9": 0.0999}
    said = told({"before": before, "after": after})
    assert said.startswith("shares s0 0.1000 (+0.0000), s1 0.1001 (+0.0001), s2")
    assert said.endswith(", s9 0.0999 (-0.0001), and 2 more")


def test_the_checkpoint_has_the_whole_log(straight: Config) -> None:
    checkpoints = Workdir(straight.workdir).checkpoints
    log = read_facts(checkpoints / "8")["mixture"]["log"]
    assert [entry["step"] for entry in log] == [3, 6]
    whole = read_facts(checkpoints / "12")["mixture"]["log"]
    assert whole[:2] == log
    assert [e["after"] for e in whole] == [change["after"] for _, change in decisions(straight)]
    assert set(log[0]["scores"]) == {"words", "more", "all"}


@pytest.mark.parametrize("step", [2, 3])
def test_stopped_anywhere_and_resumed_gives_the_same_bits(
    straight: Config, fresh: Path, step: int
) -> None:
    """Stopped in the step of a decision, and behind it."""
    config = dynamic_of(fresh)
    with pytest.raises(Stopped):
        train_here(config, stop_at(step, signal.SIGTERM))
    train_here(config)
    assert figures(config) == figures(straight)
    assert decisions(config) == decisions(straight)
    assert same_bits(arrays_of(config, 12), arrays_of(straight, 12))


def test_a_run_that_is_made_longer_goes_on_as_if_it_had_always_been(
    straight: Config, fresh: Path
) -> None:
    train_here(dynamic_of(fresh, train={"steps": 6}))
    config = dynamic_of(fresh)
    train_here(config)
    assert decisions(config) == decisions(straight)
    assert same_bits(arrays_of(config, 12), arrays_of(straight, 12))


def test_what_dies_between_a_decision_and_a_checkpoint_decides_the_same_again(
    straight: Config, fresh: Path
) -> None:
    def die(record: dict[str, Any]) -> None:
        if record["step"] == 7:
            raise RuntimeError("no more")

    config = dynamic_of(fresh)
    with pytest.raises(RuntimeError, match="no more"):
        train_here(config, Said(die))
    assert [step for step, _ in decisions(config)] == [3, 6]
    said = train_here(config)
    assert said.lines[-4].endswith("checkpoints/4")
    assert said.lines[-3].startswith("step 6: shares")
    assert decisions(config) == decisions(straight)
    assert same_bits(arrays_of(config, 12), arrays_of(straight, 12))


@pytest.mark.slow
def test_killed_between_a_decision_and_a_checkpoint_it_decides_the_same_again(
    straight: Config, fresh: Path
) -> None:
    config = dynamic_of(fresh)
    process = start("train", write_config(config, fresh), devices=8)
    wait_for(lambda: bool(decisions(config)[1:]), process)
    process.kill()
    process.communicate()
    assert [step for step, _ in decisions(config)] == [3, 6]
    said = train_here(config)
    assert said.lines[-3].startswith("step 6: shares"), said.lines
    assert decisions(config) == decisions(straight)
    assert figures(config) == figures(straight)
    assert same_bits(arrays_of(config, 12), arrays_of(straight, 12))


def test_what_was_decided_is_not_asked_for_again(fresh: Path) -> None:
    """With a function that never gives the same twice."""
    file = fresh / "chance.py"
    file.write_text(
        "import random\n"
        "def weigh(records):\n"
        "    assert [r['step'] for r in records] == list(range(3, 3 * len(records) + 3, 3))\n"
        "    return {name: random.random() for name in records[-1]['shares']}\n"
    )
    config = dynamic_of(fresh, {"kind": "function", "call": f"{file}:weigh"})
    with pytest.raises(Stopped, match="after step 8"):
        train_here(config, stop_at(7, signal.SIGTERM))
    before = decisions(config)
    assert [step for step, _ in before] == [3, 6]
    train_here(config)
    assert decisions(config)[:2] == before
    log = read_facts(Workdir(config.workdir).checkpoints / "12")["mixture"]["log"]
    assert [entry["after"] for entry in log] == [c["after"] for _, c in decisions(config)]
    # batches are those of the log
    read, wanted = records(config)[-1]["source_tokens"]["words"], 256 * 3 * 2 / 3
    wanted += sum(256 * 3 * entry["after"]["words"] for entry in log[:3])
    assert abs(read - wanted) <= 4 * 32


def test_in_the_warm_up_losses_are_noted_and_shares_stay(fresh: Path) -> None:
    config = dynamic_of(fresh, {"kind": "ado"}, {"warmup": 8, "max_change": 0.01})
    train_here(config)
    assert [step for step, _ in decisions(config)] == [9, 12]
    # the first has three records to fit laws to
    first, second = (change for _, change in decisions(config))
    assert set(first["reasons"]) == {
        "preference", "credit", "epsilon", "beta", "alpha", "speed"
    }  # fmt: skip
    assert second["before"] == first["after"] != first["before"]
    assert abs(first["after"]["words"] - first["before"]["words"]) <= 0.01
    assert [r["step"] for r in records(config) if "validation" in r] == [3, 6, 9, 12]


def test_decisions_hold_through_stages_with_the_same_mixture(fresh: Path) -> None:
    dynamic = {"dynamic": {"method": DOREMI, "every": 2, "max_change": 0.04}}
    stages = [
        {"name": "a", "steps": 4},
        {"name": "b", "steps": 6, "seq_len": 16},
        {"name": "c", "steps": 3, "seq_len": 16, "mixture": {"weights": {"more": 1.0}}},
    ]
    data = {"seq_len": 32, "validation_fraction": 0.1, "mixture": dynamic, "curriculum": stages}
    config = config_of(fresh, data=data, train={"steps": None})
    train_here(config)
    # at 10 the mixture ends, so nothing is decided
    found = decisions(config)
    assert [step for step, _ in found] == [2, 4, 6, 8]
    for (_, earlier), (_, later) in pairwise(found):
        assert later["before"] == earlier["after"]
        assert 0.03 < later["after"]["words"] - later["before"]["words"] < 0.04 + 1e-9
    read = {r["step"]: r["source_tokens"] for r in records(config)}
    lengths = [32] * 4 + [16] * 6
    shares = [2 / 3] + [change["after"]["words"] for _, change in found]
    wanted = sum(8 * T * shares[step // 2] for step, T in enumerate(lengths))
    assert abs(read[10]["words"] - wanted) <= 32 * 5
    assert read[13]["words"] == read[10]["words"]


def test_what_cannot_work_is_told_before_the_first_step(fresh: Path) -> None:
    """What does not show in the config."""
    smoothing = {"smoothing": {"kind": "temperature", "temperature": 1.0}}
    for method, keys, message in (
        (DOREMI, {"minimum": 0.4}, "dynamic.minimum: the mixture gives more 0."),
        (
            {"kind": "doremi", "reference_run": str(fresh)}, {},
            "no losses by source .* make them with: jaxlm eval",
        ),
        (
            {"kind": "function", "call": f"{fresh}/none.py:weigh"}, {},
            "none.py cannot be imported",
        ),
    ):  # fmt: skip
        config = dynamic_of(fresh, method, keys, smoothing if keys else {})
        with pytest.raises(UserError, match=message):
            train_here(config)
        assert records(config) == []


def test_a_mistake_of_the_users_function_ends_the_run(fresh: Path) -> None:
    (fresh / "mine.py").write_text("def weigh(records):\n    return {'words': 1.0}\n")
    config = dynamic_of(fresh, {"kind": "function", "call": f"{fresh}/mine.py:weigh"})
    with pytest.raises(UserError, match=r"mine.py:weigh at step 3 returned no weight for more; it"):
        train_here(config)


@pytest.mark.slow
def test_two_processes_decide_as_one(straight: Config, fresh: Path) -> None:
    config = dynamic_of(fresh, recovery={"start_timeout": 60})
    launcher = subprocess.Popen(
        [ROOT / "launch" / "local.sh", "-n", "2", "--devices", "4", "--verb", "train",
         write_config(config, fresh)],
        env=os.environ | {"PYTHON": sys.executable, "XLA_FLAGS": ""},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    code, said = ended(launcher)
    assert code == 0, said
    # sums of eight devices in another order: the same but for rounding
    found, wanted = decisions(config), decisions(straight)
    assert [step for step, _ in found] == [step for step, _ in wanted]
    for (_, one), (_, other) in zip(found, wanted, strict=True):
        assert one["after"] == pytest.approx(other["after"], abs=1.01e-4)
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-5)
    assert [f[5] for f in figures(config)] == [f[5] for f in figures(straight)]
