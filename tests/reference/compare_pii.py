"""Precision and recall of the stage `privacy`, of Dolma 1.2.1 and of datatrove 0.10.1 on pii.jsonl,
and why counts of Dolma differ on the documents of rule_decisions.jsonl.zst.

    python tests/reference/compare_pii.py DOLMA_PYTHON DATATROVE_PYTHON

The arguments are interpreters that have these packages, whose requirements do not go with ours.
A place counts as found where a span of the same kind overlaps it (Dolma's spans have the white
space around them); `exact` asks for the same characters. The tool runs itself in the interpreters
with the name of the package.
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, get_args

FOLDER = Path(__file__).parent
REGIONS = ("US", "GB", "FR", "DE", "CN")

type Found = list[list[Any]]


def dolma(texts: list[str], name: str = "pii_regex_v2") -> list[Found]:
    from dolma.core.data_types import Document
    from dolma.core.registry import TaggerRegistry
    from dolma.taggers import pii  # noqa: F401  registers the taggers

    kinds = {"EMAIL_ADDRESS": "email", "IP_ADDRESS": "ip", "PHONE_NUMBER": "phone"}
    tagger = TaggerRegistry.get(name)()
    out = []
    for text in texts:
        spans = tagger.predict(Document(source="s", id="i", version="v", text=text)).spans
        out.append([[s.start, s.end, kinds[s.type]] for s in spans if s.type in kinds])
    return out


def dolma_fast(texts: list[str]) -> list[Found]:
    """The tagger that Dolma's own configurations name."""
    return dolma(texts, "pii_regex_with_counts_fast_v2")


def datatrove(texts: list[str]) -> list[Found]:
    from datatrove.pipeline.formatters.pii import PIIFormatter

    formatter = PIIFormatter()
    out = []
    for text in texts:
        found = []
        for kind, replacer in (("email", formatter.emails_replacer), ("ip", formatter.ip_replacer)):
            for match in replacer.regex.finditer(text):
                if replacer.validator is None or replacer.validator(match[0]):
                    found.append([*match.span(), kind])
        out.append(found)
    return out


def ours(texts: list[str], regions: tuple[str, ...] = REGIONS) -> list[Found]:
    from jaxlm.config.privacy import Privacy, PrivateKind
    from jaxlm.corpus.documents import Strings
    from jaxlm.corpus.stages.privacy import find

    kinds = get_args(PrivateKind)
    strings = Strings.of(text.encode() for text in texts)
    out: list[Found] = [[] for _ in texts]
    for d, start, end, k in zip(*find(strings, Privacy(find=kinds, regions=regions)), strict=True):
        data, at = strings[d], strings.offsets[d]
        place = [len(data[: start - at].decode()), len(data[: end - at].decode()), kinds[k]]
        out[d].append(place)
    return out


def score(lines: list[dict[str, Any]], found: list[Found], exact: bool = False) -> dict[str, str]:
    """Kind -> precision and recall."""
    right: Counter[str] = Counter()
    hit: Counter[str] = Counter()
    said: Counter[str] = Counter()
    there: Counter[str] = Counter()
    for line, spans in zip(lines, found, strict=True):

        def same(a: list[Any], b: list[Any]) -> bool:
            return a == b if exact else a[2] == b[2] and a[0] < b[1] and b[0] < a[1]

        for span in spans:
            said[span[2]] += 1
            right[span[2]] += any(same(span, place) for place in line["spans"])
        for place in line["spans"]:
            there[place[2]] += 1
            hit[place[2]] += any(same(span, place) for span in spans)
    return {
        kind: f"{right[kind] / said[kind]:.3f} {hit[kind] / there[kind]:.3f}" if said[kind] else "-"
        for kind in there
    }


def reference() -> None:
    """Documents of rule_decisions with another count than Dolma's, by reason."""
    import zstandard

    with zstandard.open(FOLDER / "rule_decisions.jsonl.zst", "rt", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    texts = [record["text"] for record in records]
    mine = [
        [span for span in found if span[2] in ("email", "ip", "phone")]
        for found in ours(texts, ("US",))
    ]
    theirs = elsewhere(sys.argv[1], "dolma_fast", texts)
    equal, classes = 0, Counter[str]()
    examples: dict[str, list[str]] = {}
    for record, text, a, b in zip(records, texts, mine, theirs, strict=True):
        assert len(b) == record["dolma_pii"], record["id"]
        equal += len(a) == len(b)
        for own, other, who in ((a, b, "only ours"), (b, a, "only Dolma's")):
            for start, end, kind in own:
                if not any(x[2] == kind and x[0] < end and start < x[1] for x in other):
                    classes[f"{who}: {kind}"] += 1
                    examples.setdefault(f"{who}: {kind}", []).append(
                        text[max(0, start - 15) : end + 12]
                    )
    print(f"\nrule_decisions: equal counts in {equal} of {len(records)} documents")
    for name, count in classes.most_common():
        print(f"{count:4} {name}")
        if "-v" in sys.argv:
            print(*(f"       {example!r}" for example in examples[name]), sep="\n")


def elsewhere(python: str, package: str, texts: list[str]) -> list[Found]:
    done = subprocess.run(
        [python, __file__, package], input=json.dumps(texts), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    found: list[Found] = json.loads(done.stdout)
    return found


def main() -> None:
    taggers = {"dolma": dolma, "dolma_fast": dolma_fast, "datatrove": datatrove}
    if function := taggers.get(sys.argv[1]):
        print(json.dumps(function(json.load(sys.stdin))))
        return
    lines = [json.loads(line) for line in (FOLDER / "pii.jsonl").read_text("utf-8").splitlines()]
    texts = [line["text"] for line in lines]
    mine = ours(texts)
    columns = {
        "ours": score(lines, mine),
        "ours, exact": score(lines, mine, exact=True),
        "dolma": score(lines, elsewhere(sys.argv[1], "dolma", texts)),
        "dolma fast": score(lines, elsewhere(sys.argv[1], "dolma_fast", texts)),
        "datatrove": score(lines, elsewhere(sys.argv[2], "datatrove", texts)),
    }
    there = Counter(span[2] for line in lines for span in line["spans"])
    negatives = sum(not line["spans"] for line in lines)
    print(f"{there.total()} places; {negatives} texts without one; precision and recall\n")
    print(f"{'':12} {'':>6} " + " ".join(f"{name:>12}" for name in columns))
    for kind, number in there.items():
        row = " ".join(f"{column.get(kind, '-'):>12}" for column in columns.values())
        print(f"{kind:12} {number:6} {row}")
    reference()


if __name__ == "__main__":
    main()
