"""LaTeX becomes what a reader of the page reads; formulas and code stay."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as some

from jaxlm.corpus.readers.latex import latex_text

PAPER = r"""\documentclass[a4paper]{article} % a comment
\usepackage{amsmath}
\newcommand{\eg}{e.g.\ }
\newcommand{\pair}[2][a]{(#1, #2)}
\def\both#1#2{#1 and #2}
\title[Short]{On \emph{Things}}
\begin{document}
\maketitle
\begin{abstract}
What it is.
\end{abstract}
\section{Introduction}\label{sec:intro}
Caf\'e \"{o}ver 50\% of~it---\eg ``quoted'' \pair{b}, \pair[z]{c}, \both{x}{y}. % comment
% a whole line
Let $x^2 \le \alpha$ and \(y\) be\footnote{A \textbf{note}.} \cite{a,b}; see \url{http://x.org/~a_b}.
\begin{itemize}
  \item one
  \item[two] three
\end{itemize}
\begin{equation}\label{eq:e}
 a = b \\ \text{if } c \% d
\end{equation}
\[ z_1 \]
\begin{figure}[ht]\centering\includegraphics[width=1cm]{x}\caption{A caption with $k$.}\end{figure}
\begin{tabular}{l|r} a & b \\ c & d \end{tabular}
\begin{verbatim}
  100% \keep   {this}
\end{verbatim}
\href{http://x}{A link}, \unknown{an argument}, \textbf{bold \emph{deep}}.
\begin{thebibliography}{9}\bibitem{a} Left out.\end{thebibliography}
\end{document}
after"""


def test_a_paper() -> None:
    text = latex_text(PAPER)
    assert text.startswith("On Things\n\n")
    for part in (
        "What it is.",
        "\n\nIntroduction\n\nCafé över 50% of it—e.g. “quoted” (a, b), (z, c), x and y.",
        r"Let $x^2 \le \alpha$ and \(y\) be (A note.); see http://x.org/~a_b.",
        "- one\n",
        "- two three",
        "\\begin{equation}\\label{eq:e}\n a = b \\\\ \\text{if } c \\% d\n\\end{equation}",
        r"\[ z_1 \]",
        "A caption with $k$.",
        "  100% \\keep   {this}\n",
        "A link, an argument, bold deep.",
    ):
        assert part in text
    assert [line.split("&") for line in text.split("\n") if "&" in line] == [
        [" a ", " b"], [" c ", " d"],
    ]  # fmt: skip
    for part in ("comment", "usepackage", "sec:intro", "Left out", "after", "width", "article"):
        assert part not in text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r"\'e\`a\^{\i}\~n\c{c}\v s\H{o}\ss\ \o{} \AA ngstr\"om", "éàîñçšőß ø Ångström"),
        (r"a \% b \& c \_ d \# e \$ f \{g\}", "a % b & c _ d # e $ f {g}"),
        (r"100\%% gone", "100%"),
        (r"line\\[2pt]next", "line\nnext"),
        ("costs $5 and\n\n$6 more", "costs $5 and\n\n$6 more"),
        (r"open {\bf group", "open {group"),
        (r"\begin{equation} never ends", r"\begin{equation} never ends"),
        (r"\verb|a%b| \verb+\x+", r"a%b \x"),
        ("", ""),
    ],
)
def test_small_things(source: str, text: str) -> None:
    assert latex_text(source) == text.replace("{group", "group")


def test_macros_that_explode_and_groups_that_nest_end_soon() -> None:
    begin = time.process_time()
    bomb = "".join(rf"\def\m{chr(97 + i)}{{\m{chr(98 + i)}\m{chr(98 + i)}}}" for i in range(25))
    assert len(latex_text(bomb + r"\def\mz{zz}\ma")) < 20 << 20
    latex_text(r"\def\x{\x\x}\x")
    latex_text(r"\footnote{" * 20000)
    latex_text("{" * 100000)
    latex_text(r"\begin{verbatim}" * 20000)
    latex_text(" " * 1_000_000 + "x")
    assert time.process_time() - begin < 60


TOKENS = ["\\", "{", "}", "[", "]", "$", "$$", "%", "\n", "\\begin{", "\\end{", "itemize}", "#1",
          "equation}", "\\newcommand{\\a}", "\\a", "\\def\\b", "\\item", "\\verb", "\\'", "~", "--",
          "\\footnote{", "tabular}", "verbatim}", "\\[", "\\)", "x"]  # fmt: skip


@given(some.lists(some.sampled_from(TOKENS) | some.text(max_size=4)).map("".join))
def test_arbitrary_source_is_text(source: str) -> None:
    latex_text(source).encode(errors="replace")
