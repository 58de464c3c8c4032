"""Editor: mends what is the same text written in another way."""

import re
import unicodedata
from collections.abc import Callable
from functools import cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.config.rules import Rules
from jaxlm.config.text import Unicode
from jaxlm.corpus.stages.base import Changes, Edit
from jaxlm.corpus.statistics import Analysis

NAMES = ("mojibake", "newlines", "controls", "invisible", "nfc")

MAX_ROUNDS = 10

_CONTROLS = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufeff\ufffe\uffff]")
_NEWLINES = re.compile("\r\n?|\x0c|\x85|\u2028|\u2029")
_INVISIBLE = re.compile("[\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069]")
# The first byte of a character of UTF-8, then one to three further ones, all read as Windows-1252
# or ISO 8859-1; and the beginning of curly quotes and dashes read as Windows-1251.
_FURTHER = "\x80-\xbf" + "".join(
    bytes([byte]).decode("cp1252")
    for byte in range(0x80, 0xA0)
    if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
)
_MOJIBAKE = re.compile(
    f"[\xc2-\xdf][{_FURTHER}]|[\xe0-\xef][{_FURTHER}]{{2}}|[\xf0-\xf4][{_FURTHER}]{{3}}|вЂ"
)

# What a character may call for. What may be mojibake begins with one kind and goes on with another.
_LEAD, _NEWLINE, _CONTROL, _INVISIBLY, _NFC, _TRAIL = (1 << bit for bit in range(6))


def unicode(texts: Analysis, rules: Rules) -> Edit:
    """NFC, one kind of newline, no control characters or byte order marks; by choice, mojibake
    mended and invisible characters dropped.

    Only texts in which a pass over the bytes finds a character that may call for it are looked at;
    one that differs is one change from its beginning to its end for each name of NAMES.
    """
    assert isinstance(rules, Unicode)
    strings = texts.texts
    flags = _flags(strings.buffer, strings.offsets, _table())
    wanted = _NEWLINE | _CONTROL | _NFC
    wanted |= (_LEAD if rules.mojibake else 0) | (_INVISIBLY if rules.invisible else 0)
    mended: dict[int, bytes] = {}
    hits: list[tuple[int, int, int, int]] = []
    for index in map(int, np.flatnonzero(flags & wanted)):
        text = strings[index].decode()
        new, found = _mended(text, bool(flags[index] & _LEAD), rules)
        if new != text:
            size = int(strings.lengths[index])
            hits += [(index, name, 0, size) for name, hit in enumerate(found) if hit]
            mended[index] = new.encode()
    columns = np.array(hits, np.int64).reshape(-1, 4).T
    return Edit({}, strings.replace(mended) if mended else strings, Changes(NAMES, *columns))


def _mended(text: str, suspect: bool, rules: Unicode) -> tuple[str, list[bool]]:
    """A text as it should be, and which of NAMES changed it; `suspect`: it may be mojibake."""
    steps: tuple[tuple[bool, Callable[[str], str]], ...] = (
        (rules.mojibake, lambda old: _without_mojibake(old) if suspect else old),
        (True, lambda old: _NEWLINES.sub("\n", old.replace("\r\n", "\n"))),
        (True, lambda old: _CONTROLS.sub("", old)),
        (rules.invisible, lambda old: _INVISIBLE.sub("", old)),
        (True, lambda old: unicodedata.normalize("NFC", old)),
    )
    found = [False] * len(steps)
    # characters that met when one between them went may be mojibake: then once more
    for _ in range(MAX_ROUNDS):
        before = text
        for number, (on, step) in enumerate(steps):
            new = step(text) if on else text
            found[number] |= new != text
            text = new
        suspect = not text.isascii() and _MOJIBAKE.search(text) is not None
        if text == before or not (rules.mojibake and suspect):
            break
    return text, found


def _without_mojibake(text: str) -> str:
    """Each line by itself: a page may be put together of well and badly read parts."""
    from ftfy import fix_encoding

    return "\n".join(
        fix_encoding(line) if _MOJIBAKE.search(line) else line for line in text.split("\n")
    )


@cache
def _table() -> NDArray[np.uint8]:
    """What each character may call for, uint8 [0x110000]."""
    table = np.zeros(0x110000, np.uint8)
    for pattern, flag in (
        (_NEWLINES, _NEWLINE),
        (_CONTROLS, _CONTROL),
        (_INVISIBLE, _INVISIBLY),
        (re.compile("[\xc2-\xf4в]"), _LEAD),
        (re.compile(f"[{_FURTHER}Ђ]"), _TRAIL),
    ):
        found = pattern.finditer("".join(map(chr, range(0xD800))) + "\ufeff\ufffe\uffff")
        for match in found:
            table[ord(match.group()[0])] |= flag
    # a text is in NFC unless it has a character of these: one that is written otherwise, one that
    # may join the one before it, or one that has a place in an order (UAX 15, quick check)
    for number in range(0x80, 0x110000):
        character = chr(number)
        parts = unicodedata.decomposition(character)
        if parts and not parts.startswith("<"):
            places = [int(part, 16) for part in parts.split()]
            if len(places) > 1:
                table[places[1]] |= _NFC
            if unicodedata.normalize("NFC", character) != character:
                table[number] |= _NFC
        if unicodedata.combining(character):
            table[number] |= _NFC
    table[0x1161:0x1176] |= _NFC  # vowels and finals of Hangul
    table[0x11A8:0x11C3] |= _NFC
    return table


@njit(cache=True)
def _flags(
    buffer: NDArray[np.uint8], offsets: NDArray[np.int64], table: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """What each text may call for, uint8 [D]; _LEAD only where as many _TRAIL follow it as UTF-8
    would have further bytes."""
    out = np.zeros(len(offsets) - 1, np.uint8)
    for document in range(len(out)):
        flags = 0
        missing = 0
        i = offsets[document]
        end = offsets[document + 1]
        while i < end:
            lead = buffer[i]
            if lead < 0x80:
                flags |= table[lead]
                missing = 0
                i += 1
                continue
            if lead < 0xE0:
                number = (lead & 0x1F) << 6 | (buffer[i + 1] & 0x3F)
                i += 2
            elif lead < 0xF0:
                number = (lead & 0x0F) << 12 | (buffer[i + 1] & 0x3F) << 6 | (buffer[i + 2] & 0x3F)
                i += 3
            else:
                number = (
                    (lead & 0x07) << 18
                    | (buffer[i + 1] & 0x3F) << 12
                    | (buffer[i + 2] & 0x3F) << 6
                    | (buffer[i + 3] & 0x3F)
                )
                i += 4
            here = table[number]
            if here & 1:
                missing = 3 if 0xF0 <= number < 0x100 else 2 if 0xE0 <= number < 0x100 else 1
            elif missing and here & 32:
                missing -= 1
                if missing == 0:
                    flags |= 1
            else:
                missing = 0
            flags |= here & 30
        out[document] = flags
    return out


EDITORS: dict[str, Callable[[Analysis, Rules], Edit]] = {"unicode": unicode}
