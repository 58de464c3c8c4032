"""Finding a trained model: by run, by checkpoint, with damage and without one."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxlm.config.position import Rope, YarnScaling
from jaxlm.errors import UserError
from jaxlm.evaluation import HOW_TO_SCORE, open_trained
from jaxlm.training.checkpoints import named
from jaxlm.workdir import Workdir
from tests.training.conftest import copied, prepared, trained  # noqa: F401
from tests.training.runs import arrays_of, config_of


def of(folder: Path) -> Workdir:
    return Workdir(config_of(folder).workdir)


@pytest.mark.parametrize("single_device", [False, True])
def test_the_newest_or_the_named_one_is_read(
    trained: Path,  # noqa: F811
    single_device: bool,
) -> None:
    workdir = of(trained)
    for path, step in ((workdir.path, 12), (workdir.checkpoints / "8", 8)):
        found = open_trained(path, single_device=single_device)
        assert found.step == step
        assert found.mesh.size == (1 if single_device else 8)
        assert found.config.model == config_of(trained).model
        wanted = arrays_of(config_of(trained), step)
        for name, array in named(found.params).items():
            assert np.asarray(array).tobytes() == wanted[f"params.{name}"].tobytes()


def test_a_damaged_one_is_told_of_and_left_where_it_is(
    copied: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    workdir = of(copied)
    metadata = workdir.checkpoints / "12" / "_CHECKPOINT_METADATA"
    metadata.write_bytes(metadata.read_bytes().replace(b'"step": 12', b'"step": 13'))
    (workdir.checkpoints / "16.orbax-checkpoint-tmp").mkdir()  # a run is writing
    assert open_trained(workdir.path).step == 8
    assert capsys.readouterr().err == (
        f"jaxlm: {metadata}: has changed since it was written; {workdir.checkpoints}/8 is used\n"
    )
    assert metadata.exists()
    assert (workdir.checkpoints / "16.orbax-checkpoint-tmp").exists()
    with pytest.raises(UserError, match="has changed since it was written"):
        open_trained(workdir.checkpoints / "12")


def test_what_is_not_there_is_told(trained: Path, copied: Path) -> None:  # noqa: F811
    workdir = of(copied)
    with pytest.raises(UserError, match="no such checkpoint; steps found: 12, 8, 4"):
        open_trained(workdir.checkpoints / "5")
    with pytest.raises(UserError, match="no checkpoints here; give a run's folder"):
        open_trained(copied)
    shutil.rmtree(workdir.tokenizer)
    with pytest.raises(UserError, match="tokenizer"):
        open_trained(workdir.path)


def test_more_devices_than_sequences_do_not_matter(copied: Path) -> None:  # noqa: F811
    assert jax.device_count() == 8
    assert open_trained(of(copied).path).mesh.shape["fsdp"] == 8


def test_what_needs_no_other_parameters_can_be_changed(trained: Path) -> None:  # noqa: F811
    path = of(trained).path
    plain = open_trained(path)
    yarn = "model.position.scaling={kind: yarn, factor: 4, original_length: 16}"
    changed = open_trained(path, overrides=[yarn, "model.attention.window=8"])
    assert changed.config.model.attention.window == 8
    assert isinstance(changed.config.model.position, Rope)
    assert isinstance(changed.config.model.position.scaling, YarnScaling)
    assert named(changed.params).keys() == named(plain.params).keys()
    assert open_trained(path, overrides=["model.position={kind: alibi}"]).step == plain.step
    with pytest.raises(
        UserError, match=r"not to be changed here; keys that are: model\.position, "
    ):
        open_trained(path, overrides=["model.layers=3"])
    with pytest.raises(UserError, match="not to be changed here"):
        open_trained(path, overrides=["data.seq_len=32"])
    assert open_trained(path, overrides=["data.seq_len=32"], allowed=HOW_TO_SCORE)
    with pytest.raises(UserError, match=r"params\.positions.*override no key that adds"):
        open_trained(path, overrides=["model.position={kind: learned, length: 64}"])
    with pytest.raises(UserError, match="is longer than the sequence"):
        open_trained(path, overrides=["model.attention.window=100000"])
    with pytest.raises(UserError, match="unknown key"):
        open_trained(path, overrides=["model.position.thetta=3"])
    with pytest.raises(UserError, match="KEY=VALUE"):
        open_trained(path, overrides=["model.position"])
