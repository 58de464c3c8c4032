"""The root of a config: every section of a run."""

from typing import Annotated, Any

from pydantic import Field

from jaxlm.config.base import Section
from jaxlm.config.corpus import Prepare, Source
from jaxlm.config.data import Data
from jaxlm.config.lengths import needed, sentinel
from jaxlm.config.mix import Mix
from jaxlm.config.model import Model
from jaxlm.config.objective import FIM, LM, Objectives
from jaxlm.config.optim import AdamW, Optimizer
from jaxlm.config.steps import Length, Span, borders, spans_of
from jaxlm.config.tokens import Tokenizer
from jaxlm.config.train import Checkpoint, Eval, Logging, Mesh, Recovery, Train
from jaxlm.errors import UsageError


class Config(Section):
    """A run: raw text in `sources` to a trained, evaluated model in `workdir`."""

    workdir: Annotated[str, Field(min_length=1)] = "runs/default"
    """Folder of everything that the run writes."""
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    """Seed of every random choice: split, shuffle, initial weights, sampling."""
    sources: tuple[Source, ...] = ()
    """Where raw text comes from."""
    prepare: Prepare = Prepare()
    """Cleaning of raw text."""
    tokenizer: Tokenizer = Tokenizer()
    """Text to token ids."""
    data: Data = Data()
    """Token ids to batches."""
    objective: Objectives = LM()
    """What is predicted: one objective, or a list of which each has its weight."""
    model: Model = Model()
    """The network."""
    optimizer: Optimizer = AdamW()
    """The update rule."""
    train: Train = Train()
    """Length, batches and precision of training."""
    mesh: Mesh = Mesh()
    """How devices share the work."""
    checkpoint: Checkpoint = Checkpoint()
    """Recovery checkpoints."""
    recovery: Recovery = Recovery()
    """What a restart does."""
    eval: Eval = Eval()
    """Evaluation and samples."""
    logging: Logging = Logging()
    """Metrics and event files."""
    mix: Mix = Mix()
    """Search of the sources' shares (`jaxlm mix`)."""

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding: model.vocab_size, or those of the tokenizer where it is null."""
        size = self.model.vocab_size or self.tokenizer_size
        if size is None:
            raise UsageError(
                f"tokenizer.vocab_size: {self.tokenizer.path} is not there to say it; give it, or "
                "model.vocab_size"
            )
        return size

    @property
    def tokenizer_size(self) -> int | None:
        """Ids of the tokenizer: tokenizer.vocab_size, with the special tokens for kind byte; None
        where the file that says it is not there."""
        size = self.tokenizer.vocab_size
        if self.tokenizer.kind == "byte" and size is not None:
            size += len(self.specials) + len(self.tokenizer.user_symbols)
        return size

    @property
    def specials(self) -> tuple[str, ...]:
        """Special tokens of the tokenizer: tokenizer.specials, and what the objectives need."""
        runs = [
            (stage.objective or self.objective, stage.seq_len or self.data.seq_len)
            for stage in self.data.curriculum
        ] or [(self.objective, self.data.seq_len)]
        needs = [needed(objective, self.model.kind, seq_len) for objective, seq_len in runs]
        names = [*self.tokenizer.specials, *(name for need in needs for name in need.names)]
        # last, so that a longer sequence, which has more of them, moves no other id
        names += [sentinel(number) for number in range(max(need.sentinels for need in needs))]
        return tuple(dict.fromkeys(names))

    @property
    def document_fim(self) -> FIM | None:
        """The objective that rearranges whole documents when they are tokenized, if any does."""
        given = [self.objective, *(stage.objective for stage in self.data.curriculum)]
        found = [one for one in given if isinstance(one, FIM) and one.level == "document"]
        return found[0] if found else None

    @property
    def spans(self) -> tuple[Span, ...]:
        """The steps of the run with their batches, from the curriculum, train.steps or
        train.tokens. Of a stage's config they are not those of its run.

        Raises UsageError where no length is given, as in a config that only prepares text.
        """
        train, data = self.train, self.data
        ends: list[int | None] = [None] * len(data.curriculum)
        shares = [stage.share for stage in data.curriculum if stage.share is not None]
        if shares and train.tokens is not None:  # all have one (checks.py)
            ends = [*borders(shares, train.tokens)]
        lengths = [
            Length(
                stage.steps,
                stage.tokens,
                stage.batch_size or train.batch_size,
                stage.seq_len or data.seq_len,
                end,
            )
            for stage, end in zip(data.curriculum, ends, strict=True)
        ]
        if not lengths:
            if train.steps is None and train.tokens is None:
                raise UsageError("train.steps: give either train.steps or train.tokens to train")
            lengths = [Length(train.steps, train.tokens, train.batch_size, data.seq_len)]
        return spans_of(lengths, train.batch_ramp, train.batch_size)

    @property
    def steps(self) -> int:
        """Optimizer steps of the run. Raises UsageError where no length is given."""
        return self.spans[-1].last


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a config file, for editors and other programs."""
    schema = Config.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["properties"]["base"] = {
        "type": ["string", "array"],
        "items": {"type": "string"},
        "description": "A config file to extend, relative to this one, or several.",
    }
    # without a kind an optimizer's keys may be those of several, which oneOf refuses
    for name in ("Optimizer", "Objective"):
        schema["$defs"][name]["anyOf"] = schema["$defs"][name].pop("oneOf")
    return schema
