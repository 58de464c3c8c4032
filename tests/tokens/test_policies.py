"""Dynamic mixtures: each method against numbers that it did not make, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxlm.config.dynamic import ADO, DoReMi, Dynamic, Function, SkillIt, misplaced
from jaxlm.errors import UserError
from jaxlm.tokens.policies import (
    Record,
    decide,
    fit_laws,
    read_reference,
    with_reference,
)
from jaxlm.tokens.tokenizer import ByteTokenizer, save_tokenizer
from jaxlm.workdir import Workdir


def dynamic(method: Any, **keys: Any) -> Dynamic:
    """One whose bounds change nothing but the fourth digit, if not told otherwise."""
    return Dynamic.model_validate({"method": method, "minimum": 0.0, "max_change": 1.0} | keys)


def record(step: int, losses: dict[str, float], shares: dict[str, float], **tokens: int) -> Record:
    scores = {name: {"loss": loss} for name, loss in losses.items()}
    return Record(step, tokens or dict.fromkeys(shares, step), scores, shares)


# --- DoReMi ---


def test_doremi_by_hand() -> None:
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    method = {
        "kind": "doremi",
        "reference": {"a": 2.0, "b": 2.0, "c": 3.0},
        "step_size": 1.0,
        "smoothing": 0.1,
    }
    found = decide(dynamic(method), shares, [record(1, {"a": 2.5, "b": 1.0, "c": 3.2}, shares)])
    # algorithm 1: alpha exp(eta excess) = 0.5 e^0.5, 0.3 e^0, 0.2 e^0.2, whose sum is 1.3686412
    raised = [0.8243606, 0.3, 0.2442806]
    wanted = [0.9 * r / 1.3686412 + 0.1 / 3 for r in raised]
    assert list(found.weights.values()) == pytest.approx(wanted, abs=1e-6)
    assert found.reasons["excess"] == pytest.approx({"a": 0.5, "b": 0.0, "c": 0.2})
    assert found.shares == {"a": 0.5754, "b": 0.2306, "c": 0.1940}


def test_doremi_leads_to_the_source_that_is_far_from_the_reference() -> None:
    prior = {"far": 0.5, "near": 0.5}
    method = {"kind": "doremi", "reference": {"far": 1.0, "near": 2.0}}
    section, shares, records = dynamic(method, minimum=0.05, max_change=0.1), prior, []
    for step in range(1, 10):
        records.append(record(step, {"far": 2.0, "near": 2.1}, shares))
        before, shares = shares, decide(section, prior, records).shares
        assert shares["far"] - before["far"] == pytest.approx(min(0.1, 0.95 - before["far"]))
    assert shares == {"far": 0.95, "near": 0.05}


def test_doremi_reads_the_reference_of_a_run(tmp_path: Path) -> None:
    run = Workdir(tmp_path / "small")
    own, other = (Workdir(tmp_path / name).tokenizer for name in ("own", "other"))
    for folder, specials in ((run.tokenizer, ()), (own, ()), (other, ("<other>",))):
        folder.mkdir(parents=True)
        save_tokenizer(folder, ByteTokenizer(specials), b"")
    with pytest.raises(UserError, match=r"eval.json: no losses by source .*jaxlm eval"):
        read_reference(str(run.path), own)
    run.evaluation.write_text('{"sources": {"a": {"loss": -1}}}')
    with pytest.raises(UserError, match="not a number above 0"):
        read_reference(str(run.path), own)
    run.evaluation.write_text(
        json.dumps({"step": 1, "sources": {"a": {"loss": 2.5}, "b": {"loss": 3.0}}, "all": {}})
    )
    section = dynamic({"kind": "doremi", "reference_run": "small"})
    method = with_reference(section, {"small": read_reference(str(run.path), own)}).method
    assert isinstance(method, DoReMi)
    assert method.reference == {"a": 2.5, "b": 3.0}
    assert method.reference_run is None
    with pytest.raises(UserError, match="has another tokenizer"):
        read_reference(str(run.path), other)


# --- Skill-it ---


def test_skill_it_by_hand() -> None:
    prior = {"a": 0.5, "b": 0.5}
    method = {
        "kind": "skill",
        "graph": {"a": {"a": 1.0, "c": 0.5}, "b": {"b": 1.0}},
        "eta": 0.5,
        "window": 2,
    }
    history = [
        record(1, {"a": 9.0, "b": 9.0, "c": 9.0}, prior),  # outside of the window
        record(2, {"a": 1.0, "b": 2.0, "c": 4.0}, prior),
        record(3, {"a": 0.8, "b": 1.0, "c": 2.0}, prior),
    ]
    found = decide(dynamic(method), prior, history)
    # a: 1 + 0.8 + 0.5 (4 + 2) = 4.8, b: 3; p ~ exp(0.5 gain): odds of e^0.9 = 2.4596031
    assert found.reasons["gain"] == pytest.approx({"a": 4.8, "b": 3.0})
    assert found.weights["a"] == pytest.approx(2.4596031 / 3.4596031, abs=1e-7)
    # the mixture's own shares are a factor
    uneven = {"a": 0.2, "b": 0.8}
    odds = decide(dynamic(method), uneven, history).weights
    assert odds["a"] / odds["b"] == pytest.approx(2.4596031 / 4, abs=1e-6)


# --- ADO ---


@pytest.mark.parametrize(
    ("epsilon", "beta", "alpha"), [(1.7, 60.0, 0.3), (0.0, 9.0, 0.1), (2.5, 300.0, 0.5)]
)
def test_fits_recover_planted_laws(epsilon: float, beta: float, alpha: float) -> None:
    n = np.arange(1e5, 30e5, 1e5)
    laws = fit_laws(n, epsilon + beta * n**-alpha, np.ones(29, bool))
    assert np.isnan(laws.alpha[:2]).all()
    for found, planted in zip(laws, (epsilon, beta, alpha), strict=True):
        np.testing.assert_allclose(found[4:], planted, rtol=1e-4, atol=1e-4)


def test_fits_of_noisy_losses_are_near_the_planted_speed() -> None:
    n = np.arange(1e6, 61e6, 1e6)
    losses = 2.0 + 40.0 * n**-0.25
    noisy = losses * (1 + 2e-4 * np.random.default_rng(0).standard_normal(60))
    laws = fit_laws(n, noisy, np.ones(60, bool))
    speed = laws.alpha[-1] * laws.beta[-1] * n[-1] ** (-laws.alpha[-1] - 1)
    assert speed == pytest.approx(0.25 * 40.0 * n[-1] ** -1.25, rel=0.1)
    # against every law of a fine grid of all three numbers: none has a smaller error
    error = ((laws.epsilon[-1] + laws.beta[-1] * n ** -laws.alpha[-1] - noisy) ** 2).sum()
    for a in np.linspace(0.05, 0.8, 16):
        for e in np.linspace(0, 3, 61):
            b = np.linspace(0, 200, 201)[:, None]
            assert ((e + b * n**-a - noisy) ** 2).sum(1).min() >= error - 1e-12


def test_records_to_be_ignored_do_not_count_and_a_rising_loss_has_no_speed() -> None:
    n = np.arange(1.0, 11.0)
    losses = 1 + n**-0.5
    laws = fit_laws(n, np.where(n < 4, 50.0, losses), n >= 4)
    assert np.isnan(laws.alpha[:5]).all()
    assert laws.alpha[-1] == pytest.approx(0.5)
    assert fit_laws(n, 1 + n / 10, n > 0).beta[-1] == 0.0


def test_ado_by_hand() -> None:
    """Three records on planted laws: the preference follows from the laws' derivatives."""
    prior = {"fast": 0.25, "slow": 0.75}
    laws = {"fast": (1.0, 20.0, 0.4), "slow": (2.0, 6.0, 0.2)}
    history = []
    for step in (1000, 2000, 4000):
        losses = {name: e + b * (2.0 * step) ** -a for name, (e, b, a) in laws.items()}
        history.append(record(step, losses, prior))  # step tokens of each, twice as many of all
    found = decide(dynamic({"kind": "ado"}), prior, history)
    speed = {name: a * b * 8000 ** (-a - 1) for name, (_, b, a) in laws.items()}
    assert found.reasons["speed"] == pytest.approx(speed, rel=1e-6)
    assert found.reasons["alpha"] == pytest.approx({"fast": 0.4, "slow": 0.2})
    # mu h^(1/2) speed, h = mu as the shares have not changed
    raw = {name: prior[name] ** 1.5 * speed[name] for name in prior}
    preference = raw["fast"] / sum(raw.values())
    assert found.reasons["preference"]["fast"] == pytest.approx(preference, rel=1e-6)
    # before, the preference was the mixture and so is the average
    assert found.weights["fast"] == pytest.approx(0.1 * preference + 0.9 * 0.25)


def test_ado_keeps_the_mixture_until_it_can_fit_and_where_nothing_is_learned() -> None:
    prior = {"a": 0.3, "b": 0.7}
    history = [record(step, {"a": 3.0 - step, "b": 3.0}, prior) for step in (1, 2)]
    found = decide(dynamic({"kind": "ado"}), prior, history)
    assert found.shares == prior
    assert "speed" not in found.reasons
    flat = [record(step, {"a": 3.0, "b": 3.0}, prior) for step in (1, 2, 3, 4)]
    assert decide(dynamic({"kind": "ado"}), prior, flat).shares == prior


def test_ado_on_its_own_tokens() -> None:
    prior = {"a": 0.5, "b": 0.5}
    history = [
        record(t, {"a": 1 + n_a**-0.5, "b": 1 + n_b**-0.5}, prior, a=n_a, b=n_b)
        for t, n_a, n_b in ((1, 10, 1000), (2, 20, 2000), (3, 40, 4000))
    ]
    found = decide(dynamic({"kind": "ado", "tokens": "source"}), prior, history)
    assert found.reasons["speed"]["a"] / found.reasons["speed"]["b"] == pytest.approx(
        1000, rel=0.01
    )


# --- a user's function ---

SHARES = {"a": 0.5, "b": 0.5}
HISTORY = [record(7, {"a": 3.0, "b": 1.0, "all": 2.0}, SHARES)]


def function(tmp_path: Path, body: str, name: str = "mine.py") -> Dynamic:
    path = tmp_path / name
    path.write_text(f"def weigh(records):\n    {body}\n")
    return dynamic({"kind": "function", "call": f"{path}:weigh"})


def test_a_function_of_a_file_decides(tmp_path: Path) -> None:
    section = function(tmp_path, "return {n: records[-1]['losses'][n] for n in ('a', 'b')}")
    assert decide(section, SHARES, HISTORY).shares == {"a": 0.75, "b": 0.25}
    # what it is given is a copy
    section = function(
        tmp_path,
        "records[0]['shares']['a'] = 9; return records[0]['mixture'] | {'a': 1e308, 'b': 0}",
        "other.py",
    )
    assert decide(section, SHARES, HISTORY).shares == {"a": 1.0, "b": 0.0}
    assert HISTORY[0].shares == {"a": 0.5, "b": 0.5}


def test_a_file_may_have_dataclasses(tmp_path: Path) -> None:
    path = tmp_path / "classes.py"
    path.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Wanted:\n    a: float = 1.0\n    b: float = 3.0\n"
        "def weigh(records):\n    return vars(Wanted())\n"
    )
    section = dynamic({"kind": "function", "call": f"{path}:weigh"})
    assert decide(section, SHARES, HISTORY).shares == {"a": 0.25, "b": 0.75}


def test_a_function_of_a_module_is_found_and_only_called_ones_are_imported() -> None:
    section = dynamic({"kind": "function", "call": "no.such.module:weigh"})
    with pytest.raises(UserError, match=r"no.such.module cannot be imported \(ModuleNotFound"):
        decide(section, SHARES, HISTORY)
    with pytest.raises(UserError, match="json has no function weigh"):
        decide(dynamic({"kind": "function", "call": "json:weigh"}), SHARES, HISTORY)
    # a function that is there and cannot be this
    with pytest.raises(UserError, match=r"json:dumps at step 7 returned '.*not {source: weight}"):
        decide(dynamic({"kind": "function", "call": "json:dumps"}), SHARES, HISTORY)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1 / 0", "raised ZeroDivisionError: division by zero"),
        ("raise KeyError", "raised KeyError: no message"),
        ("raise ValueError('\\n\\nno use')", "raised ValueError: no use"),
        ("raise SystemExit(3)", "raised SystemExit: 3"),
        ("return {'a': 10**400, 'b': 1}", "returned 10{56}... for a; "),
        ("return [1, 2]", r"returned \[1, 2\], not {source: weight}"),
        ("return {'a': 1, 'b': float('nan')}", "returned nan for b; it must give each of a, b"),
        ("return {'a': -1, 'b': 'x'}", "returned -1 for a, 'x' for b; "),
        ("return {'a': 1, 'c': 1}", "returned no weight for b, an unknown source 'c'; "),
        ("return {'a': 0, 'b': 0}", "returned 0 for all sources; "),
    ],
)
def test_mistakes_of_a_function_are_one_message(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"mine.py:weigh at step 7 {message}") as error:
        decide(function(tmp_path, body), SHARES, HISTORY)
    assert len(error.value.messages) == 1


def test_a_file_that_is_missing_or_broken(tmp_path: Path) -> None:
    section = dynamic({"kind": "function", "call": f"{tmp_path}/none.py:weigh"})
    with pytest.raises(UserError, match=r"none.py cannot be imported \(FileNotFoundError"):
        decide(section, SHARES, HISTORY)
    with pytest.raises(UserError, match=r"mine.py cannot be imported \(SyntaxError"):
        decide(function(tmp_path, "return {"), SHARES, HISTORY)


# --- what cannot work ---


def test_a_loss_that_is_no_number_or_not_there_is_told() -> None:
    with pytest.raises(UserError, match=r"step 3: no held-out loss .*: a has nan, b has nan; "):
        decide(dynamic({"kind": "ado"}), SHARES, [record(3, {"a": float("nan")}, SHARES)])
    skill = {"kind": "skill", "graph": {"a": {"c": 1.0}}}
    losses = {"a": 1.0, "b": 1.0, "c": float("inf")}
    with pytest.raises(UserError, match=": c has inf; start"):
        decide(dynamic(skill), SHARES, [record(3, losses, SHARES)])


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (dynamic({"kind": "ado"}, minimum=0.6), "dynamic.minimum: 0.6 of each of 2 .* at most 0.5"),
        (dynamic({"kind": "ado"}, maximum=0.4), "dynamic.maximum: 0.4 of each .* at least 0.5"),
        (dynamic({"kind": "ado"}, minimum=0.4), "dynamic.minimum: the mixture gives a 0.3000"),
        (dynamic({"kind": "ado"}, maximum=0.6), "dynamic.maximum: the mixture gives b 0.7000"),
        (dynamic({"kind": "doremi", "reference": {"a": 1.0}}), "reference: no loss of b"),
        (dynamic({"kind": "doremi", "reference": {"a": 1.0, "b": 1.0, "d": 1.0}}), "named d; "),
        (dynamic({"kind": "skill", "graph": {"c": {"a": 1.0}}}), "mixture is named c; there"),
        (dynamic({"kind": "skill", "graph": {"a": {"d": 1.0}}}), "no source is named d; there"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_sources_is_told(section: Dynamic, message: str) -> None:
    (found,) = misplaced(section, {"a": 0.3, "b": 0.7}, {"a", "b", "c"})
    assert re.search(message, found)


def test_a_source_without_validation_documents_is_told() -> None:
    (found,) = misplaced(dynamic({"kind": "ado"}), {"a": 0.3, "b": 0.7}, {"a"})
    assert "b has no validation documents" in found


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"method": {"kind": "ado"}, "minimum": 0.00005}, "not a multiple of 0.0001"),
        ({"method": {"kind": "ado"}, "minimum": 0.5, "maximum": 0.4}, "is above maximum"),
        ({"method": {"kind": "ado"}, "max_change": 0.0}, "greater than 0"),
        ({"method": {"kind": "doremi"}}, "either reference or reference_run"),
        ({"method": {"kind": "doremi", "reference": {"a": 1.0}, "reference_run": "x"}}, "either"),
        ({"method": {"kind": "skill", "graph": {"a": {"b": -1.0}}}}, "strengths are 0 or more"),
        ({"method": {"kind": "skill", "graph": {"a": {}}}}, "one is above 0"),
        ({"method": {"kind": "function", "call": "weigh"}}, "neither FOLDER/FILE.py:FUNCTION"),
        ({"method": {"kind": "function", "call": "a file:weigh"}}, "neither a file that ends"),
    ],
)
def test_keys_that_cannot_be_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dynamic.model_validate(keys)


def test_each_kind_is_its_own_section() -> None:
    kinds = [
        {"kind": "ado"},
        {"kind": "doremi", "reference": {"a": 1.0}},
        {"kind": "skill", "graph": {"a": {"a": 1.0}}},
        {"kind": "function", "call": "m:f"},
    ]
    found = [type(dynamic(kind).method) for kind in kinds]
    assert found == [ADO, DoReMi, SkillIt, Function]
