"""Runs in stages, under other objectives, with dropout, and from another run's parameters: each
gives the same bits when it is stopped and resumed, and what does not fit is refused."""

import json
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxlm.config import Config
from jaxlm.config.load import validate
from jaxlm.errors import UserError
from jaxlm.evaluation import open_trained
from jaxlm.parallel import make_mesh
from jaxlm.tokens.store import Store
from jaxlm.training import Stopped
from jaxlm.training.checkpoints import named, read_facts, start_from
from jaxlm.training.loop import _dropout_key
from jaxlm.training.same_run import refuse_other_run
from jaxlm.training.state import shapes_of_params
from jaxlm.workdir import Workdir
from tests.training.runs import (
    arrays_of,
    config_of,
    copy_of,
    figures,
    make_tokens,
    records,
    same_bits,
    train_here,
)
from tests.training.test_loop import stop_at

LONG = {
    "name": "long", "steps": 4, "seq_len": 64, "batch_size": 16, "microbatch_size": 8,
    "position": {"theta": 1e6}, "learning_rate": 1e-3,
    "schedule": {"kind": "constant", "warmup_steps": 2},
}  # fmt: skip
CURRICULUM = [
    {"name": "short", "steps": 5, "seq_len": 16}, LONG,
    {"name": "more", "steps": 3, "mixture": {"weights": {"more": 1.0}}},
]  # fmt: skip


def staged(folder: Path, *stages: dict[str, Any], **sections: Any) -> Config:
    data = {"seq_len": 32, "curriculum": list(stages or CURRICULUM), "validation_fraction": 0.1}
    return config_of(folder, **{"train": {"steps": None}, "data": data} | sections)


@pytest.fixture(scope="module")
def straight(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_of(prepared, tmp_path_factory.mktemp("straight"))
    train_here(staged(folder, eval={"every": 6}))
    return folder


def test_every_stage_is_in_the_records(straight: Path) -> None:
    found = records(staged(straight))
    assert [r["stage"] for r in found] == ["short"] * 5 + ["long"] * 4 + ["more"] * 3
    computed = [8 * 16] * 5 + [16 * 64] * 4 + [8 * 32] * 3
    assert [round(r["target_tokens"] / r["efficiency"]) for r in found] == computed
    assert all(0.9 < r["efficiency"] <= 1 for r in found)
    assert [r["tokens"] for r in found] == np.cumsum([r["target_tokens"] for r in found]).tolist()
    rates = [r["learning_rate"] for r in found]
    assert rates[5:9] == pytest.approx([5e-4, 1e-3, 1e-3, 1e-3])
    assert rates[4] > 2e-3 > rates[9] > rates[10] > rates[11], "the run's schedule goes on"
    read = [r["source_tokens"] for r in found]
    assert read[8] == {"words": 27 * 16 + 43 * 64, "more": 13 * 16 + 21 * 64}
    assert read[11]["words"] == read[8]["words"]
    assert [set(found[step - 1]["validation"]) for step in (6, 12)] == [
        {"words", "more", "all"}
    ] * 2
    plan = json.loads(Workdir(staged(straight).workdir).mixture.read_text())["stages"]
    assert [(s["name"], s["first"], s["last"]) for s in plan] == [
        ("short", 0, 5), ("long", 5, 9), ("more", 9, 12),
    ]  # fmt: skip
    for name in ("words", "more"):
        assert sum(stage["tokens"].get(name, 0) for stage in plan) == read[11][name]
        assert found[8]["source_epochs"][name] == plan[1]["epochs"][name] > 0
    assert plan[2]["tokens"] == {"more": 3 * 8 * 32}
    assert found[11]["repeated_tokens"] == 0


def test_what_is_read_again_is_counted(prepared: Path, tmp_path: Path) -> None:
    config = config_of(
        copy_of(prepared, tmp_path), train={"steps": 3, "batch_size": 64},
        data={"seq_len": 64, "mixture": {"weights": {"more": 1}}},
    )  # fmt: skip
    train_here(config)
    stored = Store(Workdir(config.workdir).tokens).size("more", "train").tokens
    epoch = (stored - 1) // 64 * 64  # the end of a source, which fills no window, is not read
    for number, record in enumerate(records(config), 1):
        assert record["source_tokens"] == {"words": 0, "more": number * 64 * 64}
        assert record["source_epochs"] == {"words": 0, "more": number * 64 * 64 / epoch}
        assert record["repeated_tokens"] == max(number * 64 * 64 - epoch, 0)
    assert record["repeated_tokens"] > 0


@pytest.mark.parametrize("step", [3, 4, 6], ids=["before", "at the border", "in a stage"])
def test_stopped_and_resumed_gives_the_same_bits(straight: Path, fresh: Path, step: int) -> None:
    config = staged(fresh)
    with pytest.raises(Stopped, match=f"after step {step + 1}"):
        train_here(config, stop_at(step, signal.SIGTERM))
    said = train_here(config)
    assert said.lines[-1] == f"resumed from {config.workdir}/checkpoints/{step + 1}"
    assert figures(config) == figures(staged(straight))
    assert same_bits(arrays_of(config, 12), arrays_of(staged(straight), 12))


def test_the_last_stage_may_become_longer_and_nothing_else(straight: Path, tmp_path: Path) -> None:
    folder = copy_of(straight, tmp_path)
    longer = [*CURRICULUM[:2], CURRICULUM[2] | {"steps": 4}]
    said = train_here(staged(folder, *longer))
    assert [r["step"] for r in records(staged(folder))] == list(range(1, 14))
    assert said.lines[-1].endswith("/12")
    longer[1] = LONG | {"steps": 5, "seq_len": 128, "learning_rate": 2e-3}
    with pytest.raises(UserError) as caught:
        train_here(staged(folder, *longer))
    different = [message.split("13: ")[1] for message in caught.value.messages[:-1]]
    assert different == [
        "data.curriculum.1.seq_len was 64 and is 128",
        "data.curriculum.1.steps was 4 and is 5",
    ]
    with pytest.raises(UserError, match=r"13: data\.curriculum was "):
        train_here(staged(folder, *CURRICULUM, LONG | {"name": "another"}))


def test_stages_with_shares_keep_the_length_of_their_run(tmp_path: Path) -> None:
    """All borders are elsewhere in a run of other length."""
    curriculum = [{"name": "a", "share": 3}, {"name": "b", "share": 1}]
    was, now = (
        {
            "config": validate(
                {"data": {"curriculum": curriculum}, "train": {"tokens": tokens}}
            ).model_dump(mode="json"),
            "tokenizer_hash": "t",
            "store": "s",
        }
        for tokens in (1 << 20, 1 << 21)
    )
    refuse_other_run(was, was, tmp_path)
    with pytest.raises(UserError, match=r"train\.tokens was 1048576 and is 2097152"):
        refuse_other_run(was, now, tmp_path)


def test_a_checkpoint_is_opened_as_its_stage_was(straight: Path) -> None:
    checkpoints = Workdir(staged(straight).workdir).checkpoints
    found = [open_trained(checkpoints / str(step)).config for step in (4, 8, 12)]
    assert [config.data.seq_len for config in found] == [16, 64, 32]
    assert [config.model.position.theta for config in found] == [1e4, 1e6, 1e4]  # type: ignore[union-attr]


OBJECTIVES: list[dict[str, Any]] = [
    {"objective": {"kind": "span_corruption"},
     "model": {"kind": "encoder_decoder", "position": {"kind": "relative_bias"}}},
    {"objective": {"kind": "mlm"}, "model": {"kind": "encoder", "dropout": 0.1}},
    {"objective": [{"kind": "prefix_lm"}, {"kind": "span_corruption", "weight": 2.0}],
     "model": {"kind": "prefix_decoder"}},
]  # fmt: skip


@pytest.mark.parametrize(
    "sections",
    [  # tests/test_architectures.py has the first and the last too, in other forms
        pytest.param(OBJECTIVES[0], id="t5", marks=pytest.mark.slow),
        pytest.param(OBJECTIVES[1], id="bert"),
        pytest.param(OBJECTIVES[2], id="prefix", marks=pytest.mark.slow),
    ],
)
def test_other_objectives_train_score_and_resume(
    prepared: Path, tmp_path: Path, sections: dict[str, Any]
) -> None:
    def of(name: str) -> Config:
        folder = copy_of(prepared, tmp_path / name, checkpoints=False)
        return config_of(folder, eval={"every": 6}, train={"microbatch_size": 8}, **sections)

    config, stopped = of("straight"), of("stopped")
    for one in (config, stopped):
        make_tokens(one)
    train_here(config)
    with pytest.raises(Stopped):
        train_here(stopped, stop_at(6, signal.SIGTERM))
    train_here(stopped)
    assert figures(stopped) == figures(config)
    assert same_bits(arrays_of(stopped, 12), arrays_of(config, 12))
    found = records(config)
    assert found[-1]["loss"] < found[0]["loss"] - 0.3
    scores = [r["validation"]["all"] for r in found if "validation" in r]
    assert scores == [r["validation"]["all"] for r in records(stopped) if "validation" in r]
    assert scores[1] < scores[0]
    assert "stage" not in found[0]


def test_a_key_of_dropout_belongs_to_its_step(prepared: Path) -> None:
    config = config_of(prepared, model={"dropout": 0.5})
    assert _dropout_key(config_of(prepared), 1) is None
    with jax.set_mesh(make_mesh(config)):
        keys = [_dropout_key(config, step) for step in (1, 2, 2)]
        assert all(key is not None and key.sharding.is_fully_replicated for key in keys)
        one, two, again = (jax.random.key_data(key).tolist() for key in keys if key is not None)
    assert one != two == again


class TestFromCheckpoint:
    def test_parameters_are_those_of_the_run(self, trained: Path, fresh: Path) -> None:
        source = config_of(trained)
        config = config_of(fresh, train={"steps": 3, "from_checkpoint": source.workdir})
        facts = read_facts(Workdir(source.workdir).checkpoints / "12")
        with jax.set_mesh(make_mesh(config)):
            path, params = start_from(
                source.workdir, facts["tokenizer_hash"], shapes_of_params(config)
            )
        wanted = {k[7:]: v for k, v in arrays_of(source, 12).items() if k.startswith("params.")}
        assert same_bits({k: np.asarray(v) for k, v in named(params).items()}, wanted)
        said = train_here(config)
        assert said.lines[-1] == f"parameters from {path}"
        assert path == Workdir(source.workdir).checkpoints / "12"
        first = records(config)[0]
        assert first["step"] == 1
        assert first["loss"] < records(source)[8]["loss"], "it knows what the other run learnt"
        assert first["learning_rate"] == records(source)[0]["learning_rate"]

    def test_a_step_is_chosen_and_the_run_then_goes_on_from_its_own(
        self, trained: Path, fresh: Path, tmp_path: Path
    ) -> None:
        start = f"{config_of(trained).workdir}/checkpoints/4"
        config = config_of(fresh, train={"from_checkpoint": start})
        with pytest.raises(Stopped):
            train_here(config, stop_at(5, signal.SIGINT))
        said = train_here(config)
        assert said.lines[-1] == f"resumed from {config.workdir}/checkpoints/6"
        with pytest.raises(UserError, match=r"train\.from_checkpoint was .*4\" and is null"):
            train_here(config_of(fresh))

    def test_what_does_not_fit_is_refused(self, trained: Path, fresh: Path) -> None:
        start = config_of(trained).workdir

        def refused(said: str, path: str = start, **sections: Any) -> None:
            with pytest.raises(UserError, match=said):
                train_here(config_of(fresh, train={"from_checkpoint": path}, **sections))

        arrays = r"params\.decoder\.blocks\.mlp\.down \(2 x 64 x 32 float32 there, 2 x 32 x 32 "
        refused(arrays + r"float32 here\) and 2 more; give `model`", model={"d_mlp": 32})
        refused(r"params\.head \(258 x 32 float32 there, none here\)", model={"tied": True})
        refused("no checkpoints here", str(fresh))
        refused("no such checkpoint; steps found: 12, 8, 4", f"{start}/checkpoints/5")
        make_tokens(config_of(fresh, tokenizer={"kind": "byte", "specials": ["[MASK]"]}))
        refused("checkpoints/12 was trained with another tokenizer; give its",
                tokenizer={"kind": "byte", "specials": ["[MASK]"]})  # fmt: skip
