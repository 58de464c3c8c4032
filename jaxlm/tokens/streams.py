"""Into which stream a document goes, and how many documents of each stream are held apart."""

import heapq
import itertools
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.config import Config
from jaxlm.config.data import VALUE, SplitBy
from jaxlm.errors import UserError
from jaxlm.tokens.documents import Block, Shard, parse, read_blocks
from jaxlm.tokens.pool import Pool
from jaxlm.tokens.shuffle import key_of

FEW_DOCUMENTS = 64
MOST_STREAMS = 64
LONGEST_NAME = 230  # the spool adds to it, and file systems allow 255

type Values = tuple[str, ...]
"""A document's value for each field that parts its source."""


class Plan(NamedTuple):
    """One stream of a source."""

    name: str
    values: Values
    limit: int
    """Documents whose key is below are held apart."""


class Survey(NamedTuple):
    """What documents with the same values are there."""

    documents: int
    keys: list[int]
    """The smallest, at most FEW_DOCUMENTS, rising."""


def split_of(config: Config, source: str) -> tuple[SplitBy, ...]:
    """What parts this source."""
    return tuple(s for s in config.data.split_by if not s.sources or source in s.sources)


def stream_name(source: str, splits: Sequence[SplitBy], values: Values) -> str:
    """SOURCE, or SOURCE@FIELD=VALUE@... for a source that is parted."""
    return "@".join(
        [source, *(f"{s.field}={value}" for s, value in zip(splits, values, strict=True))]
    )


def values_of(
    splits: Sequence[SplitBy], document: dict[str, Any], shard: Path, line: int
) -> Values:
    """The values of a document. Raises UserError that names it where there is none to be had."""
    return tuple(_value_of(split, document, shard, line) for split in splits)


def _value_of(split: SplitBy, document: dict[str, Any], shard: Path, line: int) -> str:
    value = document.get(split.field)
    if value is None or value == "":
        if split.missing is None:
            raise UserError(
                f"{shard}:{line}: document {document['id']!r} has no {split.field}, which "
                "data.split_by asks for; name the field in meta_fields of its source or in "
                "prepare.keep, give `missing` a value, or leave the source out of `sources`"
            )
        return split.missing
    if split.edges is not None:
        number = number_in(document, split.field, "data.split_by with edges", shard, line)
        return str(bisect_right(split.edges, number))
    text = str(value)
    if type(value) not in (str, int) or not re.fullmatch(VALUE, text):
        raise UserError(
            f"{shard}:{line}: document {document['id']!r} has {split.field} {text[:80]!r}, which "
            "cannot name a part of its source (1 to 32 of A-Z a-z 0-9 _ . + # -); "
            "choose another field for data.split_by, or give edges for a number"
        )
    return text


def number_in(
    document: dict[str, Any], field: str, wanted_by: str, shard: Path, line: int
) -> float:
    """The number in a field that a key of the config (`wanted_by`) asks for.

    Raises UserError that names the document where there is none.
    """
    value: Any = document.get(field)
    try:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    except OverflowError:  # of a whole number that no float can be
        pass
    raise UserError(
        f"{shard}:{line}: document {document['id']!r} has {field} {value!r:.80}, not a number, "
        f"which {wanted_by} needs; choose another field, or name it in meta_fields of its source "
        "or in prepare.keep"
    )


def plan_streams(
    config: Config, source: str, shards: Sequence[Shard], pool: Pool, count: Callable[[int], None]
) -> list[Plan]:
    """The streams of a source, by name.

    The share of a stream that is held apart is data.validation_fraction, or less where that many
    bytes of the source exceed data.validation_bytes. Where few documents are expected, the limit is
    set so that their number is exact, and at least one where there are two documents. Only a source
    that is parted or has few documents is looked through, with count(bytes of lines) as it goes.
    Raises UserError for a document without the fields and for too many streams.
    """
    splits = split_of(config, source)
    size = max(sum(shard.bytes for shard in shards), 1)
    documents = sum(shard.documents for shard in shards)
    fraction = min(config.data.validation_fraction, config.data.validation_bytes / size)
    if splits or (fraction and documents >= 2 and fraction * documents < FEW_DOCUMENTS):
        found: dict[Values, Survey] = {}
        jobs = ((config.seed, splits, block) for shard in shards for block in read_blocks(shard))
        for looked, part in pool.map(_survey, jobs):
            for values, new in part.items():
                old = found.get(values, Survey(0, []))
                smallest = itertools.islice(heapq.merge(old.keys, new.keys), FEW_DOCUMENTS)
                found[values] = Survey(old.documents + new.documents, list(smallest))
            if len(found) > MOST_STREAMS:
                some = ", ".join(stream_name(source, splits, v) for v in itertools.islice(found, 3))
                raise UserError(
                    f"source {source}: data.split_by parts it into more than {MOST_STREAMS} "
                    f"streams ({some}, ...); choose a field with fewer values, or edges"
                )
            count(looked)
    else:
        found = {(): Survey(documents, [])}
    plans = [
        Plan(stream_name(source, splits, values), values, _limit(fraction, survey))
        for values, survey in found.items()
    ]
    if long := [plan.name for plan in plans if len(plan.name) > LONGEST_NAME]:
        raise UserError(
            f"source {source}: {long[0]} is longer than the {LONGEST_NAME} characters that the "
            "name of a stream may have; part it by fewer fields in data.split_by"
        )
    return sorted(plans, key=lambda plan: [_natural(value) for value in plan.values])


def _natural(value: str) -> tuple[bool, int, str]:
    """Numbers by size, before all else."""
    return (False, int(value), value) if re.fullmatch("[0-9]+", value) else (True, 0, value)


def _limit(fraction: float, survey: Survey) -> int:
    if fraction == 0 or survey.documents < 2:
        return 0
    if fraction * survey.documents >= FEW_DOCUMENTS:
        return int(fraction * 2**64)
    return survey.keys[max(round(fraction * survey.documents), 1) - 1] + 1


def _survey(job: tuple[int, Sequence[SplitBy], Block]) -> tuple[int, dict[Values, Survey]]:
    seed, splits, block = job
    keys: dict[Values, list[int]] = {}
    for line, document in parse(block):
        values = values_of(splits, document, block.shard, line)
        keys.setdefault(values, []).append(key_of(seed, document["id"]))
    return len(block.data), {
        values: Survey(len(found), heapq.nsmallest(FEW_DOCUMENTS, found))
        for values, found in keys.items()
    }
