"""The section `data`: token ids to batches, and the stages in which a run sees them."""

import itertools
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag, model_validator

from jaxlm.config.base import Section
from jaxlm.config.mixture import Mixture
from jaxlm.config.objective import LIST, ONE, Objectives, one_or_list
from jaxlm.config.optim import Schedule
from jaxlm.config.position import Position

type Length = Annotated[int, Field(ge=2, le=1 << 24)]
type Order = Annotated[
    Annotated[Literal["random", "ascending", "descending"], Tag(ONE)]
    | Annotated[tuple[str, ...], Tag(LIST)],
    Discriminator(one_or_list),
]
type FieldName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]
VALUE = r"^[A-Za-z0-9_.+#-]{1,32}$"


class SplitBy(Section):
    """A field of the documents that parts sources into streams, named SOURCE@FIELD=VALUE."""

    field: FieldName
    """Field of a document in the corpus: one of the source's meta_fields, programming_language, or
    what prepare.keep adds (language, scores of classifiers)."""
    edges: Annotated[tuple[float, ...], Field(min_length=1, max_length=63)] | None = None
    """Cuts the values of a number into buckets 0, 1, ...: bucket i holds edges[i-1] <= x <
    edges[i]. null: each value, a string or whole number, is a part of its own."""
    missing: Annotated[str, Field(pattern=VALUE)] | None = None
    """Value of documents that lack the field; null: they are refused."""
    sources: tuple[str, ...] = ()
    """Sources that are parted; empty: all."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.field in ("id", "text", "source"):
            raise ValueError(f"field: {self.field} parts no source; choose another field")
        if self.edges and any(a >= b for a, b in itertools.pairwise(self.edges)):
            raise ValueError("edges must rise")
        return self


class Stage(Section):
    """Some steps of a run. A key that is null has the value of the run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    """Name in metrics and messages."""
    steps: PositiveInt | None = None
    """Optimizer steps; give this, `tokens` or `share`."""
    tokens: PositiveInt | None = None
    """Tokens to train on; rounded up to whole steps."""
    share: PositiveFloat | None = None
    """Part of train.tokens, in any unit, relative to the shares of the other stages, which all have
    one then: the same curriculum in proportion at any scale."""
    seq_len: Length | None = None
    """Takes the place of data.seq_len."""
    batch_size: PositiveInt | None = None
    """Takes the place of train.batch_size."""
    microbatch_size: PositiveInt | None = None
    """Takes the place of train.microbatch_size."""
    mixture: Mixture | None = None
    """Takes the place of the whole of data.mixture."""
    order: Order = "random"
    """Of the text of each source: shuffled, or as data.sort_by has it (from short to long, from
    simple to hard), or backwards; of a part of an epoch the part is drawn first, and then sorted. A
    list of sources or tags, as in data.mixture.weights: one after the other, each with its whole
    share."""
    objective: Objectives | None = None
    """Takes the place of `objective`."""
    position: Position | None = None
    """Takes the place of the whole of model.position; it may not need other parameters."""
    learning_rate: PositiveFloat | None = None
    """Peak of the stage. With this or `schedule` the schedule begins anew: its steps are counted
    from the stage's first, and the decay ends with the stage. Muon's adam_learning_rate changes in
    the same ratio. Without both, the run's schedule goes on."""
    schedule: Schedule | None = None
    """Schedule of the stage; null: that of the run."""

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if [self.steps, self.tokens, self.share].count(None) != 2:
            raise ValueError(f"stage {self.name!r}: give either steps, tokens or share")
        return self


class Data(Section):
    """How token ids are stored and become batches."""

    mixture: Mixture = Mixture()
    """How much of each source is seen."""
    seq_len: Length = 1024
    """Tokens of one sequence."""
    curriculum: tuple[Stage, ...] = ()
    """Stages of the run, in order; their lengths take the place of train.steps, or their shares
    divide train.tokens. Empty: one."""
    validation_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.01
    """Share of each source's documents that is held apart for evaluation."""
    validation_bytes: PositiveInt = 16 << 20
    """Text of one source that is held apart, about and at most; lowers the fraction if need be."""
    dtype: Literal["auto", "uint16", "uint32"] = "auto"
    """Type of stored ids; auto: uint16 where the vocabulary fits."""
    split_by: Annotated[tuple[SplitBy, ...], Field(max_length=3)] = ()
    """What parts sources into streams, each with its own share of the mixture and its own scores;
    empty: a source is one stream."""
    sort_by: FieldName | None = None
    """Order in which the documents of a stream are stored: rising by `length` (tokens) or by the
    number in this field; null: as in the corpus."""
    shard_bytes: Annotated[int, Field(ge=1 << 16, le=1 << 32)] = 64 << 20
    """Size of one file of the token store."""
    store: Annotated[str, Field(min_length=1)] | None = None
    """Where token arrays lie: a folder, gs:// or s3:// address; null: WORKDIR/tokens."""
