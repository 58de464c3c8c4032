"""Languages of sentences that are told apart easily, and what neither model can tell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from jaxlm.config.corpus import Source
from jaxlm.config.text import Language
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.stages import LABELLERS, decide
from jaxlm.corpus.stages.base import Tags

SOURCE = Source(name="s", path="x.txt", language="en")
SENTENCES = {
    "en": "The children went down to the river because the weather was so warm that evening.",
    "de": "Die Kinder gingen an den Fluss hinunter, weil das Wetter an diesem Abend so warm war.",
    "fr": "Les enfants sont descendus vers la rivière parce qu'il faisait si chaud ce soir-là.",
    "es": "Los niños bajaron al río porque hacía mucho calor aquella tarde de verano.",
    "it": "I bambini scesero al fiume perché quella sera il tempo era davvero molto caldo.",
    "nl": "De kinderen gingen naar de rivier omdat het die avond zo ontzettend warm was.",
    "pl": "Dzieci poszły nad rzekę, ponieważ tego wieczoru było naprawdę bardzo ciepło.",
    "tr": "Çocuklar nehre indiler çünkü o akşam hava gerçekten çok sıcaktı.",
    "ru": "Дети спустились к реке, потому что в тот вечер было очень тепло.",
    "el": "Τα παιδιά κατέβηκαν στο ποτάμι γιατί εκείνο το βράδυ έκανε πολλή ζέστη.",
    "he": "הילדים ירדו אל הנהר כי באותו ערב היה חם מאוד.",
    "ar": "نزل الأطفال إلى النهر لأن الجو كان حارا جدا في ذلك المساء.",
    "ja": "その晩はとても暖かかったので、子供たちは川へ下りて行きました。",
    "ko": "그날 저녁은 날씨가 매우 따뜻해서 아이들이 강으로 내려갔습니다.",
    "th": "เด็กๆ ลงไปที่แม่น้ำเพราะเย็นวันนั้นอากาศร้อนมาก",
    "zh": "那天晚上天气很暖和，所以孩子们都到河边去玩了。",
}


def identify(*texts: str, **values: object) -> tuple[list[str], Tags]:
    documents = Documents.of(SOURCE, (text.encode() for text in texts))
    languages, tags = LABELLERS["language"](documents, Language.model_validate(values))
    return languages.tolist(), tags


@pytest.mark.parametrize("times", [1, 10])
def test_languages(times: int) -> None:
    found, tags = identify(*((text + "\n") * times for text in SENTENCES.values()))
    assert found == list(SENTENCES)
    assert (tags["score"] > 0.5).all()
    short = [len(text.encode()) * times + times < 200 for text in SENTENCES.values()]
    assert tags["second"].astype(bool).tolist() == short
    assert np.isnan(tags["agreed"]).tolist() == [not asked for asked in short]


def test_simplified_and_traditional_are_both_chinese() -> None:
    traditional = "那天晚上天氣很暖和，所以孩子們都到河邊去玩了。"
    found, tags = identify(SENTENCES["zh"], traditional, SENTENCES["ja"])
    assert found == ["zh", "zh", "ja"]
    np.testing.assert_array_equal(tags["traditional"], [0, 1, np.nan])


def test_what_neither_knows_keeps_the_language_of_its_source() -> None:
    found, tags = identify("", "123 456", "\x00\x01\x02", "= + =")
    assert found == ["en"] * 4
    assert (tags["score"] == 0).all()


def test_characters_that_cld2_refuses_do_not_matter() -> None:
    for bad in ("\x00", "\x7f", "\x85", "\ufdd0", "\uffff", "\U0010ffff", "\U0001fffe"):
        found, tags = identify((SENTENCES["de"] + bad) * 5)
        assert found == ["de"]
        assert tags["second"] == 0


def test_a_text_in_two_languages_has_two_shares() -> None:
    text = (SENTENCES["en"] + "\n") * 6 + (SENTENCES["ru"] + "\n") * 5
    found, tags = identify(text)
    assert found[0] in ("en", "ru")
    assert tags["share"][0] < 0.7
    assert tags["second"] == 1


def test_keeps_the_languages_that_are_wanted() -> None:
    texts = [(SENTENCES[language] + "\n") * 5 for language in ("en", "de", "ja")]
    _, tags = identify(*texts, keep=("en", "ja"))
    failures = {f.rule: f.failed.tolist() for f in decide(Language(keep=("en", "ja")), tags)}
    assert failures == {"max_unwanted": [False, True, False]}
    assert not identify(*texts)[1]["unwanted"].any()


@settings(deadline=None)
@given(some.lists(some.text(), max_size=3))
def test_takes_any_text(texts: list[str]) -> None:
    found, tags = identify(*texts)
    assert all(2 <= len(language) <= 3 for language in found)
    for name in ("score", "share", "second"):
        assert ((tags[name] >= 0) & (tags[name] <= 1)).all()
