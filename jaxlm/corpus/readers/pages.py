"""Files that are one document each: text, HTML, Markdown, LaTeX, notebooks, source code."""

import ast
import email
import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from jaxlm.config.corpus import Limits, Source
from jaxlm.corpus.files import open_file, whole
from jaxlm.corpus.listing import InputFile, plain_suffix
from jaxlm.corpus.readers.encoding import Undecodable, declared_charset, decode
from jaxlm.corpus.readers.html import html_text
from jaxlm.corpus.readers.latex import latex_text
from jaxlm.corpus.readers.markdown import markdown_text
from jaxlm.corpus.readers.records import EXCERPT_BYTES, Bad, BrokenFileError, Record, pack, too_long

MAX_CODE_LINE = 5000
"""Characters; source code with a longer line is minified or data."""
MAX_MEAN_CODE_LINE = 200
_VENDORED = """
node_modules bower_components vendor vendors third_party thirdparty 3rdparty external site-packages
dist-packages __pycache__ .git .hg .svn .tox .venv venv .eggs dist build
"""
_MINIFIED = re.compile(r"[.-]min\.(?:js|css|mjs)$|\.bundle\.js$", re.I)
LANGUAGES = {
    name: language
    for language, names in {
        "Assembly": ".asm .s", "C": ".c .h", "C++": ".cc .cpp .cxx .hh .hpp .hxx", "C#": ".cs",
        "CMake": ".cmake CMakeLists.txt", "CSS": ".css .scss .less", "CUDA": ".cu .cuh",
        "Clojure": ".clj .cljs", "D": ".d", "Dart": ".dart", "Dockerfile": "Dockerfile",
        "Elixir": ".ex .exs", "Emacs Lisp": ".el", "Erlang": ".erl .hrl",
        "Fortran": ".f .f90 .f95 .f03", "F#": ".fs .fsx", "Go": ".go", "GraphQL": ".graphql",
        "Groovy": ".groovy .gradle", "HTML": ".html .htm", "Haskell": ".hs", "INI": ".ini .cfg",
        "JSON": ".json", "Java": ".java", "JavaScript": ".js .mjs .cjs .jsx", "Julia": ".jl",
        "Jupyter Notebook": ".ipynb", "Kotlin": ".kt .kts", "Lisp": ".lisp .lsp", "Lua": ".lua",
        "MATLAB": ".m", "Makefile": "Makefile .mk", "Markdown": ".md .markdown", "Nim": ".nim",
        "Nix": ".nix", "OCaml": ".ml .mli", "PHP": ".php", "Pascal": ".pas", "Perl": ".pl .pm",
        "PowerShell": ".ps1", "Prolog": ".pro", "Protocol Buffer": ".proto",
        "Python": ".py .pyi .pyx", "R": ".r", "Ruby": ".rb .rake", "Rust": ".rs", "SQL": ".sql",
        "Scala": ".scala", "Scheme": ".scm", "Shell": ".sh .bash .zsh", "Swift": ".swift",
        "SystemVerilog": ".sv .svh", "TOML": ".toml", "TeX": ".tex .sty .cls",
        "Text": ".txt .rst .org", "TypeScript": ".ts .tsx", "VHDL": ".vhd .vhdl",
        "Verilog": ".v .vh", "Vue": ".vue", "XML": ".xml", "YAML": ".yaml .yml", "Zig": ".zig",
    }.items()
    for name in names.split()
}  # fmt: skip
"""Suffix in lower case, or name of a file -> its language, by GitHub's names."""


def _page(
    source: Source, file: InputFile, limits: Limits, limit: int | None = None
) -> tuple[bytes, str] | Bad:
    """The bytes of a file and its text."""
    limit = limit or limits.max_document_bytes
    with open_file(file, limits) as stream:
        raw, size = whole(stream, limit)
    if raw is None:
        return too_long(file.name, max(size, file.size), limit)
    html = file.format == "html"
    text = decode(raw, source.encoding, declared_charset(raw) if html else None)
    if isinstance(text, Undecodable):
        return undecodable(file.name, raw, text)
    return raw, text


def undecodable(id: str, raw: bytes, why: Undecodable) -> Bad:
    """A document whose encoding is not sure."""
    head = raw[:EXCERPT_BYTES].decode(errors="backslashreplace")
    return Bad(id, why.rule, len(raw), why.value, None, head)


def plain(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """A file is a text."""
    limit = limits.max_document_bytes if source.split is None else limits.max_line_bytes
    page = _page(source, file, limits, limit)
    yield page if isinstance(page, Bad) else Record(file.name, page[1].encode())


def html(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """A page as text."""
    page = _page(source, file, limits)
    yield page if isinstance(page, Bad) else html_record(source, file.name, page[1])


def html_record(source: Source, id: str, page: str, meta: bytes = b"") -> Record | Bad:
    """The text of a decoded page."""
    try:
        text = html_text(page, source.extract)
    except Exception as error:
        # what a parser of C cannot take, it says in exceptions of its own
        reason = f"{type(error).__name__}: {error}"[:300]
        return Bad(id, "broken_html", len(page.encode()), reason, None, page[:300])
    return Record(id, text.encode(errors="replace"), meta)


def markdown(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """Markdown without front matter, or without all markup."""
    page = _page(source, file, limits)
    if isinstance(page, Bad):
        yield page
    else:
        yield Record(file.name, markdown_text(page[1], source.extract).encode())


def latex(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """The body of a LaTeX file as text with formulas."""
    page = _page(source, file, limits)
    yield page if isinstance(page, Bad) else Record(file.name, latex_text(page[1]).encode())


def notebook(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """The cells of a Jupyter notebook (nbformat 3 and 4): Markdown, and code between fences."""
    # outputs with pictures can be much longer than the text that is kept
    page = _page(source, file, limits, limits.max_line_bytes)
    if isinstance(page, Bad):
        yield page
        return
    raw, text = page
    try:
        content = json.loads(text)
        language, cells = _cells(content)
        parts = [part for cell in cells for part in _cell(source, cell, language)]
        out = "\n\n".join(parts).encode()
    except (ValueError, RecursionError) as error:
        yield Bad(file.name, "invalid_notebook", len(raw), str(error)[:200], None, text[:300])
        return
    yield Record(file.name, out, pack({"programming_language": language}))


def _cells(content: Any) -> tuple[str, list[dict[str, Any]]]:
    """The language and the cells of a notebook; ValueError where it has none."""
    if not isinstance(content, dict):
        raise ValueError("not an object")
    cells = content.get("cells")
    if cells is None:
        sheets = content.get("worksheets")
        if not isinstance(sheets, list) or not all(isinstance(sheet, dict) for sheet in sheets):
            raise ValueError("no cells")
        # nbformat 3; no one has seen a second sheet
        cells = sheets[0].get("cells") if sheets else []
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise ValueError("cells are no list of objects")
    language: Any = "python"
    for part, key in (("language_info", "name"), ("kernelspec", "language")):
        info = content.get("metadata")
        info = info.get(part) if isinstance(info, dict) else None
        if isinstance(info, dict) and isinstance(info.get(key), str):
            language = info[key]
            break
    return language, cells


def _cell(source: Source, cell: dict[str, Any], language: str) -> Iterator[str]:
    kind = cell.get("cell_type")
    text = _lines(cell.get("source", cell.get("input", "")))
    if not text.strip():
        return
    if kind == "code":
        yield f"```{language}\n{text.rstrip()}\n```"
        if source.notebook_outputs:
            outputs = cell.get("outputs")
            for output in outputs if isinstance(outputs, list) else ():
                shown = _output(output) if isinstance(output, dict) else ""
                if shown.strip():
                    yield f"```\n{shown.rstrip()}\n```"
    elif kind == "heading":
        yield f"# {text}" if source.extract == "main" else text
    elif kind == "markdown":
        yield markdown_text(text, source.extract).strip("\n")


def _output(output: dict[str, Any]) -> str:
    """What a cell printed or gave, as text."""
    data = output.get("data")
    found = output.get("text") or (data.get("text/plain") if isinstance(data, dict) else None)
    return _lines(found or "")


def _lines(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "".join(value)
    if not isinstance(value, str):
        raise ValueError("the source of a cell is no text")
    return value


def code(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """A file of a source tree, with its language by its name; what others wrote (vendored
    folders), what is binary, minified or of no known language is told."""
    path = PurePosixPath(file.name)
    language = LANGUAGES.get(path.name) or LANGUAGES.get(plain_suffix(file.name))
    folder = next((part for part in path.parts[:-1] if part.lower() in _VENDORED.split()), None)
    if folder is not None:
        yield Bad(file.name, "vendored", file.size, folder)
    elif language is None:
        yield Bad(file.name, "unknown_format", file.size, path.name)
    elif _MINIFIED.search(path.name):
        yield Bad(file.name, "minified", file.size, path.name)
    elif language == "Jupyter Notebook":
        yield from notebook(source, file, limits)
    else:
        page = _page(source, file, limits)
        yield page if isinstance(page, Bad) else _code_record(file.name, page[1], language)


def _code_record(id: str, text: str, language: str) -> Record | Bad:
    raw = text.encode()
    if language not in ("Markdown", "Text", "TeX", "HTML"):
        lines = text.split("\n")
        longest = max(map(len, lines))
        if longest > MAX_CODE_LINE:
            return Bad(id, "minified", len(raw), longest, MAX_CODE_LINE, text[:300])
        mean = len(text) / len(lines)
        if mean > MAX_MEAN_CODE_LINE:
            return Bad(id, "minified", len(raw), round(mean, 1), MAX_MEAN_CODE_LINE, text[:300])
    return Record(id, raw, pack({"programming_language": language}))


def pydoc(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """pydoc_data/topics.py: the language reference as one dict literal, a topic a document."""
    with open_file(file, limits) as stream:
        raw = stream.read(limits.max_line_bytes)
    try:
        tree = ast.parse(raw)
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
                for name, text in sorted(ast.literal_eval(node.value).items()):
                    yield Record(f"{file.name}:{name}", str(text).encode())
                return
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise BrokenFileError(str(error)[:200]) from None
    raise BrokenFileError("it holds no dict of topics")


def metadata(source: Source, file: InputFile, limits: Limits) -> Iterator[Record | Bad]:
    """The long description in an installed distribution's METADATA file."""
    page = _page(source, file, limits)
    if isinstance(page, Bad):
        yield page
        return
    message = email.message_from_string(page[1])
    text = str(message.get_payload() or message.get("Description") or "")
    yield Record(file.name, text.encode(errors="replace"))
