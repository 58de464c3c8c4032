"""HTML -> text: the main content (resiliparse) or all of it (selectolax), with readable maths."""

import re
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# What a browser shows as a block of its own.
_BLOCKS = (
    "address article aside blockquote caption center dd details dialog div dl dt fieldset "
    "figcaption figure footer form h1 h2 h3 h4 h5 h6 header hr li main nav ol option p pre section "
    "summary table tbody tfoot thead title tr ul"
).replace(" ", ",")
_UNSEEN = ["script", "style", "template", "iframe", "object", "svg", "head"]
_BLOCK, _NEWLINE, _SPACE = "\x1c", "\x1d", "\x1e"  # stand for themselves past the white space

_SIGNS_OF_MATHS = ("<math", "<MATH", "math/tex", "katex", "mjx-container")
# A formula with all its renderings; the outermost that holds it is replaced by its source.
_FORMULAS = (
    ".mwe-math-element",
    ".katex-display",
    ".katex",
    "mjx-container",
    "script[type^='math/tex']",
    "math",
)
_RENDERINGS = ".MathJax, .MathJax_Display, .MathJax_SVG, .MathJax_Preview, .MathJax_CHTML"
# Elements of MathML by the order of their children.
_FORMS = {
    "msup": "{0}^{{{1}}}",
    "mover": "{0}^{{{1}}}",
    "msub": "{0}_{{{1}}}",
    "munder": "{0}_{{{1}}}",
    "msubsup": "{0}_{{{1}}}^{{{2}}}",
    "munderover": "{0}_{{{1}}}^{{{2}}}",
    "mfrac": r"\frac{{{0}}}{{{1}}}",
    "mroot": r"\sqrt[{1}]{{{0}}}",
}
MAX_NESTING = 512
"""As in Blink's parser."""
MAX_OPEN = 5000
"""Elements that are left open; such a page is not even parsed."""
_CLOSED_ALONE = frozenset(
    ["area", "base", "br", "col", "dd", "dt", "embed", "hr", "img", "input", "li", "link", "meta",
     "option", "p", "param", "source", "td", "th", "tr", "track", "wbr"]
)  # fmt: skip
_TAG = re.compile(r"<(/?)([A-Za-z][^\s/>]*)")
_NO_MARKUP = re.compile(r"<(script|style)\b.*?(?:</\1|\Z)|<!--.*?(?:-->|\Z)", re.I | re.S)
_ARITY = {"msubsup": 3, "munderover": 3}
MAX_DEPTH = 100
"""A formula that nests deeper is taken as its plain text."""


def html_text(page: str, extract: Literal["main", "plain"]) -> str:
    """The text of a page: `main` leaves out navigation, headers and other boilerplate; `plain` has
    every text that is not script or style. Formulas become LaTeX between dollar signs.

    Raises ValueError for a page of more than MAX_NESTING elements within each other: parsers take
    time that grows with the square of its length.
    """
    if _nests_too_deep(page):
        raise ValueError(f"more than {MAX_NESTING} elements within each other")
    if any(sign in page for sign in _SIGNS_OF_MATHS):
        page = _with_latex(page)
    if extract == "main":
        from resiliparse.extract.html2text import extract_plain_text

        return extract_plain_text(page, main_content=True, alt_texts=False)
    return _plain(page)


def _nests_too_deep(page: str) -> bool:
    """By ever closer looks: the tags that are open at a time if none closes by itself, those of
    elements that can hold others, and the depth of the tree."""
    raw = np.frombuffer(page.encode(errors="replace") + b" ", np.uint8)
    after = raw[np.flatnonzero(raw[:-1] == ord("<")) + 1]
    letter = (after | 0x20) - ord("a") < 26
    if _most_open(letter.astype(np.int64) - (after == ord("/"))) <= MAX_NESTING:
        return False
    tags = _TAG.findall(_NO_MARKUP.sub("", page))
    steps = [-1 if slash else 1 for slash, name in tags if name.lower() not in _CLOSED_ALONE]
    found = _most_open(np.array(steps, np.int64))
    if not MAX_NESTING < found <= MAX_OPEN:
        return found > MAX_OPEN
    return _depth(page) > MAX_NESTING


def _most_open(steps: NDArray[np.int64]) -> int:
    """How far the sum of +1 and -1 rises above its lowest point before."""
    open_tags = np.concatenate([np.zeros(1, np.int64), np.cumsum(steps)])
    return int((open_tags - np.minimum.accumulate(open_tags)).max())


def _depth(page: str) -> int:
    """Elements within each other."""
    from selectolax.lexbor import LexborHTMLParser

    node, depth, deepest = LexborHTMLParser(page).root, 0, 0
    while node is not None:
        if node.child is not None:
            node, depth = node.child, depth + 1
            deepest = max(deepest, depth)
            continue
        while node is not None and node.next is None:
            node, depth = node.parent, depth - 1
        node = node.next if node is not None and depth > 0 else None
    return deepest


def _plain(page: str) -> str:
    from selectolax.lexbor import LexborHTMLParser

    for mark in (_BLOCK, _NEWLINE, _SPACE):
        page = page.replace(mark, " ")
    tree = LexborHTMLParser(page)
    titles = [node.text() for node in tree.css("head > title")[:1]]
    tree.strip_tags(_UNSEEN)
    for node in tree.css("br"):
        node.replace_with(_NEWLINE)
    for node in tree.css(_BLOCKS):
        node.insert_before(_BLOCK)
        node.insert_after(_BLOCK)
    for node in tree.css("td, th"):
        node.insert_after(_SPACE)
    for node in tree.css("pre, textarea"):
        whole = node.text().replace("\n", _NEWLINE).replace(" ", _SPACE).replace("\t", _SPACE * 4)
        node.replace_with(whole)
    text = _BLOCK.join([*titles, tree.text()])
    text = re.sub(r"[ \t\n\r\f]+", " ", text)
    text = re.sub(f" ?{_NEWLINE} ?", "\n", text)
    text = re.sub(f"(?<![ {_SPACE}\n])[ {_SPACE}\n]*{_BLOCK}[ {_BLOCK}\n]*", "\n", text)
    return text.replace(_SPACE, " ").strip("\n")


def _with_latex(page: str) -> str:
    """The page with each formula as text: its own LaTeX where it has it (an annotation, alttext,
    a script of MathJax), else LaTeX made of its MathML."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(page)
    for node in tree.css(_RENDERINGS):
        # the script beside it has the source; MathML may be inside
        if node.css_first("math") is None:
            node.decompose()
    for selector in _FORMULAS:
        for node in tree.css(selector):
            source = _source(node)
            if source:
                node.replace_with(source)
    return tree.html or ""


def _source(node: Any) -> str | None:
    """The LaTeX of a formula's node, between dollar signs; None where it holds no maths."""
    if node.tag == "script":
        display = "mode=display" in (node.attributes.get("type") or "")
        latex = node.text()
    else:
        maths = node if node.tag == "math" else node.css_first("math")
        if maths is None:
            return None
        display = maths.attributes.get("display") == "block" or "katex-display" in (
            node.attributes.get("class") or ""
        )
        note = maths.css_first("annotation[encoding='application/x-tex']")
        latex = note.text() if note is not None else maths.attributes.get("alttext") or ""
        latex = latex or _mathml(maths, 0)
    latex = latex.strip().removeprefix(r"{\displaystyle").strip()
    if latex.count("}") > latex.count("{"):
        latex = latex.removesuffix("}").strip()
    if not latex:
        return None
    latex = latex.strip("$")
    return f"$${latex}$$" if display else f"${latex}$"


def _mathml(node: Any, depth: int) -> str:
    """Presentation MathML (W3C MathML Core, section 3) as LaTeX."""
    if depth > MAX_DEPTH:
        return str(node.text())
    children = [child for child in node.iter() if not child.tag.startswith("annotation")]
    if not children:
        text = " ".join(str(node.text()).split())
        return rf"\text{{{text}}}" if node.tag == "mtext" and text else text
    parts = [_mathml(child, depth + 1) for child in children]
    if node.tag in _FORMS and len(parts) == _ARITY.get(node.tag, 2):
        return _FORMS[node.tag].format(*parts)
    if node.tag == "msqrt":
        return rf"\sqrt{{{' '.join(parts)}}}"
    if node.tag == "mfenced":
        return f"({', '.join(parts)})"
    if node.tag == "mtr":
        return " & ".join(parts)
    if node.tag == "mtable":
        return r" \\ ".join(parts)
    return " ".join(part for part in parts if part)
