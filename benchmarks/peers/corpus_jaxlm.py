"""jaxlm's stages on a file of documents: `python corpus_jaxlm.py WHAT DOCS.jsonl`.

WHAT: chain, chain-spacy, gopher, gopher-spacy (rule sets of datatrove), dolma-gopher, pii,
signatures (MinHash with shingling), substring. The batches of 4 MB are those of a run; deciding and
writing the ledger's lines is in the time. Prints one JSON object: CPU-seconds after imports,
compiling and one warm batch, bytes, decisions (first failed rule), peak memory.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from jaxlm.config.corpus import Prepare, Source
from jaxlm.corpus.apply import apply
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.ledger import Tally
from jaxlm.corpus.stages import DUPLICATES
from jaxlm.corpus.stages.sets import SETS

BATCH = 4 << 20
CHAIN = ("quality.repetition", "quality.gopher", "quality.c4", "quality.fineweb")
STAGES = {"chain": CHAIN, "gopher": ("quality.gopher",), "dolma-gopher": ("quality.dolma_gopher",),
          "pii": ("privacy",)}  # fmt: skip
SOURCE = Source(name="benchmark", path="x")


def batches(path: Path) -> list[Documents]:
    out: list[Documents] = []
    texts: list[bytes] = []
    ids: list[bytes] = []
    size = 0
    with open(path, encoding="utf-8") as file:
        for row in map(json.loads, file):
            texts.append(row["text"].encode())
            ids.append(row["id"].encode())
            size += len(texts[-1])
            if size > BATCH:
                out.append(Documents.of(SOURCE, texts, ids))
                texts, ids, size = [], [], 0
    if texts:
        out.append(Documents.of(SOURCE, texts, ids))
    return out


def with_words(config: Prepare, words: str) -> Prepare:
    """The config with spaCy's or our words in every set that has a choice."""
    sections = {
        name: section.model_copy(update={"words": words})
        for name, section in config.quality
        if "words" in type(section).model_fields
    }
    return config.model_copy(update={"quality": config.quality.model_copy(update=sections)})


def main() -> None:
    what, path = sys.argv[1], Path(sys.argv[2])
    documents = batches(path)
    decisions: list[str] = []
    if what == "signatures":
        stage = DUPLICATES["dedup.minhash"](Prepare().dedup)
        stage.signature(documents[0], {})
        begin = time.process_time()
        for batch in documents:
            stage.signature(batch, {})
        seconds = time.process_time() - begin
    else:
        name = what.removesuffix("-spacy")
        config = with_words(Prepare(), "spacy") if what.endswith("-spacy") else Prepare()
        apply(documents[0], STAGES[name], config, Tally())
        tally = Tally()
        begin = time.process_time()
        for batch in documents:
            apply(batch, STAGES[name], config, tally)
        seconds = time.process_time() - begin
        first: dict[str, str] = {}
        reasons = {s.stage: s.reasons for key, s in SETS.items() if key.endswith(".datatrove")}
        for line in map(json.loads, tally.lines):
            if line["action"] == "drop":
                reason = reasons.get(line["stage"], {}).get(line["rule"], line["rule"])
                first.setdefault(line["id"], reason)
        decisions = [
            first.get(batch.id(i), "KEPT") for batch in documents for i in range(len(batch))
        ]
    out: dict[str, Any] = {
        "seconds": seconds,
        "bytes": sum(int(batch.texts.offsets[-1]) for batch in documents),
        "decisions": decisions,
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
