"""Presets of cleaning: each can be the base of a config, and one of them has every stage."""

from pathlib import Path

import pytest

from jaxlm.config import load

CLEAN = sorted((Path(__file__).parents[2] / "configs" / "clean").glob("*.yaml"))


@pytest.mark.parametrize("path", CLEAN, ids=lambda path: path.stem)
def test_a_chain_of_cleaning_is_a_base_for_sources(path: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"base: {path}\nsources: [{{name: a, path: a.txt}}]\n")
    config = load(tmp_path / "mine.yaml")
    assert len(config.prepare.stages) >= 5


def test_the_full_chain_has_every_stage_that_needs_no_file() -> None:
    from typing import get_args

    from jaxlm.config.corpus import Stage

    full = load(next(path for path in CLEAN if path.stem == "full"))
    # other dialects of the same rules, and what needs lists, models or evaluation sets
    without = {"quality.dolma_gopher", "quality.dolma_c4", "quality.lists", "quality.perplexity",
               "classifiers", "decontaminate"}  # fmt: skip
    assert set(get_args(Stage)) - set(full.prepare.stages) == without
