"""Statistics by character against plain Python, and thresholds on real sentences."""

import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from pydantic import ValidationError

from jaxlm.config.chinese import Chinese
from jaxlm.config.corpus import Source
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.stages import TAGGERS, decide
from jaxlm.corpus.stages.base import Tags
from jaxlm.corpus.statistics import Analysis

SOURCE = Source(name="s", path="x.txt", language="zh")
SIMPLE = (
    "语言模型在大量的文字上学习，它们要预测下一个字是什么。为了让模型学得好，我们先把文字清理干净：\n"
    "重复的网页、广告和没有内容的列表都不应该留下来。一个句子有它的开头，也有它的结尾！\n"
    "这里写的是中国南方的一个小镇，镇上的人早晨去市场买菜，晚上在河边散步。老人喜欢喝茶，孩子们在树下玩。\n"
    "春天来了以后，山上的花都开了，从北方飞回来的鸟在屋檐下做窝。你见过这样的地方吗？我小时候就住在那里。\n"
    "后来我去了别的城市工作，每年只回去一次。镇子变了很多，但是河水和从前一样慢慢地流着。"
)
TRADITIONAL = "語言模型在大量的文字上學習，為了讓模型學得好，我們先把文字清理乾淨。"
TEXTS = some.lists(
    some.text("中文的了。，！\n aか\u0e01漢汉☆「」\u3000\U00020000", max_size=60), max_size=4
)


def tag(*texts: str, rules: Chinese | None = None) -> Tags:
    documents = Documents.of(SOURCE, (text.encode() for text in texts))
    return TAGGERS["quality.chinese"](Analysis(documents), rules or Chinese())


def plain(text: str, rules: Chinese) -> dict[str, float]:
    seen = "".join(text.split())
    lines = ["".join(line.split()) for line in text.split("\n") if line.strip()]
    grams = [seen[i : i + rules.ngram] for i in range(len(seen) - rules.ngram + 1)]
    ends = [line.rstrip("\"'”’»›)]}」』）】》〉］｝〕")[-1:] for line in lines]
    many = max(1, len(lines))
    return {
        "characters": len(seen),
        "mean_line_length": len(seen) / many,
        "script_share": sum("CJK" in unicodedata.name(c, "") for c in seen) / max(1, len(seen)),
        "stop_words": sum(word in text for word in rules.stop_words),
        "ended_lines": sum(end != "" and end in "。！？" for end in ends) / many,
        "short_lines": sum(len(line) <= rules.short_line for line in lines) / many,
        "duplicate_lines": (len(lines) - len(set(lines))) / many,
        "duplicate_ngrams": (len(grams) - len(set(grams))) / max(1, len(grams)),
        "punctuation_share": sum(unicodedata.category(c)[0] == "P" for c in seen)
        / max(1, len(seen)),
        "symbol_share": sum(unicodedata.category(c)[0] == "S" for c in seen) / max(1, len(seen)),
    }


@given(TEXTS)
def test_attributes_by_characters(texts: list[str]) -> None:
    rules = Chinese(ngram=3, short_line=4)
    found = tag(*texts, rules=rules)
    for i, text in enumerate(texts):
        for name, value in plain(text, rules).items():
            # the brackets \u300c\u300d have "CJK" in no name, as their script is common
            assert found[name][i] == pytest.approx(value), (name, text)


@given(some.lists(some.text(), max_size=4))
def test_takes_any_text(texts: list[str]) -> None:
    for name, values in tag(*texts).items():
        assert values.shape == (len(texts),)
        assert np.isfinite(values).all() or name == "traditional_share"
        if "share" in name or "lines" in name:
            assert not ((values < 0) | (values > 1)).any() or name == "mean_line_length"


def failed(text: str, **values: object) -> list[str]:
    rules = Chinese.model_validate(values)
    return [f.rule for f in decide(rules, tag(text, rules=rules)) if f.failed[0]]


def test_prose_stays_and_what_is_not_goes() -> None:
    assert failed(SIMPLE) == []
    assert failed(SIMPLE[:150]) == ["min_characters"]
    menu = "首页\n新闻\n体育\n财经\n娱乐\n" * 30
    assert set(failed(menu)) == {
        "min_mean_line_length", "min_stop_words", "min_ended_lines", "max_short_lines",
        "max_duplicate_lines", "max_duplicate_sentences", "max_duplicate_ngrams",
        "min_punctuation_share",
    }  # fmt: skip
    assert "min_script_share" in failed("This is not Chinese at all, 的 and 在. " * 20)
    assert failed("☆★" * 40 + SIMPLE) == ["max_symbol_share"]


def test_a_sentence_that_comes_again() -> None:
    lines = SIMPLE.split("\n")
    found = tag(lines[3], lines[3] + lines[3])
    assert found["duplicate_sentences"].tolist() == [0, 0.5]


def test_simplified_and_traditional() -> None:
    found = tag(SIMPLE, TRADITIONAL, SIMPLE[:30] + TRADITIONAL, "山水")["traditional_share"]
    assert found[0] == 0
    assert found[1] == 1
    assert 0 < found[2] < 1
    assert np.isnan(found[3])
    assert "max_traditional_share" in failed(TRADITIONAL, max_traditional_share=0.1)
    assert "min_traditional_share" in failed(SIMPLE, min_traditional_share=0.9)
    assert not {f for f in failed("山水", max_traditional_share=0.1) if "traditional" in f}


def test_japanese_by_its_scripts() -> None:
    text = "日本語の文章は、漢字とかなで書かれています。"
    values = [tag(text, rules=Chinese(script=s))["script_share"][0] for s in
              (("han",), ("han", "kana"))]  # fmt: skip
    assert all(a < b for a, b in pairwise([0, *values]))
    assert values[1] == pytest.approx(20 / 22)


def test_refuses_stop_words_with_spaces() -> None:
    with pytest.raises(ValidationError, match="white space"):
        Chinese(stop_words=("a b",))
