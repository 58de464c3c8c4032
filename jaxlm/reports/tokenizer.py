"""The report of a tokenizer as lines for a terminal; the page shows the same (tokenizer.html)."""

from collections.abc import Iterator, Mapping

from jaxlm.reports.records import Fertility, TokenizerFigures, TokenizerReport
from jaxlm.reports.units import percent, size, whole

SHOWN = 8


def tokenizer_lines(report: TokenizerReport) -> Iterator[str]:
    """Figures of the run's tokenizer by source and language, then the candidates beside it."""
    own, sample = report.tokenizer, report.sample
    yield (
        f"{own.kind}, {whole(own.vocab_size)} ids, {own.hash[:12]}: measured on "
        f"{size(sample.bytes)} of {whole(sample.documents)} documents{trained_on(report)}"
    )
    yield from _fertility("source", own.sources | {"all": own.all})
    if own.languages:
        yield from _fertility("language", own.languages)
    if any(row.tokens_per_word is None for row in (*own.sources.values(), *own.languages.values())):
        yield "-: text written without spaces between words; see bytes a token"
    yield f"unused ids   {unused(own)}"
    yield f"coverage     {coverage(own)}"
    yield f"round trip   {round_trip(own)}"
    yield f"speed        {own.mb_per_s:g} MB/s a core"
    if report.compare:
        yield ""
        yield from _compared(report)


def trained_on(report: TokenizerReport) -> str:
    """What of the measured text the tokenizer was trained on, if any."""
    part = report.sample.trained_on_bytes
    return f", {size(part)} of it trained on for want of other text" if part else ""


def unused(own: TokenizerFigures) -> str:
    """Ids that no measured text became, with examples."""
    found = own.unused
    text = f"{whole(found.ids)} of {whole(found.of)}"
    if found.single_bytes:
        text += f" ({whole(found.single_bytes)} single bytes)"
    shown = ", ".join(map(repr, found.examples[:SHOWN]))
    return f"{text}{f': {shown}' if shown else ''}"


def coverage(own: TokenizerFigures) -> str:
    """Characters that are whole in some token, and those that become bytes."""
    found = own.coverage
    text = "no text"
    if found.characters:
        text = (
            f"{100 * (1 - found.as_bytes / found.characters):.4g}% of characters are whole; "
            f"{whole(found.distinct_as_bytes)} of {whole(found.distinct)} different ones become "
            "bytes"
        )
    shown = " ".join(repr(c)[1:-1] for c in found.examples[:SHOWN])
    if shown:
        text += f": {shown}"
    if found.unknown_tokens:
        text += f"; {whole(found.unknown_tokens)} tokens stand for text that is unknown, and lost"
    return text


def round_trip(own: TokenizerFigures) -> str:
    """How many measured pieces of documents come back as they were."""
    found = own.round_trip
    if found.exact == found.pieces:
        return f"exact on all {whole(found.pieces)} pieces of documents"
    text = f"exact on {whole(found.exact)} of {whole(found.pieces)} pieces of documents"
    if found.as_normalized == found.pieces:
        text += ", on all others up to normalisation"
    if first := found.first_difference:
        text += (
            f"; first in {first.document} of {first.source}: {first.text!r} comes back as "
            f"{first.back!r}"
        )
    return text


def _fertility(what: str, rows: Mapping[str, Fertility]) -> Iterator[str]:
    width = max(len(what), *map(len, rows))
    yield f"{what:{width}} {'documents':>9} {'text':>8} {'tokens/word':>11} {'bytes/token':>11}"
    for name, row in rows.items():
        yield (
            f"{name:{width}} {whole(row.documents):>9} {size(row.bytes):>8} "
            f"{number(row.tokens_per_word):>11} {number(row.bytes_per_token):>11}"
        )


def number(value: float | None) -> str:
    """Three decimals, or a dash where there is nothing to count."""
    return "-" if value is None else f"{value:.3f}"


def _compared(report: TokenizerReport) -> Iterator[str]:
    """A row a candidate; bytes a token by source are the last columns."""
    rows = {"this run": report.tokenizer} | report.compare
    sources = list(report.tokenizer.sources)
    width = max(map(len, (*rows, "candidate")))
    columns = [max(len(name), 6) for name in sources]
    heads = " ".join(f"{name:>{w}}" for name, w in zip(sources, columns, strict=True))
    yield f"{'':{width + 66}} bytes/token by source"
    yield (
        f"{'candidate':{width}} {'kind':>9} {'ids':>9} {'tok/word':>8} {'B/token':>8} "
        f"{'unused':>7} {'coverage':>9} {'MB/s':>6}   {heads}"
    )
    for name, row in rows.items():
        if row.error is not None:
            yield f"{name:{width}} {row.error}"
            continue
        cells = " ".join(
            f"{number(row.sources[source].bytes_per_token):>{w}}"
            for source, w in zip(sources, columns, strict=True)
        )
        whole_characters = row.coverage.characters - row.coverage.as_bytes
        yield (
            f"{name:{width}} {row.kind:>9} {whole(row.vocab_size):>9} "
            f"{number(row.all.tokens_per_word):>8} {number(row.all.bytes_per_token):>8} "
            f"{percent(row.unused.ids, row.unused.of):>7} "
            f"{100 * whole_characters / max(row.coverage.characters, 1):>8.4g}% "
            f"{row.mb_per_s:>6.2f}   {cells}" + ("" if row.keeps_text else "  loses text")
        )
