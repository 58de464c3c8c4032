"""Mixtures that name sources which are not there, or leave nothing to train on."""

from collections.abc import Iterable, Iterator

from jaxlm.config.architecture import Problem
from jaxlm.config.dynamic import Dynamic, misplaced
from jaxlm.config.mixture import Mixture
from jaxlm.config.schema import Config


def mixtures(config: Config) -> list[Problem]:
    """What is wrong with the mixtures and orders of a run and its stages."""
    stages, found = config.data.curriculum, list[Problem]()
    if not config.sources:
        return found
    used = [stage.mixture or config.data.mixture for stage in stages] or [config.data.mixture]
    places = {"data.mixture": config.data.mixture}
    for index, stage in enumerate(stages):
        if stage.mixture is not None:
            places[f"data.curriculum.{index}.mixture"] = stage.mixture
        place, mixture = f"data.curriculum.{index}", stage.mixture or config.data.mixture
        if mixture.caps is not None and any(before.dynamic for before in used[:index]):
            found.append((
                [f"{place}.mixture", "data.mixture.dynamic"],
                f"{place}.mixture: what a dynamic stage before it leaves for max_epochs is not "
                "known; leave max_epochs out here, or put this stage first",
            ))  # fmt: skip
        if isinstance(stage.order, tuple):
            if not stage.order:
                message = f"{place}.order: the list is empty; name sources or tags, or give random"
                found.append(([f"{place}.order"], message))
            found += _unknown(config, f"{place}.order", stage.order)
            found += _twice(config, f"{place}.order", stage.order)
        elif stage.order != "random" and config.data.sort_by is None:
            found.append((
                [f"{place}.order", "data.sort_by"],
                f"{place}.order: {stage.order} by what? give data.sort_by: length, or a number "
                "that documents have",
            ))  # fmt: skip
        if stage.order != "random" and mixture.dynamic is not None:
            found.append((
                [f"{place}.order", "data.mixture.dynamic"],
                f"{place}.order: how much of each source a stage has must be known to be put in "
                "order; use random, or leave dynamic out",
            ))  # fmt: skip
    for place, mixture in places.items():
        found += _unknown(config, f"{place}.weights", mixture.weights or ())
        found += _twice(config, f"{place}.weights", mixture.weights or ())
        if isinstance(mixture.max_epochs, dict):
            found += _unknown(config, f"{place}.max_epochs", mixture.max_epochs)
            found += _twice(config, f"{place}.max_epochs", mixture.max_epochs)
        if mixture.dynamic is not None:
            found += _dynamic(config, place, mixture, mixture.dynamic)
    if not any(source.weight for source in config.sources) and not all(
        mixture.weights for mixture in used
    ):
        message = "sources.0.weight: every source has weight 0; nothing is left to train on"
        found.append((["sources.0.weight"], message))
    return found


def _dynamic(config: Config, place: str, mixture: Mixture, dynamic: Dynamic) -> Iterator[Problem]:
    """What of a dynamic mixture does not fit the sources; what depends on the text shows later."""
    if not config.data.validation_fraction:
        yield (
            [f"{place}.dynamic", "data.validation_fraction"],
            f"{place}.dynamic: nothing is held apart to decide by; raise data.validation_fraction",
        )
    names = {source.name for source in config.sources}
    given = mixture.weights or {source.name: source.weight for source in config.sources}
    if mixture.smoothing or config.data.split_by or not names.issuperset(given):
        return
    whole = sum(given.values())
    shares = {name: given[name] / whole for name in given if given[name]}
    for message in misplaced(dynamic, shares, names) if whole else ():
        key = f"{place}.{message.split(':')[0]}"
        yield [key, place], f"{place}.{message}"


def _unknown(config: Config, place: str, keys: Iterable[str]) -> Iterator[Problem]:
    """Keys that name no source and no tag."""
    sources = [source.name for source in config.sources]
    # a recipe may say what a source does not
    tags: dict[str, set[str] | None] = {
        tag: None
        if any(source.recipe for source in config.sources)
        else {getattr(source, tag) for source in config.sources}
        for tag in ("kind", "language")
    }
    split = {part.field for part in config.data.split_by}
    for key in keys:
        tag, equals, value = key.partition("=")
        if "@" in key or tag in split:
            continue  # what there is of it shows when the text is tokenized
        if not equals and key not in sources:
            message = f"no source is named {key!r}; there are {', '.join(sources)}"
        elif equals and tag not in tags:
            message = f"{key!r}: no tag is named {tag!r}; there are {', '.join((*tags, *split))}"
        elif equals and (known := tags[tag]) is not None and value not in known:
            message = f"no source has {key}; there are {', '.join(sorted(known))}"
        else:
            continue
        yield [f"{place}.{key}", place], f"{place}: {message}"


def _twice(config: Config, place: str, keys: Iterable[str]) -> Iterator[Problem]:
    """Sources of which it shows already that several keys fit them."""
    for source in config.sources:
        own = [source.name]
        if source.recipe is None:  # which may say what the source does not
            own += [f"kind={source.kind}", f"language={source.language}"]
        fitting = [key for key in keys if key in own]
        if len(fitting) > 1:
            message = f"{source.name} has both {fitting[0]} and {fitting[1]}; give one of them"
            yield [f"{place}.{fitting[1]}", place], f"{place}: {message}"
