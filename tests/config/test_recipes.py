"""Recipes are complete, valid, and found; a source's own keys win over them."""

import pytest

from jaxlm.config import recipes
from jaxlm.config.corpus import Source
from jaxlm.config.load import validate
from jaxlm.errors import UsageError, UserError


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


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'fineweb'"):
        recipes.load("finewb")


def test_a_config_has_what_its_recipes_say() -> None:
    """Mixtures and rules go by the kind of a source, wherever that stands."""
    weights = {"kind=code": 1.0, "kind=book": 2.0}
    sources = [{"name": "a", "recipe": "the-stack-v2"}, {"name": "b", "recipe": "king-james-bible"}]
    config = validate({"sources": sources, "data": {"mixture": {"weights": weights}}})
    assert [source.kind for source in config.sources] == ["code", "book"]
    assert validate(config.model_dump(mode="json")) == config
    with pytest.raises(UsageError) as caught:
        validate({"sources": [{"name": "a", "recipe": "c5"}, {"name": "b", "recipe": "dolmo"}]})
    assert [message.partition(";")[0] for message in caught.value.messages] == [
        "sources.0.recipe: no recipe is named 'c5'", "sources.1.recipe: no recipe is named 'dolmo'",
    ]  # fmt: skip
