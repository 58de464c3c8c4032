"""The records in a workdir, read back: what each holds, and one clear error where one is broken.

Every reader returns None where its record is not there yet. Ledgers and metrics are streamed, so
memory does not grow with a ledger and grows by some 70 bytes a line of metrics.
"""

import zlib
from array import array
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Annotated, Any

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from jaxlm.errors import UserError
from jaxlm.reports.files import (
    MEND,
    first_problem,
    lines,
    parse,
    pieces,
    read_json,
    read_whole,
    zstd_pieces,
)
from jaxlm.workdir import Workdir

BINS = 32

type Spans = list[tuple[NonNegativeInt, NonNegativeInt]]
"""Characters from:to of a text."""


class Record(BaseModel):
    """Keys beyond those named are another reader's."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Count(Record):
    documents: NonNegativeInt
    bytes: NonNegativeInt


class Stage(Count):
    stage: str


class RuleStats(Count):
    """Documents that a rule dropped or changed. One with a threshold says also how many it judged,
    how many of these failed it, and how its values are spread: below 0, 30 bins of a tenth of the
    threshold (of 1 where that is 0), the rest."""

    judged: NonNegativeInt = 0
    failed: NonNegativeInt = 0
    threshold: float | None = None
    histogram: Annotated[list[NonNegativeInt], Field(max_length=BINS)] = []


class SourceStats(Record):
    kind: str
    stages: list[Stage]
    rules: dict[str, RuleStats]
    max_bytes: PositiveInt | None = None
    cut_at_max_bytes: bool = False


class CorpusStats(Record):
    """corpus/stats.json; a rule is named stage.rule."""

    sources: dict[str, SourceStats]


class Timings(Record):
    """corpus/timings.json: seconds of the whole preparation, CPU seconds by source and stage."""

    seconds: NonNegativeFloat
    cpu_seconds: dict[str, dict[str, NonNegativeFloat]] = {}


class Route(Record):
    set: dict[str, Any] = {}


class PrepareConfig(BaseModel):
    """The section `prepare`: stages, and as further keys their sections."""

    model_config = ConfigDict(frozen=True, extra="allow")

    stages: list[str]
    routes: list[Route] = []


class CorpusConfig(Record):
    """corpus/config.json: the config that the corpus was made with."""

    prepare: PrepareConfig


class LedgerEntry(Record):
    """A line of corpus/ledger.jsonl.zst: one document that one rule dropped or changed. The spans
    are of the whole text, of which the excerpt is the beginning."""

    source: str
    id: str
    stage: str
    rule: str
    action: str
    value: Any = None
    threshold: Any = None
    excerpt: str = ""
    partner: str | None = None
    note: str | None = None
    spans: Spans = []


class Example(Record):
    """A line of corpus/examples.jsonl.zst: a document that a rule dropped or barely kept. `text`
    is a piece of `characters`, from character `start` on; the spans are of the piece."""

    source: str
    id: str
    stage: str
    rule: str
    dropped: bool
    value: float
    threshold: float
    text: str
    start: Annotated[NonNegativeInt, Field(alias="from")]
    characters: NonNegativeInt
    spans: Spans


class TokenizerManifest(Record):
    kind: str
    vocab_size: PositiveInt
    hash: str


class Fertility(Count):
    """How many tokens text becomes; tokens_per_word is None where no words are told apart."""

    tokens: NonNegativeInt
    tokens_per_word: NonNegativeFloat | None
    bytes_per_token: NonNegativeFloat | None


class UnusedIds(Record):
    ids: NonNegativeInt
    of: NonNegativeInt
    single_bytes: NonNegativeInt
    examples: list[str]


class Coverage(Record):
    """Characters, and those of them that are cut into bytes, counted and different ones."""

    characters: NonNegativeInt
    as_bytes: NonNegativeInt
    distinct: NonNegativeInt
    distinct_as_bytes: NonNegativeInt
    unknown_tokens: NonNegativeInt
    examples: list[str]


class Difference(Record):
    source: str
    document: str
    text: str
    back: str


class RoundTrip(Record):
    pieces: NonNegativeInt
    exact: NonNegativeInt
    as_normalized: NonNegativeInt
    first_difference: Difference | None


class TokenizerFigures(Record):
    """One tokenizer, measured."""

    error: None = None
    kind: str
    vocab_size: PositiveInt
    hash: str
    keeps_text: bool
    all: Fertility
    sources: dict[str, Fertility]
    languages: dict[str, Fertility]
    unused: UnusedIds
    coverage: Coverage
    round_trip: RoundTrip
    mb_per_s: NonNegativeFloat


class FailedCandidate(Record):
    error: str


class MeasuredSample(Count):
    trained_on_bytes: NonNegativeInt


class TokenizerReport(Record):
    """tokenizer/report.json."""

    sample: MeasuredSample
    tokenizer: TokenizerFigures
    compare: dict[str, TokenizerFigures | FailedCandidate]


class Split(Count):
    tokens: NonNegativeInt


class TokenSource(Record):
    """What the store has of a stream, by its name: of a source, or of a part of one."""

    source: str | None = None
    train: Split
    valid: Split


class TokensManifest(Record):
    tokenizer_hash: str
    dtype: str
    sources: dict[str, TokenSource]


class Change(Record):
    """A decision of a dynamic mixture: shares of sources up to its step, and from then on."""

    before: dict[str, NonNegativeFloat]
    after: dict[str, NonNegativeFloat]


class Metric(Record):
    """A line of metrics.jsonl; `source_tokens` counts the tokens read of each source so far."""

    step: PositiveInt
    loss: float | None
    tokens: NonNegativeInt
    learning_rate: float | None = None
    grad_norm: float | None = None
    step_time_s: float | None = None
    tokens_per_s: float | None = None
    mfu: float | None = None
    mfu_causal: float | None = None
    target_tokens: NonNegativeInt | None = None
    efficiency: float | None = None
    time: float | None = None
    source_tokens: dict[str, NonNegativeInt] = {}
    source_epochs: dict[str, NonNegativeFloat] = {}
    repeated_tokens: NonNegativeInt | None = None
    mixture: Change | None = None


BY_SOURCE = ("source_tokens", "source_epochs", "mixture")
"""What of a line is no number."""


class Score(Record):
    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: NonNegativeInt


class Evaluation(Record):
    """eval.json."""

    step: NonNegativeInt
    sources: dict[str, Score]
    all: Score
    parameters: PositiveInt | None = None


class Sample(Record):
    """A line of samples.jsonl."""

    prompt: str
    text: str
    temperature: float
    top_p: float
    seed: int
    step: NonNegativeInt


class ConfigSource(Record):
    name: str
    weight: NonNegativeFloat = 1.0


class DataKeys(Record):
    curriculum: list[Any] = []


class ConfigKeys(Record):
    """The keys of config.yaml that people are told of here."""

    sources: list[ConfigSource]
    data: DataKeys


class PlannedStage(Record):
    """What a stage of the run is to read: tokens by stream, and by then how often all of it."""

    name: str | None
    first: NonNegativeInt
    last: PositiveInt
    tokens: dict[str, NonNegativeInt]
    epochs: dict[str, NonNegativeFloat]


class Plan(Record):
    """mixture.json."""

    stages: Annotated[list[PlannedStage], Field(min_length=1)]

    @property
    def steps(self) -> int:
        """Of the run."""
        return self.stages[-1].last


@dataclass(frozen=True)
class RunConfig:
    """config.yaml: its text and the keys that reports use."""

    text: str
    keys: ConfigKeys


@dataclass(frozen=True)
class Metrics:
    """metrics.jsonl by column. `unfinished`: the last line was still being written."""

    columns: dict[str, np.ndarray]
    last: Metric
    unfinished: bool
    changes: list[tuple[int, Change]] = field(default_factory=list)
    """Decisions of a dynamic mixture, with the step after which each was made."""


@dataclass
class RuleRecord:
    """What the ledger says of one rule: entries by action and by source, and some examples."""

    actions: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    examples: list[LedgerEntry] = field(default_factory=list)


def read_config(workdir: Workdir) -> RunConfig | None:
    """Read config.yaml."""
    path = workdir.config
    if (data := read_whole(path)) is None:
        return None
    try:
        tree = YAML(typ="safe", pure=True).load(data)
    except (YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not YAML; {MEND}") from None
    try:
        keys = ConfigKeys.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}; {MEND}") from None
    return RunConfig(data.decode("utf-8"), keys)


def read_corpus(workdir: Workdir) -> CorpusStats | None:
    """Read corpus/stats.json."""
    return read_json(workdir.corpus / "stats.json", CorpusStats)


def read_timings(workdir: Workdir) -> Timings | None:
    """Read corpus/timings.json."""
    return read_json(workdir.corpus / "timings.json", Timings)


def read_corpus_config(workdir: Workdir) -> CorpusConfig | None:
    """Read corpus/config.json."""
    return read_json(workdir.corpus / "config.json", CorpusConfig)


def read_tokenizer(workdir: Workdir) -> TokenizerManifest | None:
    """Read tokenizer/manifest.json."""
    return read_json(workdir.tokenizer / "manifest.json", TokenizerManifest)


def read_tokenizer_report(workdir: Workdir) -> TokenizerReport | None:
    """Read tokenizer/report.json."""
    return read_json(workdir.tokenizer / "report.json", TokenizerReport)


def read_tokens(workdir: Workdir) -> TokensManifest | None:
    """Read tokens/manifest.json."""
    return read_json(workdir.tokens / "manifest.json", TokensManifest)


def read_plan(workdir: Workdir) -> Plan | None:
    """Read mixture.json."""
    return read_json(workdir.mixture, Plan)


def read_evaluation(workdir: Workdir) -> Evaluation | None:
    """Read eval.json."""
    return read_json(workdir.evaluation, Evaluation)


def read_ledger(workdir: Workdir, examples: int) -> dict[str, RuleRecord] | None:
    """Read the ledger into one `RuleRecord` a rule (stage.rule), sorted by name.

    The examples are those whose lines have the smallest CRC: a sample that depends neither on the
    order of the ledger nor on chance, in memory that its length does not change.
    """
    path = workdir.corpus / "ledger.jsonl.zst"
    if not path.is_file():
        return None
    rules: dict[str, RuleRecord] = {}
    smallest: dict[str, list[tuple[int, bytes]]] = {}
    for number, line, _ in lines(path, zstd_pieces(path)):
        entry = parse(LedgerEntry, line, f"{path}:{number}")
        name = f"{entry.stage}.{entry.rule}"
        rule = rules.setdefault(name, RuleRecord())
        rule.actions[entry.action] += 1
        rule.sources[entry.source] += 1
        kept = smallest.setdefault(name, [])
        candidate = (zlib.crc32(line), line)
        if len(kept) < examples or candidate < kept[-1]:
            kept.append(candidate)
            kept.sort()
            del kept[examples:]
    for name, kept in smallest.items():
        rules[name].examples = [parse(LedgerEntry, line, str(path)) for _, line in kept]
    return dict(sorted(rules.items()))


def read_examples(workdir: Workdir, most: int) -> dict[tuple[str, bool], list[Example]] | None:
    """Read at most `most` examples of what each rule (stage.rule) dropped (True) and barely kept.

    The sources take turns, so that a large one does not hide the others: each with its dropped
    ones in an order of chance that is always the same, the kept ones nearest to the threshold.
    """
    path = workdir.corpus / "examples.jsonl.zst"
    if not path.is_file():
        return None
    found: dict[tuple[str, bool], dict[str, list[tuple[float, int, int, Example]]]] = {}
    for number, line, _ in lines(path, zstd_pieces(path)):
        one = parse(Example, line, f"{path}:{number}")
        kept = found.setdefault((f"{one.stage}.{one.rule}", one.dropped), {})
        ranked = kept.setdefault(one.source, [])
        distance = 0.0 if one.dropped else abs(one.value - one.threshold)
        ranked.append((distance, zlib.crc32(line), number, one))
        ranked.sort(key=lambda entry: entry[:3])
        del ranked[most:]
    return {
        key: [one for turn in zip_longest(*sources.values()) for *_, one in filter(None, turn)][
            :most
        ]
        for key, sources in sorted(found.items())
    }


def read_metrics(workdir: Workdir) -> Metrics | None:
    """Read metrics.jsonl; a last line that is still being written is left out and reported."""
    path = workdir.metrics
    if not path.is_file():
        return None
    names = [name for name in Metric.model_fields if name not in BY_SOURCE]
    columns = {name: array("d") for name in names}
    changes: list[tuple[int, Change]] = []
    last, unfinished = None, False
    for number, line, ended in lines(path, pieces(path)):
        try:
            last = parse(Metric, line, f"{path}:{number}")
        except UserError:
            if ended:
                raise
            unfinished = True
            break
        for name in names:
            value = getattr(last, name)
            columns[name].append(np.nan if value is None else value)
        if last.mixture is not None:
            changes.append((last.step, last.mixture))
    if last is None:
        return None
    return Metrics({name: np.array(c) for name, c in columns.items()}, last, unfinished, changes)


def read_samples(workdir: Workdir, most: int) -> list[Sample] | None:
    """Read the last `most` lines of samples.jsonl."""
    path = workdir.samples
    if not path.is_file():
        return None
    last = deque(lines(path, pieces(path)), maxlen=most)
    return [parse(Sample, line, f"{path}:{number}") for number, line, _ in last]
