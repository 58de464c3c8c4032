import json
import sys
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from jaxlm.config.data import Data
from jaxlm.config.lengths import FIM_TOKENS
from jaxlm.config.objective import FIM, LM
from jaxlm.config.tokens import Tokenizer as Options
from jaxlm.errors import UserError
from jaxlm.tokens import check_tokenizer, load_tokenizer, train_tokenizer
from jaxlm.tokens.pool import Pool
from jaxlm.tokens.sample import draw_sample, pieces_of
from jaxlm.tokens.train import LONGEST_SENTENCE, taken_over, train_model
from jaxlm.workdir import Workdir
from tests.tokens.conftest import CODE, TOPICS, make_config, write_corpus


def setup_nothing() -> None:
    pass


def sample(
    workdir: Workdir, size: int, seed: int = 0, workers: int = 1, data: Data | None = None
) -> dict[str, list[str]]:
    tokenizer = Options(vocab_size=1024, sample_bytes=size)
    config = make_config(tokenizer=tokenizer, seed=seed, data=data or Data())
    with Pool(workers, setup_nothing) as pool:
        drawn = draw_sample(config, workdir, pool)
    return {name: [piece.text for piece in part] for name, part in drawn.items()}


def test_sample_follows_weights_and_budget(made: Workdir) -> None:
    drawn = sample(made, 100_000)
    sizes = {name: sum(len(p.encode()) for p in part) for name, part in drawn.items()}
    # Weights 1 and 3; code has about 50 KB in all, less than its share.
    assert 25_000 - LONGEST_SENTENCE < sizes["topics"] <= 25_000
    assert sizes["code"] == sum(len(text.encode()) for _, text in CODE) < 75_000
    texts = {text for _, text in TOPICS}
    assert all(any(piece in text for text in texts) for piece in drawn["topics"][:5])


@pytest.mark.parametrize(
    ("data", "topics"),
    [
        ({"mixture": {"weights": {"topics": 4, "code": 1}}}, 0.8),
        ({"mixture": {"weights": {"topics": 1}}}, 1.0),
        ({"mixture": {"weights": {"kind=web": 1}}}, 0.25),  # by the sources' weights, 1 and 3
        # a part of a source is not known yet
        (
            {"mixture": {"weights": {"topics@length=0": 1}}, "split_by": ({"field": "length"},)},
            0.25,
        ),
    ],
)
def test_sample_is_drawn_by_the_mixture(made: Workdir, data: Any, topics: float) -> None:
    drawn = sample(made, 40_000, data=Data.model_validate(data))
    sizes = {name: sum(len(p.encode()) for p in part) for name, part in drawn.items()}
    for name, share in (("topics", topics), ("code", 1 - topics)):
        assert 40_000 * share - LONGEST_SENTENCE < sizes[name] <= 40_000 * share


def test_sample_depends_on_the_seed_alone(made: Workdir, tmp_path: Path) -> None:
    drawn = sample(made, 40_000)
    assert sample(made, 40_000, workers=2) == drawn
    assert sample(made, 40_000, seed=1) != drawn
    backwards = Workdir(tmp_path)
    documents = {"topics": TOPICS[::-1], "code": CODE[::-1]}
    write_corpus(backwards.corpus, documents, per_shard=7)
    again = sample(backwards, 40_000)
    assert again["code"] == drawn["code"], "the order of documents and shards does not matter"
    first = set(drawn["topics"])
    starts = sum(piece in text for piece in first for _, text in TOPICS[:10])
    assert starts < len(first) / 2, "not the first documents alone"


def test_training_is_deterministic() -> None:
    pieces = [piece for _, text in TOPICS[:20] for piece in pieces_of(text)]
    options = Options(vocab_size=512)
    assert train_model(options, pieces) == train_model(options, pieces)


def test_pieces_are_the_text_and_short() -> None:
    long = "word " * 5000 + "x" * 10_000 + "漢" * 10_000
    for text in (long, "", " " * 9000, TOPICS[0][1]):
        pieces = list(pieces_of(text))
        assert "".join(pieces) == text
        assert all(0 < len(piece.encode()) <= LONGEST_SENTENCE for piece in pieces)


def test_a_long_line_is_learned_from() -> None:
    # One line of a megabyte: SentencePiece would drop it as a sentence that is too long.
    line = "unforgettable elephants " * 40_000
    model = train_model(Options(vocab_size=290), list(pieces_of(line)))
    own = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [own.id_to_piece(i).strip("\u2581") for i in range(259, own.vocab_size())]
    assert any(len(piece) > 4 and piece in line for piece in pieces)


def test_largest_vocabulary_is_told(tmp_path: Path) -> None:
    pieces = ["a few words and a few more words"]
    with pytest.raises(UserError, match="largest possible size is") as caught:
        train_model(Options(vocab_size=5000), pieces)
    largest = int(str(caught.value).split("largest possible size is ")[1].split(":")[0])
    assert train_model(Options(vocab_size=largest), pieces)
    with pytest.raises(UserError, match=f"is {largest}:"):
        train_model(Options(vocab_size=largest + 1), pieces)


def test_a_vocabulary_without_room_for_characters_is_refused() -> None:
    with pytest.raises(UserError, match="no room for the bytes"):
        train_model(Options(vocab_size=262), ["".join(chr(c) for c in range(0x4E00, 0x4F00))])
    with pytest.raises(UserError, match="holds no text"):
        train_model(Options(vocab_size=300), [])


def test_an_existing_model_is_taken(made: Workdir, tmp_path: Path) -> None:
    workdir, path = Workdir(tmp_path), made.tokenizer / "tokenizer.model"
    train_tokenizer(make_config(tokenizer=Options(vocab_size=1024, path=str(path))), workdir)
    assert load_tokenizer(workdir.tokenizer).hash == load_tokenizer(made.tokenizer).hash
    with pytest.raises(UserError, match=r"set tokenizer\.vocab_size=1024"):
        train_tokenizer(make_config(tokenizer=Options(vocab_size=999, path=str(path))), workdir)
    missing = Options(vocab_size=999, path=str(tmp_path / "missing.model"))
    with pytest.raises(UserError, match=r"missing\.model"):
        train_tokenizer(make_config(tokenizer=missing), workdir)
    assert load_tokenizer(workdir.tokenizer).vocab_size == 1024, (
        "a failed stage leaves the earlier result"
    )


def test_the_byte_tokenizer_needs_no_corpus(tmp_path: Path) -> None:
    options = Options(kind="byte")
    assert options.vocab_size == 258
    train_tokenizer(make_config(tokenizer=options), Workdir(tmp_path))
    assert load_tokenizer(tmp_path / "tokenizer").encode("né") == [110, 195, 169]
    assert json.loads((tmp_path / "tokenizer" / "manifest.json").read_text())["kind"] == "byte"
    with pytest.raises(ValueError, match="258"):
        Options(kind="byte", vocab_size=300)


def test_special_tokens_of_the_objective_are_trained_in(made: Workdir, tmp_path: Path) -> None:
    config = make_config(["code"], objective=FIM(), tokenizer=Options(vocab_size=600))
    workdir = Workdir(tmp_path)
    write_corpus(workdir.corpus, {"code": CODE})
    train_tokenizer(config, workdir)
    tokenizer = load_tokenizer(workdir.tokenizer)
    assert tokenizer.vocab_size == 600
    assert tuple(tokenizer.specials) == config.specials
    manifest = json.loads((workdir.tokenizer / "manifest.json").read_text())
    assert manifest["specials"] == ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"]
    assert "specials" not in json.loads((made.tokenizer / "manifest.json").read_text())

    config = make_config(objective=FIM(), tokenizer=Options(kind="byte", specials=("<a>",)))
    train_tokenizer(config, workdir)
    byte = load_tokenizer(workdir.tokenizer)
    assert byte.specials == {"<a>": 258, "<fim_prefix>": 259, "<fim_suffix>": 260,
                             "<fim_middle>": 261}  # fmt: skip
    assert byte.vocab_size == config.vocab_size == 262


def test_special_tokens_that_a_model_lacks_get_ids_behind_its_own(
    made: Workdir, tmp_path: Path
) -> None:
    path = str(made.tokenizer / "tokenizer.model")
    options = Options(vocab_size=1024, path=path, specials=("<a>",))
    config = make_config(objective=FIM(), tokenizer=options)
    with pytest.raises(UserError) as caught:
        train_tokenizer(config, Workdir(tmp_path))
    assert caught.value.messages == [
        f"{path} has 1024 ids and lacks <a>, <fim_prefix>, <fim_suffix>, <fim_middle>, which come "
        "behind them, the config says 1024; set tokenizer.vocab_size=1028, or leave it out (null)"
    ]
    config = make_config(objective=FIM(), tokenizer=Options(path=path, specials=("<a>",)))
    train_tokenizer(config, Workdir(tmp_path))
    grown, own = load_tokenizer(tmp_path / "tokenizer"), load_tokenizer(made.tokenizer)
    assert grown.specials == {
        "<a>": 1024, "<fim_prefix>": 1025, "<fim_suffix>": 1026, "<fim_middle>": 1027,
    }  # fmt: skip
    assert grown.vocab_size == len(grown.token_bytes) == 1028
    assert grown.hash != own.hash
    for text in ("<a> and <fim_prefix>", TOPICS[0][1]):
        assert grown.encode(text) == own.encode(text)
        assert grown.decode([1024, *grown.encode(text), 1027]) == text

    good = tmp_path / "good.model"
    good.write_bytes(train_model(Options(vocab_size=500), [TOPICS[0][1] * 3], config.specials))
    config = make_config(objective=FIM(), tokenizer=Options(vocab_size=500, path=str(good)))
    train_tokenizer(config, Workdir(tmp_path))
    assert len(load_tokenizer(tmp_path / "tokenizer").specials) == 4


def test_a_model_that_cannot_cut_words_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spaces.model"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TOPICS[0][1].splitlines()), model_writer=file,
            model_type="bpe", vocab_size=400, byte_fallback=True, add_dummy_prefix=True,
            control_symbols=list(FIM_TOKENS), minloglevel=2,
        )  # fmt: skip
    options = Options(vocab_size=400, path=str(path))
    with pytest.raises(UserError, match=r"objective\.cut: this tokenizer puts a space before"):
        taken_over(make_config(objective=(LM(), FIM()), tokenizer=options), str(path))
    taken_over(make_config(objective=FIM(cut="token"), tokenizer=options), str(path))


def test_a_library_that_is_missing_is_told_before_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for options in (Options(kind="wordpiece"), Options(compare=("wordpiece-8k",))):
        with pytest.raises(UserError, match=r"pip install 'jaxlm\[hf\]'"):
            check_tokenizer(make_config(tokenizer=options))
    check_tokenizer(make_config(tokenizer=Options(kind="unigram")))
