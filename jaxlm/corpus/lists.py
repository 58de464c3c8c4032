"""Lists of words, addresses and domains from files, and where their entries occur.

A list has an entry a line; blank lines and those that begin with # are left out.
"""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any
from unicodedata import category

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jaxlm.corpus.automaton import Automaton, Matches
from jaxlm.corpus.characters import CODES, decode, spaceless, table
from jaxlm.corpus.documents import Strings
from jaxlm.corpus.recipes import data_folder
from jaxlm.corpus.statistics import Ints, Mask
from jaxlm.errors import UserError

MOST_BYTES = 1 << 30
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


def list_path(name: str) -> Path:
    """The file of a list: data/lists/NAME.txt for a bare name, otherwise a path.

    Raises UserError where there is none.
    """
    bare = _NAME.fullmatch(name) is not None
    path = data_folder() / "lists" / f"{name}.txt" if bare else Path(name).expanduser()
    if path.is_file():
        return path
    if not bare:
        raise UserError(f"list {name}: there is no such file")
    ours = sorted(other.stem for other in (data_folder() / "lists").glob("*.txt"))
    raise UserError(
        f"list {name!r}: there is no such list; ours are {', '.join(ours)}; for a file of your own "
        f"give a path (./{name})"
    )


@cache
def read_list(name: str) -> tuple[str, ...]:
    """The entries of a list in the order of its file, without blank lines and comments.

    Raises UserError for a file that is not there, not UTF-8, empty or larger than 1 GiB.
    """
    path = list_path(name)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"list {path}: larger than {MOST_BYTES >> 20} MiB")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"list {path}: not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise UserError(f"list {path}: {error.strerror or error}") from None
    entries = [line.strip() for line in lines if not line.lstrip().startswith("#")]
    found = tuple(filter(None, entries))
    if not found:
        raise UserError(f"list {path}: no entries in it")
    return found


class WordList:
    """Finds words and phrases as whole words. ASCII letters match in either case, others in lower
    case, upper case and where a word begins with a capital."""

    def __init__(self, entries: Iterable[str]) -> None:
        self.entries = tuple(dict.fromkeys(entries))
        forms: list[bytes] = []
        entry: list[int] = []
        for number, word in enumerate(self.entries):
            for form in sorted(
                {
                    f.encode().lower()
                    for f in (word, word.lower(), word.upper(), word.title(), word.capitalize())
                }
            ):
                forms.append(form)
                entry.append(number)
        self._automaton = Automaton(forms)
        self._entry = np.array(entry, np.int64)

    def find(self, texts: Strings) -> Matches:
        """The occurrences; `pattern` is an index into entries. Two of the same entry do not
        overlap."""
        found = self._automaton.find(texts)
        entry = self._entry[found.pattern]
        whole = _whole(
            np.ascontiguousarray(texts.buffer), found.starts, found.ends,
            texts.offsets[found.document], texts.offsets[found.document + 1], _alphanumeric(),
        )  # fmt: skip
        whole &= _apart(entry, found.starts, found.ends, whole, len(self.entries))
        return Matches(entry[whole], found.document[whole], found.starts[whole], found.ends[whole])


@cache
def word_list(names: tuple[str, ...]) -> WordList:
    """The entries of some lists together. Raises UserError as read_list does."""
    return WordList(entry for name in names for entry in read_list(name))


@cache
def _alphanumeric() -> NDArray[Any]:
    """Letters, digits, marks and _ of scripts that put spaces between words, bool [CODES]."""
    mask = table(lambda c: c.isalnum() or c == "_" or category(c)[0] == "M", np.bool_)
    return mask & ~spaceless()


@njit(cache=True)
def _whole(
    buffer: NDArray[np.uint8],
    starts: Ints,
    ends: Ints,
    first: Ints,
    last: Ints,
    alphanumeric: Mask,
) -> Mask:
    """Which pieces do not begin or end between two letters of a text, bytes first:last."""
    out = np.empty(len(starts), np.bool_)
    for i in range(len(starts)):
        out[i] = not (
            (starts[i] > first[i] and _between_letters(buffer, starts[i], alphanumeric))
            or (ends[i] < last[i] and _between_letters(buffer, ends[i], alphanumeric))
        )
    return out


@njit(cache=True)
def _between_letters(buffer: NDArray[np.uint8], at: int, alphanumeric: Mask) -> bool:
    """Whether the characters before and after a place are both letters."""
    code, _ = decode(buffer, at)
    if code >= CODES or not alphanumeric[code]:
        return False
    before = at - 1
    while buffer[before] & 0xC0 == 0x80:
        before -= 1
    code, _ = decode(buffer, before)
    return code < CODES and bool(alphanumeric[code])


@njit(cache=True)
def _apart(entry: Ints, starts: Ints, ends: Ints, good: Mask, entries: int) -> Mask:
    """Which of the good occurrences begin after the last one of their entry that was taken."""
    out = np.zeros(len(entry), np.bool_)
    last = np.full(entries, -1, np.int64)
    for i in range(len(entry)):
        if good[i] and starts[i] >= last[entry[i]]:
            out[i] = True
            last[entry[i]] = ends[i]
    return out
