"""Recipes are complete, valid, and found; a source's own keys win over them."""

from pathlib import Path

import pytest

from jaxlm.config import Config, dump, load
from jaxlm.config.corpus import Source
from jaxlm.corpus import recipes
from jaxlm.errors import UserError


@pytest.mark.parametrize("name", recipes.names())
def test_each_recipe_makes_a_valid_source(name: str) -> None:
    recipe = recipes.load(name)
    assert recipe.title
    assert recipe.licence
    source = recipes.resolve(Source(name="s", recipe=name))
    assert (source.path, source.kind, source.language) == (
        recipe.path,
        recipe.kind,
        recipe.language,
    )
    scheme = recipe.path.partition(":")[0]
    extras = {"hf": "hf", "https": "http", "s3": "s3", "gs": "gs", "package": "quickstart"}
    assert recipe.requires == extras.get(scheme)


def test_the_corpora_that_people_train_on_are_there() -> None:
    wanted = {
        "fineweb", "fineweb-edu", "dolma", "c4", "the-stack-v2", "redpajama-v2", "wikipedia",
        "pes2o", "open-web-math", "chinese-web-text", "skypile", "wudao",
        "common-crawl-warc", "common-crawl-wet",
    }  # fmt: skip
    assert wanted <= set(recipes.names())


def test_own_keys_win() -> None:
    source = recipes.resolve(Source(name="s", recipe="c4", path="mine/*.jsonl", kind="forum"))
    assert (source.path, source.kind, source.format) == ("mine/*.jsonl", "forum", "jsonl")


def test_a_printed_config_still_takes_from_a_recipe_what_it_did_not_say(tmp_path: Path) -> None:
    given = Source(name="s", recipe="king-james-bible", weight=3.0)
    path = tmp_path / "printed.yaml"
    path.write_text(dump(Config(sources=(given,))))
    (again,) = load(path).sources
    assert again == given
    assert recipes.resolve(again) == recipes.resolve(given)
    assert recipes.resolve(again).kind == "book"


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'fineweb'"):
        recipes.load("finewb")
