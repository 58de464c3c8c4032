"""Batches over the stages of a curriculum, and under other objectives."""

from typing import Any

import numpy as np
import pytest

from jaxlm.config import Config
from jaxlm.config.load import validate
from jaxlm.tokens import load_tokenizer, open_loader, tokenize, train_tokenizer, validation_batches
from jaxlm.tokens.loader import Loader
from jaxlm.workdir import Workdir
from tests.tokens.conftest import CODE, TOPICS, write_corpus
from tests.tokens.test_loader import joined, same

SPANS = {"kind": "span_corruption"}
SPECIALS = ["[MASK]", "<fim_prefix>", "<fim_suffix>", "<fim_middle>"] + [
    f"<extra_id_{number}>" for number in range(8)
]
CURRICULUM = [
    {"name": "short", "steps": 5, "seq_len": 32, "batch_size": 12},
    {"name": "code", "tokens": 4 * 6 * 128, "seq_len": 128, "batch_size": 6,
     "mixture": {"weights": {"code": 1.0}}},
    {"name": "mixed", "steps": 7, "objective": [
        {"kind": "lm", "weight": 1}, {"kind": "fim", "cut": "token", "weight": 2},
    ]},
]  # fmt: skip


def config_of(**sections: Any) -> Config:
    plain: dict[str, Any] = {
        "sources": [{"name": "topics", "path": "x"}, {"name": "code", "path": "x", "weight": 3.0}],
        "tokenizer": {"kind": "byte", "specials": SPECIALS},
        "data": {"seq_len": 64, "curriculum": CURRICULUM, "validation_fraction": 0.1},
    }
    return validate(plain | sections)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    workdir = Workdir(tmp_path_factory.mktemp("stages"))
    config = config_of()
    write_corpus(workdir.corpus, {"topics": TOPICS[:30], "code": CODE})
    train_tokenizer(config, workdir)
    tokenize(config, workdir)
    return workdir


@pytest.fixture
def loader(workdir: Workdir) -> Loader:
    return open_loader(config_of(), workdir)


def test_each_stage_has_its_lengths_and_sources(loader: Loader) -> None:
    shapes = [loader.batch_at(step).tokens_BT.shape for step in range(16)]
    assert shapes == [(12, 32)] * 5 + [(6, 128)] * 4 + [(8, 64)] * 7
    assert loader.batch_at(1000).tokens_BT.shape == (8, 64), "the last stage has no end"
    assert [set(loader.sources_at(step)) for step in (4, 5, 8, 9)] == [{0, 1}, {1}, {1}, {0, 1}]
    assert loader.read_at(0).tolist() == [3 * 32, 9 * 32]
    assert loader.read_at(5).tolist() == [0, 6 * 128]


def test_a_change_holds_through_stages_with_the_same_mixture(workdir: Workdir) -> None:
    stages = [{"name": name, "steps": 4} for name in "abc"]
    stages.append({"name": "d", "steps": 2, "mixture": {"weights": {"code": 1}}})
    data = {"seq_len": 64, "curriculum": stages, "validation_fraction": 0.1}
    before = open_loader(config_of(data=data), workdir)
    after = before.changed([(2, {"topics": 0.625, "code": 0.375})])
    own, changed = {"topics": 0.25, "code": 0.75}, {"topics": 0.625, "code": 0.375}
    wanted = [own] * 2 + [changed] * 10 + [{"code": 1.0}] * 2
    assert [after.shares_at(step) for step in range(14)] == wanted
    assert [before.shares_at(step) for step in (2, 11)] == [own] * 2
    read = np.sum([after.read_at(step) for step in range(12)], 0)
    assert (read == 64 * np.array([2 * 2 + 10 * 5, 2 * 6 + 10 * 3])).all()


def test_steps_come_in_any_order_and_from_any_number_of_hosts(
    loader: Loader, workdir: Workdir
) -> None:
    other = open_loader(config_of(), workdir)
    steps = [*range(16), 400]
    first = [loader.batch_at(step) for step in steps]
    second = [other.batch_at(step) for step in reversed(steps)][::-1]
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    for step, whole in zip(steps, first, strict=True):
        half = len(whole.tokens_BT) // 2
        assert same(
            whole,
            joined(
                [loader.batch_at(step, slice(0, half)), loader.batch_at(step, slice(half, None))]
            ),
        )


def test_no_text_comes_twice_before_an_epoch_ends(loader: Loader) -> None:
    """Windows of 32 and 128 tokens of code in the first two stages."""
    code = []
    for step in range(9):
        batch, rows = loader.batch_at(step), loader.sources_at(step) == 1
        code += [batch.tokens_BT[rows].reshape(-1, 32)]
    rows = [row.tobytes() for row in np.concatenate(code)]
    assert len(rows) == 5 * 9 + 4 * 6 * 4
    assert len(rows) - len(set(rows)) <= 1, "text itself may repeat"


def test_a_longer_last_stage_changes_no_earlier_batch(loader: Loader, workdir: Workdir) -> None:
    longer = open_loader(
        config_of(
            data={"seq_len": 64, "curriculum": [*CURRICULUM[:2], CURRICULUM[2] | {"steps": 90}]}
        ),
        workdir,
    )
    assert all(same(loader.batch_at(step), longer.batch_at(step)) for step in range(16))


def test_shares_of_objectives_are_exact_for_each_source(workdir: Workdir) -> None:
    config = config_of(
        data={"seq_len": 64}, train={"steps": 100},
        objective=[SPANS | {"weight": 1}, {"kind": "lm", "weight": 3}],
    )  # fmt: skip
    loader = open_loader(config, workdir)
    sentinel = load_tokenizer(workdir.tokenizer).specials["<extra_id_0>"]
    for first, last in ((0, 50), (3, 20)):
        found: list[list[bool]] = [[], []]
        for step in range(first, last):
            spans = (loader.batch_at(step).tokens_BT == sentinel).any(axis=1)
            for source, is_span in zip(loader.sources_at(step), spans, strict=True):
                found[source].append(is_span)
        for source in (0, 1):
            assert abs(sum(found[source]) - len(found[source]) / 4) < 2


@pytest.mark.parametrize("batch_size", [1, 2, 8, 16])
def test_an_example_is_the_same_in_any_batch(workdir: Workdir, batch_size: int) -> None:
    def rows(size: int) -> np.ndarray:
        config = config_of(
            data={"seq_len": 64}, objective=SPANS, train={"steps": 100, "batch_size": size}
        )
        loader = open_loader(config, workdir)
        return np.concatenate([loader.batch_at(step).tokens_BT for step in range(64 // size)])

    np.testing.assert_array_equal(rows(batch_size), rows(32))


def test_the_next_epoch_draws_anew(workdir: Workdir) -> None:
    config = config_of(
        data={"seq_len": 64}, objective={"kind": "mlm"}, model={"kind": "encoder"},
        sources=[{"name": "code", "path": "x"}], train={"steps": 100, "batch_size": 1},
    )  # fmt: skip
    loader = open_loader(config, workdir)
    length = loader._streams[0].tokens.length // 64
    targets = [loader.batch_at(step) for step in range(2 * length)]
    chosen = [
        (np.where(b.weights_BT > 0, b.targets_BT, b.tokens_BT).tobytes(), b.weights_BT.tobytes())
        for b in targets
    ]
    assert len({window for window, _ in chosen}) == length, "the same windows"
    assert len(set(chosen)) > 1.9 * length, "with other tokens hidden"


@pytest.mark.parametrize(
    ("objective", "kind"),
    [
        (SPANS, "encoder_decoder"),
        ({"kind": "mlm"}, "encoder"),
        ([SPANS | {"weight": 3}, {"kind": "lm"}], "decoder"),
    ],
)
def test_validation_sees_the_same_examples_in_any_batch(
    workdir: Workdir, objective: Any, kind: str
) -> None:
    config = config_of(
        data={"seq_len": 64}, objective=objective, model={"kind": kind}, train={"steps": 1}
    )

    def rows(size: int) -> list[np.ndarray]:
        whole = joined(list(validation_batches(config, workdir, "code", size)))
        real = whole.segments_BT.any(axis=1)
        return [array[real] for array in whole if array is not None]

    wanted = rows(4)
    assert len(wanted[0]) > 20
    for size in (1, 3, 64):
        for found, array in zip(rows(size), wanted, strict=True):
            np.testing.assert_array_equal(found, array)
    other = config.model_copy(update={"seed": 1})
    assert not np.array_equal(
        rows(4)[0],
        joined(list(validation_batches(other, workdir, "code", 4))).tokens_BT[: len(wanted[0])],
    )
