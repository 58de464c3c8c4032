"""Makes dolma.npz: what the taggers of Dolma 1.2.1 say of some documents of rule_decisions and of
texts that try its corners; and dolma_repeats.json: how often it finds tokens repeated.

    python3.12 -m venv VENV; VENV/bin/pip install dolma==1.2.1
    VENV/bin/python tests/reference/make_dolma.py

Dolma's requirements do not go with ours, so that it has an environment of its own.
"""

import json
from pathlib import Path

import numpy as np
import zstandard
from dolma.core.data_types import Document
from dolma.taggers.c4 import C4Tagger, FasterC4Tagger
from dolma.taggers.gopher import GopherTagger
from dolma.taggers.repetitions.utils import find_periodic_sequences

FOLDER = Path(__file__).parent
EVERY = 9
CORNERS = (
    "",
    " \n\n ",
    "a",
    "one two\n",
    "\n",
    "the be to",
    "The Be TO the the",
    "- a\n* b\n\u2022 c\n -d",
    "so\u2026\nso\u2026 \n\u2026",
    "#a #b c \u2026d",
    "x\u2028y\u0085z\u00a0w\u3000v\x1cu\u200bt",
    "\u6587\u5b57 123 4.5 \u00e9 \u0660 \U0001f600",
    "a b a b a b a b a b a b a b a b a b a b",
    "ab cd ef ab cd gh ab cd ef",
    "A line.\nno end\ntwo words.\nIs this a line?\nSay \"this and that\"",
    "JavaScript: {",
    "javascript here.\nLorem  ipsum and LOREM IPSUM dolor.",
    "javascript, unjavascripted",
    "this is a shit text.\n\nand a blow job in it.",
    "a \U0001f595 b c.",
    "java\u017fcript \u212aiss k\u0130nk",
)  # fmt: skip


def main() -> None:
    with open(FOLDER / "rule_decisions.jsonl.zst", "rb") as file:
        lines = zstandard.ZstdDecompressor().stream_reader(file).read().decode().splitlines()
    texts = [json.loads(line)["text"] for line in lines][::EVERY] + list(CORNERS)
    out: dict[str, np.ndarray] = {"corners": np.array(json.dumps(CORNERS))}
    for name, tagger in (("gopher", GopherTagger()), ("v1", C4Tagger()), ("v2", FasterC4Tagger())):
        for i, text in enumerate(texts):
            counts: dict[str, float] = {}
            for span in tagger.predict(Document("s", "i", text)).spans:
                # spans of C4 without a score are places, and counted
                value = span.score
                if name == "gopher" or span.type == "line_count":
                    counts[span.type] = value
                else:
                    counts[span.type] = counts.get(span.type, 0) + 1
            for kind, value in counts.items():
                missing = np.nan if "gram" in kind else 0.0
                column = out.setdefault(f"{name}.{kind}", np.full(len(texts), missing))
                column[i] = value
    np.savez_compressed(FOLDER / "dolma.npz", **out)  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    rows = []
    for _ in range(60):
        period, times = rng.integers(1, 14), rng.integers(1, 12)
        unit = rng.integers(0, 40, period).tolist()
        before, after = (rng.integers(0, 40, rng.integers(0, 20)).tolist() for _ in range(2))
        tokens = np.array(before + unit * int(times) + after)
        found = [s.times for s in find_periodic_sequences(tokens, max_period=13)]
        rows.append({"tokens": tokens.tolist(), "times": int(max(found, default=0))})
    (FOLDER / "dolma_repeats.json").write_text(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
