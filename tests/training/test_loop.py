"""Resumption in this process, where a run can be stopped at a chosen step; what is refused."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxlm.errors import UserError
from jaxlm.reports.records import read_metrics
from jaxlm.training import Stopped
from jaxlm.training.checkpoints import read_facts
from jaxlm.training.loop import _finite
from jaxlm.training.same_run import refuse_other_run
from jaxlm.workdir import Workdir
from tests.training.runs import (
    Said,
    arrays_of,
    config_of,
    ended,
    figures,
    make_tokens,
    records,
    same_bits,
    start,
    train_here,
    write_config,
    write_text,
)


def stop_at(step: int, signum: signal.Signals) -> Said:
    """Raises a signal when the record of a step comes (while the next step runs)."""

    def at(record: dict[str, Any]) -> None:
        if record["step"] == step:
            signal.raise_signal(signum)

    return Said(at)


@pytest.mark.parametrize(
    ("step", "signum"), [(2, signal.SIGTERM), (3, signal.SIGINT), (7, signal.SIGINT)]
)
def test_stopped_and_resumed_gives_the_same_bits(
    trained: Path, fresh: Path, step: int, signum: signal.Signals
) -> None:
    config, straight = config_of(fresh), config_of(trained)
    with pytest.raises(Stopped, match=f"stopped by {signum.name} after step {step + 1}"):
        train_here(config, stop_at(step, signum))
    assert Workdir(config.workdir).checkpoints.joinpath(str(step + 1)).is_dir()
    assert figures(config) == figures(straight)[: step + 1]
    said = train_here(config)
    assert said.lines[-1] == f"resumed from {config.workdir}/checkpoints/{step + 1}"
    assert figures(config) == figures(straight)
    assert same_bits(arrays_of(config, 12), arrays_of(straight, 12))


def test_steps_that_overflow_in_fp16_are_passed_over_and_told(fresh: Path) -> None:
    # products with the largest gradients of a first step leave the range of fp16
    model = {"layers": 2, "d_model": 32, "heads": 2, "d_mlp": 64, "head_scale": 40.0}
    config = config_of(fresh, model=model, train={"precision": "fp16"})
    with pytest.raises(Stopped):
        train_here(config, stop_at(1, signal.SIGTERM))
    train_here(config)
    told = records(config)
    scales, skipped = (
        [record[name] for record in told] for name in ("loss_scale", "skipped_steps")
    )
    assert scales[0] == 65536.0
    assert skipped[-1] > 0
    for before, after, more in zip(scales, scales[1:], np.diff([0, *skipped]), strict=False):
        assert after == (before / 2 if more else before)
    assert all(np.isfinite(record["loss"]) for record in told)


def test_a_stop_leaves_no_record_that_a_straight_run_has_not(trained: Path, fresh: Path) -> None:
    config = config_of(fresh, logging={"every": 4}, checkpoint={"every": 3})
    with pytest.raises(Stopped, match="after step 5"):
        train_here(config, stop_at(4, signal.SIGTERM))
    train_here(config)
    assert figures(config) == [f for f in figures(config_of(trained)) if f[0] % 4 == 0]


def test_other_meshes_see_the_same_examples_and_agree_to_rounding(
    trained: Path, fresh: Path
) -> None:
    straight = config_of(trained)
    assert straight.mesh.data == -1, "the straight run was on data=8"
    with pytest.raises(Stopped, match="after step 4"):
        train_here(config_of(fresh), stop_at(3, signal.SIGTERM))
    sharded = config_of(fresh, mesh={"data": 1, "fsdp": 4, "tensor": 2})
    with pytest.raises(Stopped, match="after step 8"):
        train_here(sharded, stop_at(7, signal.SIGTERM))
    # with other microbatches as well, whose numbers of targets differ
    single = config_of(fresh, train={"microbatch_size": 2})
    code, said = ended(start("train", write_config(single, fresh), devices=1))
    assert code == 0, said
    assert f"resumed from {single.workdir}/checkpoints/8" in said
    found, wanted = figures(single), figures(straight)
    exact = [(f[0], f[2], f[3], f[5]) for f in found]
    assert exact == [(f[0], f[2], f[3], f[5]) for f in wanted]
    np.testing.assert_allclose([f[1] for f in found], [f[1] for f in wanted], rtol=1e-5)
    np.testing.assert_allclose([f[4] for f in found], [f[4] for f in wanted], rtol=1e-3)
    assert records(single)[-1]["source_tokens"]["words"] == 12 * 8 * 32 * 2 // 3


def test_records_are_what_the_report_reads(trained: Path) -> None:
    config = config_of(trained)
    metrics = read_metrics(Workdir(config.workdir))
    assert metrics is not None
    assert metrics.columns["step"].tolist() == list(range(1, 13))
    first, *_, last = records(config)
    # the first step compiles, so nothing is timed yet
    assert [first[k] for k in ("step_time_s", "tokens_per_s", "mfu", "mfu_causal")] == [None] * 4
    assert last["tokens_per_s"] == pytest.approx(8 * 32 / last["step_time_s"])
    assert last["mfu"] > last["mfu_causal"] > 0
    assert abs(first["loss"] - np.log(258)) < 0.1, "a fresh model knows nothing"
    assert last["loss"] < first["loss"] - 0.5


def test_scores_while_training_stand_in_the_record(fresh: Path) -> None:
    config = config_of(fresh, eval={"every": 2}, train={"steps": 4}, logging={"every": 100})
    train_here(config)
    assert [record["step"] for record in records(config)] == [2, 4]
    assert [set(r["validation"]) for r in records(config)] == [{"words", "more", "all"}] * 2


def test_what_does_not_change_the_run_may_change(copied: Path) -> None:
    config = config_of(
        copied,
        train={"steps": 13, "microbatch_size": 4, "remat": "full"},
        mesh={"data": 2, "fsdp": 2, "tensor": 2},
        checkpoint={"every": 5, "keep": 9},
        logging={"every": 3},
        eval={"batch_size": 16},
        model={"attention": {"kernel": "xla"}},
        optimizer={"learning_rate": 1e-3, "schedule": {"warmup_steps": 2}},
        sources=[
            {"name": "words", "path": "elsewhere.txt", "split": "\n\n", "weight": 2.0},
            {"name": "more", "path": "moved/more.txt", "split": "\n\n", "weight": 1.0},
        ],
    )
    train_here(config)
    assert [record["step"] for record in records(config)] == list(range(1, 14))
    said = train_here(config)
    assert said.lines[-1] == "finished: 13 of 13 steps; train.steps=N goes on to step N"


def test_another_run_is_refused_and_every_key_is_named(copied: Path) -> None:
    config = config_of(
        copied,
        seed=4,
        data={"seq_len": 16},
        model={"d_mlp": 128, "qk_norm": True},
        optimizer={"kind": "muon", "schedule": {"warmup_steps": 2}},
        train={"batch_size": 16, "steps": 20},
        sources=[
            {"name": "words", "path": "x", "split": "\n\n", "weight": 5.0},
            {"name": "more", "path": "x", "split": "\n\n", "weight": 1.0},
        ],
    )
    with pytest.raises(UserError) as caught:
        train_here(config)
    *different, advice = caught.value.messages
    where = f"{config.workdir}/checkpoints/12"
    assert different == [
        f"{where}: seed was 3 and is 4",
        f"{where}: sources.0.weight was 2.0 and is 5.0",
        f"{where}: data.seq_len was 32 and is 16",
        f"{where}: model.d_mlp was 64 and is 128",
        f"{where}: model.qk_norm was false and is true",
        f'{where}: optimizer.kind was "adamw" and is "muon"',
        f"{where}: train.batch_size was 8 and is 16",
    ]
    assert advice == "change this back, or choose another workdir for the new run"
    assert len(records(config)) == 12, "nothing that was there is lost"
    arrays_of(config_of(copied), 12)


def test_an_optimizer_with_other_arrays_is_refused(copied: Path) -> None:
    optimizer = {"clip_norm": None, "schedule": {"warmup_steps": 2}}
    with pytest.raises(UserError, match=r"12: holds other arrays than this config asks for: opt"):
        train_here(config_of(copied, optimizer=optimizer, train={"steps": 13}))


def test_other_tokens_are_refused(copied: Path) -> None:
    write_text(copied, seed=1)
    config = config_of(copied, train={"steps": 13})
    make_tokens(config)
    with pytest.raises(UserError, match="it was trained on other tokens than the store holds now"):
        train_here(config)
    write_text(copied)
    make_tokens(config)
    train_here(config)  # the same text gives the same store


def test_another_tokenizer_is_refused(trained: Path) -> None:
    path = Workdir(config_of(trained).workdir).checkpoints / "12"
    facts = read_facts(path)
    refuse_other_run(facts, facts, path)
    with pytest.raises(UserError, match="12: it was trained with another tokenizer"):
        refuse_other_run(facts, facts | {"tokenizer_hash": "other", "store": "other"}, path)


def test_a_checkpoint_of_a_version_without_the_newest_keys_goes_on(trained: Path) -> None:
    path = Workdir(config_of(trained).workdir).checkpoints / "12"
    facts = read_facts(path)
    old = json.loads(json.dumps(facts))
    for section, key in (("data", "mixture"), ("data", "split_by"), ("train", "batch_ramp")):
        del old["config"][section][key]
    refuse_other_run(old, facts, path)
    changed = json.loads(json.dumps(facts))
    changed["config"]["data"]["mixture"]["weights"] = {"words": 1.0}
    with pytest.raises(
        UserError, match=r"data\.mixture\.weights was null and is {\"words\": 1\.0}"
    ):
        refuse_other_run(old, changed, path)


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        ({"mixture": {"max_epochs": 4}}, True),
        ({"mixture": {"smoothing": {"kind": "unimax"}}}, True),
        ({"mixture": {"weights": {"words": 1}}}, False),
    ],
)
def test_a_run_is_made_longer_where_its_examples_stay(
    trained: Path, data: dict[str, Any], refused: bool
) -> None:
    facts = read_facts(Workdir(config_of(trained).workdir).checkpoints / "12")

    def of(steps: int) -> dict[str, Any]:
        config = config_of(trained, data=data, train={"steps": steps})
        return facts | {"config": json.loads(config.model_dump_json())}

    if refused:
        with pytest.raises(UserError, match=r"train\.steps was 12 and is 20"):
            refuse_other_run(of(12), of(20), trained)
    else:
        refuse_other_run(of(12), of(20), trained)


def test_a_workdir_with_a_run_is_refused_where_resuming_is_off(copied: Path, fresh: Path) -> None:
    recovery = {"resume": False}
    with pytest.raises(UserError, match=r"checkpoints: holds a run and recovery\.resume is false"):
        train_here(config_of(copied, recovery=recovery))
    shutil.rmtree(Workdir(config_of(copied).workdir).checkpoints)
    train_here(config_of(copied, recovery=recovery, train={"steps": 2}))
    assert [record["step"] for record in records(config_of(copied))] == [1, 2]


def test_a_loss_that_is_no_number_ends_the_run_and_is_not_saved(fresh: Path) -> None:
    optimizer = {"learning_rate": 1e30, "clip_norm": None, "schedule": {"warmup_steps": 0}}
    config = config_of(fresh, optimizer=optimizer)
    with pytest.raises(UserError, match=r"step 2: .*(nan|inf); start again from the last"):
        train_here(config)
    workdir = Workdir(config.workdir)
    assert list(workdir.checkpoints.iterdir()) == []
    assert [record["step"] for record in records(config)] == [1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_no_number_is_seen_at_every_step(value: float) -> None:
    good = {"loss": jax.numpy.float32(1.5), "grad_norm": jax.numpy.float32(2.0)}
    assert _finite(7, good) == {"loss": 1.5, "grad_norm": 2.0}
    with pytest.raises(UserError, match="step 7: grad_norm is"):
        _finite(7, good | {"grad_norm": jax.numpy.float32(value)})


def test_a_broken_record_is_told_and_left(copied: Path) -> None:
    config = config_of(copied, train={"steps": 13})
    metrics = Workdir(config.workdir).metrics
    lines = metrics.read_text().splitlines()
    metrics.write_text("\n".join([*lines[:4], lines[4][:-30], *lines[5:]]) + "\n")
    before = metrics.read_text()
    with pytest.raises(UserError, match=r"metrics\.jsonl:5: not a record of a step"):
        train_here(config)
    assert metrics.read_text() == before


def test_the_checkpoint_describes_itself(trained: Path) -> None:
    config = config_of(trained)
    path = Workdir(config.workdir).checkpoints / "12" / "_CHECKPOINT_METADATA"
    facts: dict[str, Any] = json.loads(path.read_text())["custom_metadata"]
    assert facts["step"] == 12
    assert facts["config"] == json.loads(config.model_dump_json())
    assert facts["tokenizer_hash"] == json.loads(
        (Workdir(config.workdir).tokenizer / "manifest.json").read_text()
    )["hash"]  # fmt: skip
    assert facts["tokens"] == records(config)[-1]["tokens"]
    assert facts["read"] == list(records(config)[-1]["source_tokens"].values())
    assert facts["mesh"] == {"data": 8, "fsdp": 1, "stage": 1, "tensor": 1, "context": 1}
    sizes = [int(np.prod(a["shape"])) for a in facts["arrays"]["params"].values()]
    assert sum(sizes) == 258 * 32 * 2 + 2 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32) + 32
