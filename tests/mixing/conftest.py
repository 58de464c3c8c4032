"""Tokens of the planted task, made once; a test that writes copies them."""

import shutil
from pathlib import Path

import pytest

from tests.mixing.planted import config_of, write_text
from tests.training.runs import make_tokens


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the text and a run of its tokens."""
    folder = tmp_path_factory.mktemp("planted")
    write_text(folder)
    make_tokens(config_of(folder))
    return folder


@pytest.fixture
def fresh(planted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(planted, tmp_path, dirs_exist_ok=True))
