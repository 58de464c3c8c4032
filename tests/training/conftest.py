"""A prepared and a trained run, shared; a test that changes one copies it."""

from pathlib import Path

import pytest

from tests.training.runs import config_of, copy_of, make_tokens, train_here, write_text


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with text and a run of tokens."""
    folder = tmp_path_factory.mktemp("prepared")
    write_text(folder)
    make_tokens(config_of(folder))
    return folder


@pytest.fixture(scope="session")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, trained for 12 steps on eight devices, with checkpoints 4, 8 and 12."""
    folder = copy_of(prepared, tmp_path_factory.mktemp("trained"))
    train_here(config_of(folder))
    return folder


@pytest.fixture
def fresh(prepared: Path, tmp_path: Path) -> Path:
    return copy_of(prepared, tmp_path)


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return copy_of(trained, tmp_path)
