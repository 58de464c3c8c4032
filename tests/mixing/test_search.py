"""The whole search: on the planted task, stopped and gone on with, and what it refuses."""

import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from jaxlm.cli import main
from jaxlm.config import load
from jaxlm.config.load import validate
from jaxlm.errors import UsageError
from jaxlm.mixing import refuse, search
from jaxlm.mixing.search import _choose, sentence
from jaxlm.reports import Terminal
from jaxlm.reports.mix import mix_lines, write_mix_report
from jaxlm.workdir import Workdir
from tests.mixing.planted import config_of
from tests.training.runs import write_config

REFERENCE = Path(__file__).parents[1] / "reference/mix_planted.json"
TINY = {
    "proxies": 8, "steps": 4, "batch_size": 2, "seq_len": 8, "validation_tokens": 256,
    "at_once": 1, "model": {"layers": 1, "d_model": 8, "heads": 1, "d_mlp": 16}, "refine": 0.0,
}  # fmt: skip


def found_by(folder: Path, **mix: Any) -> dict[str, Any]:
    config = config_of(folder, **mix)
    with Terminal(quiet=True) as show:
        return search(config, Workdir(config.workdir), show)


def best_by_force() -> np.ndarray:
    table = json.loads(REFERENCE.read_text())
    return np.array(table["shares"][int(np.argmin(table["losses"]))])


def shares_of(record: dict[str, Any]) -> np.ndarray:
    return np.array([record["shares"][name] for name in ("first", "second", "noise")])


def test_the_planted_mixture_is_found(fresh: Path) -> None:
    """Within 0.05 of what brute force finds, which is what was planted."""
    best = best_by_force()
    np.testing.assert_allclose(best, [0.65, 0.35, 0.0], atol=1e-9)
    # eight devices with a model each at a time: one program for all groups
    record = found_by(fresh, at_once=1)
    assert np.abs(shares_of(record) - best).max() <= 0.05
    rows = {row["mixture"]: row["loss"] for row in record["confirmed"]}
    assert rows["found"] < rows["config"] - 0.1
    assert abs(record["predicted"] - rows["found"]) < 0.05
    assert all(fit["spearman"] > 0.8 for fit in record["regression"])

    folder = Workdir(config_of(fresh).workdir).path / "mix"
    config = load(folder / "best.yaml")
    assert config.data.mixture.weights == {k: v for k, v in record["shares"].items() if v}
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert len(lines) == 40
    assert all(sum(line["shares"].values()) == pytest.approx(1) for line in lines)
    page = write_mix_report(folder).read_text()
    assert (folder / "surface.png").read_bytes().startswith(b"\x89PNG")
    assert "predicted" in page
    assert "http:" not in page


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_planted_mixture_is_found_whatever_the_seed(fresh: Path, seed: int) -> None:
    """With more proxies, and the order of mixtures carries over to larger models."""
    config = config_of(fresh, proxies=64, confirm=2, seeds=3, scales=[4.0, 16.0])
    config = config.model_copy(update={"seed": seed})
    with Terminal(quiet=True) as show:
        record = search(config, Workdir(config.workdir), show)
    assert np.abs(shares_of(record) - best_by_force()).max() <= 0.05
    assert [check["spearman"] > 0.8 for check in record["transfer"]["checks"]] == [True, True]


def test_a_stopped_search_goes_on_and_ends_alike(fresh: Path) -> None:
    """With larger models too; what is known is not trained again."""
    how = TINY | {"scales": [4.0], "candidates": 4, "confirm": 2, "seeds": 2}
    record = found_by(fresh, **how)
    folder = Workdir(config_of(fresh).workdir).path / "mix"
    trained, best = (folder / "trained.jsonl").read_text(), (folder / "best.yaml").read_text()
    assert found_by(fresh, **how) == record
    assert (folder / "trained.jsonl").read_text() == trained
    lines = trained.splitlines(keepends=True)
    (folder / "trained.jsonl").write_text("".join(lines[:-2]) + lines[-2][:20])
    assert found_by(fresh, **how) == record
    assert (folder / "best.yaml").read_text() == best
    assert sorted((folder / "trained.jsonl").read_text().splitlines(keepends=True)) == sorted(lines)

    (check,) = record["transfer"]["checks"]
    assert len(check["losses"]) == len(record["transfer"]["candidates"]) >= 3
    assert check["sentence"] in "\n".join(mix_lines(record, Workdir(fresh)))
    assert check["sentence"] in html.unescape(write_mix_report(folder).read_text())


def test_two_sources_a_minimum_and_the_runs_own_shares(fresh: Path) -> None:
    """By the command line, from a mixture in the config."""
    config = config_of(fresh, **(TINY | {"minimum": 0.2, "target": None}))
    path = write_config(config, fresh)
    changes = ["data.mixture={weights: {first: 3, noise: 1}}", "--json", "--quiet"]
    result = CliRunner().invoke(main, ["mix", str(path), *changes])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["sources"] == ["first", "noise"]
    assert record["confirmed"][1]["shares"] == {
        "first": 0.75, "second": 0.0, "noise": 0.25, "wanted": 0.0,
    }  # fmt: skip
    assert min(record["shares"]["first"], record["shares"]["noise"]) >= 0.2
    assert record["target"] == dict.fromkeys(["first", "second", "noise", "wanted"], 0.25)


@pytest.mark.parametrize(
    ("rank", "same", "wanted"),
    [
        (0.94, True, "carried over to a model 4.2 times larger: rank correlation 0.94"),
        (0.6, False, "carried over in part to"),
        (0.1, False, "did not carry over to"),
    ],
)
def test_the_verdict_is_plain(rank: float, same: bool, wanted: str) -> None:
    text = sentence(rank, same, 0.0123, 6, 4.2)
    assert wanted in text
    assert ("is its best too" in text) == same
    assert ("0.0123 nats a token worse" in text) != same


def refused(folder: Path, changes: dict[str, Any] | None = None, **mix: Any) -> str:
    plain = config_of(folder, **mix).model_dump(mode="json") | (changes or {})
    with pytest.raises(UsageError) as caught:
        refuse(validate(plain))
    return str(caught.value)


def test_what_cannot_be_searched_is_refused_at_once(tmp_path: Path) -> None:
    message = refused(tmp_path, proxies=5, target={"first": 1, "frist": 2}, minimum=0.4)
    assert "mix.proxies: 5 mixtures are too few for a regression on 3 sources" in message
    assert "mix.target.frist: no source is named 'frist'; there are first, second" in message
    assert "mix.minimum: 0.4 for each of 3 sources leaves nothing to choose" in message
    assert "nothing to judge a mixture by" in refused(
        tmp_path, {"data": {"validation_fraction": 0.0}}
    )
    sources = config_of(tmp_path).model_dump(mode="json")["sources"]
    message = refused(tmp_path, {"sources": [sources[0], sources[3]]})
    assert "sources: one has a weight, and a mixture is of at least two" in message


def test_a_target_without_validation_documents_is_refused(tmp_path: Path) -> None:
    """A source of one document, which is trained on."""
    for name in ("one", "two"):
        count = 1 if name == "one" else 30
        (tmp_path / f"{name}.txt").write_text("\n\n".join(["abc " * 200] * count))
    plain = config_of(tmp_path, **TINY).model_dump(mode="json")
    plain["sources"] = [
        {"name": name, "path": str(tmp_path / f"{name}.txt"), "split": "\n\n"}
        for name in ("one", "two")
    ]
    plain["mix"]["target"] = None
    path = write_config(validate(plain), tmp_path)
    result = CliRunner().invoke(main, ["mix", str(path), "--quiet"])
    assert result.exit_code == 1
    assert "source one: has no validation documents" in result.stderr
    assert "mix.target" in result.stderr


@pytest.mark.parametrize(
    ("tried", "chosen"),
    [
        ([1.0, 1.1, 0.9], "found"),  # alike
        ([0.5, 0.6, 0.4], "tried 7"),  # better with each seed, by the same
        ([0.9, 1.1, 0.6], "found"),  # better on the average, by less than seeds differ
        ([2.0, 2.1, 1.9], "found"),
    ],
)
def test_a_mixture_that_was_tried_is_taken_where_it_is_better_beyond_chance(
    tried: list[float], chosen: str
) -> None:
    confirmed = {"found": np.array([1.0, 1.1, 0.9]), "tried 7": np.array(tried)}
    assert _choose(confirmed) == chosen
