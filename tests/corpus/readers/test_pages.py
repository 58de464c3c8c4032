"""Files that are one document: notebooks, source trees, large texts."""

import json
import random
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jaxlm.config.corpus import Limits, Source
from jaxlm.corpus.listing import files
from jaxlm.corpus.readers import Bad, Record, read

NOTEBOOK: dict[str, Any] = {
    "nbformat": 4,
    "metadata": {"language_info": {"name": "julia"}},
    "cells": [
        {"cell_type": "markdown", "source": ["# Title\n", "Some *text*."]},
        {"cell_type": "code", "source": "x = 1\nx", "outputs": [
            {"output_type": "stream", "name": "stdout", "text": ["printed\n"]},
            {"output_type": "execute_result", "data": {"text/plain": "1", "image/png": "AAAA"}},
            {"output_type": "error", "traceback": ["no"]},
        ]},
        {"cell_type": "raw", "source": "raw"},
        {"cell_type": "code", "source": []},
    ],
}  # fmt: skip


def records(path: Path, limits: Limits | None = None, **keys: Any) -> list[Record | Bad]:
    source = Source(name="s", path=str(path), **keys)
    return [r for file in files(source) for r in read(source, file, limits or Limits())]


def test_a_notebook_without_and_with_outputs(tmp_path: Path) -> None:
    path = tmp_path / "x.ipynb"
    path.write_text(json.dumps(NOTEBOOK))
    code = "```julia\nx = 1\nx\n```"
    meta = b'{"programming_language": "julia"}'
    assert records(path) == [
        Record("x.ipynb", f"# Title\nSome *text*.\n\n{code}".encode(), meta)
    ]  # fmt: skip
    (found,) = records(path, notebook_outputs=True, extract="plain")
    assert isinstance(found, Record)
    outputs = "```\nprinted\n```\n\n```\n1\n```"
    assert found.text.decode() == f"Title\nSome text.\n\n{code}\n\n{outputs}"


def test_an_old_notebook(tmp_path: Path) -> None:
    sheet = {"cells": [{"cell_type": "heading", "source": "Old"},
                       {"cell_type": "code", "input": "y", "outputs": []}]}  # fmt: skip
    path = tmp_path / "x.ipynb"
    path.write_text(json.dumps({"worksheets": [sheet], "metadata": {}}))
    (found,) = records(path)
    assert isinstance(found, Record)
    assert found.text == b"# Old\n\n```python\ny\n```"


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"cells": 1}', '{"cells": [1]}', '{"worksheets": [1]}',
     '{"cells": [{"cell_type": "code", "source": {"a": 1}}]}', "[" * 100_000],
)  # fmt: skip
def test_no_notebook(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.ipynb").write_text(content)
    (found,) = records(tmp_path / "x.ipynb")
    assert isinstance(found, Bad)
    assert found.rule == "invalid_notebook"


def test_a_source_tree(tmp_path: Path) -> None:
    tree = {
        "src/main.py": b"print(1)\n",
        "src/Makefile": b"all:\n",
        "src/x.ipynb": json.dumps(NOTEBOOK).encode(),
        "src/latin.c": "// größer\n".encode("latin-1") * 5,
        "README.md": b"# Readme\n",
        "node_modules/x/index.js": b"x\n",
        "static/jquery.min.js": b"x\n",
        "static/app.js": b"var a=1;" * 1000,
        "static/data.json": b'{"a": 1}\n',
        "static/wide.sql": (b"x" * 300 + b"\n") * 10,
        "bin/tool.py": b"\x7fELF\x00\x01",
        "LICENSE": b"MIT\n",
        "picture.png": b"\x89PNG\r\n\x1a\n\x00",
        "empty.py": b"",
    }
    for name, content in tree.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    found = records(tmp_path / "**" / "*", format="code")
    assert {r.id: r.rule if isinstance(r, Bad) else json.loads(r.meta)["programming_language"]
            for r in found} == {
        "src/main.py": "Python", "src/Makefile": "Makefile", "src/x.ipynb": "julia",
        "src/latin.c": "C", "README.md": "Markdown", "node_modules/x/index.js": "vendored",
        "static/jquery.min.js": "minified", "static/app.js": "minified",
        "static/data.json": "JSON", "static/wide.sql": "minified", "bin/tool.py": "binary",
        "LICENSE": "unknown_format", "picture.png": "unknown_format", "empty.py": "empty",
    }  # fmt: skip
    texts = {r.id: r.text.decode() for r in found if isinstance(r, Record)}
    assert texts["src/latin.c"].startswith("// größer")


def test_a_page_in_each_encoding_and_broken_ones(tmp_path: Path) -> None:
    long = "Съешь ещё этих мягких французских булок, да выпей чаю. " * 3
    (tmp_path / "1.txt").write_bytes(long.encode("koi8-r"))
    (tmp_path / "2.txt").write_bytes("Съешь ещё этих мягких булок".encode("utf-16"))
    (tmp_path / "3.txt").write_bytes(random.Random(1).randbytes(500).replace(b"\0", b"\1"))
    (tmp_path / "4.txt").write_bytes(b"\x93quoted\x94")
    assert [r.text.decode() if isinstance(r, Record) else r.rule
            for r in records(tmp_path / "*.txt")] == [
        long, "Съешь ещё этих мягких булок", "doubtful_encoding",
        "“quoted”",
    ]  # fmt: skip
    assert [
        r.rule for r in records(tmp_path / "4.txt", encoding="utf-8") if isinstance(r, Bad)
    ] == ["invalid_encoding"]


BIG = 100 * 1000 * 1000
SCRIPT = """
import resource, sys
from tests.corpus.readers.test_pages import *
limits = Limits() if sys.argv[2] == "default" else Limits(max_document_bytes=200 << 20,
                                                          max_line_bytes=400 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(found,) = records(Path(sys.argv[1]), limits)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(found.rule if isinstance(found, Bad) else len(found.text), grown * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.txt", "x.jsonl"])
@pytest.mark.parametrize("limits", ["default", "raised"])
def test_a_document_of_100_mb(tmp_path: Path, name: str, limits: str) -> None:
    line = b"Ten megabytes are not enough for anyone, and so on it goes.\\n"
    text = (line * (BIG // len(line) + 1))[:BIG]
    if name == "x.jsonl":
        text = b'{"text": "' + text + b'"}\n'
    (tmp_path / name).write_bytes(text)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / name, limits],
        cwd=Path(__file__).parents[3], text=True, capture_output=True, check=True,
    )  # fmt: skip
    what, grown = done.stdout.split()
    if limits == "default":
        assert what == ("max_document_bytes" if name == "x.txt" else "max_line_bytes")
        assert int(grown) < (96 << 20 if name == "x.txt" else 256 << 20)
    else:
        assert int(what) > 0.9 * BIG
        assert int(grown) < 6 * BIG


def test_memory_is_measured_in_kilobytes() -> None:
    """ru_maxrss is, on Linux; the test above relies on it."""
    if sys.platform == "linux":
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 10_000
