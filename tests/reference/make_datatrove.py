"""Makes datatrove.json: what datatrove 0.10.1 says of texts that try the corners of its rules, and
what its C4 filter makes of the documents of rule_decisions that it keeps.

    python3.12 -m venv VENV; VENV/bin/pip install datatrove==0.10.1 spacy zstandard regex
    VENV/bin/python tests/reference/make_datatrove.py

datatrove's requirements do not go with ours, so that it has an environment of its own.
"""

import hashlib
import json
from pathlib import Path

import zstandard
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.utils.text import split_into_words

FOLDER = Path(__file__).parent
BODY = "The brown cats and several dogs wandered with travellers, to be of use. "


def repeated(n: int, share: float) -> str:
    """Different words, among which four runs of n words come twice: this share of the text."""
    words = iter("".join(chr(97 + i // 26**k % 26) for k in range(8)) for i in range(10**6))
    runs = [" ".join(next(words) for _ in range(n)) for _ in range(4)]
    rest = round(4 * n * 8 / (9 * share)) - 8 * n
    return " ".join(f"{run} {' '.join(next(words) for _ in range(rest // 8))}" for run in runs * 2)


CORNERS = (
    "",
    " ",
    "\n",
    " \n\n ",
    "\n\na",
    "a\n",
    "one",
    "one two",
    "a b\n\na b\n\nc",
    "a b\na b\n\n\nc\n",
    "x\n\n\n\nx\n \nx",
    "ab c ab c a bc abc d e ab c ab c",
    "the the the the the the the the",
    "a b a b c d c d",
    BODY * 6,
    "\n".join(BODY + str(i) for i in range(8)),
    "\n".join(f"{i} {BODY}" for i in range(8)),
    BODY * 5 + " #" * 9,
    BODY * 5 + " ..." * 9,
    BODY * 5 + "......" * 9,
    BODY * 5 + "\u2026" * 9,
    "\n".join(f"- {BODY}" for _ in range(6)),
    "\n".join(f"  \u2022 {BODY}" for _ in range(6)),
    "\n".join(f"* {BODY}" for _ in range(6)),
    "\n".join(f"{BODY}and so on ...  " for _ in range(6)),
    "\r\n".join(f"{BODY}and so on\u2026" for _ in range(6)),
    "\n".join(f"{BODY}.. ." for _ in range(6)),
    "a i o " * 30,
    "internationalisation " * 30 + "the and",
    "water stone river " * 30,
    "The And To Of " * 30,
    "12 4.5 - : the and " * 20,
    "\u20ac \u2022 \u00a0 \uff11 \u0085 the of and " * 20,
    "line one.\x0bline two.\x0cline three.\x1cline four.\x1dfive.\x1esix.\x85seven.\u2028eight."
    "\u2029nine.",
    "This is a line.\nno end\nToo short.\n\n  Is this a line too?  \nSay \"this and that\"\n'It "
    "is so.'",
    "One two three. Four five six! Seven eight? Nine ten. Eleven twelve.",
    "Ends in dots...\nEnds in one\u2026\nEnds in two..\nHere is an end .. .",
    "A fact[1] is a fact [12].[3]\n[edit] History goes on here.\nNo end [citation needed]\nIs it "
    "so[]?\nNot [Edit] this [1,2].\n[\u0663] Other digits go.",
    "word " + "x" * 1000 + " is fine.\nword " + "x" * 1001 + " is not.",
    "We love JavaScript here.\nWe love Lorem Ipsum here.",
    "We love java[1]script here. {",
    "Lorem  ipsum is two spaces here.\nlorem ipsum without an end",
    "Say lorem ipsum here.\nAnd { here.",
    "Read our Terms of Use now.\nOur Cooie Policy is here.\nOur coo\u212aie policy is here.\nwe "
    "use "
    "cookies here {.\nPr\u0130vacy policy it is.",
    "javascript { is here.\nA { without an end\nAll is fine here.",
    "One.  Two. \" Three. ) four. ... Five!? six. U.S. seven. e.g. eight.\tNine.\u3002 ten 11. ok.",
    "Dr. Who went. He came!! \u201cYes?\u201d \u2014 no. (So.) And. \u00bfQue? a.b. c.D e.",
    *(repeated(n, (20.6 - n) / 100) for n in range(5, 11)),
    "\n".join(f"{i} line of words.\n\n\n\n" for i in range(3)) + "\n" * 30 + "And longer, is it "
    "not.",
    "short\nshort\nlong line that has more than thirty characters.\n\n\n",
    "A line that ends with a quote.\"\nA line that ends with space. \nAn end\u3002\nno",
    "exactly thirty characters here\nexactly thirty-one characters..\n",
    "same line here\nsame line here\n \n \n" + BODY,
    "a\n\n\n\nb",
    "\u4f60\u597d\u3002\u4e16\u754c\u3002\n\u4f60\u597d\u3002\u4e16\u754c\u3002",
    "don't can't I'm he'll they've it's dog's O'Neil 'quoted' \"so\" U.S.A. e.g., i.e.; Mr. "
    "Smith's "
    "10km 5% $5 5$ 3-4 a-b well-known x=y a/b and/or foo.Bar foo.bar http://a.b.c/d?e=f, me@x.org. "
    "C++ #1 __init__ (a) [b] {c} <d> wait... no\u2026 yes!!! ?! -- \u2014 a\u2014b 1990s. :) "
    ":-( ;)",
)  # fmt: skip


def main() -> None:
    with open(FOLDER / "rule_decisions.jsonl.zst", "rb") as file:
        lines = zstandard.ZstdDecompressor().stream_reader(file).read().decode().splitlines()
    filters = {
        "gopher_quality": GopherQualityFilter(),
        "gopher_repetition": GopherRepetitionFilter(),
        "c4": C4QualityFilter(),
        "fineweb": FineWebQualityFilter(),
    }
    out: dict[str, list[dict[str, object]]] = {"corners": [], "c4": []}
    for text in CORNERS:
        said: dict[str, object] = {"text": text, "words": split_into_words(text)}
        for name, rules in filters.items():
            document = Document(text, "i")
            answer = rules.filter(document)
            said[name] = "KEPT" if answer is True else answer[1]
            if name == "c4":
                said["c4_text"] = document.text
        out["corners"].append(said)
    for row in map(json.loads, lines):
        if row["datatrove_c4"] == "KEPT":
            document = Document(row["text"], "i")
            assert filters["c4"].filter(document) is True
            digest = hashlib.sha256(document.text.encode()).hexdigest()
            out["c4"].append({"id": row["id"], "sha256": digest})
    (FOLDER / "datatrove.json").write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
