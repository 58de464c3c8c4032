"""What the rules of prose ask of a character, as bits: one table for every code point."""

import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

from jaxlm.corpus.characters import spaceless, table

SPACE = 1 << 0
ALPHA = 1 << 1
DIGIT = 1 << 2
LOWER = 1 << 3
UPPER = 1 << 4
OPENER = 1 << 5  # a token of its own at the beginning of a word
CLOSER = 1 << 6  # and at its end
CURRENCY = 1 << 7
BEFORE_STOP = 1 << 8  # a full stop after it is a token of its own
QUOTE = 1 << 9
ICON = 1 << 10
SPACELESS = 1 << 11  # of a script without spaces between words
MARK = 1 << 12  # datatrove's punctuation
PUNCTUATION = 1 << 13  # Unicode's
SENTENCE_END = 1 << 14
LINE_END = 1 << 15
TERMINAL = 1 << 16
DECIMAL = 1 << 17  # a digit of any script

# The facts below are those of spaCy 3.8 (lang/char_classes.py, pipeline/sentencizer) and
# datatrove 0.10.1 (utils/text.py).
_QUOTES = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉〈〉⟦⟧"
_POINTS = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
_CURRENCIES = "$£€¥฿₽﷼" + "".join(map(chr, range(0x20A0, 0x20C0)))
_ENDS = (
    "!.?։؟۔܀܁܂߹।॥၊။።፧፨᙮᜵᜶᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿‼‽⁇⁈⁉⸮⸼꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗！．？𐩖𐩗"
    "𑁇𑁈𑂾𑂿𑃀𑃁𑅁𑅂𑅃𑇅𑇆𑇍𑇞𑇟𑈸𑈹𑈻𑈼𑊩𑑋𑑌𑗂𑗃𑗉𑗊𑗋𑗌𑗍𑗎𑗏𑗐𑗑𑗒𑗓𑗔𑗕𑗖𑗗𑙁𑙂𑜼𑜽𑜾𑩂𑩃𑪛𑪜𑱁𑱂𖩮𖩯𖫵𖬷𖬸𖭄𛲟𝪈"
    "｡。"
)
# datatrove's terminal punctuation has these besides the ends of sentences
_TERMINAL = _ENDS + (
    "\u061d\u061e\u0837\u0839\u083d\u083e\u17d4\u17d5\u17d6\u17d9\u17da\u1b7d\u1b7e\u2e53\u2e54"
    "\U00010f55\U00010f56\U00010f57\U00010f58\U00010f59\U00010f86\U00010f87\U00010f88\U00010f89"
    "\U00011944\U00011946\U00011ef7\U00011ef8\U00011f43\U00011f44\U00016e98"
)
_MARKS = (
    "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
    + "".join(chr(code) for code in (*range(9), 11, 12, *range(13, 32), *range(127, 160)))
    + _TERMINAL
)
_LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


@cache
def classes() -> NDArray[np.uint32]:
    """The bits of every code point below CODES, uint32 [CODES]."""
    bits = table(_general, np.uint32)
    for bit, characters in (
        (DIGIT | BEFORE_STOP, "0123456789"),
        (OPENER, _POINTS + _QUOTES + _CURRENCIES + "§%=—–+"),
        (CLOSER, _POINTS + _QUOTES + "—–"),
        (CURRENCY, _CURRENCIES),
        (BEFORE_STOP, _POINTS + _QUOTES + "%²-+|"),
        (QUOTE, _QUOTES),
        (MARK, _MARKS),
        (SENTENCE_END, _ENDS),
        (LINE_END, _LINE_ENDS),
        (TERMINAL, _TERMINAL),
    ):
        bits[[ord(c) for c in characters]] |= np.uint32(bit)
    bits[spaceless()] |= np.uint32(SPACELESS)
    return bits


def _general(c: str) -> int:
    category = unicodedata.category(c)
    bits = SPACE if c.isspace() else 0
    if c.isalpha():
        bits |= ALPHA
        if not c.isupper():
            bits |= LOWER | BEFORE_STOP
        if not c.islower():
            bits |= UPPER
    if category[0] == "P":
        bits |= PUNCTUATION
    if category == "Nd":
        bits |= DECIMAL
    if category == "So":
        bits |= ICON | OPENER | CLOSER
    return bits
