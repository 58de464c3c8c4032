"""The report: what the records say stands on the page, and nothing from a document acts there."""

import base64
import hashlib
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from jaxlm.errors import UserError
from jaxlm.reports import write_report
from jaxlm.workdir import Workdir
from tests.reports.conftest import entry, example, metric, write_lines

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails where tags do not close in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)


def test_figures_of_the_records_stand_on_the_page(workdir: Workdir) -> None:
    text = Page(write_report(workdir)).text
    for fact in (
        "Finished: step 20 of 20, 2k tokens in 10s of steps",
        "1,001 79.8% of 1,254",  # documents kept
        "4.00 MB 75.5% of 5.30 MB",  # clean text
        "5.30 MB in 10s, 530 kB/s; 2.5s of CPU time in the stages, 2.12 MB a CPU second",
        "quality 1,001 79.8% 4.00 MB 75.5% 2.5s 2.12 MB",  # after the stage, CPU time, speed
        "kept 81.0% 80.0% 5.0% 0.3%",
        "1M 3.90 bytes a token",  # 3,901,000 bytes in 1,001,500 tokens
        "7,345,408",
        "quality.gopher.min_words took 19 of the 20 documents of code",
        "No document was judged by quality.gopher.min_stop_words",  # that a route asks for
        "quality.forum judged no document, with none of its rules (1)",
        "quality.gopher.max_words (at most 1,000): 1,234 judged, the highest value is 400 to 500",
        "quality.gopher.min_words at least 50 253 20.2% 20.2%",
        "web 1,234 234 19.0% 234 19.0% 1.00 MB 50",  # judged, fail, dropped, bytes, threshold
        "code 20 19 95.0% 19 95.0% 299 kB 50",
        "Dropped 20 of 253, at random",
        "Barely kept 3 of 1,001 that pass it",
        "value 0.25, threshold 0.1",
        "copy-0 web: drop, the same bytes, in favour of first",
        "web 75.0% 99.9% 75.0% 1,500 0.00",  # wanted, in the store, read, tokens, passes
        "code 25.0% 0.1% 25.0% 500 0.33",
        "bpe, 8,192 entries, abababababab ; ids stored as uint16",
        "web 980 1,000,000 99.9% 3.90 20 25,000 4.00",
        "code 1 1,500 0.1% 0.67 0 0 -",
        "web 25,000 4.1250 61.87 1.5321",
        "temperature 0.8, top-p 0.95, seed 7",
        "Once upon a time",
        "train: {steps: 20, batch_size: 4}",
    ):
        assert fact in text, fact


def test_charts_say_in_words_what_they_show(workdir: Workdir) -> None:
    page = Page(write_report(workdir))
    charts = page.source.split('<div class="charts">')[1]
    labels = re.findall(r'<svg [^>]*aria-label="([^"]*)"', charts)
    assert len(labels) == 5  # loss, learning rate, throughput, MFU, gradient norm
    assert all("steps 1 to 20" in (label or "") for label in labels)
    for svg in re.findall(r"<svg.*?</svg>", page.source, re.S):
        ET.fromstring(svg)
    readout = next(attrs["data-readout"] for tag, attrs in page.tags if tag == "figure")
    logged = dict(json.loads(readout or ""))["series"][1]
    assert logged == ["logged", [[step, f"{9 - 0.25 * step:.4g}"] for step in range(1, 21)]]


def test_a_dynamic_mixture_is_a_curve_of_steps_for_each_source(workdir: Workdir) -> None:
    lines = [metric(step, 5.0) for step in range(1, 9)]
    lines[3]["mixture"] = {
        "before": {"web": 0.75, "code": 0.25},
        "after": {"web": 0.5, "code": 0.5},
    }
    lines[5]["mixture"] = {"before": {"web": 0.5, "code": 0.5}, "after": {"web": 0.4, "code": 0.6}}
    write_lines(workdir.metrics, lines)
    page = Page(write_report(workdir))
    [figure] = [
        a for tag, a in page.tags if tag == "figure" and "code" in (a["data-readout"] or "")
    ]
    readout = dict(json.loads(figure["data-readout"] or ""))
    assert readout["steps"] == [1, 8]
    steps, web = [1, 4, 4, 4, 6, 6, 8], [75, 75, 50, 50, 50, 40, 40]
    assert readout["series"] == [
        ["web", [[step, f"{share}%"] for step, share in zip(steps, web, strict=True)]],
        ["code", [[step, f"{100 - share}%"] for step, share in zip(steps, web, strict=True)]],
    ]
    assert "Shares of sources, steps 1 to 8: web starts at 75%, ends at 40%" in page.source
    assert 'class="c0"' in page.source


def test_page_needs_no_network_and_same_records_give_same_bytes(workdir: Workdir) -> None:
    first = write_report(workdir).read_bytes()
    assert write_report(workdir).read_bytes() == first
    page = Page(workdir.report / "index.html")
    assert not [tag for tag, attrs in page.tags if tag in ("link", "img") or "src" in attrs]
    assert "://" not in page.source
    assert "@import" not in page.source
    assert "url(" not in page.source


def test_nothing_from_a_document_becomes_markup(workdir: Workdir) -> None:
    plain = [tag for tag, _ in Page(write_report(workdir)).tags]
    evil = "</pre></style></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
    write_lines(
        workdir.corpus / "ledger.jsonl.zst",
        [entry("web", f"{i}{evil}", f"same{evil}", stage="dedup.exact", excerpt=evil, partner=evil,
               value=evil, note=evil) for i in range(5)],
    )  # fmt: skip
    write_lines(
        workdir.corpus / "examples.jsonl.zst",
        [example(evil, evil, "gopher.min_words", True, text=evil, spans=[[0, i]])
         for i in range(5)],
    )  # fmt: skip
    write_lines(
        workdir.samples,
        [{"prompt": evil, "text": evil, "temperature": 1, "top_p": 1, "seed": 0, "step": 20}],
    )
    workdir.config.write_text(workdir.config.read_text() + f"# {evil}\n")
    stats = (workdir.corpus / "stats.json").read_text()
    (workdir.corpus / "stats.json").write_text(stats.replace('"web": {"kind": "web"', json.dumps(
        evil) + ': {"kind": ' + json.dumps(evil)))  # fmt: skip
    page = Page(write_report(workdir))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 1
    assert set(tags) <= set(plain)
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert page.text.count("<img src=x onerror=alert(2)>") >= 5 * 5 + 1 + 5 * 3 + 4


def test_only_our_script_may_run(workdir: Workdir) -> None:
    page = Page(write_report(workdir))
    script = page.source.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(a["content"] for _, a in page.tags if "http-equiv" in a)
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_empty_workdir_names_the_command_for_each_record(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path / "empty")
    with pytest.raises(UserError, match="no such folder"):
        write_report(workdir)
    workdir.path.mkdir()
    text = Page(write_report(workdir)).text
    assert "Not trained yet" in text
    for verb in ("prepare", "tokenizer", "tokenize", "train", "eval", "generate", "run"):
        assert f"jaxlm {verb} " in text


@pytest.mark.parametrize(
    "remove",
    [
        "corpus/stats.json",
        "corpus/ledger.jsonl.zst",
        "tokenizer/manifest.json",
        "tokens/manifest.json",
        "metrics.jsonl",
        "eval.json",
        "samples.jsonl",
        "config.yaml",
    ],
)
def test_any_record_may_be_missing(workdir: Workdir, remove: str) -> None:
    whole = Page(write_report(workdir)).text
    (workdir.path / remove).unlink()
    text = Page(write_report(workdir)).text
    assert " makes it." in text
    assert " makes it." not in whole


def test_a_corpus_of_an_earlier_version_gives_a_page(workdir: Workdir) -> None:
    for name in ("timings.json", "config.json", "examples.jsonl.zst"):
        (workdir.corpus / name).unlink()
    path = workdir.corpus / "stats.json"
    stats = json.loads(path.read_text())
    for source in stats["sources"].values():
        source["rules"] = {
            name: {"documents": count["documents"], "bytes": count["bytes"]}
            for name, count in source["rules"].items()
        }
    path.write_text(json.dumps(stats))
    text = Page(write_report(workdir)).text
    assert "quality.gopher.min_words took 19 of the 20 documents of code" in text
    assert "quality.gopher.max_words: dropped and changed nothing" in text
    assert "value 0.25, threshold 0.1, in favour of first" in text
    assert "judged no document" not in text
    assert "No document was judged" not in text


def test_what_made_a_rule_bite_is_marked(workdir: Workdir) -> None:
    write_lines(
        workdir.corpus / "examples.jsonl.zst",
        [example("web", "page", "gopher.min_words", True, text="中文 ### words # <b>",
                 characters=900, spans=[[3, 6], [13, 14]], **{"from": 100})],
    )  # fmt: skip
    write_lines(
        workdir.corpus / "ledger.jsonl.zst",
        [entry("web", "mail", "mask", stage="privacy", action="change", excerpt="to me@here now",
               spans=[[3, 10], [5000, 5010]])],
    )  # fmt: skip
    page = Page(write_report(workdir))
    assert "\n中文 <mark>###</mark> words <mark>#</mark> &lt;b&gt;</pre>" in page.source
    assert "characters 101 to 118 of 900" in page.text
    assert "\nto <mark>me@here</mark> now</pre>" in page.source


def test_a_page_of_many_rules_stays_small(workdir: Workdir) -> None:
    names = [f"gopher.min_rule_{i}" for i in range(60)]
    path = workdir.corpus / "stats.json"
    stats = json.loads(path.read_text())
    web = stats["sources"]["web"]
    count = web["rules"]["quality.gopher.min_words"] | {"histogram": list(range(100, 132))}
    web["rules"] = {f"quality.{name}": count for name in names}
    stats["sources"] = {f"source{i}": web for i in range(6)}
    path.write_text(json.dumps(stats))
    write_lines(
        workdir.corpus / "examples.jsonl.zst",
        (
            example(f"source{s}", f"{fell}{i}", name, fell, text="# " * 750, characters=10**6,
                    spans=[[k, k + 1] for k in range(0, 200, 2)])
            for name in names for s in range(6) for fell in (True, False) for i in range(20)
        ),
    )  # fmt: skip
    page = Page(write_report(workdir))
    assert sum(dict(attrs).get("class") == "example" for _, attrs in page.tags) >= 60 * 40
    assert len(page.source) < 8_000_000
    # every source has its turn among the examples
    assert "False0 source0:" in page.text
    assert "False0 source5:" in page.text
    assert "the first 50 of 100 places are marked" in page.text


def test_run_in_progress(workdir: Workdir) -> None:
    write_lines(workdir.metrics, [metric(step, 5.0) for step in range(1, 13)])
    with open(workdir.metrics, "a") as file:
        file.write('{"step": 13, "loss": 4.')
    text = Page(write_report(workdir)).text
    assert "In progress: step 12 of 20" in text
    assert "The last line of metrics.jsonl was still being written" in text


def test_losses_that_are_not_finite_are_told(workdir: Workdir) -> None:
    write_lines(workdir.metrics, [metric(s, [None, float("nan"), 5.0][s % 3]) for s in range(1, 7)])
    assert "4 logged losses are not finite" in Page(write_report(workdir)).text


def test_every_broken_record_is_told_at_once(workdir: Workdir) -> None:
    def damage(name: str, change: Callable[[bytes], bytes]) -> None:
        path = workdir.path / name
        path.write_bytes(change(path.read_bytes()))

    damage("corpus/stats.json", lambda data: data[:-5])
    damage("corpus/ledger.jsonl.zst", lambda data: data[:-3])
    damage("corpus/timings.json", lambda data: data.replace(b"10.0", b"-1"))
    damage("corpus/config.json", lambda data: data.replace(b'"stages"', b'"stage"'))
    damage("corpus/examples.jsonl.zst", lambda data: data + data[:9])
    damage("tokens/manifest.json", lambda data: data.replace(b'"tokens"', b'"toke"'))
    damage("metrics.jsonl", lambda data: data.replace(b'"step": 7,', b'"step": 7'))
    damage("eval.json", lambda data: b"\xff" + data)
    damage("config.yaml", lambda data: data + b"]")
    with pytest.raises(UserError) as caught:
        write_report(workdir)
    told = "\n".join(caught.value.messages)
    assert len(caught.value.messages) == 9
    for where in (
        "stats.json: ",
        "ledger.jsonl.zst: the zstd data ends too early",
        "timings.json: seconds: ",
        "config.json: prepare.stages: ",
        "examples.jsonl.zst: the zstd data ends too early",
        "manifest.json: sources.web.train.tokens: ",
        "metrics.jsonl:7: ",
        "eval.json: ",
        "config.yaml:7: ",
    ):
        assert where in told
    assert not (workdir.report / "index.html").exists()


def test_alarms_are_of_drops_and_cuts(workdir: Workdir) -> None:
    path = workdir.corpus / "stats.json"
    stats = json.loads(path.read_text())
    stats["sources"]["web"] |= {"max_bytes": 5_000_000, "cut_at_max_bytes": True}
    stats["sources"]["web"]["rules"]["quality.nfc"] = {"documents": 1234, "bytes": 9}
    path.write_text(json.dumps(stats))
    write_lines(
        workdir.corpus / "ledger.jsonl.zst",
        [entry("web", f"page-{i}", "nfc", action="change") for i in range(1234)],
    )
    text = Page(write_report(workdir)).text
    assert "web was read up to its max_bytes, 5.00 MB" in text
    assert "quality.nfc took" not in text
    assert "quality.gopher.min_words took 19 of the 20 documents of code" in text


def test_more_sources_than_colours(workdir: Workdir) -> None:
    stats = json.loads((workdir.corpus / "stats.json").read_text())
    stats["sources"] = {f"source{i}": stats["sources"]["web"] for i in range(30)}
    (workdir.corpus / "stats.json").write_text(json.dumps(stats))
    page = Page(write_report(workdir))
    classes = {attrs.get("class") or "" for _, attrs in page.tags}
    assert "key k8" in classes
    assert "key k9" not in classes
    assert "source29" in page.text
