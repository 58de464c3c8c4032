"""Writes linear.json: how well scikit-learn tells fortunes from the other documents of
rule_decisions.jsonl.zst by the same features, on the same split.

    pip install scikit-learn==1.9.1 zstandard numpy && python tests/reference/make_linear.py
"""

import json
from pathlib import Path

import sklearn
import zstandard
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

HERE = Path(__file__).parent
with open(HERE / "rule_decisions.jsonl.zst", "rb") as raw:
    data = zstandard.ZstdDecompressor().stream_reader(raw).read().decode()
rows = [json.loads(line) for line in data.split("\n") if line]
# the first 200 characters, so that length alone does not tell
texts = [row["text"][:200] for row in rows]
labels = [row["id"].startswith("fortunes/") for row in rows]
train = [i for i in range(len(rows)) if i % 5]
test = [i for i in range(len(rows)) if i % 5 == 0]
features = HashingVectorizer(
    n_features=1 << 18, ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", alternate_sign=False
)
model = LogisticRegression(C=100.0, class_weight="balanced", max_iter=1000)
model.fit(features.transform([texts[i] for i in train]), [labels[i] for i in train])
scores = model.predict_proba(features.transform([texts[i] for i in test]))[:, 1]
out = {
    "scikit-learn": sklearn.__version__,
    "auc": float(roc_auc_score([labels[i] for i in test], scores)),
    "labels": [labels[i] for i in test],
    "scores": [float(score) for score in scores],
}
(HERE / "linear.json").write_text(json.dumps(out) + "\n")
print(out["auc"])
