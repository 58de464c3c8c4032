"""datatrove on a file of documents: `python corpus_datatrove.py WHAT DOCS.jsonl`.

WHAT: chain (repetition, quality, C4, FineWeb, each on what the one before kept), gopher, pii,
bulk (datasketch MinHash.bulk over shingles made in plain Python), minhash (all four stages).
Prints one JSON object: CPU-seconds after imports and one warm document, bytes, decisions.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

what, path = sys.argv[1:3]
with open(path, encoding="utf-8") as file:
    rows = [json.loads(line) for line in file]
decisions: list[str] = []

if what in ("chain", "gopher"):
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    filters = [GopherQualityFilter()]
    if what == "chain":
        filters = [
            GopherRepetitionFilter(), *filters,
            C4QualityFilter(filter_no_terminal_punct=True), FineWebQualityFilter(),
        ]  # fmt: skip

    def judge(row: dict) -> str:
        document = Document(text=row["text"], id=row["id"])
        for step in filters:
            verdict = step.filter(document)
            keep, reason = verdict if isinstance(verdict, tuple) else (verdict, type(step).__name__)
            if not keep:
                return reason
        return "KEPT"

    judge(rows[0])
    begin = time.process_time()
    decisions = [judge(row) for row in rows]
elif what == "pii":
    from datatrove.data import Document
    from datatrove.pipeline.formatters import PIIFormatter

    step = PIIFormatter()
    step.format(rows[0]["text"])
    begin = time.process_time()
    for row in rows:
        step.format(row["text"])
elif what == "bulk":
    from datasketch import MinHash

    def shingles(text: str) -> set[bytes]:
        words = text.lower().split()
        return {" ".join(words[i : i + 5]).encode() for i in range(max(1, len(words) - 4))}

    MinHash.bulk([shingles(rows[0]["text"])], num_perm=128)
    begin = time.process_time()
    MinHash.bulk([shingles(row["text"]) for row in rows], num_perm=128)
elif what == "minhash":
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter
    from datatrove.utils.logging import logger

    logger.remove()
    config = MinhashConfig()
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder, "in")
        inputs.mkdir()
        (inputs / "docs.jsonl").write_bytes(Path(path).read_bytes())
        reader = JsonlReader(str(inputs))
        signatures, buckets, removed = (f"{folder}/{name}" for name in ("sig", "buckets", "ids"))
        begin = time.process_time()
        for tasks, steps in (
            (1, [reader, MinhashDedupSignature(output_folder=signatures, config=config)]),
            (config.num_buckets, [MinhashDedupBuckets(signatures, buckets, config=config)]),
            (1, [MinhashDedupCluster(buckets, removed, config=config)]),
            (1, [reader, MinhashDedupFilter(removed), JsonlWriter(f"{folder}/out")]),
        ):
            executor = LocalPipelineExecutor(
                steps, tasks=tasks, workers=1, skip_completed=False, logging_dir=f"{folder}/logs"
            )
            executor.run()
else:
    sys.exit(f"unknown: {what}")

seconds = time.process_time() - begin
size = sum(len(row["text"].encode()) for row in rows)
print(json.dumps({"seconds": seconds, "bytes": size, "decisions": decisions}))
