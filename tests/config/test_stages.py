"""What a stage of a curriculum changes, and which curricula are refused."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from jaxlm.config import Config
from jaxlm.config.load import load, validate
from jaxlm.config.objective import LM, PrefixLM
from jaxlm.config.position import Rope
from jaxlm.config.stages import config_at, stages
from jaxlm.errors import UsageError
from jaxlm.optim import make_schedule

SOURCES = [{"name": name, "path": "x", "weight": 2.0} for name in ("web", "code")]


def of(*curriculum: dict[str, Any], **sections: Any) -> Config:
    named = [{"name": f"s{i}"} | stage for i, stage in enumerate(curriculum)]
    return validate(
        {"sources": SOURCES, "data": {"curriculum": named, "seq_len": 64}}
        | {"train": {"batch_size": 4}}
        | sections
    )


def test_a_run_without_a_curriculum_is_one_stage() -> None:
    config = validate({"train": {"steps": 7}})
    (stage,) = stages(config)
    assert (stage.name, stage.first, stage.last) == (None, 0, 7)
    assert stage.config is config
    assert config_at(config, 100) is config


def test_stages_follow_each_other_and_change_what_they_say() -> None:
    config = of(
        {"steps": 10},
        {"tokens": 10_000, "seq_len": 128, "batch_size": 8, "microbatch_size": 2,
         "mixture": {"weights": {"code": 0.5}}, "objective": {"kind": "prefix_lm"},
         "position": {"theta": 1e6}},
        {"steps": 3, "mixture": {"weights": {"kind=web": 1}}, "order": "random"},
    )  # fmt: skip
    first, second, third = stages(config)
    assert [(s.name, s.first, s.last) for s in stages(config)] == [
        ("s0", 0, 10), ("s1", 10, 20), ("s2", 20, 23),
    ]  # fmt: skip
    assert config.steps == 23
    assert {s.config.steps for s in stages(config)} == {23}
    assert [s.config.data.seq_len for s in stages(config)] == [64, 128, 64]
    assert [s.config.train.batch_size for s in stages(config)] == [4, 8, 4]
    assert second.config.train.microbatch_size == 2
    weights = [s.config.data.mixture.weights for s in stages(config)]
    assert weights == [None, {"code": 0.5}, {"kind=web": 1}]
    assert (first.config.objective, second.config.objective) == (LM(), PrefixLM())
    assert second.config.model.position == Rope(theta=1e6)
    assert third.config.model == first.config.model == config.model
    for stage in stages(config):
        assert stage.config.data.curriculum == ()
        assert validate(stage.config.model_dump(mode="json")) == stage.config
    assert [config_at(config, s).data.seq_len for s in (1, 10, 11, 20, 21, 99)] == [
        64, 64, 128, 128, 64, 64,
    ]  # fmt: skip


def test_all_stages_have_the_special_tokens_of_all() -> None:
    config = of(
        {"steps": 1, "objective": {"kind": "fim"}},
        {"steps": 1, "seq_len": 256, "objective": {"kind": "span_corruption"}},
        tokenizer={"kind": "byte"},
    )
    assert "<fim_middle>" in config.specials
    assert "<extra_id_3>" in config.specials
    assert {s.config.specials for s in stages(config)} == {config.specials}
    assert {s.config.vocab_size for s in stages(config)} == {config.vocab_size}


def rates(config: Config) -> list[float]:
    found = []
    for stage in stages(config):
        own = stage.config.optimizer
        schedule = make_schedule(own.schedule, own.learning_rate, stage.config.steps, config.spans)
        found += [float(schedule(step)) for step in range(stage.first, stage.last)]
    return found


def test_the_runs_schedule_goes_on_through_stages_without_their_own() -> None:
    optimizer = {"learning_rate": 1.0, "schedule": {"kind": "linear", "warmup_steps": 4}}
    whole = validate({"train": {"steps": 20}, "optimizer": optimizer})
    assert rates(of({"steps": 9}, {"steps": 11}, optimizer=optimizer)) == rates(whole)


def test_a_schedule_begins_anew_in_a_stage_with_its_own() -> None:
    linear = {"kind": "linear", "warmup_steps": 2, "floor": 0.0}
    found = rates(of(
        {"steps": 4, "schedule": linear}, {"steps": 6, "learning_rate": 0.5},
        {"steps": 3, "schedule": {"kind": "constant", "warmup_steps": 2, "start": 1}},
        optimizer={"learning_rate": 1.0, "schedule": linear},
    ))  # fmt: skip
    assert found == pytest.approx(
        [0.5, 1.0, 0.5, 0.0, *(0.25, 0.5, 0.375, 0.25, 0.125, 0.0), *(0.0, 0.5, 1.0)]
    )  # fmt: skip


def test_a_warm_up_in_tokens_leaves_the_end_of_the_stage_where_it_is() -> None:
    by_steps, by_tokens = (
        rates(of({"steps": 2}, {"steps": 6, "learning_rate": 0.5, "schedule": linear | warmup}))
        for linear in [{"kind": "linear", "floor": 0.0}]
        for warmup in ({"warmup_steps": 2}, {"warmup_tokens": 2 * 4 * 64})
    )
    assert by_tokens == pytest.approx(by_steps, abs=1e-6)
    assert by_steps[-1] == 0.0


def test_a_stage_within_one_step_of_a_ramp_has_its_batch() -> None:
    ramp = {"start": 2, "increment": 2, "tokens": 1 << 20}
    train = {"batch_size": 8, "microbatch_size": 2, "batch_ramp": ramp}
    first, second = stages(of({"steps": 4}, {"tokens": 1 << 20}, train=train))
    assert (first.config.train.batch_size, first.config.train.batch_ramp) == (2, None)
    assert (second.config.train.batch_size, second.config.train.batch_ramp is None) == (8, False)


def test_shares_of_the_tokens_are_borders_at_any_scale() -> None:
    """In proportion to the token, with batches that do not divide the stages."""
    parts = [2000.0, 500.0, 100.0]
    curriculum = [{"share": share} for share in parts]
    for tokens in (26 << 8, 10**6 + 7, 2_600_000_000_001):
        config = of(*curriculum, train={"batch_size": 4, "tokens": tokens})
        found, whole = stages(config), Fraction(0)
        for stage, part in zip(found, parts, strict=True):
            whole += Fraction(part) / 2600 * tokens
            last = stage.spans[-1]
            end = last.tokens + (last.last - last.first) * last.step_tokens
            assert whole - Fraction(1, 2) <= end < whole + 1 + last.step_tokens, (
                "the step reaches it"
            )
        assert config.steps == -(-tokens // 256)
        assert {stage.config.train.tokens for stage in found} == {None}


def test_shares_follow_rows_and_batches_of_each_stage() -> None:
    config = of(
        {"share": 0.5, "seq_len": 16, "batch_size": 8}, {"share": 0.5},
        train={"batch_size": 4, "tokens": 2048},
    )  # fmt: skip
    assert [(s.first, s.last) for s in stages(config)] == [(0, 8), (8, 12)]


def test_a_warm_up_in_proportion_to_the_stage() -> None:
    linear = {"kind": "linear", "warmup_share": 0.25, "floor": 0.0}
    found = rates(of(
        {"steps": 4, "schedule": linear}, {"steps": 8, "learning_rate": 0.5},
        optimizer={"learning_rate": 1.0, "schedule": linear},
    ))  # fmt: skip
    assert found == pytest.approx(
        [1, 2 / 3, 1 / 3, 0, *(0.25, 0.5), *(0.5 * (1 - k / 6) for k in range(1, 7))], abs=1e-6
    )


def test_muons_other_rate_keeps_its_ratio() -> None:
    muon = {"kind": "muon", "learning_rate": 0.02, "adam_learning_rate": 0.004}
    config = of({"steps": 4}, {"steps": 4, "learning_rate": 0.01}, optimizer=muon)
    assert [s.config.optimizer.adam_learning_rate for s in stages(config)] == [0.004, 0.002]  # type: ignore[union-attr]


SHARE = {"steps": None, "share": 1}

BAD: list[tuple[dict[str, Any], str]] = [
    ({"train": {"steps": 4}}, "train.steps: data.curriculum says how long the run is"),
    ({"train": {"tokens": 4}}, "train.tokens: data.curriculum says how long the run is"),
    ({"1": {"steps": None}}, "data.curriculum.1: stage 'long': give either steps, tokens or share"),
    ({"1": {"share": 1}}, "data.curriculum.1: stage 'long': give either steps, tokens or share"),
    ({"1": SHARE}, "data.curriculum.0: stage 'short' has no share and others have one; give all"),
    ({"0": SHARE, "1": SHARE}, "train.tokens: stages have shares of it; say how many tokens"),
    ({"0": SHARE, "1": SHARE, "train": {"steps": 4, "tokens": 4096}},
     "train.steps: data.curriculum says how long the run is"),
    ({"0": SHARE, "1": SHARE, "train": {"tokens": 256}},
     "data.curriculum.1.share: of 256 tokens no step is left for stage 'long'; raise train.tokens"),
    ({"optimizer": {"schedule": {"warmup_share": 0.1, "warmup_tokens": 9}}},
     "optimizer.schedule: give either warmup_tokens or warmup_share"),
    ({"1": {"tokens": 10}}, "data.curriculum.1: stage 'long': give either steps, tokens or share"),
    ({"1": {"name": "short"}}, "data.curriculum.1.name: two stages are named 'short'"),
    ({"1": {"mixture": {"weights": {"wiki": 1}}}},
     "data.curriculum.1.mixture.weights: no source is named 'wiki'; there are web, code"),
    ({"1": {"mixture": {"weights": {"kind=book": 1}}}},
     "data.curriculum.1.mixture.weights: no source has kind=book; there are web"),
    ({"1": {"mixture": {"weights": {"size=1": 1}}}},
     "data.curriculum.1.mixture.weights: 'size=1': no tag is named 'size'; there are kind, lang"),
    ({"1": {"mixture": {"weights": {"web": -1}}}},
     "data.curriculum.1.mixture.weights.web: must be greater than or equal to 0"),
    ({"1": {"mixture": {"weights": {"web": float("nan")}}}},
     "data.curriculum.1.mixture.weights.web: must be a finite number"),
    ({"1": {"mixture": {"weights": {"web": 0}}}},
     "data.curriculum.1.mixture: weights: none is above 0; nothing is left to train on"),
    ({"1": {"mixture": {"max_epochs": {"wiki": 1}}}},
     "data.curriculum.1.mixture.max_epochs: no source is named 'wiki'"),
    ({"1": {"mixture": {"weights": {}}}}, "data.curriculum.1.mixture: weights: none is above 0"),
    ({"1": {"order": []}}, "data.curriculum.1.order: the list is empty; name sources or tags"),
    ({"1": {"mixture": {"max_epochs": 2}},
      "0": {"mixture": {"dynamic": {"method": {"kind": "ado"}, "every": 2}}}},
     "data.curriculum.1.mixture: what a dynamic stage before it leaves for max_epochs"),
    ({"1": {"order": ["web", "wiki"]}}, "data.curriculum.1.order: no source is named 'wiki'"),
    ({"1": {"position": {"kind": "learned", "length": 512}}},
     "data.curriculum.1.position: stage 'long' would need other parameters than model.position "
     "(rope)"),
    ({"1": {"microbatch_size": 3}}, "stage 'long': train.microbatch_size: train.batch_size 4 is"),
    ({"1": {"batch_size": 3}, "mesh": {"data": 2}},
     "stage 'long': train.batch_size: 3 is not a multiple of mesh.data x mesh.fsdp = 2"),
    ({"model": {"position": {"kind": "learned", "length": 200}}},
     "stage 'long': data.seq_len: 256 tokens are more than the 200 positions"),
    ({"1": {"objective": {"kind": "mlm"}}}, "stage 'long': objective.kind: a model of kind"),
    ({"model": {"heads": 8, "kv_heads": 3}}, "model.kv_heads: 8 query heads cannot share 3"),
    ({"1": {"schedule": {"warmup_steps": 9, "decay_steps": 5}}},
     "stage 'long': optimizer.schedule.warmup_steps: the decay is over at step 5"),
    ({"1": {"schedule": {"warmup_tokens": 9, "decay_tokens": 5}}},
     "stage 'long': optimizer.schedule.warmup_tokens: the decay is over after 5 tokens, before 9"),
    ({"1": {"microbatch_size": 2},
      "train": {"microbatch_size": 1, "batch_ramp": {"start": 1, "increment": 1, "tokens": 1000}}},
     "data.curriculum.1.microbatch_size: the ramp has batches of 1 here, not a multiple of 2"),
    ({"1": {"order": ["web", "code", "web"]}}, "data.curriculum.1.order: web has both web and web"),
    ({"1": {"mixture": {"weights": {"web": 1, "kind=web": 2}}}},
     "data.curriculum.1.mixture.weights: web has both web and kind=web; give one of them"),
    ({"1": {"order": "ascend"}}, "data.curriculum.1.order: 'ascend' is not one of random, "),
    ({"1": {"order": ["web", 1]}}, "data.curriculum.1.order.1: must be a string, not 1"),
    ({"1": {"mixture": {"max_epochs": 0}}},
     "data.curriculum.1.mixture.max_epochs: must be greater than 0, not 0"),
    ({"1": {"mixture": {"max_epochs": {"web": -2}}}},
     "data.curriculum.1.mixture.max_epochs.web: must be greater than 0, not -2"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), BAD, ids=lambda value: str(value)[:60])
def test_refused(change: dict[str, Any], said: str) -> None:
    curriculum: list[dict[str, Any]] = [
        {"name": "short", "steps": 4} | change.get("0", {}),
        {"name": "long", "steps": 4, "seq_len": 256} | change.get("1", {}),
    ]
    sections = {name: value for name, value in change.items() if name not in "01"}
    sections["train"] = {"batch_size": 4} | sections.get("train", {})
    data = {"curriculum": curriculum, "seq_len": 64}
    with pytest.raises(UsageError) as caught:
        validate({"sources": SOURCES, "data": data} | sections)
    (message,) = caught.value.messages
    assert message.startswith(said)


def test_the_place_is_that_of_the_stages_own_key(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "train: {batch_size: 4}\ndata:\n  curriculum:\n  - {name: a, steps: 1}\n"
        "  - name: b\n    steps: 1\n    microbatch_size: 3\n"
    )
    with pytest.raises(UsageError) as caught:
        load(path)
    (message,) = caught.value.messages
    assert message.endswith(f"({path}:7)")
