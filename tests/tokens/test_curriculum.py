"""What a run sees, counted in its batches: shares, epochs, orders and the validation split, under
ramps, stages, caps and decisions, from any number of hosts."""

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from jaxlm.config import Config
from jaxlm.config.load import validate
from jaxlm.errors import UserError
from jaxlm.tokens import open_loader, tokenize, train_tokenizer
from jaxlm.tokens.loader import Loader
from jaxlm.tokens.order import GROUP
from jaxlm.tokens.store import Store
from jaxlm.workdir import Workdir
from tests.tokens.conftest import write_corpus

SEQ_LEN = 16
SHARES = {"a": 0.67, "b": 0.2, "c": 0.13}
RAMP = {"start": 2, "increment": 2, "tokens": 3000}


def numbered(name: str, count: int) -> list[tuple[str, str]]:
    """Documents of 40 to 160 bytes of which no 16 are like others."""
    return [
        (f"{name}{i}", "".join(f"{name}{i:03d}:{j:02d} " for j in range(5 + i * 7 % 16)))
        for i in range(count)
    ]


def config_of(data: dict[str, Any] | None = None, **sections: Any) -> Config:
    plain: dict[str, Any] = {
        "sources": [{"name": name, "path": "x"} for name in "abc"],
        "tokenizer": {"kind": "byte"},
        "data": {
            "seq_len": SEQ_LEN, "validation_fraction": 0.1, "sort_by": "length",
            "mixture": {"weights": SHARES},
        } | (data or {}),
        "train": {"steps": 100, "batch_size": 8, "microbatch_size": 2},
    }  # fmt: skip
    return validate(plain | sections)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    workdir = Workdir(tmp_path_factory.mktemp("curriculum"))
    write_corpus(workdir.corpus, {name: numbered(name, 60) for name in "abc"})
    train_tokenizer(config_of(), workdir)
    tokenize(config_of(), workdir)
    return workdir


def sources_of(loader: Loader, steps: int) -> np.ndarray:
    return np.concatenate([loader.sources_at(step) for step in range(steps)])


def windows_of(loader: Loader, steps: int, source: int) -> list[bytes]:
    """The rows of a stream in the order in which they are trained on."""
    found = []
    for step in range(steps):
        rows = loader.sources_at(step) == source
        found += [row.tobytes() for row in loader.batch_at(step).tokens_BT[rows]]
    return found


def text_of(ids: np.ndarray) -> bytes:
    return bytes(ids[ids < 256].astype(np.uint8))


CURRICULUM = [
    {"name": "one", "tokens": 4000},
    {"name": "two", "steps": 30, "mixture": {"weights": {"c": 3, "a": 1}}},
    {"name": "three", "steps": 20, "batch_size": 4},
]


@pytest.mark.parametrize("ramp", [None, RAMP])
@pytest.mark.parametrize("curriculum", [[], CURRICULUM])
def test_shares_are_exact_over_any_window(
    workdir: Workdir, curriculum: list[Any], ramp: dict[str, int] | None
) -> None:
    train = {"batch_size": 8, "microbatch_size": 2, "batch_ramp": ramp}
    train["steps"] = None if curriculum else 100
    config = config_of({"curriculum": curriculum}, train=train)
    loader, spans = open_loader(config, workdir), config.spans
    stages = [[span for span in spans if span.stage == k] for k in range(spans[-1].stage + 1)]
    shares = [SHARES, {"c": 0.75, "a": 0.25}, SHARES]
    for stage, share in zip(stages, shares, strict=False):
        steps = range(stage[0].first, stage[-1].last)
        row = np.concatenate([loader.sources_at(step) for step in steps])
        sizes = [size.batch_size for size in stage for _ in range(size.first, size.last)]
        assert [len(loader.sources_at(step)) for step in steps] == sizes
        for s, name in enumerate("abc"):
            before = np.concatenate([[0], np.cumsum(row == s)])
            off = before - share.get(name, 0.0) * np.arange(len(row) + 1)
            assert np.abs(off).max() < 1, "after any number of examples"
            assert off.max() - off.min() < 2, "within any window"


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_and_restarts_see_the_rows_of_the_step(workdir: Workdir, hosts: int) -> None:
    train = {"steps": None, "batch_size": 8, "microbatch_size": 4,
             "batch_ramp": RAMP | {"start": 4, "increment": 4}}  # fmt: skip
    config = config_of({"curriculum": CURRICULUM}, train=train)
    whole = open_loader(config, workdir)
    for step in (0, 1, 40, config.spans[1].first, config.steps - 1):
        batch = whole.batch_at(step).tokens_BT
        part = len(batch) // hosts
        rows = [
            # each opens the store by itself, at this step
            open_loader(config, workdir).batch_at(step, slice(h * part, (h + 1) * part)).tokens_BT
            for h in range(hosts)
        ]
        np.testing.assert_array_equal(np.concatenate(rows), batch)


def test_no_document_comes_twice_in_an_epoch_and_each_epoch_has_an_order_of_its_own(
    workdir: Workdir,
) -> None:
    config = config_of({"mixture": {"weights": {"b": 1}}}, train={"steps": 500, "batch_size": 4})
    loader = open_loader(config, workdir)
    epoch = int(loader.epoch_S[1]) // SEQ_LEN
    rows = windows_of(loader, 3 * epoch // 4 + 1, 1)
    epochs = [rows[k * epoch : (k + 1) * epoch] for k in range(3)]
    assert all(len(set(part)) == epoch for part in epochs)
    assert set(epochs[0]) == set(epochs[1]) == set(epochs[2])
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_validation_documents_are_never_trained_on(workdir: Workdir) -> None:
    loader = open_loader(config_of({"curriculum": CURRICULUM}, train={"batch_size": 8}), workdir)
    store = Store(workdir.tokens)
    held, trained = set[bytes](), set[bytes]()
    for s, name in enumerate("abc"):
        number = re.compile(rb"%b\d{3}" % name.encode())
        tokens = store.tokens(name, "valid")
        held |= set(number.findall(text_of(tokens.read(0, tokens.length))))
        for row in windows_of(loader, 200, s):
            trained |= set(number.findall(text_of(np.frombuffer(row, np.int32))))
    assert len(held) == 18
    assert len(trained) > 150
    assert not held & trained


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_a_sorted_stage_goes_from_short_to_long_or_back(workdir: Workdir, order: str) -> None:
    stage = {"name": "s", "steps": 30, "order": order}
    loader = open_loader(
        config_of({"curriculum": [stage], "mixture": {"weights": {"a": 1}}},
                  train={"batch_size": 4}), workdir,
    )  # fmt: skip
    store = Store(workdir.tokens)
    tokens = store.tokens("a", "train")
    stored = tokens.read(0, tokens.length).astype(np.int32)
    place = {stored[i * 16 : i * 16 + 16].tobytes(): i for i in range(len(stored) // 16)}
    rows = windows_of(loader, 30, 0)
    places = [place[row] for row in rows]
    assert len(set(places)) == 120
    assert places == sorted(places, reverse=order == "descending")
    assert max(places) - min(places) > 0.9 * len(place), "drawn from all of the epoch"


def test_sorted_epochs_follow_each_other(workdir: Workdir) -> None:
    """What a sorted stage leaves of an epoch is what the next stage reads first."""
    stages = [{"name": "s", "steps": 30, "order": "ascending"}, {"name": "r", "steps": 200}]
    loader = open_loader(
        config_of({"curriculum": stages, "mixture": {"weights": {"a": 1}}},
                  train={"batch_size": 4}), workdir,
    )  # fmt: skip
    epoch = int(loader.epoch_S[0]) // SEQ_LEN
    rows = windows_of(loader, epoch // 2 + 1, 0)
    assert len(set(rows[:epoch])) == epoch
    assert len(set(rows[epoch : 2 * epoch])) == epoch


def test_skills_follow_each_other_with_their_shares(workdir: Workdir) -> None:
    stage = {"name": "s", "steps": 50, "order": ["c", "a", "b"]}
    config = config_of({"curriculum": [stage]}, train={"batch_size": 8})
    row = sources_of(open_loader(config, workdir), 50)
    runs = row[np.flatnonzero(np.diff(row, prepend=-1))]
    assert runs.tolist() == [2, 0, 1]
    assert Counter(row.tolist()) == {0: 268, 1: 80, 2: 52}
    listed = config_of({"curriculum": [stage | {"order": ["c", "a"]}]}, train={"batch_size": 8})
    with pytest.raises(UserError, match="stage s: order: b is in the mixture and not in the list"):
        open_loader(listed, workdir)


class TestMaxEpochs:
    def capped(self, workdir: Workdir, cap: Any, steps: int = 100, **data: Any) -> Loader:
        mixture = {"weights": {"a": 1, "b": 1}, "max_epochs": cap}
        config = config_of({"mixture": mixture} | data, train={"steps": steps, "batch_size": 8})
        return open_loader(config, workdir)

    def test_what_is_over_goes_to_the_others(self, workdir: Workdir) -> None:
        loader = self.capped(workdir, {"a": 1.5}, steps=200)
        row = sources_of(loader, 200)
        epoch = int(loader.epoch_S[0]) // SEQ_LEN
        assert (row == 0).sum() == int(1.5 * epoch) < 800
        assert (row == 1).sum() == 1600 - int(1.5 * epoch)
        assert max(Counter(windows_of(loader, 200, 0)).values()) == 2
        assert loader.plan()[0]["epochs"]["a"] == pytest.approx(1.5, abs=0.01)

    def test_epochs_count_over_all_stages(self, workdir: Workdir) -> None:
        stages = [{"name": "one", "steps": 25}, {"name": "two", "steps": 25, "seq_len": 32}]
        mixture = {"weights": {"a": 1, "b": 9}, "max_epochs": {"b": 1}}
        config = config_of({"curriculum": stages, "mixture": mixture}, train={"batch_size": 8})
        plan = open_loader(config, workdir).plan()
        assert plan[1]["epochs"]["b"] <= 1
        assert plan[1]["epochs"]["a"] > plan[0]["epochs"]["a"]

    def test_a_run_longer_than_its_text(self, workdir: Workdir) -> None:
        with pytest.raises(UserError) as caught:
            self.capped(workdir, 1, steps=200)
        (message,) = caught.value.messages
        once = int(self.capped(workdir, None).epoch_S[:2].sum())
        assert message.startswith(
            f"data.mixture: 25,600 tokens are more than max_epochs leaves, {once:,}; by their end "
            f"it would be {25600 / once:.2f} epochs of a, b; make it shorter, raise max_epochs or"
        )

    def test_epochs_that_are_told_are_those_of_all_stages(self, workdir: Workdir) -> None:
        once = int(self.capped(workdir, None).epoch_S[0])
        steps = 3 * once // 4 // (8 * SEQ_LEN)
        stages = [{"name": "one", "steps": steps}, {"name": "two", "steps": steps}]
        mixture = {"weights": {"a": 1}, "max_epochs": 1}
        config = config_of({"curriculum": stages, "mixture": mixture}, train={"batch_size": 8})
        with pytest.raises(UserError, match="stage two: ") as caught:
            open_loader(config, workdir)
        epochs = 2 * steps * 8 * SEQ_LEN / once
        assert f"; by their end it would be {epochs:.2f} epochs of a; " in str(caught.value)


def test_decisions_change_what_follows_them_and_nothing_before(workdir: Workdir) -> None:
    dynamic = {"method": {"kind": "function", "call": "some.module:name"}, "every": 20}
    stages = [{"name": "one", "steps": 60}, {"name": "two", "steps": 40, "seq_len": 32},
              {"name": "own", "steps": 20, "mixture": {"weights": {"b": 1}}}]  # fmt: skip
    config = config_of(
        {"curriculum": stages, "mixture": {"weights": SHARES, "dynamic": dynamic}},
        train={"batch_size": 8},
    )
    first = open_loader(config, workdir)
    decisions = [(20, {"a": 0.1, "b": 0.1, "c": 0.8}), (40, {"a": 0.8, "b": 0.1, "c": 0.1})]
    second = first.changed(decisions[:1])
    third, again = second.changed(decisions[1:]), open_loader(config, workdir).changed(decisions)
    for one, other, until in ((first, second, 20), (second, third, 40), (third, again, 120)):
        for step in range(0, until, 3):
            np.testing.assert_array_equal(
                one.batch_at(step).tokens_BT, other.batch_at(step).tokens_BT
            )
    row = sources_of(third, 120)
    for begin, end, shares in (
        (160, 320, (0.1, 0.1, 0.8)), (320, 480, (0.8, 0.1, 0.1)),
        (480, 800, (0.8, 0.1, 0.1)), (800, 960, (0, 1, 0)),
    ):  # fmt: skip
        for s, share in enumerate(shares):
            assert abs((row[begin:end] == s).sum() - share * (end - begin)) < 1
    # of what is shuffled together the first stage leaves a part unread, no more
    taken, read = third._begin[1], third._before[1]
    assert (taken * 2 - read < 2 * GROUP).all()
    assert (taken * 2 >= read).all()
    # stages of other lengths leave each other no text that is read twice in an epoch
    seen = Counter[bytes]()
    for step in range(100):
        batch, rows = third.batch_at(step), third.sources_at(step) == 0
        seen.update(row.tobytes() for row in batch.tokens_BT[rows].reshape(-1, 16))
    epochs = int(third._begin[2][0]) / third._blocks[0][1]
    assert max(seen.values()) <= -(-epochs // 1)
