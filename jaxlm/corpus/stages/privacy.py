"""Editor: e-mail and IP addresses, telephone numbers and other private data give way to marks.

Secrets are looked for first, then e-mail addresses in what is left, then numbers from left to
right; one number is an IP address before it is a card's, a card's before an identity's, and that
before a telephone's. So no two places overlap.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.privacy import Privacy
from jaxlm.config.rules import Rules
from jaxlm.corpus.candidates import CARDS, IDS, IPS, IPV4, NUMBER, PHONES, candidates
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.stages.base import Changes, Edit, replaced
from jaxlm.corpus.statistics import Analysis

type Ints = NDArray[np.int64]
type Place = tuple[int, int, str]
"""Start and end in the buffer, kind."""

MARKS = {
    "email": "EMAIL_ADDRESS",
    "ip": "IP_ADDRESS",
    "phone": "PHONE_NUMBER",
    "credit_card": "CREDIT_CARD",
    "secret": "SECRET",
    "national_id": "NATIONAL_ID",
}
"""What is looked for -> its name in changes and, in brackets, in the text."""
_FILLS = tuple(f"[{name}]".encode() for name in MARKS.values())


def privacy(texts: Analysis, rules: Rules) -> Edit:
    """Finds what the section names. Attributes: spans, and the number of each kind."""
    assert isinstance(rules, Privacy)
    strings = texts.texts
    document, start, end, name = find(strings, rules)
    n = len(strings)
    tags = {"spans": np.bincount(document, minlength=n).astype(np.float64)}
    for kind in rules.find:
        own = document[name == list(MARKS).index(kind)]
        tags[kind] = np.bincount(own, minlength=n).astype(np.float64)
    names = tuple(MARKS.values())
    fills = [_FILLS[k] for k in name.tolist()]
    begin = strings.offsets[document]
    changes = Changes(names, document, name, start - begin, end - begin)
    return Edit(tags, replaced(strings, start, end, fills), changes)


EDITORS: dict[str, Callable[[Analysis, Rules], Edit]] = {"privacy": privacy}


def spans(text: str, rules: Rules) -> dict[str, list[tuple[int, int]]]:
    """What would be replaced, in characters."""
    assert isinstance(rules, Privacy)
    data = text.encode()
    _, start, end, _ = find(Strings.of([data]), rules)
    return {
        "max_spans": [
            (len(data[:a].decode()), len(data[:b].decode()))
            for a, b in zip(start.tolist(), end.tolist(), strict=True)
        ]
    }


SPANS: dict[str, Callable[[str, Rules], dict[str, list[tuple[int, int]]]]] = {"privacy": spans}


def find(strings: Strings, rules: Privacy) -> tuple[Ints, Ints, Ints, Ints]:
    """Document, start, end (bytes of the buffer) and kind (index into MARKS) of each place, int64,
    rising and apart from each other.

    A mark in the place of one thing may free its neighbour (the rest of a word, of a row of
    digits), so texts are looked at again until nothing more is found: with marks in its places a
    text has no place left.
    """
    document, start, end, name = _look(strings, rules)
    last = np.unique(document)  # documents with a place in the round before
    while len(last):
        at = np.flatnonzero(np.isin(document, last))
        texts = strings.take(np.isin(np.arange(len(strings)), last))
        # from the buffer of all texts to that of these ones
        shift = (strings.offsets[last] - texts.offsets[:-1])[np.searchsorted(last, document[at])]
        starts, ends = start[at] - shift, end[at] - shift
        fills = [_FILLS[k] for k in name[at].tolist()]
        marked = replaced(texts, starts, ends, fills)
        found, low, high, kind = _look(marked, rules)
        # and back: what stands after a mark has moved by what the marks before it have grown
        sizes = np.array([len(fill) for fill in fills], np.int64)
        grown = np.cumsum(sizes - (ends - starts))
        before = np.searchsorted(ends + grown, low, side="right")
        moved = np.concatenate([np.zeros(1, np.int64), grown])[before]
        found = last[found]
        moved -= strings.offsets[found] - texts.offsets[np.searchsorted(last, found)]
        document = np.concatenate([document, found])
        start, end = np.concatenate([start, low - moved]), np.concatenate([end, high - moved])
        name = np.concatenate([name, kind])
        order = np.argsort(start)
        document, start, end, name = document[order], start[order], end[order], name[order]
        last = np.unique(found)
    return document, start, end, name


def _look(strings: Strings, rules: Privacy) -> tuple[Ints, Ints, Ints, Ints]:
    """What one look at the texts finds, as `find` gives it."""
    offsets = strings.offsets.tolist()
    buffer = np.array(strings.buffer)
    kept: list[Place] = []
    if "secret" in rules.find:
        kept = _secrets(buffer.tobytes(), offsets)
        _cover(buffer, kept)
    if "email" in rules.find:
        places = np.flatnonzero(buffer == ord("@")).tolist()
        emails = list(_emails(buffer.tobytes(), offsets, places))
        _cover(buffer, emails)
        kept = sorted(kept + emails)
    if {"ip", "phone", "credit_card", "national_id"} & set(rules.find):
        kept = _numbers(buffer, strings.offsets, rules, kept)
    start = np.array([a for a, _, _ in kept], np.int64)
    end = np.array([b for _, b, _ in kept], np.int64)
    order = list(MARKS)
    name = np.array([order.index(kind) for _, _, kind in kept], np.int64)
    document = np.searchsorted(strings.offsets, start, side="right") - 1
    return document, start, end, name


def _cover(buffer: NDArray[np.uint8], places: list[Place]) -> None:
    """Put brackets over what is found, so that nothing else is found in it or goes on into it."""
    for start, end, _ in places:
        buffer[start : end - 1] = ord("[")
        buffer[end - 1] = ord("]")


# --- e-mail addresses

_LETTER = rb"(?:[A-Za-z0-9]|[\xc3-\xd4][\x80-\xbf])"  # ASCII, or Latin, Greek, Cyrillic
_LOCAL = re.compile(rb"(?:" + _LETTER + rb"|_)(?:" + _LETTER + rb"|[._%+'-])*\Z")
_HOST = re.compile(
    rb"@((?:" + _LETTER + rb"(?:(?:" + _LETTER + rb"|-){0,61}" + _LETTER + rb")?\.)+"
    rb"(?:xn--[A-Za-z0-9-]{2,59}[A-Za-z0-9]|[A-Za-z]{2,24}|(?:[\xd0-\xd4][\x80-\xbf]){2,24})"
    rb"|\[[0-9]{1,3}(?:\.[0-9]{1,3}){3}\])(?![A-Za-z0-9@(])(?![_-][A-Za-z0-9_])"
)
_NO_HOST = re.compile(
    rb"[1-9](?:\.\d)?x\.\w+"  # icon@2x.png
    rb"|.*\.(?:local|localdomain|internal|lan|service|socket|timer|mount|path|slice|scope)",
    re.ASCII | re.IGNORECASE,
)
_SENTENCE = re.compile(rb"(.+\.[a-z]{2,})\.[A-Z][a-z]+")  # a@example.com.Then no space
_LOCAL_BYTES = 64  # RFC 5321, 4.5.3.1.1
_HOST_BYTES = 255


def _emails(data: bytes, offsets: list[int], places: list[int]) -> Iterator[Place]:
    last = 0  # where the one before ends
    for at in places:
        d = bisect_right(offsets, at) - 1
        begin, end = (
            max(offsets[d], last, at - _LOCAL_BYTES - 1),
            min(offsets[d + 1], at + _HOST_BYTES),
        )
        host = _HOST.match(data[at:end])
        if host is None or _NO_HOST.fullmatch(host[1]):
            continue
        sentence = _SENTENCE.fullmatch(host[1])
        stop = at + (sentence or host).end(1) + (1 if sentence else 0)
        left = data[begin:at]
        local = _LOCAL.search(left)
        if local is None or len(local[0]) > _LOCAL_BYTES:
            continue
        name, before = local[0], left[: local.start()]
        if data[stop : min(end, stop + 1)] == b"_":
            name = name.lstrip(b"_")  # _a@example.com_ is emphasis
        # user@site of a URL, git@site:path, @user@site of a social network, a part of a matrix
        # product (a@self.b)
        if before.rpartition(b"://")[1] and not re.search(rb"://\S*[/\s?]", before):
            continue
        if before.endswith(b"@") or host[1].startswith((b"self.", b"cls.")):
            continue
        if name == b"git" and re.match(rb":\S", data[stop : min(end, stop + 2)]):
            continue
        last = stop
        yield at - len(name), last, "email"


# --- keys and tokens

_SECRETS: tuple[tuple[bytes, bytes], ...] = (
    # beginning, the whole; forms as their issuers document them
    (b"AKIA", rb"AKIA[0-9A-Z]{16}"),
    (b"ASIA", rb"ASIA[0-9A-Z]{16}"),
    *((b"gh%c_" % k, rb"gh%c_[A-Za-z0-9]{36,255}" % k) for k in b"pousr"),
    (b"github_pat_", rb"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    *((b"xox%c-" % k, rb"xox%c-[A-Za-z0-9-]{10,250}" % k) for k in b"abeoprs"),
    (b"hooks.slack.com/services/", rb"hooks\.slack\.com/services/T\w{8,}/B\w{8,}/\w{20,}"),
    (b"AIza", rb"AIza[0-9A-Za-z_-]{35}"),
    (b"ya29.", rb"ya29\.[0-9A-Za-z_-]{20,}"),
    (b"eyJ", rb"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    *((b"%sk_live_" % k, rb"%sk_live_[0-9A-Za-z]{16,247}" % k) for k in (b"s", b"r")),
    (b"SG.", rb"SG\.[\w-]{22}\.[\w-]{43}"),
    (b"glpat-", rb"glpat-[\w-]{20,}"),
    (b"npm_", rb"npm_[A-Za-z0-9]{36}"),
    (b"pypi-AgE", rb"pypi-AgE[\w-]{50,}"),
    (b"hf_", rb"hf_[A-Za-z0-9]{34,}"),
    (b"sk-", rb"sk-(?:proj-|ant-|svcacct-)?[A-Za-z0-9_-]{40,}"),
)
_BLOCK = re.compile(
    rb"(-----BEGIN ((?:[A-Z0-9]+ ){0,3})PRIVATE KEY( BLOCK|)-----"
    rb"(?:[^-]|-(?!----)){1,16384}-----END \2PRIVATE KEY\3-----)"
)
# the secret half of an AWS key has no form of its own
_NAMED = re.compile(
    rb"(?i:aws_?secret(?:_?access)?_?key)[\"']?\s{0,3}[:=]\s{0,3}[\"']?([A-Za-z0-9/+]{40})"
    rb"(?![A-Za-z0-9/+=])"
)


_LEADS = (
    *((lead, re.compile(rb"(" + form + rb")(?![A-Za-z0-9_])")) for lead, form in _SECRETS),
    (b"-----BEGIN ", _BLOCK),
    (b"aws", _NAMED),
    (b"AWS", _NAMED),
)


def _secrets(data: bytes, offsets: list[int]) -> list[Place]:
    found: list[Place] = []
    for lead, pattern in _LEADS:
        at = data.find(lead)
        while at >= 0:
            d = bisect_right(offsets, at) - 1
            match = pattern.match(data, at, offsets[d + 1])
            joined = at > offsets[d] and re.match(rb"\w", data[at - 1 : at], re.ASCII)
            if match and not joined:
                found.append((*match.span(1), "secret"))
            at = data.find(lead, match.end() if match else at + len(lead))
    kept: list[Place] = []
    for place in sorted(found):
        if not kept or kept[-1][1] <= place[0]:
            kept.append(place)
    return kept


# --- numbers

_BEFORE = 32  # bytes before a number that tell what it is
_ADDRESS = re.compile(
    rb"\b(?:ips?|ipv4|dns|(?:name)?servers?|hosts?|address(?:es)?|ping\w*|resolvers?|gateway|"
    rb"router|proxy|connect\w*|listen\w*|client|from|traceroute|range|network|subnet)\b"
    rb"|://|@|\xe5\x9c\xb0\xe5\x9d\x80",
    re.IGNORECASE,
)
_VERSION = re.compile(
    rb"\b(?:v|ver|versions?|releases?|build|firmware|updated?|upgraded?|rev(?:ision)?|patch|"
    rb"driver|kernel|sections?|sect?|chapter|clause|article|paragraph|figure|fig|table|rule|oid)\b"
    rb"|\xc2\xa7|\xe7\x89\x88\xe6\x9c\xac",
    re.IGNORECASE,
)
_AFTER_IP = re.compile(rb"\w|\.\w|-(?!\d+\.\d+\.)\w", re.ASCII)
_PHONE = re.compile(
    rb"\b(?:tele?(?:phone)?s?|phones?|ph|call(?:s|ing|ed)?|mobile|mob|cell(?:phone)?|fax|text|sms|"
    rb"whatsapp|contact|dial|hotline|helpline|ring|telefono?|m[o\xc3]\xb3?vil|handy|portable|"
    rb"appelez|anruf\w*)\b"
    rb"|t\xc3\xa9l|tel\xc3\xa9fono|\xe7\x94\xb5\xe8\xaf\x9d|\xe9\x9b\xbb\xe8\xa9\xb1|"
    rb"\xe6\x89\x8b\xe6\x9c\xba|\xe6\x89\x8b\xe6\xa9\x9f|\xe4\xbc\xa0\xe7\x9c\x9f|"
    rb"\xe8\x87\xb4\xe7\x94\xb5|\xe7\x83\xad\xe7\xba\xbf",  # telephone, mobile, fax, call, hotline
    re.IGNORECASE,
)
_OTHER = re.compile(
    rb"\b(?:isbn(?:-1[03])?|issn|doi|oclc|pmid|upc|ean|asin|orders?|invoice|tracking|accounts?|acct|serial|part|"
    rb"sku|model|patent|case|ticket|refs?|reference|lot|batch|id|docket|grant|parcel|item|catalog\w*|"
    rb"coordinates|lat|lon|latitude|longitude|timestamp|version|article|iban|vat|policy)\b"
    rb"|(?:no|nr)\.|#|\xe8\xae\xa2\xe5\x8d\x95|\xe7\xbc\x96\xe5\x8f\xb7|\xe5\x8d\x95\xe5\x8f\xb7",
    re.IGNORECASE,
)
_DATE = re.compile(
    rb"(?<!\d)(?:(?:19|20)\d\d([-./])\d\d?\1\d\d?|\d\d?([-./])\d\d?\2(?:19|20)\d\d)(?!\d)"
)
_QUAD = re.compile(rb"\d{1,3}(?:\.\d{1,3}){3}")  # also 08.08.08.08, which is no address
_ISBN = re.compile(rb"97[89][- ]?\d")
_MARK = re.compile(rb"\[(?:" + "|".join(MARKS.values()).encode() + rb")\]")


def _numbers(
    buffer: NDArray[np.uint8], borders: Ints, rules: Privacy, kept: list[Place]
) -> list[Place]:
    """What `kept` has, and the numbers between; borders: the documents' offsets."""
    wanted = (
        PHONES * ("phone" in rules.find)
        | CARDS * ("credit_card" in rules.find)
        | IDS * ("national_id" in rules.find)
        | IPS * ("ip" in rules.find)
    )
    kinds, documents, starts, ends = (
        column.tolist() for column in candidates(buffer, borders, wanted, _lengths(rules.regions))
    )
    offsets = borders.tolist()
    data = buffer.tobytes()
    out: list[Place] = []
    k = 0  # the next of kept
    for kind, d, start, end in zip(kinds, documents, starts, ends, strict=True):
        while k < len(kept) and kept[k][1] <= start:
            out.append(kept[k])
            k += 1
        if out and out[-1][1] > start:
            continue
        # what stands before another place, or the mark of one, says nothing of this one
        begin = max(offsets[d], start - 2 * _BEFORE)
        before = data[max(begin, out[-1][1] if out else 0) : start]
        after = data[end : min(offsets[d + 1], end + _BEFORE)]
        before = _MARK.split(before)[-1].rpartition(b"\n")[2][-_BEFORE:]
        if kind == NUMBER:
            place = _number(data[start:end], before, after, rules)
        else:
            listed = bool(out) and out[-1][2] == "ip" and out[-1][1] > max(offsets[d], start - 6)
            place = _ip(data[start:end], before, after, kind == IPV4, rules.private_ips, listed)
        if place is None:
            continue
        low, high, name = start + place[0], start + place[1], place[2]
        out.append((low, high, name))
    return out + kept[k:]


def _last(pattern: re.Pattern[bytes], text: bytes) -> int:
    """Where the last match ends, -1 without one."""
    return max((match.end() for match in pattern.finditer(text)), default=-1)


def _ip(
    text: bytes, before: bytes, after: bytes, four: bool, private: bool, listed: bool
) -> Place | None:
    """The address in text, where it is public (or any is wanted) and no version number.

    listed: it follows another.
    """
    if not four:
        while text.endswith(b".") or (text.endswith(b":") and not text.endswith(b"::")):
            text, after = text[:-1], text[-1:] + after
    if re.match(rb"\w", after, re.ASCII):
        return None
    try:
        address = ip_address(text.decode("ascii"))
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            ok = private or address.ipv4_mapped.is_global
        elif private:
            ok = address.is_global or address.is_private or address.is_link_local
            ok = ok and int(address) > 0
        else:
            # 2000::/3 is what is given out (RFC 4291, 2.4); 2000::5 may be a slice of an array
            groups = len([part for part in text.split(b":") if part])
            ok = address.is_global and int(address) >> 125 == 1 and groups > 2
        return (0, len(text), "ip") if ok else None
    assert isinstance(address, IPv4Address)
    public = address.is_global and not address.is_multicast
    if not (private or public) or _AFTER_IP.match(after):
        return None
    if re.search(rb"[\w.][.-]$|[$\xa3]$", before, re.ASCII) and not re.search(
        rb"\d+\.\d+\.\d+-$", before
    ):
        return None
    address_at, version_at = _last(_ADDRESS, before), _last(_VERSION, before)
    # the version in `version 1.2.3.4 from 8.8.8.8` is the number before
    if version_at > address_at and not _QUAD.search(before[version_at:]):
        return None
    # small numbers are as often a version or a section
    small = max(address.packed) < 20 or (address.packed[3] == 0 and not after.startswith(b"/"))
    named = address_at >= 0 or listed or re.match(rb":\d", after) is not None
    return (0, len(text), "ip") if named or not small else None


def _number(text: bytes, before: bytes, after: bytes, rules: Privacy) -> Place | None:
    """What the groups of digits are: start and end in text, kind."""
    digits = re.sub(rb"\D", b"", text)
    start = re.search(rb"\d", text)
    assert start is not None  # candidates have digits
    free = not re.search(rb"[\w$\xa3]$|\w[-.,/]$", before, re.ASCII)
    bare = start.start()
    if "credit_card" in rules.find and free and _card(text[bare:], digits) and not _goes_on(after):
        return bare, len(text), "credit_card"
    if "national_id" in rules.find:
        place = _national(text[bare:], digits, before, after)
        if place is not None:
            return bare + place[0], bare + place[1], "national_id"
    if "phone" in rules.find and (place := _phone(text, digits, before, after, rules.regions)):
        return *place, "phone"
    return None


def _goes_on(after: bytes) -> bool:
    """Whether a number is only the beginning of something."""
    return re.match(rb"\w|[-/]\w|[.,:]\d|\s?%", after, re.ASCII) is not None


def luhn(digits: bytes) -> bool:
    """The check digit of ISO/IEC 7812-1, annex B."""
    total = 0
    for k, byte in enumerate(reversed(digits)):
        value = (byte - 48) * (1 + k % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


# issuer's numbers and length (ISO/IEC 7812; the networks' published ranges)
_CARD = re.compile(
    rb"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|"
    rb"3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|"
    rb"62\d{14,17}"
)
_CARD_GROUPS = re.compile(
    rb"\d+|\d{4}([- ])\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,3})?|\d{4}([- ])\d{6}\2\d{4,5}"
)


def _card(text: bytes, digits: bytes) -> bool:
    return (
        _CARD.fullmatch(digits) is not None
        and _CARD_GROUPS.fullmatch(text) is not None
        and luhn(digits)
    )


_SSN = re.compile(rb"(?!000|666|9)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}")
_SOCIAL = re.compile(rb"\b(?:ssn|social security|tax(?:payer)? id\w*)\b", re.IGNORECASE)
_NINO_BEFORE = re.compile(
    rb"(?<![A-Za-z0-9])(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][ -]?\Z"
)
_NINO = re.compile(rb"\d\d([ -]?)\d\d\1\d\d")
_CHINESE = re.compile(
    rb"(?:1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[123])\d{4}(?:18|19|20)\d\d"
    rb"(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx]"
)


def chinese_id(number: bytes) -> bool:
    """Form and check digit of an identity card's number (GB 11643-1999, ISO 7064 MOD 11-2)."""
    if not _CHINESE.fullmatch(number):
        return False
    total = sum((byte - 48) * (1 << (17 - k)) for k, byte in enumerate(number[:17]))
    return b"10X98765432"[total % 11] == number[17:].upper()[0]


def _national(text: bytes, digits: bytes, before: bytes, after: bytes) -> tuple[int, int] | None:
    free = not re.search(rb"\w$|\w[-.,/]$", before, re.ASCII)
    if len(digits) == 9 and free and not _goes_on(after):
        named = _SOCIAL.search(before)
        other = any(match[0].lower() != b"id" for match in _OTHER.finditer(before))
        if _SSN.fullmatch(text) and (named or b"-" in text) and not other:
            return 0, len(text)
        if named and text == digits and _SSN.fullmatch(b"-".join((text[:3], text[3:5], text[5:]))):
            return 0, len(text)
    if len(digits) in (17, 18) and free and text == digits:
        more = after[:1] if len(digits) == 17 else b""
        if chinese_id(text + more) and not _goes_on(after[len(more) :]):
            return 0, len(text + more)
    if len(digits) == 6 and _NINO.fullmatch(text):
        prefix = _NINO_BEFORE.search(before)
        suffix = re.match(rb"[ -]?[A-D](?![A-Za-z0-9])", after)
        if prefix and suffix:
            return -len(prefix[0]), len(text) + suffix.end()
    return None


def _phone(
    text: bytes, digits: bytes, before: bytes, after: bytes, regions: tuple[str, ...]
) -> tuple[int, int] | None:
    """Start and end of the telephone number."""
    if not 7 <= len(digits) <= 17:
        return None
    extension = re.match(rb"\s?(?:x|ext)\.?\s?\d", after, re.IGNORECASE)
    if not extension and _goes_on(after):
        return None
    if re.search(rb"\d[,:.]$|[A-Za-z0-9]-?$", before):
        return None
    if re.search(rb"[$\xa3=_&?/]\(?$", before) and not text.startswith(b"+"):
        return None
    start = 0
    if text[:1] == b"(" and text.count(b"(") > text.count(b")"):
        start = 1
    if text[start:].count(b"(") != text[start:].count(b")"):
        return None
    number = text[start:]
    if _DATE.search(number) or _QUAD.fullmatch(number):
        return None
    if _ISBN.match(number) and len(digits) == 13 and _isbn(digits):
        return None
    phone_at, other_at = _last(_PHONE, before), _last(_OTHER, before)
    if other_at > phone_at:
        return None
    plain = number == digits
    mobile = "CN" in regions and re.fullmatch(rb"1[3-9]\d{9}", digits) is not None
    if plain and not mobile and phone_at < 0:
        return None
    return (start, len(text)) if _valid(number.decode(), regions) else None


def _isbn(digits: bytes) -> bool:
    return sum((byte - 48) * (1 + 2 * (k % 2)) for k, byte in enumerate(digits)) % 10 == 0


@lru_cache(maxsize=1 << 16)
def _valid(number: str, regions: tuple[str, ...]) -> bool:
    """Whether it is a telephone number of the regions, or of any where it has its country's."""
    import phonenumbers

    if number.startswith("00"):
        number = "+" + number[2:]
    # North American numbers are written 3-3-4, or in one
    groups = [len(group) for group in re.findall(r"\d+", number)]
    groups = groups[1:] if groups[0] == 1 and len(groups) > 1 else groups
    american = groups in ([3, 3, 4], [3, 7], [6, 4], [10], [11])
    for region in (None,) if "+" in number else regions:
        # the matcher also asks for the 0 before an area code where a country's numbers have it
        for match in phonenumbers.PhoneNumberMatcher(
            number, region, phonenumbers.Leniency.VALID, max_tries=1
        ):
            whole = match.start == 0 and match.end == len(number)
            if whole and (american or match.number.country_code != 1):
                trunk = region is None or number[:1] in "0(" or _prefix(region) != "0"
                kind = phonenumbers.number_type(match.number)
                if trunk or kind != phonenumbers.PhoneNumberType.FIXED_LINE:
                    return True
    return False


def _prefix(region: str) -> str:
    """What is dialled before an area code: 0, 1, nothing, ..."""
    from phonenumbers import PhoneMetadata

    metadata = PhoneMetadata.metadata_for_region(region, None)
    return "" if metadata is None else metadata.national_prefix or ""


@cache
def _lengths(regions: tuple[str, ...]) -> NDArray[np.bool_]:
    """Digits that telephone numbers of the regions have, with and without 0 (or 1) before them,
    bool [16]."""
    from phonenumbers import PhoneMetadata

    out = np.zeros(16, np.bool_)
    for region in regions:
        metadata = PhoneMetadata.metadata_for_region(region, None)
        assert metadata is not None  # the section has checked the regions
        assert metadata.general_desc is not None
        for length in metadata.general_desc.possible_length:
            out[min(15, length)] = True
            out[min(15, length + len(_prefix(region)))] = True
    return out
