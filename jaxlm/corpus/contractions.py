"""English words that are cut in other places than their punctuation says: can't, e.g., :-)

The same words as in spaCy 3.8 (lang/en/tokenizer_exceptions.py, lang/tokenizer_exceptions.py).
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

LONGEST = 16
_PRIME = 0x9E3779B97F4A7C15
_NOT_CUT = "Ill ill Its its Hell hell Shell shell Shed shed were Were Well well whore Whore"
_WHO = "who what when where why how there"
_NEGATED = "ai are is was were have has dare"
_MODAL = "ca could do does did had may might must need ought sha should wo would"
_ABBREVIATIONS = (
    "Mt. Ak. Ala. Apr. Ariz. Ark. Aug. Calif. Colo. Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. "
    "Ill. Ind. Jan. Jul. Jun. Kan. Kans. Ky. La. Mar. Mass. Mich. Minn. Miss. N.C. N.D. N.H. "
    "N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. Pa. S.C. Sep. Sept. Tenn. Va. Wash. "
    "Wis. a.m. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. Gen. Gov. i.e. I.e. I.E. Inc. "
    "Jr. Ltd. Md. Messrs. Mo. Mont. Mr. Mrs. Ms. p.m. Ph.D. Prof. Rep. Rev. Sen. St. vs. v.s. "
    "ä. ö. ü."
)
_WHOLE = (
    "'S 's ‘S ‘s 'd 're and/or w/o 'Cause 'cause 'cos 'Cos 'coz 'Coz 'cuz 'Cuz 'bout ma'am Ma'am "
    "o'clock O'clock lovin' Lovin' havin' Havin' doin' Doin' goin' Goin' nothin' Nothin' "
    "nuthin' Nuthin' ol' Ol' somethin' Somethin' 'em 'll 'nuff ' '' \\\") <space> C++ \\t \\n "
    "lovin Lovin havin Havin doin Doin goin Goin nothin Nothin nuthin Nuthin ol Ol somethin "
    "Somethin em ll nuff —"
)
_FACES = (
    ":) :-) :)) :-)) :))) :-))) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) "
    ";-) (; (-; :( :-( :(( :-(( :((( :-((( ): )-: =( >:( :') :'-) :'( :'-( :/ :-/ =/ =| :| "
    ":-| ]= =[ :1 :P :-P :p :-p :O :-O :o :-o :0 :-0 :() >:o :* :-* :3 :-3 =3 :> :-> :X :-X "
    ":x :-x :D :-D ;D ;-D =D xD XD xDD XDD 8D 8-D ^_^ ^__^ ^___^ >.< >.> <.< ._. ;_; -_- -__- "
    "v.v V.V v_v V_V o_o o_O O_o O_O 0_o o_0 0_0 o.O O.o O.O o.o 0.0 o.0 0.o @_@ <3 <33 <333 "
    "</3 (^_^) (-_-) (._.) (>_<) (*_*) (¬_¬) (ಠ_ಠ) ಠ_ಠ ಠ︵ಠ ¯\\(ツ)/¯ (╯°□°）╯︵┻━┻ ><(((*>"
)
_PAIRS = (
    "y'|all y|all how|'d|'y How|'d|'y not|'ve not|ve Not|'ve Not|ve can|not Can|not gon|na "
    "Gon|na got|ta Got|ta let|'s Let|'s c'm|on C'm|on I|'m i|'m I|m i|m I|'m|a i|'m|a I|m|a "
    "i|m|a °|C|. °|F|. °|K|. °|c|. °|f|. °|k|."
)


def cut_words() -> dict[str, tuple[str, ...]]:
    """Word -> its pieces."""
    cut = [tuple(pair.split("|")) for pair in _PAIRS.split()]

    def each(words: str, *endings: tuple[str, ...]) -> None:
        for word in words.split():
            for form in (word, word.title()):
                for ending in endings:
                    cut.append((form, *ending))
                    cut.append((form, *(part.replace("'", "") for part in ending)))

    each("i you he she it we they", ("'ll",), ("'ll", "'ve"), ("'d",), ("'d", "'ve"))
    each("i you we they", ("'ve",))
    each("you we they", ("'re",))
    each("he she it", ("'s",))
    each(f"{_WHO} that this", ("'s",))
    each(f"{_WHO} that this these those", ("'ll",), ("'ll", "'ve"), ("'d",), ("'d", "'ve"))
    each(f"{_WHO} these those", ("'re",), ("'ve",))
    each(f"{_MODAL} {_NEGATED}", ("n't",))
    each(_MODAL, ("n't", "'ve"))
    each("could might must should would", ("'ve",))
    for hour in range(1, 13):
        cut += [(str(hour), ending) for ending in ("am", "pm", "a.m.", "p.m.")]
    whole = [*_ABBREVIATIONS.split(), *_WHOLE.split(), *_FACES.split()]
    whole += [f"{letter}." for letter in "abcdefghijklmnopqrstuvwxyz"]
    found = {"".join(parts): parts for parts in [*cut, *((word,) for word in whole)]}
    curly = {
        word.replace("'", "’"): tuple(part.replace("'", "’") for part in parts)
        for word, parts in found.items()
    }
    spared = _NOT_CUT.split()
    return {word: parts for word, parts in (curly | found).items() if word not in spared}


@cache
def contractions() -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint32]]:
    """A hash table of these words, and which of them there may be.

    keys: hash of the code points, 0 for none, uint64 [K]; cuts: where the second and third piece
    begin, in characters, 0 for none, int64 [K, 2]; shapes: bit n is set where a word of n
    characters begins, and where one ends, with this ASCII character (the last: any other),
    uint32 [2, 129].
    """
    words = cut_words()
    size = 8192
    keys = np.zeros(size, np.uint64)
    cuts = np.zeros((size, 2), np.int64)
    shapes = np.zeros((2, 129), np.uint32)
    for word, parts in words.items():
        key = 0
        for c in word:
            key = (key * _PRIME + ord(c) + 1) % (1 << 64)
        at = (key >> 40) % size
        while keys[at]:
            at = (at + 1) % size
        keys[at] = key
        for k in range(1, len(parts)):
            cuts[at, k - 1] = len("".join(parts[:k]))
        for k in (0, -1):
            shapes[k, min(ord(word[k]), 128)] |= np.uint32(1 << len(word))
    return keys, cuts, shapes
