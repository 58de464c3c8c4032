"""Presets: chains of cleaning, and models of the size that was published."""

import itertools
import json
import re
from pathlib import Path

import pytest

from jaxlm.config import load
from jaxlm.config.objective import FIM, LM
from jaxlm.config.position import Rope
from jaxlm.config.stages import Resolved, stages
from jaxlm.errors import UsageError
from jaxlm.models import parameter_count
from jaxlm.optim import make_schedule

CONFIGS = Path(__file__).parents[2] / "configs"
CLEAN = sorted((CONFIGS / "clean").glob("*.yaml"))
MODELS = sorted((CONFIGS / "models").glob("*.yaml"))

COUNTS = Path(__file__).parents[1] / "reference" / "counts.json"
REFERENCE = json.loads(COUNTS.read_text())["parameters"]
"""What transformers builds; tests/reference/make_counts.py."""

PUBLISHED = {
    # the sum over the files of the released weights
    "llama2-7b": (6_738_415_616, 1), "llama3-8b": (8_030_261_248, 1),
    "llama3-70b": (70_553_706_496, 1), "qwen3-0.6b": (596_049_920, 1),
    "gpt2": (124_439_808, 1), "bloom-176b": (176_247_271_424, 1),
    # figures of the papers, and the unit of their last digit
    "gpt3-175b": (174_600_000_000, 10**8),  # table D.1
    "llama-7b": (6_700_000_000, 10**8),  # table 2
    "palm-540b": (540_350_000_000, 10**7),  # table 1
    "glm-130b": (130_000_000_000, 10**10),
    "gpt-neox-20b": (20_000_000_000, 10**9),
    "t5-small": (60_000_000, 10**7), "t5-base": (220_000_000, 10**7),
    "t5-11b": (11_000_000_000, 10**9), "flan-t5-base": (250_000_000, 10**7),
    "flan-t5-xxl": (11_000_000_000, 10**9), "ul2-20b": (20_000_000_000, 10**9),
    "bert-base": (110_000_000, 10**7), "bert-large": (340_000_000, 10**7),
}  # fmt: skip


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


def test_every_published_model_has_a_reference() -> None:
    names = {path.stem for path in MODELS} - {"small"}
    assert names == {name for name in REFERENCE if "," not in name} | {"palm-540b", "glm-130b"}


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_model_has_the_number_of_parameters_that_was_published(path: Path) -> None:
    count = parameter_count(load(path))
    if path.stem in REFERENCE:
        assert count == REFERENCE[path.stem]
    published, unit = PUBLISHED.get(path.stem, (count, 1))
    assert abs(count - published) < unit  # some papers round, some cut off
    told = re.match(r"# .*?([\d,]+)\s+(?:# )?parameters", path.read_text(), re.DOTALL)
    assert path.stem == "small" or (told and int(told[1].replace(",", "")) == count)


def test_what_the_pooler_of_bert_adds() -> None:
    for name, width in (("bert-base", 768), ("bert-large", 1024)):
        head = width * width + 3 * width + 30_522  # of the masked language model
        without = REFERENCE[name] - head
        assert REFERENCE[f"{name}, with pooler"] - without == width * width + width


MIXTURES: dict[str, tuple[dict[str, float], float]] = {
    # Touvron et al. 2023, table 1
    "llama": ({"commoncrawl": 67.0, "c4": 15.0, "github": 4.5, "wikipedia": 4.5, "books": 4.5,
               "arxiv": 2.5, "stackexchange": 2.0}, 100),
    # Brown et al. 2020, table 2.2: percentages that are rounded
    "gpt3": ({"commoncrawl": 60, "webtext2": 22, "books1": 8, "books2": 8, "wikipedia": 3}, 101),
    # Gao et al. 2020, table 1, the largest and the smallest
    "pile": ({"pile-cc": 18.11, "pubmed-central": 14.40, "books3": 12.07, "enron": 0.14}, 100),
    # the data set's card: tokens and sample proportions
    "dolma": ({"commoncrawl": 1195.5 / 2, "refinedweb": 456.4, "c4": 138.4 / 2, "reddit": 79.9,
               "wikipedia": 3.7 * 2}, 1645.15),
    # OLMo Team 2024: 3.90T tokens
    "olmo2": ({"dclm": 3710, "starcoder": 83.0, "pes2o": 58.6, "arxiv": 20.8,
               "open-web-math": 12.2, "algebraic-stack": 11.8, "wikipedia": 3.7}, 3900.1),
    # Grattafiori et al. 2024, section 3.1.2
    "llama3": ({"general": 50, "kind=science": 25, "kind=code": 17, "multilingual": 8}, 100),
}  # fmt: skip


def test_every_mixture_has_figures() -> None:
    assert {path.stem for path in (CONFIGS / "mixtures").glob("*.yaml")} == set(MIXTURES)


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_has_the_shares_that_were_published(name: str, tmp_path: Path) -> None:
    published, whole = MIXTURES[name]
    model = CONFIGS / "models" / "small.yaml"
    (tmp_path / "mine.yaml").write_text(f"base: [{model}, {CONFIGS / 'mixtures' / name}.yaml]\n")
    weights = load(tmp_path / "mine.yaml").data.mixture.weights
    assert weights is not None
    assert {key: weights[key] for key in published} == published
    assert sum(weights.values()) == pytest.approx(whole)
    # and with sources of one's own, a list that lacks one is told of it
    few = "sources: [{name: arxiv, path: a.txt}, {name: wikipedia, path: w.txt}]\n"
    with (tmp_path / "mine.yaml").open("a") as file:
        file.write(few)
    with pytest.raises(UsageError, match=r"no source (is named|has kind)"):
        load(tmp_path / "mine.yaml")


CURRICULA: dict[str, tuple[float, dict[str, float]]] = {
    # name: tokens, the stages' parts of them
    "codellama": (2.6e12, {"general": 2e12, "code": 5e11, "python": 1e11}),  # figure 2
    "codellama-long-context": (2.52e12, {"general": 2e12, "code": 5e11, "long-context": 2e10}),
    "llemma": (2e11, {"mathematics": 2e11}),
    "bert-two-lengths": (42_598_400_000, {"short": 9e5 * 256 * 128, "long": 1e5 * 256 * 512}),
    "warmup-short-sequences": (157_286_400_000, {"rows-1024": 154_628e6}),
    "anneal": (3.95e12, {"main": 3.9e12, "anneal": 5e10}),
    "small-code": (1.04e6, {"general": 8e5, "code": 2e5, "python": 4e4}),
    "small-anneal": (1.04e6, {"main": 9.36e5, "anneal": 1.04e5}),
}


def of_curriculum(name: str, *overrides: str) -> dict[str, Resolved]:
    config = load(CONFIGS / "curricula" / f"{name}.yaml", overrides)
    return {str(stage.name): stage for stage in stages(config)}


def test_every_curriculum_has_figures() -> None:
    found = {path.stem for path in (CONFIGS / "curricula").glob("*.yaml")}
    assert found == {*CURRICULA, "small-long-context"}


@pytest.mark.parametrize("name", CURRICULA)
@pytest.mark.parametrize("scale", [1, 1000])
def test_a_curriculum_is_in_proportion_at_any_scale(name: str, scale: int) -> None:
    tokens, published = CURRICULA[name]
    if name.startswith("small"):
        scale = 1
    found = of_curriculum(name, f"train.tokens={round(tokens / scale)}")
    for stage, part in published.items():
        spans = found[stage].spans
        own = sum((span.last - span.first) * span.step_tokens for span in spans)
        step = max(span.step_tokens for s in found.values() for span in s.spans)
        assert abs(own - part / scale) <= step + 1 + 1e-6 * part / scale, stage
        # the warm-up is in proportion as well
        schedule = found[stage].config.optimizer.schedule
        assert schedule.warmup_share is not None or schedule.warmup_steps in (0, 40)


def shares_of(stage: Resolved) -> dict[str, float]:
    """Weights of a stage as percentages."""
    weights = stage.config.data.mixture.weights
    assert weights is not None
    return {key: 100 * weight / sum(weights.values()) for key, weight in weights.items()}


def peaks(stage: Resolved) -> tuple[float, float]:
    """Highest and last rate of a stage."""
    optimizer = stage.config.optimizer
    rate = make_schedule(optimizer.schedule, optimizer.learning_rate, stage.last, stage.spans)
    steps = range(stage.first, stage.last, max((stage.last - stage.first) // 500, 1))
    return max(float(rate(step)) for step in steps), float(rate(stage.last - 1))


def test_codellama_has_its_figures() -> None:
    """Rozière et al. 2023, table 1 and sections 2.3 and 2.5."""
    found = of_curriculum("codellama", "train.tokens=2.6e10")
    assert shares_of(found["code"]) == {"kind=code": 85, "stackexchange": 8, "kind=web": 7}
    assert shares_of(found["python"]) == {
        "python": 75, "code": 10, "stackexchange": 10, "kind=web": 5,
    }  # fmt: skip
    assert found["code"].config.objective == FIM(rate=0.9, spm_rate=0.5)
    assert found["python"].config.objective == LM()
    for name, peak, floor in (
        ("general", 3e-4, 0.1),
        ("code", 3e-4, 1 / 30),
        ("python", 1e-4, 1 / 30),
    ):
        highest, last = peaks(found[name])
        assert highest == pytest.approx(peak, rel=0.02)
        assert last == pytest.approx(peak * floor, rel=0.01)
    step = found["code"].spans[0].step_tokens
    assert step == 1024 * 4096, "4M tokens in rows of 4,096"


def test_the_extension_of_codellama_has_its_figures() -> None:
    """Rozière et al. 2023, sections 2.4 and 2.5."""
    stage = of_curriculum("codellama-long-context")["long-context"]
    own = stage.config
    assert (own.data.seq_len, own.model.position) == (16_384, Rope(theta=1e6))
    assert own.train.batch_size * own.data.seq_len == 2 << 20, "2M tokens a step"
    assert stage.last - stage.first == pytest.approx(10_000, rel=0.05)
    assert own.optimizer.learning_rate == 2e-5


def test_llemma_keeps_a_twentieth_of_general_text() -> None:
    """Azerbayev et al. 2023, section 2."""
    stage = of_curriculum("llemma")["mathematics"]
    found = shares_of(stage)
    assert (found["pile"], found["github"]) == (2, 3)
    maths = [found[name] for name in ("arxiv", "open-web-math", "algebraic-stack")]
    assert maths == pytest.approx([95 * part / 7 for part in (2, 4, 1)])
    assert stage.config.train.from_checkpoint == "runs/codellama"
    assert stage.last == pytest.approx(48_000, rel=0.01)


def test_the_short_rows_of_bert_are_nine_steps_of_ten() -> None:
    """Devlin et al. 2018, appendix A.2."""
    found = of_curriculum("bert-two-lengths")
    assert [(s.last, s.config.data.seq_len) for s in found.values()] == [
        (900_000, 128), (1_000_000, 512),
    ]  # fmt: skip


def test_the_rate_of_the_annealing_goes_on_from_the_stage_before_and_ends_at_nothing() -> None:
    found = of_curriculum("anneal", "train.tokens=3.95e10")
    assert sum(shares_of(found["anneal"]).values()) == pytest.approx(100)
    assert peaks(found["main"]) == pytest.approx((3e-4, 6e-5), rel=0.02)
    highest, last = peaks(found["anneal"])
    assert highest == pytest.approx(6e-5, rel=0.15)  # a step below it, of 12
    assert last == 0


def test_gpt3_has_its_ramp() -> None:
    """Brown et al. 2020, appendix B: 32K to 3.2M tokens; warm-up and decay in tokens."""
    config = load(CONFIGS / "models" / "gpt3-175b.yaml")
    spans = config.spans
    assert (spans[0].step_tokens, spans[-1].step_tokens) == (32_768, 3_276_800)
    assert {b.batch_size - a.batch_size for a, b in itertools.pairwise(spans)} == {16}
    assert 12e9 <= spans[-1].tokens < 12.004e9
    end = spans[-1].tokens + (config.steps - spans[-1].first) * spans[-1].step_tokens
    assert 300e9 <= end < 300.004e9
    rate = make_schedule(config.optimizer.schedule, 1.0, config.steps, spans)

    def step_at(tokens: float) -> int:
        span = next(s for s in reversed(spans) if s.tokens <= tokens)
        return span.first + round((tokens - span.tokens) / span.step_tokens)

    assert float(rate(step_at(187.5e6))) == pytest.approx(0.5, rel=0.01)
    assert float(rate(step_at(375e6))) == pytest.approx(1.0, rel=0.01)
    assert float(rate(step_at(260e9))) == pytest.approx(0.1, rel=0.01)
