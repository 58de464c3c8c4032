"""Lists of words, addresses and domains that come from a file: an entry a line, # for comments."""

import re
from functools import cache
from pathlib import Path

from jaxlm.corpus.recipes import data_folder
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
