"""Changers: mend what is the same text written in another way."""

import re
import unicodedata
from collections.abc import Callable

import numpy as np

from jaxlm.corpus.documents import Strings

_CONTROLS = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufeff\ufffe\uffff]")
_NEWLINES = re.compile("\r\n?|\x0c|\x85|\u2028|\u2029")

type Changes = dict[int, dict[str, int]]
"""Document -> rule -> characters that it changed."""


def unicode(texts: Strings) -> tuple[Strings, Changes]:
    """NFC, one kind of newline, no control characters or byte order marks.

    Only texts with a byte outside ASCII's printable range, tab and newline are looked at.
    """
    buffer = texts.buffer
    odd = (buffer >= 0x7F) | ((buffer < 0x20) & (buffer != 9) & (buffer != 10))
    positions = np.flatnonzero(odd)
    suspects = np.flatnonzero(np.diff(np.searchsorted(positions, texts.offsets)))
    changes: Changes = {}
    mended: dict[int, bytes] = {}
    for index in map(int, suspects):
        text = texts[index].decode()
        hits: dict[str, int] = {}
        new, hits["newlines"] = _NEWLINES.subn("\n", text)
        new, hits["controls"] = _CONTROLS.subn("", new)
        if not unicodedata.is_normalized("NFC", new):
            composed = unicodedata.normalize("NFC", new)
            hits["nfc"] = max(1, abs(len(new) - len(composed)))
            new = composed
        if new != text:
            changes[index] = {rule: hit for rule, hit in hits.items() if hit}
            mended[index] = new.encode()
    return (texts.replace(mended) if mended else texts), changes


CHANGERS: dict[str, Callable[[Strings], tuple[Strings, Changes]]] = {"unicode": unicode}
