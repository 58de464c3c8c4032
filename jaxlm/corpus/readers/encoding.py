"""Bytes -> text: which encoding a file is in, and whether that is sure."""

import codecs
import itertools
import re
from typing import NamedTuple

BOMS = (  # UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
MIN_PLAUSIBLE = 0.9
"""Share of the characters outside ASCII that have to be letters or common signs before a text is
taken to be in an encoding that nothing but its bytes suggests."""
MAX_INNER_CAPITALS = 0.05
"""Share of them that may be capitals behind small letters."""
DETECTOR_BYTES = 1 << 16

_SIGNS = frozenset(
    " «»°©®€£§·•´¿¡–—‘’‚“”„…™×÷±²³½¼¾、。〈〉《》「」『』【】〜・（），：；！？％～−№"
)
_CONTROLS = re.compile("[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f]")
_META_CHARSET = re.compile(
    rb"(?:<meta[^>]+charset|<\?xml[^>]+encoding)\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]+)", re.I
)


class Undecodable(NamedTuple):
    """Why bytes were not decoded: the ledger's rule, and its value."""

    rule: str
    value: float | str


def decode(raw: bytes, encoding: str = "auto", declared: str | None = None) -> str | Undecodable:
    """Decode a whole file or page.

    `encoding` is the config's and the only one tried unless it is "auto". Then a byte order mark
    decides; then bytes that are valid UTF-8 are that, whatever they declare; then `declared`
    counts; at last uchardet is asked, and its answer has to give plausible text. What is nearly
    UTF-8 is a broken text and no other encoding.
    """
    if encoding != "auto":
        try:
            text = raw.decode(encoding)
        except UnicodeError as error:
            return Undecodable("invalid_encoding", f"not {encoding}: {_reason(error)}")
        return _without_surrogates(text.removeprefix("\ufeff"), encoding)
    for mark, name in BOMS:
        if raw.startswith(mark):
            try:
                return raw[len(mark) :].decode(name)
            except UnicodeDecodeError as error:
                if name != "utf-8":
                    return Undecodable("invalid_encoding", f"not {name}: {_reason(error)}")
    known = _python_name(declared)
    # encodings of seven bits look like ASCII
    stateful = known is not None and known.startswith(("iso2022", "iso-2022", "hz"))
    if not (b"\x1b$" in raw or (stateful and (b"\x1b" in raw or b"~{" in raw))):
        try:
            return _refused_if_binary(raw) or raw.decode()
        except UnicodeDecodeError as error:
            wrong = error.start
    else:
        wrong = raw.find(b"\x1b")
    if known is not None and known not in ("utf-8", "utf8"):
        try:
            text = raw.decode(known)
        except UnicodeError:
            pass
        else:
            if not _CONTROLS.search(text):
                return _without_surrogates(text, known)
    if refused := _refused_if_binary(raw):
        return refused
    if _nearly_utf8(raw):
        return Undecodable("invalid_utf8", wrong)
    return _detected(raw)


def declared_charset(raw: bytes) -> str | None:
    """The encoding that a page declares in its first kilobyte."""
    found = _META_CHARSET.search(raw[:1024])
    return found.group(1).decode() if found else None


def _detected(raw: bytes) -> str | Undecodable:
    from resiliparse.parse.encoding import detect_encoding

    found = detect_encoding(raw, max_len=DETECTOR_BYTES, html5_compatible=False)
    if found is None:
        return Undecodable("doubtful_encoding", "no encoding fits")
    # the Windows code page holds what ISO 8859-1 leaves empty
    name = "cp1252" if found in ("iso8859-1", "latin-1", "iso-8859-1") else found
    try:
        text = raw.decode(name)
    except (UnicodeError, LookupError) as error:
        return Undecodable("doubtful_encoding", f"not quite {name}: {_reason(error)}")
    wide = [character for character in text if character >= "\x80"]
    likely = sum(character.isalpha() or character in _SIGNS for character in wide)
    # capitals inside words are what one alphabet looks like in another's place
    odd = sum(a.islower() and b.isupper() for a, b in itertools.pairwise(text) if b >= "\x80")
    if (
        _CONTROLS.search(text)
        or likely < MIN_PLAUSIBLE * len(wide)
        or odd > MAX_INNER_CAPITALS * len(wide)
    ):
        return Undecodable("doubtful_encoding", f"as {name} it is not text")
    return _without_surrogates(text, name)


def _python_name(declared: str | None) -> str | None:
    """What Python calls an encoding that a page names, by the WHATWG's table; None: unknown."""
    from resiliparse.parse.encoding import map_encoding_to_html5

    if declared is None:
        return None
    name = map_encoding_to_html5(declared, fallback_utf8=False)
    # a declaration that could be read was not made in UTF-16
    if name is None or name.startswith(("utf-16", "utf-32")):
        return None
    try:
        return codecs.lookup(name).name
    except LookupError:
        return None


def _refused_if_binary(raw: bytes) -> Undecodable | None:
    at = raw.find(b"\0")
    return Undecodable("binary", f"a NUL byte at {at}") if at >= 0 else None


def _nearly_utf8(raw: bytes) -> bool:
    """Whether most of what is not ASCII is valid UTF-8: another encoding is so only by chance."""
    text = raw.decode(errors="replace")
    wrong = text.count("\ufffd")
    right = sum(character >= "\x80" for character in text) - wrong
    return right > wrong


def _without_surrogates(text: str, encoding: str) -> str | Undecodable:
    """Some codecs of Python give halves of pairs, which are no text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return Undecodable("invalid_encoding", f"{encoding} with half a pair at {error.start}")
    return text


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"{error.reason} at {error.start}"
    return str(error)[:100]
