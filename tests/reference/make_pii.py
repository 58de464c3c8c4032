# ruff: noqa: E501  tables of values
"""Writes pii.jsonl: sentences with private data whose places are known, and sentences that only
look as if they had some.

    python tests/reference/make_pii.py > tests/reference/pii.jsonl

A line is {"text", "spans": [[start, end, kind]] in characters, "class"}. Sentences are put together
from parts, so that the places are right by construction. Nothing belongs to a person: domains of
RFC 2606; telephone numbers for fiction (NANPA's 555-01XX, those of Ofcom, ARCEP, Bundesnetzagentur,
ACMA, PTS) and of a network operator; public IP addresses of name servers (root servers, public
resolvers); the card networks' test numbers; void or sample identity numbers, birth dates in the
19th century; keys of random characters or from their issuers' documentation.
"""

import json
import random
import sys

random.seed(20240607)
pick = random.choice

EMAIL, IP, PHONE = "email", "ip", "phone"
CARD, SECRET, NATIONAL = "credit_card", "secret", "national_id"

# --- values

NAMES = ["anna", "b.lind", "carlos.m", "d_okafor", "eva-k", "f.oneill", "g.rossi", "hana", "ivan",
         "j.smith", "k.mueller", "li.wei", "m.garcia", "noor", "o'brien", "p.durand", "q.tran",
         "r2d2", "sales", "info", "support+eu", "news%list", "T.Anderson", "x_99", "zoe.w"]  # fmt: skip
HOSTS = ["example.com", "example.org", "example.net", "mail.example.com", "cs.dept.example.edu",
         "post.example.co.uk", "my-firm.example", "EXAMPLE.COM", "a.b.c.example.org",
         "uni-berlin.example.de", "3dprint.example.com", "xn--bcher-kva.example"]  # fmt: skip
PUBLIC4 = ["8.8.8.8", "8.8.4.4", "1.1.1.1", "9.9.9.9", "149.112.112.112", "208.67.222.222",
           "208.67.220.220", "198.41.0.4", "199.9.14.201", "192.33.4.12", "199.7.91.13",
           "192.203.230.10", "192.5.5.241", "192.112.36.4", "198.97.190.53", "192.36.148.17",
           "192.58.128.30", "193.0.14.129", "199.7.83.42", "202.12.27.33"]  # fmt: skip
PUBLIC6 = ["2001:503:ba3e::2:30", "2001:500:2::c", "2001:500:2d::d", "2001:500:a8::e",
           "2001:500:2f::f", "2001:500:12::d0d", "2001:500:1::53", "2001:7fe::53",
           "2001:503:c27::2:30", "2001:7fd::1", "2001:500:9f::42", "2001:dc3::35",
           "2001:4860:4860::8888", "2001:4860:4860:0:0:0:0:8844", "2606:4700:4700::1111",
           "2620:FE::FE:9"]  # fmt: skip
AREAS = ["212", "202", "303", "415", "512", "617", "702", "808", "907", "305", "206", "312"]
US = ["({a}) 555-01{n}", "{a}-555-01{n}", "{a}.555.01{n}", "{a} 555 01{n}", "+1 {a} 555 01{n}",
      "+1-{a}-555-01{n}", "1-{a}-555-01{n}", "+1 ({a}) 555-01{n}", "({a})555-01{n}", "+1{a}55501{n}",
      "{a}/555-01{n}", "{a}\u00a0555\u201101{n}"]  # fmt: skip
WORLD = ["020 7946 0{n}1", "(020) 7946 0{n}2", "+44 20 7946 0{n}3", "+44 (0)20 7946 0{n}4",
         "0161 496 0{n}5", "0113 4960 {n}6", "+44 161 496 0{n}7", "01 99 00 {n} 12",
         "01.99.00.{n}.13", "+33 1 99 00 {n} 14", "+33 (0)1 99 00 {n} 15", "0033 1 99 00 {n} 16",
         "02 61 91 {n} 17", "030 23125 {n}8", "030/23125{n}9", "+49 30 23125 {n}1",
         "(040) 66969 {n}2", "+49 (0)69 90009 {n}3", "0221 4710 {n}4", "+61 2 5550 {n}15",
         "+61 491 570 156", "+46 31 390 06 {n}", "+46 (0)31-390 06 {n}"]  # fmt: skip
CHINESE = ["13800138000", "138 0013 8000", "138-0013-8000", "+86 13800138000",
           "+86 138 0013 8000", "13800000000"]  # fmt: skip
CARDS = ["4111 1111 1111 1111", "4111111111111111", "4242-4242-4242-4242", "5555 5555 5555 4444",
         "5105105105105100", "3782 822463 10005", "371449635398431", "6011 1111 1111 1117",
         "6011000990139424", "3530 1113 3330 0000", "30569309025904", "4012-8888-8888-1881",
         "2223 0031 2200 3222", "4000056655665556", "6200 0000 0000 0005"]  # fmt: skip
ALNUM = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def letters(n: int, of: str = ALNUM) -> str:
    return "".join(random.choices(of, k=n))


SECRETS = [
    "AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE",
    *(f"gh{kind}_" + letters(36) for kind in "pousr"),
    "github_pat_" + letters(22) + "_" + letters(59),
    "xoxb-000000000000-000000000000-" + letters(24),
    "AIza" + letters(35), "glpat-" + letters(20), "npm_" + letters(36), "hf_" + letters(34),
    "sk-proj-" + letters(48),
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJleGFtcGxlIn0." + letters(43),
    "-----BEGIN RSA PRIVATE KEY-----\n" + letters(64) + "\n" + letters(40)
    + "\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\n" + letters(64) + "\n-----END PRIVATE KEY-----",
]  # fmt: skip


def chinese_id(good: bool = True) -> str:
    """GB 11643: region, birth date, serial number, check digit modulo 11."""
    body = pick(["110105", "440524", "310101", "510104"]) + f"18{random.randint(50, 99)}"
    body += f"{random.randint(1, 12):02}{random.randint(1, 28):02}{random.randint(0, 999):03}"
    check = sum(int(c) * pow(2, 17 - k, 11) for k, c in enumerate(body)) % 11
    return body + "10X98765432"[(check + (not good)) % 11]


def isbn13() -> str:
    groups = ["978", str(random.randint(0, 9)), letters(4, "0123456789"), letters(4, "0123456789")]
    digits = "".join(groups)
    check = -sum(int(c) * (1 + 2 * (k % 2)) for k, c in enumerate(digits)) % 10
    return pick(["-", " ", ""]).join([*groups, str(check)])


# --- sentences: {} is the place of a value

FRAMES = {
    EMAIL: ["Write to {} for details.", "Contact: {}", "{} is my new address.", "Mail me ({}).",
            "Reach us at <{}>, please.", "From: Editor <{}>\nSubject: hello", "mailto:{}",
            "Send it to \"{}\".", "Who owns {}?", "联系{}获取更多信息。", "[{}]", "'{}'",
            "Cc: {}; Bcc: nobody", "e-mail={}", "Questions go to {}"],
    IP: ["The server at {} did not answer.", "ping {}", "Connected from ({}).",
         "{} - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200", "Blocked host {}, again.",
         "DNS: {}", "The name server is {}.", "client={}", "Last login from {}"],
    PHONE: ["Call {} today.", "{} is the office number.", "Tel. {}, ask for Anna.",
            "Reach me at {}.", "Phone: {}", "You may ring ({}) after noon.", "Our fax: {};",
            "number {}\nand nothing else", "Front desk {} or the bell", "tel:{}", "Dial {}!"],
    CARD: ["Card {} was charged.", "Pay with {}.", "{} (expires 12/30)", "card number: {}"],
    SECRET: ["token = \"{}\"", "export KEY={}", "The key {} leaked.", "{}", "Use {} here."],
    NATIONAL: ["His number is {}.", "{} was on the form.", "ID: {}", "Born with ({})."],
}  # fmt: skip

lines: list[tuple[str, list[tuple[int, int, str]], str]] = []


def put(frame: str, values: list[tuple[str, str]], name: str) -> None:
    """Fill the places of a frame from left to right."""
    text, spans = "", []
    parts = frame.split("{}")
    for part, (kind, value) in zip(parts, values, strict=False):
        text += part
        spans.append((len(text), len(text) + len(value), kind))
        text += value
    lines.append((text + parts[-1], spans, name))


for k in range(110):
    name = pick(NAMES) + (str(k) if k % 3 == 0 else "")
    put(FRAMES[EMAIL][k % 15], [(EMAIL, f"{name}@{pick(HOSTS)}")], "email")
for k in range(64):
    frame = FRAMES[IP][k % 9]
    value = pick(PUBLIC4) if k % 3 else pick(PUBLIC6)
    put(frame, [(IP, value)], "ip")
for k in range(110):
    form = US[k % len(US)].format(a=pick(AREAS), n=f"{random.randint(0, 99):02}")
    frame = FRAMES[PHONE][k % 11]
    if form.startswith("(") and "({})" in frame:
        frame = FRAMES[PHONE][0]
    put(frame, [(PHONE, form)], "phone US")
for k in range(69):
    form = WORLD[k % len(WORLD)].format(n=f"{random.randint(10, 99)}")
    frame = pick([f for f in FRAMES[PHONE] if "({})" not in f])
    put(frame, [(PHONE, form)], "phone world")
for frame in ("请拨打{}。", "手机号：{}", "致电{}，谢谢", "{}是他的号码"):
    for form in CHINESE:
        put(frame, [(PHONE, form)], "phone CN")
for k in range(30):
    put(FRAMES[CARD][k % 4], [(CARD, CARDS[k % 15])], "credit card")
for k in range(34):
    put(FRAMES[SECRET][k % 5], [(SECRET, SECRETS[k % len(SECRETS)])], "secret")
put("aws_secret_access_key = {}", [(SECRET, "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")], "secret")
for k in range(12):
    put(FRAMES[NATIONAL][k % 4], [(NATIONAL, chinese_id())], "national id")
for k, value in enumerate(["078-05-1120", "219-09-9999", "AB 12 34 56 C", "AB123456C"] * 3):
    put(FRAMES[NATIONAL][k % 4], [(NATIONAL, value)], "national id")
put("Social security number {}", [(NATIONAL, "078051120")], "national id")

# --- by hand: several in one text, at the edges, touching each other
put("{}", [(EMAIL, "a@example.com")], "edge")
put("{}", [(PHONE, "212-555-0123")], "edge")
put("{}", [(IP, "149.112.112.112")], "edge")
put(
    "{},{};{}",
    [(EMAIL, "a@example.com"), (EMAIL, "b@example.org"), (EMAIL, "c@example.net")],
    "edge",
)
put("({}) ({})", [(EMAIL, "a@example.com"), (PHONE, "+1 212 555 0123")], "edge")
put("{} / {}", [(PHONE, "212-555-0123"), (PHONE, "212-555-0124")], "edge")
put("Tel: {}\nFax: {}", [(PHONE, "(212) 555-0123"), (PHONE, "(212) 555-0124")], "edge")
put("ssh root@{} or {}:22", [(IP, "8.8.8.8"), (IP, "9.9.9.9")], "edge")
put("http://{}/index.html", [(IP, "149.112.112.112")], "edge")
put("http://[{}]:8080/", [(IP, "2001:7fe::53")], "edge")
put("Room 12, {}, ext. 5", [(PHONE, "212-555-0123")], "edge")
put("Call 24/7: {}x45", [(PHONE, "212-555-0123")], "edge")
put("On 2024-01-15 call {}", [(PHONE, "212-555-0123")], "edge")
put("2024-01-15 {} {}", [(PHONE, "212-555-0123"), (EMAIL, "a@example.com")], "edge")
put("call {} now", [(PHONE, "2125550123")], "edge")
put("Phone {}", [(PHONE, "07700 900123")], "edge")  # reserved for drama, so not valid
put("Contact «{}» – {}", [(EMAIL, "j\u00f6rg@example.de"), (EMAIL, "\u0438\u0432\u0430\u043d@example.com")],
    "edge")  # fmt: skip
put("{}\n{}\n{}", [(EMAIL, "x@example.com"), (PHONE, "+44 20 7946 0123"), (IP, "8.8.4.4")], "edge")
put("{}...", [(EMAIL, "dots@example.com")], "edge")
put("...{}", [(PHONE, "212-555-0199")], "edge")
put("The range {}-{} is blocked.", [(IP, "8.8.4.4"), (IP, "8.8.8.8")], "edge")
put("{}/24 is a network", [(IP, "149.112.112.0")], "edge")
put("Ask a person: {}? {}!", [(EMAIL, "q@example.com"), (EMAIL, "r@example.com")], "edge")
put("Mobile {}", [(PHONE, "06 39 98 12 34")], "edge")  # reserved for fiction, so not valid

# --- negatives
r = random.randint
NEGATIVES: dict[str, list[str]] = {
    "version": [f"{word} {r(1, 9)}.{r(0, 9)}.{r(0, 30)}.{r(0, 200)}" for word in
                ("version", "Version", "firmware", "release", "driver", "kernel", "upgraded to version",
                 "build", "rev.", "ver.", "Section", "clause")] + [
                "v8.8.8.100", "Chrome/91.0.4472.124", "foo-1.2.3.4.tar.gz", "libbar 1.2.3.4",
                "OpenFoo 1.0.2.7 is out", "foo==23.1.2.10b1", "3.2.1.4 Further rules"],
    "isbn": [f"{word} {isbn13()}" for word in ("ISBN", "ISBN-13:", "see", "ISBN:", "the book", "isbn")
             for _ in range(3)] + ["ISBN 0-306-40615-2", "ISBN 0306406152", "ISSN 1234-5679"],
    "hash": [letters(n, "0123456789abcdef") for n in (32, 40, 64, 32, 40, 64, 7, 12)] + [
             "550e8400-e29b-41d4-a716-446655440000", "sha256:" + letters(64, "0123456789abcdef"),
             "commit 2125550123abcdef", "0x2125550123", ":".join(letters(2, "0123456789abcdef")
             for _ in range(16)), "00:1b:44:11:3a:b7", "02:42:ac:11:00:02:fe:01"],
    "coordinates": [f"{pick(['at', 'lat', 'near', 'Coordinates:'])} {r(-89, 89)}.{letters(k, '123456789')}, "
                    f"{r(-179, 179)}.{letters(k, '123456789')}" for k in (4, 5, 6, 7, 8, 4, 5, 6, 7, 8)],
    "date": ["2024-01-15", "15.01.2024", "01/15/2024 10:30", "2020-2021", "1990 - 1995", "1999-12-31 23",
             "20240115", "20240115123059", "2024-01-15T10:30:00Z", "12 05 2021", "10/Oct/2000:13:55:36",
             "12:34:56:78", "2024.01.15 1200", "1914-1918 1939-1945", "from 1861-1865"],
    "tracking": ["1Z999AA10123456784", "tracking 9400 1000 0000 0000 0000 00", "parcel 212555012345",
                 "Order 2125550123", "order no. 212-555-0123", "invoice #2125550123", "id=2125550123",
                 "item 3035550199", "https://example.com/p/2125550123", "case 415-555-0123",
                 "part ABC-212-555-0123", "timestamp 1609459200", "at 1700000000", "ticket 5125550100"],
    "number": ["1,234,567,890", "$212 555 0123", "population 1 234 567", "3.14159265", "0.2125550123",
               "12 345 678 people", "2125550123 grains", "scores 21-12 55-50 12-3", "1.234.567,89",
               "100-200-3000", "1 2 3 4 5 6 7 8 9 10", "99.99.99", "2125550123%", "123 456 789 012 345 678",
               "6:341-356 1976", "pp. 212-555, 123-456", "10 20 30 40 50 60", "212-555-012", "12125550"],
    "address": ["256.1.1.1", "1.256.1.1", "8.8.8", "8.8.8.8.8", "1.3.6.1.4.1.311", "192.168.1.1",
                "10.0.0.1", "127.0.0.1", "172.16.5.4", "192.0.2.17", "198.51.100.23", "203.0.113.99",
                "0.0.0.0", "255.255.255.0", "169.254.1.1", "2001:db8::1", "::1", "fe80::1", "fd00::17",
                "::", "08.08.08.08", "ff02::1", "server 300.8.8.8"],
    "colons": ["x[1::2]", "x[2000::5]", "std::vector", "a::b", "Foo::Bar::Baz", "12:30:45", "Dad::Cafe",
               "Isaiah 40:31", "1:2:3", "cafe:babe", "::ffff", "10:20:30:40:50:60:70:80"],
    "at": ["@user", "follow @some.user", "icon@2x.png", "logo@3x.jpg", "lodash@4.17.21", "@foo.bar",
           "git@example.com:owner/project.git", "https://user@example.com/x", "ssh://git@example.com/x",
           "A@B", "x = a@b", "y = x@self.weight", "user at example dot com", "@media.screen", "a @ b.com",
           "10 @ 3.50", "foo@localhost", "@user@social.example", "user@", "postgres://u:pw@db.example.com/x",
           "ftp://anonymous@ftp.example.org/pub"],
    "card": ["4111 1111 1111 1112", "1234 5678 9012 3456", "5555555555554445", "0000 0000 0000 0000",
             "41111111-11111111", "4111111111111111999999", "9999999999999995"],
    "secret": ["AKIA", "AKIA1234", "ghp_short", "eyJhbGciOi", "xoxb-", "-----BEGIN PUBLIC KEY-----",
               "ghp_" + "x" * 10, "hf_model", "sk-learn", "AIzaShort"],
    "national": [*(chinese_id(False) for _ in range(3)), "000-12-3456", "666-12-3456", "987-65-4321",
                 "123-00-4567", "123-45-0000", "GB 12 34 56 C", "AB 12 34 56 E", "part 123-45-6789",
                 "QQ 12 34 56 C", "12-345-6789"],
}  # fmt: skip
FILL = ["{}", "See {}.", "It says {} there.", "We found {}"]
for name, values in NEGATIVES.items():
    for k, value in enumerate(values):
        lines.append((FILL[k % 4].replace("{}", value), [], f"no {name}"))

for text, spans, name in lines:
    for start, end, _ in spans:
        assert 0 <= start < end <= len(text)
    line = {"text": text, "spans": spans, "class": name}
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
