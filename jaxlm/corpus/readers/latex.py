"""LaTeX -> text: the body without comments and commands, formulas as they were written."""

import re
import unicodedata
from dataclasses import dataclass, field

MAX_DEPTH = 50
"""Groups and macros that nest deeper are kept as their source."""
GROWTH = 10
"""A text whose macros make it longer than this factor (plus 1 MB) is kept without expanding."""

_COMMENT = re.compile(
    r"(\\verb\*?([^A-Za-z\s*])[^\n]*?\2|\\url\s*\{[^{}\n]*\})"
    r"|(?<!\\)((?:\\\\)*)%[^\n]*\n?[ \t]*"
)
_VERBATIM = re.compile(r"\\begin\{(verbatim\*?|lstlisting|minted|Verbatim|alltt)\}")
_BODY = re.compile(r"\\begin\s*\{document\}(.*?)(?:\\end\s*\{document\}|\Z)", re.S)
_TITLE = re.compile(r"\\title\s*(?:\[[^\]]*\])?\s*(?=\{)")
_MATHS = """
math displaymath equation equation* align align* alignat alignat* gather gather* multline multline*
eqnarray eqnarray* flalign flalign* IEEEeqnarray IEEEeqnarray* tikzcd
"""
_LEFT_OUT = """
thebibliography tikzpicture tikzpicture* pgfpicture pspicture picture CCSXML comment filecontents
filecontents*
"""
_CODE = ("verbatim", "verbatim*", "lstlisting", "minted", "Verbatim", "alltt")
_TABLES = ("tabular", "tabular*", "tabularx", "longtable", "array", "tabulary")
# Commands whose argument, or two arguments, are no text.
_DROPPED_ONE = """
label ref eqref pageref autoref cref Cref nameref vref cite citep citet citealp citealt citeauthor
citeyear citeyearpar nocite parencite textcite autocite footcite bibliography bibliographystyle
includegraphics input include usepackage documentclass pagestyle thispagestyle vspace hspace vskip
hskip index glossary date thanks graphicspath addbibresource hypersetup pagenumbering linespread
color pagecolor cline cmidrule bibitem phantom hphantom vphantom email affiliation orcid
"""
_DROPPED_TWO = """
setlength addtolength setcounter addtocounter newtheorem definecolor rule numberwithin
addcontentsline renewenvironment
"""
_DROPPED = dict.fromkeys(_DROPPED_ONE.split(), 1) | dict.fromkeys(_DROPPED_TWO.split(), 2)
# Commands of two arguments whose last is the text.
_SECOND = """
href textcolor colorbox hyperref fontsize parbox raisebox resizebox scalebox rotatebox adjustbox
"""
_HEADINGS = """
part chapter section subsection subsubsection paragraph subparagraph title caption
"""
_SIGNS = {
    "ldots": "…", "dots": "…", "textellipsis": "…", "ss": "ß", "o": "ø", "O": "Ø", "l": "ł",
    "L": "Ł", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "aa": "å", "AA": "Å", "i": "ı", "j": "ȷ",
    "S": "§", "P": "¶", "copyright": "©", "textcopyright": "©", "pounds": "£", "euro": "€",
    "textendash": "–", "textemdash": "—", "textbackslash": "\\", "textasciitilde": "~",
    "textasciicircum": "^", "textbar": "|", "textless": "<", "textgreater": ">", "LaTeX": "LaTeX",
    "TeX": "TeX", "par": "\n\n", "newline": "\n", "linebreak": "\n", "newpage": "\n\n",
    "quad": " ", "qquad": " ", "textregistered": "®", "texttrademark": "™", "textdegree": "°",
    "guillemotleft": "«", "guillemotright": "»", "textquotedblleft": "“", "textquotedblright": "”",
}  # fmt: skip
_ACCENTS = {
    "'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "=": "\u0304",
    ".": "\u0307", "u": "\u0306", "v": "\u030c", "H": "\u030b", "c": "\u0327", "k": "\u0328",
    "d": "\u0323", "b": "\u0331", "r": "\u030a",
}  # fmt: skip
_TOKEN = re.compile(
    r"\\([A-Za-z@]+)\*?[ \t]*\n?(?!\n)[ \t]*|\\(.)|(\$\$|\$)|([{}])|(~)|(---?|``|'')", re.S
)
_TRAILING = re.compile(r"(?<![ \t])[ \t]+\n")
_OPTION = re.compile(r"\s*\[(?:[^\[\]{}]|\{[^{}]*\}|\[[^\[\]]*\])*\]")
_NAME = re.compile(r"\s*\{([^{}\n]*)\}")
_DEFINITION = re.compile(
    r"\\(?:re|provide)?(?:newcommand|DeclareMathOperator|DeclareRobustCommand)\*?\s*"
    r"(?:\{\s*\\([A-Za-z@]+)\s*\}|\\([A-Za-z@]+))\s*(?:\[(\d)\])?\s*(\[[^\]]*\])?\s*(?=\{)"
    r"|\\[gex]?def\s*\\([A-Za-z@]+)\s*((?:#\d)*)\s*(?=\{)"
)


@dataclass(frozen=True)
class _Macro:
    arguments: int
    default: str | None
    body: str


@dataclass
class _Reader:
    """Where the reading of one text is."""

    text: str
    macros: dict[str, _Macro]
    budget: list[int]
    depth: int = 0
    at: int = 0
    out: list[str] = field(default_factory=list)

    def inside(self, text: str) -> str:
        """The text of a piece of source."""
        if self.depth >= MAX_DEPTH:
            return text
        return _Reader(text, self.macros, self.budget, self.depth + 1).read()

    def argument(self) -> str:
        """The source of the next group, or the next character; past it."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        if self.text.startswith("{", self.at):
            end = _group_end(self.text, self.at)
            found = self.text[self.at + 1 : end - 1]
            self.at = end
            return found
        token = re.compile(r"\\[A-Za-z]+|\\?.|\Z", re.S).match(self.text, self.at)
        assert token is not None
        self.at = token.end()
        return token.group()

    def option(self) -> str | None:
        """The source of an argument in brackets, if one comes next."""
        found = _OPTION.match(self.text, self.at)
        if found is None:
            return None
        self.at = found.end()
        return found.group().strip()[1:-1]

    def read(self) -> str:
        """The text of all that is left."""
        while found := _TOKEN.search(self.text, self.at):
            self.out.append(self.text[self.at : found.start()])
            self.at = found.end()
            command, escaped, dollar, _brace, tie, dash = found.groups()
            if command:
                self.command(command, found.start())
            elif escaped:
                self.escape(escaped, found.start())
            elif dollar:
                self.maths(found.start(), dollar)
            elif tie:
                self.out.append(" ")
            elif dash:
                self.out.append({"--": "–", "---": "—", "``": "“", "''": "”"}[dash])
        self.out.append(self.text[self.at :])
        return "".join(self.out)

    def maths(self, start: int, closing: str) -> None:
        """A formula as it stands, up to its end (or the paragraph's, if it has none)."""
        pattern = re.compile(rf"(?<!\\)(?:\\\\)*{re.escape(closing)}|\n[ \t]*\n|\Z", re.S)
        found = pattern.search(self.text, self.at)
        assert found is not None
        end = found.end() if not found.group().startswith("\n") else found.start()
        self.out.append(self.text[start:end])
        self.at = end

    def escape(self, sign: str, start: int) -> None:
        """A command of one sign: \\% \\' \\\\ \\( ..."""
        if sign in "([":
            self.maths(start, {"(": "\\)", "[": "\\]"}[sign])
        elif sign in _ACCENTS:
            self.accent(sign)
        elif sign == "\\":
            self.option()
            self.out.append("\n")
        elif sign in "%&_#${}":
            self.out.append(sign)
        elif sign in " \n,;:":
            self.out.append(" ")
        # what is left are hints: \\/ \\- \\! \\@

    def accent(self, sign: str) -> None:
        """A letter with a mark."""
        letter = self.argument().strip()
        letter = {"\\i": "i", "\\j": "j"}.get(letter, letter)
        inner = self.inside(letter)
        self.out.append(unicodedata.normalize("NFC", inner[:1] + _ACCENTS[sign]) + inner[1:]
                        if inner else "")  # fmt: skip

    def command(self, name: str, start: int) -> None:
        """A command by its name."""
        if name == "begin":
            self.environment(start)
        elif name == "end":
            if found := _NAME.match(self.text, self.at):
                self.at = found.end()
            self.out.append("\n")
        elif name in self.macros:
            self.macro(self.macros[name])
        elif name in _DROPPED:
            if self.out:
                self.out[-1] = self.out[-1].rstrip(" ")
            while self.option() is not None:
                pass
            for _ in range(_DROPPED[name]):
                if re.compile(r"\s*\{").match(self.text, self.at):
                    self.argument()
        elif name in _HEADINGS.split():
            self.option()
            self.out.append(f"\n\n{self.inside(self.argument()).strip()}\n\n")
        elif name == "footnote":
            self.option()
            self.out.append(f" ({self.inside(self.argument()).strip()})")
        elif name == "item":
            label = self.option()
            while self.text.startswith((" ", "\n"), self.at):
                self.at += 1
            self.out.append(f"\n- {self.inside(label)} " if label else "\n- ")
        elif name in _SECOND.split():
            self.option()
            if re.compile(r"\s*\{").match(self.text, self.at):
                self.argument()
        elif name == "verb":
            found = re.compile(r"(\W)(.*?)(?:\1|$)", re.S | re.M).match(self.text, self.at)
            if found:
                self.out.append(found.group(2))
                self.at = found.end()
        elif name in ("url", "path", "nolinkurl"):
            self.out.append(self.argument())
        elif name in _ACCENTS and re.compile(r"\s*[{A-Za-z\\]").match(self.text, self.at):
            self.accent(name)
        elif name in _SIGNS:
            self.out.append(_SIGNS[name])
            if self.text.startswith("{}", self.at):
                self.at += 2
        else:
            self.option()  # of an unknown command the groups are read as text

    def environment(self, start: int) -> None:
        """What stands between \\begin and \\end."""
        found = _NAME.match(self.text, self.at)
        if found is None:
            return
        name = found.group(1).strip()
        self.at = found.end()
        if name not in (*_MATHS.split(), *_LEFT_OUT.split(), *_CODE):
            self.out.append("\n")
            self.option()
            if name in _TABLES:
                columns = 2 if name in ("tabular*", "tabularx", "tabulary") else 1
                for _ in range(columns):
                    self.option()
                    self.argument()
            return
        closing = f"\\end{{{name}}}"
        end = self.text.find(closing, self.at)
        inner = self.text[self.at : end if end >= 0 else len(self.text)]
        self.at = end + len(closing) if end >= 0 else len(self.text)
        if name in _MATHS.split():
            self.out.append(self.text[start : self.at])
        elif name in _CODE:
            inner = _OPTION.sub("", inner, count=1) if _OPTION.match(inner) else inner
            if name == "minted":
                inner = _NAME.sub("", inner, count=1)
            self.out.append(inner)

    def macro(self, macro: _Macro) -> None:
        """Put in what the author's own command stands for."""
        given: list[str] = []
        if macro.default is not None:
            option = self.option()
            given.append(macro.default if option is None else option)
        while len(given) < macro.arguments:
            given.append(self.argument())
        body = re.sub(
            r"#([1-9])",
            lambda found: given[int(found[1]) - 1] if int(found[1]) <= len(given) else "",
            macro.body,
        )
        self.budget[0] -= len(body) + 1
        if self.budget[0] > 0:
            self.out.append(self.inside(body))


def _group_end(text: str, at: int) -> int:
    """Just behind the brace that closes the one at `at`; the end of the text if none does."""
    depth = 0
    for found in re.compile(r"\\.|[{}]", re.S).finditer(text, at):
        if found.group() == "{":
            depth += 1
        elif found.group() == "}":
            depth -= 1
            if depth == 0:
                return found.end()
    return len(text)


def _definitions(text: str) -> tuple[str, dict[str, _Macro]]:
    """The text without the definitions of commands, and these."""
    macros: dict[str, _Macro] = {}
    out, at = [], 0
    while found := _DEFINITION.search(text, at):
        out.append(text[at : found.start()])
        end = _group_end(text, found.end())
        braced, bare, count, default, defined, hashes = found.groups()
        name = braced or bare or defined
        arguments = int(count or 0) if defined is None else hashes.count("#")
        macros[name] = _Macro(
            arguments, default[1:-1] if default else None, text[found.end() + 1 : end - 1]
        )
        at = end
    return "".join([*out, text[at:]]), macros


def latex_text(text: str) -> str:
    """What a reader of the printed page would read, in the order of the source.

    Comments, preamble, labels, citations, pictures and bibliography go; headings, captions,
    footnotes (in brackets), items and cells stay; the author's own commands are expanded in text.
    Formulas, in line and displayed, and verbatim code stay as they were written.
    """
    text = text.replace("\r\n", "\n")
    text, macros = _definitions(_without_comments(text))
    found_body = _BODY.search(text)
    if found_body is not None:
        title = _TITLE.search(text, 0, found_body.start())
        body = found_body.group(1)
        if title is not None:
            end = _group_end(text, title.end())
            body = f"{text[title.start() : end]}\n\n{body}"
        text = body
    reader = _Reader(text, macros, [GROWTH * len(text) + (1 << 20)])
    return re.sub(r"\n{3,}", "\n\n", _TRAILING.sub("\n", reader.read())).strip()


def _without_comments(text: str) -> str:
    """From % to the end of the line, but not in verbatim code."""
    pieces, at = [], 0
    while found := _VERBATIM.search(text, at):
        closing = f"\\end{{{found[1]}}}"
        end = text.find(closing, found.end())
        if end < 0:
            break
        end += len(closing)
        pieces += [_COMMENT.sub(r"\1\3", text[at : found.start()]), text[found.start() : end]]
        at = end
    return "".join([*pieces, _COMMENT.sub(r"\1\3", text[at:])])
