"""Labeller: the language of each document, by a cheap model for all and a second for the doubtful.

CLD2 (pycld2) looks at all of a text; py3langid (naive Bayes over byte n-grams, Lui and Baldwin
2012) is asked where CLD2 is unsure, the text is short or several languages share it. Both bring
their models with them.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.rules import Rules
from jaxlm.config.text import Language
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.stages.base import Tags
from jaxlm.corpus.stages.chinese import traditional_share
from jaxlm.corpus.statistics import Analysis

# What CLD2 refuses as not for interchange: control characters and noncharacters.
_REFUSED = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
)
# Codes that ISO 639 replaced, and varieties that count as the language they are written like.
_CODES = {
    "iw": "he", "jw": "jv", "in": "id", "ji": "yi", "mo": "ro", "zh-Hant": "zh", "sr-ME": "sr",
    "yue": "zh", "wuu": "zh", "arz": "ar", "ary": "ar", "hbo": "he",
}  # fmt: skip
_UNKNOWN = re.compile("un|zxx|x.*|zz.")


def identify(documents: Documents, rules: Rules) -> tuple[NDArray[np.str_], Tags]:
    """ISO 639 codes, str [D], and attributes.

    score: see the section, 0 where neither model knows; share: of the text, CLD2's for the
    language; second: 1 where py3langid was asked; agreed: 1 where it said what CLD2 said, NaN where
    it was not asked; unwanted: 1 where the language is not one of keep; traditional: share of the
    characters that tell traditional from simplified that are traditional, NaN but for Chinese.
    """
    assert isinstance(rules, Language)
    n = len(documents)
    languages = documents.languages.copy()
    names = ("score", "share", "second", "agreed", "unwanted")
    tags: Tags = {name: np.zeros(n) for name in names}
    tags["agreed"][:] = np.nan
    for i in range(n):
        text = documents.texts[i]
        sure, first = _cld2(text)
        best, share = max(first.items(), key=lambda item: item[1], default=("", 0.0))
        language, score = best, share
        if not sure or len(text) < rules.doubtful_bytes or share < rules.doubtful_share:
            tags["second"][i] = 1
            other, probability = _langid(text[: rules.second_bytes])
            tags["agreed"][i] = other == best
            if other and probability >= rules.second_score:
                language, score = other, probability
            elif not sure:
                language, score = "", 0.0
        if language:
            languages[i] = language
        tags["score"][i] = score
        tags["share"][i] = first.get(str(languages[i]), 0.0)
    if rules.keep:
        tags["unwanted"] = (~np.isin(languages, rules.keep)).astype(np.float64)
    chinese = languages == "zh"
    tags["traditional"] = np.full(n, np.nan)
    if chinese.any():
        tags["traditional"][chinese] = traditional_share(Analysis(documents.take(chinese)))
    return languages, tags


LABELLERS: dict[str, Callable[[Documents, Rules], tuple[NDArray[np.str_], Tags]]] = {
    "language": identify
}


def _cld2(text: bytes) -> tuple[bool, dict[str, float]]:
    """Whether CLD2 is sure, and the shares of up to three languages."""
    import pycld2

    try:
        sure, _, found = pycld2.detect(text, isPlainText=True)
    except pycld2.error:
        plain = _REFUSED.sub(" ", text.decode())
        sure, _, found = pycld2.detect(plain.encode(), isPlainText=True)
    shares: dict[str, float] = {}
    for _, code, percent, _ in found:
        if not _UNKNOWN.fullmatch(code):
            language = _CODES.get(code, code)
            shares[language] = shares.get(language, 0.0) + percent / 100
    return bool(sure and shares), shares


def _langid(text: bytes) -> tuple[str, float]:
    """py3langid's language, "" for none, and its probability."""
    code, probability = _second().classify(text.decode(errors="ignore"))
    return "" if _UNKNOWN.fullmatch(code) else _CODES.get(code, code), float(probability)


@cache
def _second() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
