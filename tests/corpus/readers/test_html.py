"""Pages become text; formulas stay readable."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as some

from jaxlm.corpus.readers.html import html_text

LONG = "The article goes on and on, with commas, and it does not end soon. " * 8
PAGE = f"""<html><head><title>The title</title><style>p {{}}</style></head><body>
<nav><a href="/">Home</a> <a href="/x">Elsewhere</a></nav>
<main><h1>Heading</h1><p>{LONG}</p>
<p>A <b>bold</b> and <a href="http://x">linked</a>
   word<br>and a line.</p>
<ul><li>one</li><li>two</li></ul>
<table><tr><td>a</td><td>b</td></tr><tr><td>c</td><td>d</td></tr></table>
<pre>def f(x):
    return  x
</pre><script>evil()</script></main>
<footer>Imprint</footer></body></html>"""


def test_main_leaves_navigation_out_and_plain_has_all_text() -> None:
    main, plain = html_text(PAGE, "main"), html_text(PAGE, "plain")
    for text in (main, plain):
        assert "A bold and linked word\nand a line." in text
        assert "def f(x):\n    return  x" in text
        assert "evil" not in text
        assert "p {}" not in text
    assert "Home" not in main
    assert "Imprint" not in main
    lines = plain.split("\n")
    assert lines[:3] == ["The title", "Home Elsewhere", "Heading"]
    assert {"one", "two", "a b", "c d", "Imprint"} <= set(lines)


MATHML = "<math><mfrac><mi>a</mi><msup><mi>b</mi><mn>2</mn></msup></mfrac></math>"
ANNOTATED = (
    '<math{}><semantics><mrow><mi>E</mi></mrow><annotation encoding="application/x-tex">'
    "E &lt; mc^2</annotation></semantics></math>"
)


@pytest.mark.parametrize("extract", ["main", "plain"])
@pytest.mark.parametrize(
    ("html", "latex"),
    [
        (ANNOTATED.format(""), "$E < mc^2$"),
        (ANNOTATED.format(' display="block"'), "$$E < mc^2$$"),
        ('<math alttext="x^{2}"><msup><mi>x</mi><mn>2</mn></msup></math>', "$x^{2}$"),
        # KaTeX shows the formula twice
        ('<span class="katex"><span class="katex-mathml">' + ANNOTATED.format("")
         + '</span><span class="katex-html" aria-hidden="true">E&lt;mc2</span></span>',
         "$E < mc^2$"),
        # Wikipedia
        ('<span class="mwe-math-element"><span style="display: none;">'
         '<math alttext="{\\displaystyle x^{2}}"><mi>x</mi></math></span>'
         '<img src="x.svg" alt="{\\displaystyle x^{2}}"></span>', "$x^{2}$"),
        # MathJax 2 and 3
        ('<span class="MathJax_Preview">?</span><span class="MathJax">a+b</span>'
         '<script type="math/tex">a<b</script>', "$a<b$"),
        ('<script type="math/tex; mode=display">a</script>', "$$a$$"),
        ('<mjx-container><svg></svg><mjx-assistive-mml><math><mi>x</mi><mo>=</mo><mn>1</mn></math>'
         '</mjx-assistive-mml></mjx-container>', "$x = 1$"),
        # only MathML
        (MATHML, r"$\frac{a}{b^{2}}$"),
        ("<math><msubsup><mo>∫</mo><mn>0</mn><mn>1</mn></msubsup><msqrt><mi>x</mi></msqrt></math>",
         r"$∫_{0}^{1} \sqrt{x}$"),
        ("<math><mroot><mi>x</mi><mn>3</mn></mroot><mtext>if </mtext></math>",
         r"$\sqrt[3]{x} \text{if}$"),
    ],
)  # fmt: skip
def test_formulas_become_latex(extract: str, html: str, latex: str) -> None:
    page = f"<html><body><main><p>{LONG}</p><p>so {html} holds</p></main></body></html>"
    text = html_text(page, "main" if extract == "main" else "plain")
    assert f"so {latex} holds" in text
    assert text.count(latex) == 1


def test_deep_and_odd_formulas_do_no_harm() -> None:
    deep = "<mrow>" * 300 + "<mi>x</mi>" + "</mrow>" * 300
    assert "x" in html_text(f"<p>a <math>{deep}</math></p>", "plain")
    assert html_text("<p>a <math></math> b</p>", "plain") == "a b"
    assert "{0}" in html_text("<math><mfrac><mi>{0}</mi><mi>{x}</mi></mfrac></math>", "plain")


TAGS = ["<p>", "</p>", "<div", ">", "<math>", "</math>", "<mfrac>", "<pre>", "<td>", "<br",
        "<!--", "&#x0;", "<script type='math/tex'>", "<svg>", "<template>", "<span class='katex'>",
        "&amp", "x"]  # fmt: skip


@given(some.lists(some.sampled_from(TAGS) | some.text(max_size=5)).map("".join))
def test_arbitrary_markup_is_text(page: str) -> None:
    for extract in ("main", "plain"):
        html_text(page, "main" if extract == "main" else "plain").encode(errors="replace")


@pytest.mark.parametrize(
    "tag", ["<div>", "<ul><li>", "<math>", "<table><td>", "<span class=katex>"]
)
@pytest.mark.parametrize("times", [1000, 100_000])
def test_a_tower_of_elements_is_refused_before_it_costs_time(tag: str, times: int) -> None:
    begin = time.process_time()
    with pytest.raises(ValueError, match="within each other"):
        html_text("<body>" + tag * times + "x", "main")
    assert time.process_time() - begin < 20


@pytest.mark.parametrize(
    "tag", ["<br>", "<p>", "<li>", "<img>", "<td>", "<option>", "<!-- <b> -->"]
)
def test_long_flat_pages_are_no_towers(tag: str) -> None:
    page = f"<html><body><script>for (i=0;i<n;) {'a<b;' * 9000}</script>{tag * 9000}<p>End."
    assert html_text(page, "plain").endswith("End.")
    # left open, but closed by the end of what they are in
    assert html_text("<div><a>x</div>" * 2000 + "<p>End.", "plain").endswith("End.")
