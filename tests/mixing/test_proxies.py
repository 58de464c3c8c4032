"""Many models at once are what each of them is alone."""

from pathlib import Path

import jax
import numpy as np
import pytest

from jaxlm.config import Config
from jaxlm.config.load import validate
from jaxlm.errors import UsageError, UserError
from jaxlm.mixing.proxies import Proxies, Run, proxy_config, weights_key
from jaxlm.models import Transformer, parameter_count
from jaxlm.parallel import make_mesh
from jaxlm.tokens import open_loader, validation_batches
from jaxlm.training.batches import place
from jaxlm.training.loss import loss_sum
from jaxlm.training.state import make_state, optimizer_of
from jaxlm.training.step import make_step
from jaxlm.workdir import Workdir, no_progress
from tests.mixing.planted import config_of

FEW = {"steps": 12, "batch_size": 4, "seq_len": 8, "validation_tokens": 512}
RUNS = [Run((0.5, 0.25, 0.25, 0.0)), Run((0.125, 0.875, 0.0, 0.0)), Run((0.5, 0.25, 0.25, 0.0), 1)]


def losses(folder: Path, runs: list[Run], size: int = 8, **mix: object) -> np.ndarray:
    config = config_of(folder, **(FEW | mix))
    proxies = Proxies(config, Workdir(config.workdir), ["wanted", "noise"])
    return proxies.train(runs, size, no_progress)


@pytest.fixture(scope="module")
def together(planted: Path) -> np.ndarray:
    return losses(planted, RUNS)


def test_neither_neighbours_nor_devices_change_a_model(
    planted: Path, together: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert together.shape == (3, 2)
    assert len(np.unique(together[:, 0])) == 3
    one = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: one)
    np.testing.assert_allclose(losses(planted, [RUNS[1]], 1)[0], together[1], rtol=1e-5)
    np.testing.assert_allclose(losses(planted, RUNS[::-1], 3)[::-1], together, rtol=1e-5)


def test_one_batched_program_gives_the_same_losses(planted: Path, together: np.ndarray) -> None:
    np.testing.assert_allclose(losses(planted, RUNS, vmap=True), together, rtol=1e-5)


def test_a_model_is_what_the_step_of_a_run_makes_of_it(planted: Path, together: np.ndarray) -> None:
    config = config_of(planted, **FEW)
    own, workdir, run = proxy_config(config), Workdir(config.workdir), RUNS[1]
    loader = open_loader(own, workdir).with_weights(run.shares, seed=own.seed)
    mesh = make_mesh(own, jax.local_devices()[:1])
    with jax.set_mesh(mesh):
        fresh = Transformer(own.model, own.vocab_size, weights_key(own.seed, 0))
        state = make_state(own, fresh)
        step = make_step(own, optimizer_of(own, state.params))
        for number in range(own.steps):
            state, _ = step(state, place(loader.batch_at(number), 1, mesh))
        nats = targets = 0.0
        for host in [*validation_batches(own, workdir, "wanted", 64)][:1]:
            batch = jax.tree.map(lambda a: a[0], place(host, 1, mesh))
            nats += float(loss_sum(own, state.params, batch))
            targets += host.weights_BT.sum()
    assert nats / targets == pytest.approx(together[1, 0], rel=1e-5)


@pytest.mark.parametrize("scale", [4.0, 16.0])
def test_a_larger_model_has_as_many_times_the_parameters(planted: Path, scale: float) -> None:
    config = config_of(planted, model={"layers": 2, "d_model": 32, "heads": 2, "d_mlp": 64})
    small, larger = proxy_config(config), proxy_config(config, scale)
    assert parameter_count(larger) / parameter_count(small) == pytest.approx(scale, rel=0.25)
    assert larger.model.d_model / larger.model.heads == 16
    assert larger.optimizer.learning_rate < small.optimizer.learning_rate


def test_a_proxy_leaves_behind_what_a_run_has_for_itself(planted: Path) -> None:
    config = validate(
        config_of(planted).model_dump(mode="json")
        | {
            "data": {
                "curriculum": [{"name": "a", "steps": 3}, {"name": "b", "steps": 2}],
                "mixture": {"max_epochs": 2},
            },
            "train": {},
            "model": {"dropout": 0.1, "kv_heads": 1},
        }
    )
    own = proxy_config(config)
    assert own.steps == config.mix.steps
    assert own.data.curriculum == ()
    assert own.data.mixture.max_epochs is None
    assert (own.model.dropout, own.model.kv_heads) == (0.0, None)


def test_what_cannot_be_is_refused(planted: Path) -> None:
    def refused(**mix: object) -> str:
        with pytest.raises(UsageError) as caught:
            proxy_config(config_of(planted, **mix))
        return str(caught.value)

    model = {"layers": 1, "d_model": 16, "heads": 3, "d_mlp": 32}
    assert "mix.model.d_model: 16 is not a multiple of mix.model.heads 3" in refused(model=model)


def test_a_source_without_validation_documents_is_named(fresh: Path) -> None:
    config = config_of(fresh, **FEW)
    manifest = Workdir(config.workdir).tokens / "manifest.json"
    assert manifest.is_file()
    with pytest.raises(UserError, match=r"has no (stream|source) nothing"):
        Proxies(config, Workdir(config.workdir), ["nothing"])


@pytest.mark.slow
def test_a_loss_that_is_not_finite_says_what_to_lower(planted: Path) -> None:
    with pytest.raises(UserError, match=r"not finite; lower mix\.learning_rate"):
        losses(planted, RUNS[:1], learning_rate=1e30)


def test_groups_are_alike_and_as_few_as_can_be(planted: Path) -> None:
    config = config_of(planted, **(FEW | {"at_once": 2}))
    proxies = Proxies(config, Workdir(config.workdir), ["wanted"])
    runs = [Run((1.0, 0.0, 0.0, 0.0), seed) for seed in range(20)]
    groups = proxies.groups(runs)  # eight devices take 16 at once
    assert [len(group) for group in groups] == [16, 4]
    assert [run for group in groups for run in group] == runs
    assert [len(group) for group in proxies.groups(runs[:3])] == [3]


def test_the_identity_is_of_what_a_loss_depends_on(planted: Path) -> None:
    def identity(**mix: object) -> str:
        config: Config = config_of(planted, **(FEW | mix))
        workdir = Workdir(config.workdir)
        return Proxies(config, workdir, ["wanted"]).identity(workdir)

    assert identity() == identity(proxies=40, at_once=3, confirm=2, seeds=2)
    others = [identity(), identity(steps=13), identity(learning_rate=1e-3), identity(seq_len=16)]
    assert len(set(others)) == 4
