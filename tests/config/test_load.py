"""Reading configs: bases, overrides, and what is said about mistakes."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.config import Config, dump, load
from jaxlm.config.load import validate
from jaxlm.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with one config in it, which is right."""
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text(
        "workdir: runs/a\n"
        "sources:\n"
        "  - {name: one, path: one.txt}\n"
        "  - name: two\n"
        "    path: two.txt\n"
        "    weight: 3\n"
        "optimizer: {learning_rate: 3e-4, schedule: {warmup_steps: 2}}\n"
        "train: {steps: 10}\n"
    )
    return tmp_path


def problems(text: str | bytes, *overrides: str) -> list[str]:
    """What is said about this config."""
    Path("bad.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UsageError) as caught:
        load("bad.yaml", overrides)
    return caught.value.messages


def test_values_and_defaults(folder: Path) -> None:
    config = load("good.yaml")
    assert (config.train.steps, config.train.batch_size) == (10, 8)
    assert [source.weight for source in config.sources] == [1.0, 3.0]
    assert config.optimizer.kind == "adamw"
    assert config.optimizer.learning_rate == 3e-4  # a string in YAML 1.1


def test_overrides(folder: Path) -> None:
    config = load(
        "good.yaml",
        [
            "train.steps=1e3",
            "sources.0.weight=2",
            "optimizer.kind=muon",
            "optimizer.schedule={kind: linear, warmup_steps: 0}",
            "eval.generate.prompts=['a=b', \"\"]",
            "model.kv_heads=",
            "sources.1.split=\\n\\n",
        ],
    )
    assert config.train.steps == 1000
    assert config.sources[0].weight == 2
    assert config.optimizer.kind == "muon"
    assert config.optimizer.learning_rate == 3e-4
    assert config.optimizer.schedule.kind == "linear"
    assert config.eval.generate.prompts == ("a=b", "")
    assert config.model.kv_heads is None
    assert config.sources[1].split == r"\n\n"


def test_yaml_is_version_1_2(folder: Path) -> None:
    assert load("good.yaml", ["sources.0.name=no"]).sources[0].name == "no"
    assert load("good.yaml", ["seed=0o17"]).seed == 15
    assert problems("train: {steps: 1}\nrecovery: {resume: yes}") == [
        'recovery.resume: must be true or false, not "yes" (bad.yaml:2)'
    ]


class TestBase:
    def test_mappings_merge_and_the_rest_is_replaced(self, folder: Path) -> None:
        Path("sub").mkdir()
        Path("sub/over.yaml").write_text(
            "base: ../good.yaml\ntrain: {batch_size: 4}\nsources: [{name: three, path: t.txt}]\n"
        )
        config = load("sub/over.yaml")
        assert (config.train.steps, config.train.batch_size) == (10, 4)
        assert [source.name for source in config.sources] == ["three"]
        assert config.optimizer.schedule.warmup_steps == 2

    def test_a_section_of_another_kind_starts_afresh(self, folder: Path) -> None:
        Path("base.yaml").write_text(
            "train: {steps: 10}\n"
            "optimizer: {kind: adamw, b1: 0.8, schedule: {warmup_steps: 1}}\n"
            "tokenizer: {kind: bpe, vocab_size: 500}\n"
        )
        Path("over.yaml").write_text(
            "base: base.yaml\noptimizer: {kind: adafactor, schedule: {warmup_steps: 3}}\n"
            "tokenizer: {kind: byte}\n"
        )
        config = load("over.yaml")
        assert config.optimizer.kind == "adafactor"
        assert config.optimizer.schedule.warmup_steps == 3
        assert config.vocab_size == 258

    def test_a_problem_is_placed_in_the_file_that_wrote_it(self, folder: Path) -> None:
        Path("base.yaml").write_text("train:\n  steps: 10\n  stepps: 3\nseed: -1\n")
        assert problems("base: base.yaml\nseed: -2\ndata: {seq_length: 3}\n") == [
            "seed: must be greater than or equal to 0, not -2 (bad.yaml:2)",
            "data.seq_length: unknown key; did you mean data.seq_len? (bad.yaml:3)",
            "train.stepps: unknown key; did you mean train.steps? (base.yaml:3)",
        ]

    def test_lines_of_what_was_replaced_are_forgotten(self, folder: Path) -> None:
        text = "base: good.yaml\n\nsources: [{name: x}]\n"
        assert problems(text) == ["sources.0: a source needs a path or a recipe (bad.yaml:3)"]
        assert problems(text, "sources.0={name: 3}")[0].endswith("(command line)")

    def test_of_several_bases_the_later_ones_win(self, folder: Path) -> None:
        Path("a.yaml").write_text("seed: 1\ntrain: {steps: 10, batch_size: 2}\n")
        Path("b.yaml").write_text("base: good.yaml\nseed: 2\ntrain: {batch_size: 3, stepps: 1}\n")
        assert problems("base: [a.yaml, b.yaml]\n") == [
            "train.stepps: unknown key; did you mean train.steps? (b.yaml:3)"
        ]
        Path("b.yaml").write_text("base: good.yaml\nseed: 2\ntrain: {batch_size: 3}\n")
        Path("over.yaml").write_text("base: [a.yaml, b.yaml]\ntrain: {steps: 7}\n")
        config = load("over.yaml")
        assert (config.seed, config.train.steps, config.train.batch_size) == (2, 7, 3)
        assert config.optimizer.schedule.warmup_steps == 2, "what the second is based on"

    def test_cycles_and_missing_bases(self, folder: Path) -> None:
        Path("a.yaml").write_text("base: b.yaml")
        Path("b.yaml").write_text("base: ./a.yaml")
        with pytest.raises(UsageError, match=r"'base' leads back .*a\.yaml -> .*b\.yaml -> .*a\."):
            load("a.yaml")
        (missing,) = problems("seed: 1\nbase: nowhere.yaml")
        assert missing.startswith("nowhere.yaml: cannot read the config")
        assert missing.endswith("(base in bad.yaml:2)")
        assert "or a list of names" in problems("base: [a, 3]")[0]
        assert "or a list of names" in problems("base: []")[0]


class TestMistakes:
    def test_all_at_once(self, folder: Path) -> None:
        found = problems(
            "trian: {steps: 3}\ntrain:\n  steps: many\nmodel: {layers: 0}\n",
            "mesh.tensr=2",
            "nonsense",
        )
        assert len(found) == 5
        assert found[0].startswith("'nonsense': an override is KEY=VALUE")
        assert 'train.steps: must be a whole number, not "many" (bad.yaml:3)' in found
        assert "model.layers: must be greater than 0, not 0 (bad.yaml:4)" in found
        assert "trian: unknown key; did you mean train? (bad.yaml:1)" in found
        assert "mesh.tensr: unknown key; did you mean mesh.tensor? (command line)" in found

    @pytest.mark.parametrize(
        ("override", "said"),
        [
            ("steps=3", "did you mean train.steps or mix.steps?"),
            ("batch_size=3", "did you mean train.batch_size or eval.batch_size or mix.batch_size?"),
            ("model.theta=3", "did you mean model.position.theta?"),
            ("learning_rat=3", "did you mean optimizer.learning_rate or mix.learning_rate?"),
            ("mesh.zzz=3", "valid keys: data, fsdp, stage, tensor, context"),
            ("sources.1.wieght=3", "sources.1.wieght: unknown key; did you mean sources.1.weight?"),
            ("optimizer.decay_exponent=3", "it belongs to kind adafactor, not adamw"),
            ("optimizer.kind=adamax", "optimizer.kind: 'adamax' is not one of adamw, adafactor"),
            ("optimizer.kind=adamax", "did you mean 'adamw'?"),
            (
                "model.position.scaling.factor=2",
                "model.position.scaling: give its kind, one of linear, ntk, dynamic_ntk, yarn, "
                "llama3, longrope",
            ),
            (
                "prepare.classifiers.models=[{name: a}]",
                "prepare.classifiers.models.0: give its kind, one of linear, hugging",
            ),
            (
                "model.mlp=swigl",
                "model.mlp: 'swigl' is not one of swiglu, geglu, geglu_tanh, gelu,",
            ),
            ("optimizer=3", "optimizer: must be a section with keys, not 3"),
            ("seed=4294967296", "seed: must be less than 4294967296"),
            ("sources=3", "sources: must be a list, not 3"),
            ("model.ngram_embedding.orders.0=9", "model.ngram_embedding.orders"),
            ("workdir={a: b}", "workdir: must be a string"),
            ("model.qk_norm=1", "model.qk_norm: must be true or false, not 1"),
            ("train.batch_size=1.5", "train.batch_size: must be a whole number, not 1.5"),
            ("optimizer.learning_rate=.nan", "optimizer.learning_rate: must be a finite number"),
            ("optimizer.learning_rate=fast", "optimizer.learning_rate: must be a"),
            ("data.validation_fraction=1", "data.validation_fraction: must be less than 1, not 1"),
            ("sources.0.name=../../etc", "sources.0.name: string should match pattern"),
            ("sources.0.split='('", "sources.0: split is not a regular expression"),
            ("prepare.stages=[unicode, unicode]", "prepare: prepare.stages names a stage twice"),
            ("tokenizer={kind: byte, vocab_size: 300}", "tokenizer: kind byte has a vocab_size of"),
        ],
    )
    def test_names_the_key_and_what_to_write(self, folder: Path, override: str, said: str) -> None:
        with pytest.raises(UsageError) as caught:
            load("good.yaml", [override])
        (message,) = caught.value.messages
        assert said in message
        # a whole source is wrong when its keys do not fit together
        place = "good.yaml:3" if override.startswith("sources.0.split") else "command line"
        assert message.endswith(f" ({place})")

    @pytest.mark.parametrize(
        ("override", "said"),
        [
            ("train.steps", "an override is KEY=VALUE, for example train.steps=100"),
            ("=3", "an override is KEY=VALUE"),
            ("train.=3", "an override is KEY=VALUE"),
            ("sources.2.weight=3", "sources has items 0 to 1; there is no '2'"),
            ("sources.-1.weight=3", "sources has items 0 to 1; there is no '-1'"),
            ("sources.x=3", "sources has items 0 to 1; there is no 'x'"),
            ("workdir.x=3", "workdir is a single value and has no 'x'"),
            ("workdir.x.y=3", "workdir is a single value and has no 'x'"),
            ("train={steps: 3", "the value is not YAML"),
            ("train={steps:3}", "a space belongs behind a colon, as in 'train={key: 1}'"),
        ],
    )
    def test_overrides_that_cannot_be_applied(self, folder: Path, override: str, said: str) -> None:
        with pytest.raises(UsageError) as caught:
            load("good.yaml", [override])
        (message,) = caught.value.messages
        assert message == f"{override!r}: {said}" or message.startswith(f"{override!r}: {said}")

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"- a\n- b\n", "a config is a mapping of sections; this is a list"),
            (b"hello", "a config is a mapping of sections; this is a single value"),
            (b"\x7fELF\xff\xfe\x00", "the config is not UTF-8 text"),
            (b"train:\n  steps: [1", "bad.yaml:2: not YAML"),
            (b"seed: 1\nseed: 2\n", "bad.yaml:2: not YAML: found duplicate key"),
            (b"#" * (1 << 21), "larger than 1048576 bytes"),
            pytest.param(b"[" * 1_500, "nested too deeply", marks=pytest.mark.slow),
            (b"train: &a {steps: 1}\nmodel: *a\n", "bad.yaml:1: aliases of sections"),
            (b"train: &a {steps: 1}\nmodel: {<<: *a}\n", "bad.yaml:2: aliases of sections"),
            (b"seed: !!python/object/apply:os.getpid []\ntrain: {steps: 1}", "seed: must be"),
            (b"1: 2\ntrain: {steps: 1}", "1: unknown key"),
        ],
    )
    def test_files_that_are_no_configs(self, folder: Path, content: bytes, said: str) -> None:
        (message,) = problems(content)
        assert said in message

    def test_paths_that_are_no_files(self, folder: Path) -> None:
        with pytest.raises(
            UsageError, match=r"nowhere\.yaml: cannot read the config: No such file"
        ):
            load("nowhere.yaml")
        with pytest.raises(UsageError, match="cannot read the config: Is a directory"):
            load(folder)

    def test_a_missing_key_is_placed_at_its_section(self, folder: Path) -> None:
        assert problems("train: {steps: 1}\nsources:\n  - path: x\n") == [
            "sources.0.name: this key is required (bad.yaml:3)"
        ]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
rates = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)
configs = st.fixed_dictionaries(
    {"train": st.fixed_dictionaries({"steps": st.integers(200, 10**15)})},
    optional={
        "workdir": texts.filter(bool),
        "seed": st.integers(0, 2**32 - 1),
        "sources": st.lists(
            st.fixed_dictionaries(
                {"name": names, "path": texts.filter(bool)},
                optional={"weight": rates, "meta_fields": st.just(["url"]), "id_field": names},
            ),
            max_size=3,
            unique_by=lambda source: source["name"],
        ),
        "optimizer": st.fixed_dictionaries(
            {"kind": st.sampled_from(["adamw", "adafactor", "muon"])},
            optional={"learning_rate": rates, "clip_norm": st.none() | rates},
        ),
        "model": st.fixed_dictionaries(
            {}, optional={"tied": st.booleans(), "ngram_embedding": st.just({"buckets": 7})}
        ),
        "eval": st.fixed_dictionaries(
            {"generate": st.fixed_dictionaries({"prompts": st.lists(texts)})}
        ),
    },
)  # fmt: skip


@settings(max_examples=40)
@given(configs)
def test_a_dumped_config_loads_as_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: dict
) -> None:
    config = validate(data)
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(dump(config), encoding="utf-8")
    assert load(path) == config


def test_a_config_is_immutable(folder: Path) -> None:
    config = load("good.yaml")
    with pytest.raises(ValueError, match="frozen"):
        config.train.steps = 3  # type: ignore[misc]
    assert isinstance(hash(config), int)


def test_steps_follow_from_tokens() -> None:
    data = {"train": {"tokens": 1_000_001, "batch_size": 10}, "data": {"seq_len": 100}}
    assert validate(data).steps == 1001
    assert Config.model_fields["train"].description
