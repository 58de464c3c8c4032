"""What happens to documents, by four kinds of stage. Each has a section of the config.

- A tagger (`TAGGERS`) gives attributes: one number a document for every rule of its set. `decide`
  then compares them with the thresholds of its section. Taggers that follow each other see the
  same documents, also those that one of them drops, and share what they compute of them.
- An editor (`EDITORS`) may also rewrite texts. It sees the documents that are left and runs alone,
  as what is costly does too.
- A labeller (`LABELLERS`) finds out the language of each document besides attributes.
- A `Duplicates` stage compares documents with all that came before them: workers compute a
  signature of each document, which are then resolved in the order of the corpus.

`SPANS` has, for some stages, the places in one text that make its rules bite.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxlm.config.rules import Rules
from jaxlm.corpus.documents import Documents
from jaxlm.corpus.stages import (
    c4,
    chinese,
    classifiers,
    code,
    decontaminate,
    dolma,
    fineweb,
    gopher,
    language,
    lists,
    perplexity,
    privacy,
    quality,
    repetition,
    toxicity,
    unicode,
    words,
)
from jaxlm.corpus.stages.base import Changes, Edit, Tags
from jaxlm.corpus.stages.decide import Failure, decide
from jaxlm.corpus.stages.duplicates import DUPLICATES, Duplicate
from jaxlm.corpus.statistics import Analysis

TAGGERS: dict[str, Callable[[Analysis, Rules], Tags]] = (
    quality.TAGGERS
    | gopher.TAGGERS
    | repetition.TAGGERS
    | fineweb.TAGGERS
    | chinese.TAGGERS
    | code.TAGGERS
    | dolma.TAGGERS
    | lists.TAGGERS
    | words.TAGGERS
)
EDITORS: dict[str, Callable[[Analysis, Rules], Edit]] = (
    unicode.EDITORS
    | c4.EDITORS
    | dolma.EDITORS
    | perplexity.EDITORS
    | classifiers.EDITORS
    | toxicity.EDITORS
    | decontaminate.EDITORS
    | privacy.EDITORS
)
LABELLERS: dict[str, Callable[[Documents, Rules], tuple[NDArray[np.str_], Tags]]] = (
    language.LABELLERS
)
SPANS: dict[str, Callable[[str, Rules], dict[str, list[tuple[int, int]]]]] = (
    gopher.SPANS
    | repetition.SPANS
    | c4.SPANS
    | fineweb.SPANS
    | chinese.SPANS
    | code.SPANS
    | dolma.SPANS
    | lists.SPANS
    | privacy.SPANS
    | toxicity.SPANS
    | words.SPANS
)
# local files that a section names; UserError where one is missing or not what it should be
FILES: dict[str, Callable[[Rules], list[Path]]] = (
    lists.FILES | perplexity.FILES | classifiers.FILES | toxicity.FILES | decontaminate.FILES
)

__all__ = [
    "DUPLICATES",
    "EDITORS",
    "FILES",
    "LABELLERS",
    "SPANS",
    "TAGGERS",
    "Changes",
    "Duplicate",
    "Edit",
    "Failure",
    "Tags",
    "decide",
]
