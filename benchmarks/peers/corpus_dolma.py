"""Dolma on a file of documents: `python corpus_dolma.py gopher|pii DOCS.jsonl`.

Prints one JSON object: CPU-seconds of the tagger after imports and one warm document, bytes.
"""

import json
import sys
import time

from dolma.core.data_types import Document
from dolma.core.registry import TaggerRegistry

what, path = sys.argv[1:3]
with open(path, encoding="utf-8") as file:
    rows = [json.loads(line) for line in file]
tagger = TaggerRegistry.get({"gopher": "gopher_v1", "pii": "pii_regex_v2"}[what])()
documents = [Document(id=row["id"], text=row["text"], source="benchmark") for row in rows]
tagger.predict(documents[0])
begin = time.process_time()
for document in documents:
    tagger.predict(document)
seconds = time.process_time() - begin
size = sum(len(row["text"].encode()) for row in rows)
print(json.dumps({"seconds": seconds, "bytes": size, "decisions": []}))
