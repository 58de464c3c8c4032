"""Begin and end of a document and other special tokens of a tokenizer from a file."""

import hashlib
from typing import NamedTuple

from jaxlm.config.tokenizer_file import TokenizerFile
from jaxlm.errors import UserError


class Special(NamedTuple):
    """Special tokens that are asked of a file by name; those that it lacks are added."""

    bos: str | None = None
    eos: str | None = None
    names: tuple[str, ...] = ()


AS_IT_IS = Special()


class SpecialIds(NamedTuple):
    """Ids of special tokens."""

    bos_id: int
    eos_id: int
    specials: dict[str, int]
    """By name; BOS and EOS are not among them."""
    added: tuple[str, ...]
    """Those that are not in the file, in the order of their ids, which follow the file's own."""


def special_ids(file: TokenizerFile, wanted: Special = AS_IT_IS) -> SpecialIds:
    """Ids of the special tokens of a file and of those that are asked for.

    Raises UserError where begin and end of document cannot be told, or are the same.
    """
    bos, eos = wanted.bos or file.bos, wanted.eos or file.eos
    known = ", ".join(list(file.specials)[:8]) or "none"
    lacking = [key for key, name in (("bos", bos), ("eos", eos)) if name is None]
    if lacking:
        what = " and ".join({"bos": "begin", "eos": "end"}[key] for key in lacking)
        raise UserError(
            f"{file.name}: does not say which special token is the {what} of a document; name it "
            f"with {' and '.join(f'tokenizer.{key}' for key in lacking)} (it has {known}; another "
            "name gets an id behind its own)"
        )
    assert bos is not None
    assert eos is not None
    if bos == eos:
        raise UserError(
            f"{file.name}: {bos} cannot be both begin and end of a document; give another name as "
            f"tokenizer.bos (it has {known}; another name gets an id behind its own)"
        )
    added = file.lacks((bos, eos, *wanted.names))
    ids = file.specials | {name: file.size + i for i, name in enumerate(added)}
    return SpecialIds(
        ids[bos], ids[eos], {name: i for name, i in ids.items() if name not in (bos, eos)}, added
    )


def hash_of(file: TokenizerFile, ids: SpecialIds) -> str:
    """sha256 of a file; where other special tokens are asked for than it has, of it and of them."""
    own = hashlib.sha256(file.content).hexdigest()
    said = [file.specials.get(name or "") for name in (file.bos, file.eos)]
    if said == [ids.bos_id, ids.eos_id] and not ids.added:
        return own
    names = [own, f"{ids.bos_id} {ids.eos_id}", *ids.added]
    return hashlib.sha256("\0".join(names).encode()).hexdigest()
