"""Editor: mends what is the same text written in another way."""

import re
import unicodedata
from collections.abc import Callable

import numpy as np

from jaxlm.config.rules import Rules
from jaxlm.corpus.stages.base import Changes, Edit
from jaxlm.corpus.statistics import Analysis

_CONTROLS = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufeff\ufffe\uffff]")
_NEWLINES = re.compile("\r\n?|\x0c|\x85|\u2028|\u2029")


def unicode(texts: Analysis, rules: Rules) -> Edit:
    """NFC, one kind of newline, no control characters or byte order marks.

    Only texts with a byte outside ASCII's printable range, tab and newline are looked at; one that
    differs is one change from its beginning to its end for each of newlines, controls and nfc.
    """
    buffer, offsets = texts.texts.buffer, texts.texts.offsets
    odd = (buffer >= 0x7F) | ((buffer < 0x20) & (buffer != 9) & (buffer != 10))
    positions = np.flatnonzero(odd)
    suspects = np.flatnonzero(np.diff(np.searchsorted(positions, offsets)))
    mended: dict[int, bytes] = {}
    hits: list[tuple[int, int, int, int]] = []
    for index in map(int, suspects):
        text = texts.texts[index].decode()
        new, newlines = _NEWLINES.subn("\n", text)
        new, controls = _CONTROLS.subn("", new)
        composed = unicodedata.normalize("NFC", new)
        if composed != text:
            size = int(texts.texts.lengths[index])
            found = (newlines, controls, composed != new)
            hits += [(index, name, 0, size) for name, hit in enumerate(found) if hit]
            mended[index] = composed.encode()
    columns = np.array(hits, np.int64).reshape(-1, 4).T
    changes = Changes(("newlines", "controls", "nfc"), *columns)
    return Edit({}, texts.texts.replace(mended) if mended else texts.texts, changes)


EDITORS: dict[str, Callable[[Analysis, Rules], Edit]] = {"unicode": unicode}
