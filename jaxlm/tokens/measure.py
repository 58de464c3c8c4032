"""What a tokenizer makes of a corpus: fertility, unused ids, coverage, round trip, speed."""

import re
import time
from typing import Any

import numpy as np

from jaxlm.config import Config
from jaxlm.config.tokenizer_file import read_file
from jaxlm.config.tokens import Tokenizer as TokenizerConfig
from jaxlm.errors import UserError
from jaxlm.tokens.pieces import SPACELESS
from jaxlm.tokens.pool import Pool, cores
from jaxlm.tokens.sample import Piece, draw_measured, draw_sample
from jaxlm.tokens.special import Special
from jaxlm.tokens.tokenizer import (
    ByteTokenizer,
    Tokenizer,
    load_tokenizer,
    lost,
    open_tokenizer,
    read_manifest,
)
from jaxlm.tokens.train import nothing, train_in_worker
from jaxlm.workdir import Progress, Workdir, no_progress, write_json

EXAMPLES = 12
REPORT = "report.json"
WITHOUT_SPACES = re.compile(f"[{SPACELESS}]")


def measure_tokenizer(
    config: Config, workdir: Workdir, progress: Progress = no_progress
) -> dict[str, Any]:
    """Measure WORKDIR/tokenizer, and tokenizer.compare beside it, into its report.json.

    All see the same text of WORKDIR/corpus: tokenizer.measure_bytes at most, drawn as the sample
    for training is, and apart from it while there is enough. A candidate that cannot be made is
    there with the reason. Returns what is written; all but the speeds depends on the config alone.
    """
    manifest = read_manifest(workdir.tokenizer)
    below = {str(name): int(n) for name, n in manifest.get("drawn_below", {}).items()}
    sample = draw_measured(config, workdir, below, progress)
    pieces = [piece for part in sample.values() for piece in part]
    seen = sum(
        len(piece.text.encode())
        for name, part in sample.items()
        for piece in part
        if piece.number < below.get(name, 0)
    )
    report: dict[str, Any] = {
        "sample": {
            "documents": len({(n, piece.document) for n, part in sample.items() for piece in part}),
            "bytes": sum(len(piece.text.encode()) for piece in pieces),
            "trained_on_bytes": seen,
        },
        "tokenizer": measured(load_tokenizer(workdir.tokenizer), sample),
        "compare": {},
    }
    candidates = config.tokenizer.candidates()
    if any(c.path is None and c.kind != "byte" for c in candidates.values()):
        with Pool(config.prepare.workers or cores(), nothing) as pool:
            drawn = draw_sample(config, workdir, pool, progress)
            texts = [piece.text for part in drawn.values() for piece in part]
            for number, (name, candidate) in enumerate(candidates.items()):
                report["compare"][name] = _compared(candidate, config, texts, pool, sample)
                progress("compare", number + 1, len(candidates), "tokenizers")
    else:
        for name, candidate in candidates.items():
            report["compare"][name] = _compared(candidate, config, [], None, sample)
    write_json(workdir.tokenizer / REPORT, report)
    return report


def _compared(
    options: TokenizerConfig,
    config: Config,
    texts: list[str],
    pool: Pool | None,
    sample: dict[str, list[Piece]],
) -> dict[str, Any]:
    """What `measured` finds of a candidate, or why there is none."""
    try:
        return measured(_candidate(options, config, texts, pool), sample)
    except UserError as error:
        return {"error": str(error).replace("set tokenizer.vocab_size=", "use ")}


def _candidate(
    options: TokenizerConfig, config: Config, texts: list[str], pool: Pool | None
) -> Tokenizer:
    if options.kind == "byte":
        return ByteTokenizer(config.specials, options.user_symbols)
    if options.path is not None:
        file = read_file(options.path)
        # a comparison does not ask how documents begin and end; these are only to have names
        special = Special(file.bos or "<begin of document>", file.eos or "<end of document>")
        return open_tokenizer(file.content, options.path, special)
    assert pool is not None
    (model,) = pool.map(train_in_worker, [(options, texts, config.specials)])
    return open_tokenizer(model, options.kind)


def measured(tokenizer: Tokenizer, sample: dict[str, list[Piece]]) -> dict[str, Any]:
    """The figures of one tokenizer on pieces of text by source.

    Words are what white space parts; texts written without spaces count for none, and where a row
    has no others its tokens_per_word is None. `mb_per_s`: of the CPU time of one thread.
    """
    texts = [(name, piece) for name, part in sample.items() for piece in part]
    begin = time.process_time()
    encoded = [tokenizer.encode_array(piece.text) for _, piece in texts]
    seconds = time.process_time() - begin

    used_V = np.zeros(tokenizer.vocab_size, np.int64)
    sources: dict[str, _Row] = {name: _Row() for name in sample}
    languages: dict[str, _Row] = {}
    exact = as_normalized = 0
    first: dict[str, Any] | None = None
    for (name, piece), ids in zip(texts, encoded, strict=True):
        used_V += np.bincount(ids, minlength=tokenizer.vocab_size)
        for row in (sources[name], languages.setdefault(piece.language or "unknown", _Row())):
            row.add(piece, ids.size)
        back = tokenizer.decode(ids)
        exact += back == piece.text
        as_normalized += back in (piece.text, tokenizer.normalized(piece.text))
        if back != piece.text and first is None:
            first = _difference(name, piece, back)
    whole = _Row()
    for row in sources.values():
        whole.join(row)
    known = {name: row.figures() for name, row in sorted(languages.items())}
    return {
        "kind": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "hash": tokenizer.hash,
        "keeps_text": lost(tokenizer) is None,
        "all": whole.figures(),
        "sources": {name: row.figures() for name, row in sources.items()},
        "languages": known if known.keys() != {"unknown"} else {},
        "unused": _unused(tokenizer, used_V),
        "coverage": _coverage(tokenizer, used_V, {c for _, piece in texts for c in piece.text}),
        "round_trip": {
            "pieces": len(texts),
            "exact": exact,
            "as_normalized": as_normalized,
            "first_difference": first,
        },
        "mb_per_s": round(whole.bytes / 1e6 / max(seconds, 1e-6), 2),
    }


class _Row:
    """Counts of one source or language."""

    def __init__(self) -> None:
        self.documents: set[str] = set()
        self.bytes = self.tokens = self.words = self.word_tokens = self.characters = 0

    def add(self, piece: Piece, tokens: int) -> None:
        self.documents.add(piece.document)
        self.bytes += len(piece.text.encode())
        self.characters += len(piece.text)
        self.tokens += tokens
        words = piece.text.split()
        if 2 * len(WITHOUT_SPACES.findall(piece.text)) <= sum(map(len, words)):
            self.words += len(words)
            self.word_tokens += tokens

    def join(self, row: "_Row") -> None:
        self.documents |= row.documents
        for key in ("bytes", "tokens", "words", "word_tokens", "characters"):
            setattr(self, key, getattr(self, key) + getattr(row, key))

    def figures(self) -> dict[str, Any]:
        def ratio(part: int, of: int) -> float | None:
            return round(part / of, 4) if of else None

        return {
            "documents": len(self.documents),
            "bytes": self.bytes,
            "characters": self.characters,
            "words": self.words,
            "tokens": self.tokens,
            "tokens_per_word": ratio(self.word_tokens, self.words),
            "bytes_per_token": ratio(self.bytes, self.tokens),
        }


def _difference(source: str, piece: Piece, back: str) -> dict[str, Any]:
    """Where a text that came back otherwise differs first."""
    pairs = enumerate(zip(piece.text, back, strict=False))
    shorter = min(len(piece.text), len(back))
    at = next((i for i, (was, now) in pairs if was != now), shorter)
    around = slice(max(at - 10, 0), at + 20)
    return {
        "source": source,
        "document": piece.document,
        "text": piece.text[around],
        "back": back[around],
    }


def _unused(tokenizer: Tokenizer, used_V: np.ndarray) -> dict[str, Any]:
    """Ids that text may become and this text did not; control ids are not among them."""
    of = int((tokenizer.token_bytes > 0).sum())
    ids = np.flatnonzero((tokenizer.token_bytes > 0) & (used_V == 0)).tolist()
    longer = [i for i in ids if tokenizer.token_bytes[i] > 1]
    return {
        "ids": len(ids),
        "of": of,
        "single_bytes": len(ids) - len(longer),
        "examples": [tokenizer.pieces[i].decode(errors="replace") for i in longer[:EXAMPLES]],
    }


def _coverage(tokenizer: Tokenizer, used_V: np.ndarray, characters: set[str]) -> dict[str, Any]:
    """Characters that are cut into bytes, since the vocabulary does not have them whole, and
    tokens for what it does not know at all."""
    cut_V = np.array([_ends_inside(piece) for piece in tokenizer.pieces])
    total = int((tokenizer.characters * used_V).sum())
    cut = int(used_V[cut_V].sum())
    rare = sorted(c for c in characters if not c.isascii() and cut_V[tokenizer.encode(c)].any())
    return {
        "characters": total,
        "as_bytes": cut,
        "share": round(1 - cut / total, 6) if total else None,
        "distinct": len(characters),
        "distinct_as_bytes": len(rare),
        "unknown_tokens": int(used_V[tokenizer.token_bytes == 0].sum()),
        "examples": rare[:EXAMPLES],
    }


def _ends_inside(piece: bytes) -> bool:
    """Whether a character begins in these bytes and does not end in them."""
    for back, byte in enumerate(reversed(piece[-4:]), 1):
        if byte >= 0xC0:
            return back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
        if byte < 0x80:
            break
    return False
