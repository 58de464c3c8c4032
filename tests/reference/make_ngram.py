"""Writes ngram.json: nats of texts under models that KenLM estimates (lmplz, modified Kneser-Ney).

    pip install kenlm==0.3.0 zstandard    # and lmplz, built from the sources of that package
    python tests/reference/make_ngram.py LMPLZ

Words are runs of a to z. Those that occur once are left out of the training text, since jaxlm
takes them for the unknown word and lmplz does not.
"""

import json
import math
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import kenlm
import zstandard

HERE = Path(__file__).parent
# order, and the smallest count of n-grams of three words and more
MODELS = ((5, 1), (3, 1), (2, 1), (4, 2))

with open(HERE / "rule_decisions.jsonl.zst", "rb") as raw:
    data = zstandard.ZstdDecompressor().stream_reader(raw).read().decode()
rows = [json.loads(line)["text"][:400] for line in data.split("\n") if line]
texts = [text for row in rows if len(text := " ".join(re.findall("[a-z]+", row.lower()))) > 100]
train, new = texts[:240], texts[240:270]
seen = Counter(word for text in train for word in text.split())
train = [" ".join(word for word in text.split() if seen[word] > 1) for text in train]
out: dict[str, object] = {"kenlm": "0.3.0", "train": train, "new": new, "models": []}
for order, min_count in MODELS:
    prune = ["--prune", "0", "0", str(min_count - 1)] if min_count > 1 else []
    done = subprocess.run(
        [sys.argv[1], "-o", str(order), *prune, "-S", "64M", "--discount_fallback"],
        input="\n".join(train) + "\n", capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    print(done.stderr[-1200:])
    with tempfile.NamedTemporaryFile("w", suffix=".arpa") as file:
        file.write(done.stdout)
        file.flush()
        model = kenlm.Model(file.name)
    nats = [-model.score(text, bos=True, eos=True) * math.log(10) for text in new]
    out["models"].append({"order": order, "min_count": min_count, "nats": nats})  # type: ignore[attr-defined]
(HERE / "ngram.json").write_text(json.dumps(out) + "\n")
