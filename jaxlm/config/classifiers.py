"""The sections `prepare.classifiers`, `prepare.toxicity` and `prepare.quality.perplexity`."""

from typing import Annotated, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from jaxlm.config.base import Section
from jaxlm.config.rules import PROSE, Kind, Rules, Share

type Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
type Path = Annotated[str, Field(min_length=1)]
JigsawLabel = Literal["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
JIGSAW_LABELS: tuple[JigsawLabel, ...] = get_args(JigsawLabel)


def _with_host(url: str) -> str:
    """Raise ValueError for a URL without a host, or that is none."""
    if not urlsplit(url).hostname:
        raise ValueError(f"{url!r} names no host")
    return url


class Training(Section):
    """How a linear classifier is trained (`jaxlm prepare CONFIG --train-classifier NAME`)."""

    positive: tuple[Path, ...] = ()
    """What should score high: names of `sources`, or paths as in a source."""
    negative: tuple[Path, ...] = ()
    """What should score low."""
    labelled: tuple[Path, ...] = ()
    """CSV files in the format of Jigsaw's toxic comment challenge: comment_text and a column of 0
    and 1 for each label."""
    labels: tuple[JigsawLabel, ...] = JIGSAW_LABELS
    """A row of `labelled` is positive when one of these is 1."""
    max_bytes: PositiveInt | None = 256 << 20
    """Text that is read of each side at most; null: all."""
    held_out: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    """Share of the texts kept apart by hash; half of it fits calibration and threshold, the other
    half measures them."""
    wanted_precision: Annotated[float, Field(gt=0, le=1)] = 0.9
    """The threshold is the lowest score from which this share of held-out texts is positive."""
    calibration: Literal["platt", "isotonic", "none"] = "platt"
    """Scores to probabilities: Platt's sigmoid, a rising step function, or not at all."""
    bits: Annotated[int, Field(ge=8, le=26)] = 20
    """Features are hashed into 2^bits buckets."""
    ngrams: Annotated[int, Field(ge=1, le=5)] = 2
    """Runs of up to so many words are features."""
    character_ngrams: Annotated[int, Field(ge=1, le=8)] = 3
    """The same for characters of scripts without spaces between words."""
    epochs: PositiveInt = 5
    """Passes over the texts."""
    learning_rate: PositiveFloat = 0.5
    """AdaGrad's step."""
    l2: NonNegativeFloat = 1e-6
    """Pull of the weights that a text touches towards 0."""
    seed: NonNegativeInt = 0
    """Seed of the split and of the order of texts."""


class _Classifier(Section):
    name: Name
    """Name in attributes, records and folders."""
    granularity: Literal["document", "sentence"] = "document"
    """What is scored at a time."""
    statistic: Literal["mean", "max", "min", "share"] = "mean"
    """A document's score from those of its sentences; share: of its sentences' bytes with a score
    of at least sentence_score."""
    sentence_score: float = 0.5
    """From which score a sentence counts in `share`."""
    cut_above: float | None = None
    """Sentences with at least this score are cut; null: none."""
    cut_below: float | None = None
    """Sentences with less than this score are cut; null: none."""
    min_score: float | None = None
    """A document passes with at least this score; null: no bound."""
    max_score: float | None = None
    """A document passes with at most this score; null: no bound."""
    weight: NonNegativeFloat = 1.0
    """Weight in a combined score."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        cuts = self.cut_above is not None or self.cut_below is not None
        if cuts and self.granularity != "sentence":
            raise ValueError("cut_above and cut_below need granularity: sentence")
        if None not in (self.min_score, self.max_score) and self.min_score > self.max_score:  # type: ignore[operator]
            raise ValueError(f"min_score ({self.min_score}) is above max_score ({self.max_score})")
        return self


class Linear(_Classifier):
    """Hashed word and character n-grams, logistic regression, in the manner of fastText."""

    kind: Literal["linear"] = "linear"
    """What scores."""
    path: Path | None = None
    """Folder of the model; null: WORKDIR/classifiers/NAME, where training puts it. Without a
    min_score or max_score the threshold that training chose is min_score."""
    train: Training | None = None
    """How it is trained; null: it is there."""


class HuggingFace(_Classifier):
    """A sequence classifier of the transformers library (extra hf-classifier)."""

    kind: Literal["huggingface"]
    """What scores."""
    model: Path
    """Folder or name of the model."""
    label: Annotated[str, Field(min_length=1)] | None = None
    """The label whose probability is the score; null: the output itself of a model with one, the
    probability of the last label of another."""
    max_tokens: Annotated[int, Field(ge=8)] = 512
    """A longer text is scored in windows of so many tokens, whose mean counts."""
    batch_size: PositiveInt = 32
    """Windows at a time."""


class PythonFunction(_Classifier):
    """A function of yours: a list of str in, as many numbers out."""

    kind: Literal["python"]
    """What scores."""
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """module:function."""


class Http(_Classifier):
    """An endpoint, such as a large model that judges. POSTs {"texts": [...]} as JSON, reads
    {"scores": [...]}. Scores are kept on disk by the text's hash and never asked for twice."""

    kind: Literal["http"]
    """What scores."""
    url: Annotated[str, Field(pattern=r"^https?://[!-~]+$"), AfterValidator(_with_host)]
    """Where to POST; a redirect is not followed."""
    token_variable: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = None
    """Environment variable with a bearer token; null: none is sent."""
    instruction: str | None = None
    """Sent as "instruction" with every batch."""
    cache: Path | None = None
    """File of known scores; null: WORKDIR/classifiers/NAME/scores.sqlite."""
    batch_size: PositiveInt = 16
    """Texts a call."""
    calls_per_second: PositiveFloat = 4.0
    """Rate limit, over all processes of a machine."""
    timeout_seconds: PositiveFloat = 60.0
    """Patience with one call."""
    retries: NonNegativeInt = 4
    """How often a call is made again after a failure of the network, status 429 or 5xx; waits
    double from half a second, or are what Retry-After says (at most a minute)."""
    max_calls: PositiveInt | None = 1000
    """Budget of calls, those made again included; null: none."""
    max_documents: PositiveInt | None = None
    """Budget of texts sent; null: none."""
    when_spent: Literal["refuse", "unjudged"] = "refuse"
    """What happens when the budget is used up: an error, or texts without a score, which no rule
    judges (needs prepare.workers: 1, or it would depend on chance which texts these are)."""


type Classifier = Annotated[
    Linear | HuggingFace | PythonFunction | Http, Field(discriminator="kind")
]


class Classifiers(Rules):
    """Models that judge documents or sentences, alone or together.

    Attribute `score`: with combine filter, 1 where a document passes every classifier, else 0;
    with rescue, 1 where it passes one at least; with score, the weighted mean of their scores.
    """

    models: tuple[Classifier, ...] = ()
    """The classifiers."""
    combine: Literal["filter", "rescue", "score"] = "filter"
    """filter: one that fails drops the document. rescue: one that passes keeps it. score: the
    weighted mean of all scores counts."""
    min_score: float | None = 0.5
    """Combined score, at least."""
    max_score: float | None = None
    """Combined score, at most."""
    cascade: bool = True
    """Cheapest first, and no classifier sees documents that are decided already; the order comes
    from the cost and the selectivity on the first batch. It changes the cost, never the result.
    False: all run, and each one's score is an attribute of its own."""
    sample: PositiveInt = 64
    """Documents on which cost and selectivity are measured, in each process."""
    record: Path | None = None
    """File to which each batch appends what it cost; null: one in
    WORKDIR/corpus.work, whose sum goes to corpus/timings.json."""

    @model_validator(mode="after")
    def _check_models(self) -> Self:
        names = [model.name for model in self.models]
        for name in names:
            if names.count(name) > 1 or name in ("score", "toxicity"):
                raise ValueError(f"classifiers: another name than {name!r} is needed; it is taken")
        if self.combine == "score" and self.models and not sum(m.weight for m in self.models):
            raise ValueError("classifiers: all weights are 0")
        for model in self.models:
            bounds = model.min_score is not None or model.max_score is not None
            cuts = model.cut_above is not None or model.cut_below is not None
            if cuts and self.combine == "rescue":
                raise ValueError(
                    f"classifiers: {model.name} cuts sentences, which needs combine filter or "
                    "score: under rescue it would not see every document that stays"
                )
            if model.kind == "http" and model.when_spent == "unjudged" and self.cascade:
                raise ValueError(
                    f"classifiers: {model.name} has when_spent: unjudged, which needs cascade: "
                    "false; else the texts left unjudged would depend on measured times"
                )
            if self.combine != "score" and not (bounds or cuts or model.kind == "linear"):
                raise ValueError(f"classifiers: {model.name} needs min_score or max_score")
        return self


class Toxicity(Rules):
    """Toxic or profane text, by sentence.

    Attributes: `score` of the whole text, `sentence` (the highest of its sentences), `share` (of
    its sentences' bytes that are cut).
    """

    kinds: tuple[Kind, ...] = PROSE
    """Kinds of source that are judged."""
    languages: tuple[str, ...] = ("en",)
    """Languages that are judged; empty: all."""
    model: Path | None = None
    """Folder of a linear classifier; null: the one that `train` describes, or without it the
    model of the package alt-profanity-check (English), which comes with jaxlm."""
    train: Training | None = None
    """How a classifier is trained (`jaxlm prepare CONFIG --train-classifier toxicity`)."""
    cut_above: Share | None = 0.4
    """Sentences with at least this score are cut (Dolma's threshold); null: none."""
    max_score: Share | None = None
    """Score of the whole text, at most."""
    max_sentence: Share | None = None
    """Score of the worst sentence, at most."""
    max_share: Share | None = None
    """Share of the text that would be cut, at most."""


class NgramTraining(Section):
    """An n-gram model (`jaxlm prepare CONFIG --train-classifier quality.perplexity`)."""

    sources: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Good text: names of `sources`, or paths as in a source."""
    reference: tuple[Path, ...] = ()
    """Text whose 30th and 60th percentiles of perplexity part head, middle and tail (CCNet, Wenzek
    et al. 2020, arXiv:1911.00359); empty: a tenth of `sources` that is kept apart."""
    max_bytes: PositiveInt | None = 32 << 20
    """Text that is read at most; null: all. Training takes up to 60 times as much memory (2 GB at
    the default), the model in each worker 8 to 16 times."""
    order: Annotated[int, Field(ge=1, le=6)] = 5
    """Words an n-gram, at most."""
    min_count: PositiveInt = 1
    """N-grams of three words or more that occur less often are left out (2 makes a model about a
    quarter as large)."""


class Perplexity(Rules):
    """Perplexity under a small language model: an n-gram model, or a checkpoint of jaxlm.

    Attributes: `perplexity` (a word, or a token of the checkpoint's tokenizer) and `bucket`
    (0 head, 1 middle, 2 tail).
    """

    kinds: tuple[Kind, ...] = PROSE
    """Kinds of source that are judged."""
    model: Path | None = None
    """Folder of an n-gram model, WORKDIR or WORKDIR/checkpoints/STEP of a run; null: the n-gram
    model in WORKDIR/classifiers/quality.perplexity, where training puts it."""
    train: NgramTraining | None = None
    """How an n-gram model is trained; null: it is there."""
    min_perplexity: NonNegativeFloat | None = None
    """Perplexity, at least: below are texts that repeat what the model knows."""
    max_perplexity: NonNegativeFloat | None = None
    """Perplexity, at most."""
    head_below: PositiveFloat | None = None
    """Where the head ends and the middle begins; null: what training found."""
    tail_above: PositiveFloat | None = None
    """Where the middle ends and the tail begins; null: what training found."""
    max_bucket: Annotated[int, Field(ge=0, le=2)] | None = None
    """The worst bucket that stays."""

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        head, tail = self.head_below, self.tail_above
        if head is not None and tail is not None and head > tail:
            raise ValueError(f"head_below ({head}) is above tail_above ({tail})")
        return self
