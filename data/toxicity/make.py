"""Writes profanity.npz, the weights of alt-profanity-check 1.9.1 as plain arrays, and
tests/reference/profanity.json, what that package itself says of some texts.

The package ships its model as pickles, which jaxlm never reads; so the package is asked here, once,
in an environment of its own:

    python3.12 -m venv ENV && ENV/bin/pip install alt-profanity-check==1.9.1
    ENV/bin/python data/toxicity/make.py

The model: TfidfVectorizer (lower case, words of two characters and more, English stop words, raw
counts times idf, L2 norm), then the mean of five linear SVMs, each through its own sigmoid
1 / (1 + exp(a f + b)).

    vocabulary [bytes]  uint8, the words, each followed by a newline
    idf [15442], coefficients [15442,5]   float32
    intercepts, a, b [5]                  float64
"""

import json
from pathlib import Path

import numpy as np
from profanity_check.profanity_check import model, predict_prob, vectorizer

HERE = Path(__file__).parent
TEXTS = [
    "", "Hello there, how are you?", "You are an idiot and I hate you.", "What the hell!",
    "The village has a pump near the church.", "fuck off, you stupid piece of shit",
    "FUCK OFF", "idiot idiot idiot idiot", "A naïve résumé: Pokémon, Beyoncé and José.",
    "snake_case_word and don't, e-mail@example.org 1234 2,000", "damn", "He died in 1873.",
    "Go to hell, bastard.\nThanks for your edit of the page.", "聖やや 連絡 迷惑 hello",
    "kill yourself", "sexual reproduction of plants", "the of and to", "ß ſ ŒUVRE œuvre ÉCOLE",
    "I will kill all the idiots — stupid,stupid;stupid…dumb", "assassin class passes the bass",
]  # fmt: skip

words = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.get)
parts = model.calibrated_classifiers_
np.savez_compressed(
    HERE / "profanity.npz",
    vocabulary=np.frombuffer("".join(word + "\n" for word in words).encode(), np.uint8),
    idf=vectorizer.idf_.astype(np.float32),
    coefficients=np.stack([p.estimator.coef_[0] for p in parts], 1).astype(np.float32),
    intercepts=np.array([p.estimator.intercept_[0] for p in parts]),
    a=np.array([p.calibrators[0].a_ for p in parts]),
    b=np.array([p.calibrators[0].b_ for p in parts]),
)
rows = [{"text": t, "score": float(s)} for t, s in zip(TEXTS, predict_prob(TEXTS), strict=True)]
target = HERE.parents[1] / "tests" / "reference" / "profanity.json"
target.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
