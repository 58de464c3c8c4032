"""Figures of tokenizers, against counts done otherwise."""

import json
from pathlib import Path

import pytest

from jaxlm.config.tokens import Tokenizer as Options
from jaxlm.reports import write_report
from jaxlm.reports.records import read_tokenizer_report
from jaxlm.reports.tokenizer import tokenizer_lines
from jaxlm.tokens import load_tokenizer, measure_tokenizer, train_tokenizer
from jaxlm.tokens.measure import measured
from jaxlm.tokens.sample import Piece, draw_measured, pieces_of
from jaxlm.tokens.tokenizer import ByteTokenizer, open_tokenizer
from jaxlm.workdir import Workdir
from tests.tokens.conftest import CODE, TOPICS, make_config, write_corpus
from tests.tokens.kinds import like_bert, tokenizer_of

SAMPLE = {
    "english": [
        Piece(1, "the class is the class", "a", "en"),
        Piece(2, "one\ttwo  three", "a", "en"),
    ],
    "chinese": [Piece(3, "我們知道《紅樓夢》。🧿", "b", "zh")],
}


def test_figures_are_counts() -> None:
    tokenizer = tokenizer_of("bpe")
    found = measured(tokenizer, SAMPLE)
    texts = [piece.text for part in SAMPLE.values() for piece in part]
    ids = [tokenizer.encode(text) for text in texts]
    english, chinese = found["sources"]["english"], found["sources"]["chinese"]
    assert found["languages"] == {"en": english, "zh": chinese}
    assert english["tokens"] == len(ids[0]) + len(ids[1])
    assert english["tokens_per_word"] == round((len(ids[0]) + len(ids[1])) / 8, 4)
    assert (english["documents"], english["words"]) == (1, 8)
    assert chinese["tokens_per_word"] is None
    assert chinese["bytes_per_token"] == round(len(texts[2].encode()) / len(ids[2]), 4)
    assert found["all"]["tokens_per_word"] == english["tokens_per_word"]
    used = {i for part in ids for i in part}
    possible = set((tokenizer.token_bytes > 0).nonzero()[0].tolist())
    assert found["unused"]["of"] == len(possible)
    assert found["unused"]["ids"] == len(possible - used)
    # none of the ideographs nor the emoji is in text of Python's documentation
    assert found["coverage"]["characters"] == sum(map(len, texts))
    assert found["coverage"]["as_bytes"] == len(texts[2])
    assert found["coverage"]["distinct_as_bytes"] == len(set(texts[2]))
    assert found["coverage"]["unknown_tokens"] == 0
    assert found["round_trip"] == {
        "pieces": 3, "exact": 3, "as_normalized": 3, "first_difference": None,
    }  # fmt: skip


def test_bytes_are_bytes() -> None:
    found = measured(ByteTokenizer(), SAMPLE)
    assert found["all"]["bytes_per_token"] == 1
    assert found["coverage"]["as_bytes"] == len(SAMPLE["chinese"][0].text)


def test_losses_are_found() -> None:
    bert = open_tokenizer(like_bert().to_str().encode(), "x")
    found = measured(bert, {"x": [Piece(0, "one two", "d", ""), Piece(1, "A 漢\n", "d", "")]})
    assert not found["keeps_text"]
    assert found["round_trip"]["first_difference"] == {
        "source": "x", "document": "d", "text": "A 漢\n", "back": "a",
    }  # fmt: skip
    assert found["languages"] == {}
    assert found["coverage"]["unknown_tokens"] == 1


def test_what_was_trained_on_is_left_out_while_there_is_enough(made: Workdir) -> None:
    manifest = json.loads((made.tokenizer / "manifest.json").read_text())
    assert set(manifest["drawn_below"]) == {"topics", "code"}
    everything = [piece for _, text in TOPICS for piece in pieces_of(text)]
    options = Options(vocab_size=1024, sample_bytes=400_000, measure_bytes=40_000)
    config = make_config(tokenizer=options)
    below = {"topics": 1 << 62, "code": 0}
    drawn = draw_measured(config, made, below)
    assert all(piece.number >= 1 << 62 for piece in drawn["topics"])
    assert {piece.text for piece in drawn["topics"]} <= set(everything)
    assert 5_000 < sum(len(piece.text.encode()) for piece in drawn["topics"]) <= 10_000
    assert sum(len(piece.text.encode()) for piece in drawn["code"]) <= 30_000
    # where there is not enough other text, what was trained on is taken too
    drawn = draw_measured(config, made, {"topics": (1 << 64) - 1, "code": 0})
    assert any(piece.number < (1 << 64) - 1 for piece in drawn["topics"])
    assert draw_measured(config, made, below) == draw_measured(config, made, below)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    """A workdir with a byte tokenizer and candidates beside it."""
    workdir = Workdir(tmp_path_factory.mktemp("compared"))
    write_corpus(workdir.corpus, {"topics": TOPICS[:30], "code": CODE})
    model = tmp_path_factory.mktemp("file") / "bert.json"
    model.write_text(like_bert().to_str())
    names = ("bpe-500", "unigram-1k", "wordpiece-700", "bpe-900k", str(model), "none/x.model")
    config = make_config(tokenizer=Options(kind="byte", compare=names))
    train_tokenizer(config, workdir)
    own = load_tokenizer(workdir.tokenizer).hash
    measure_tokenizer(config, workdir)
    assert load_tokenizer(workdir.tokenizer).hash == own
    return workdir


def test_candidates_are_measured_beside_the_runs_own(compared: Workdir) -> None:
    report = json.loads((compared.tokenizer / "report.json").read_text())
    assert report["tokenizer"]["kind"] == "byte"
    rows = list(report["compare"].values())
    assert [row["vocab_size"] for row in rows[:3]] == [500, 1000, 700]
    assert [row["kind"] for row in rows[:3]] == ["bpe", "unigram", "wordpiece"]
    assert all(row["all"]["bytes"] == report["sample"]["bytes"] for row in rows[:3])
    assert all(row["round_trip"]["exact"] == row["round_trip"]["pieces"] for row in rows[:3])
    assert "the largest possible size is" in rows[3]["error"]
    assert not rows[4]["keeps_text"]
    assert rows[5]["error"] == "tokenizer.path none/x.model: No such file or directory"


def test_the_report_shows_it(compared: Workdir) -> None:
    report = read_tokenizer_report(compared)
    assert report
    lines = "\n".join(tokenizer_lines(report))
    page = write_report(compared).read_text("utf-8")
    for shown in ("unigram-1k", "bpe-900k", "none/x.model", "loses text", "largest possible size"):
        assert shown in lines
        assert shown in page
    assert f"{report.tokenizer.sources['code'].tokens_per_word:.3f}" in lines
    assert f"{report.tokenizer.sources['code'].tokens_per_word:.3f}" in page


def test_a_report_that_is_broken_is_told(compared: Workdir, tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "report.json").write_text('{"sample": 3}')
    with pytest.raises(Exception, match=r"report\.json: "):
        read_tokenizer_report(Workdir(tmp_path))
