"""What happens to documents, by three kinds of stage. Each has a section of the config.

- A tagger (`TAGGERS`) gives attributes: one number a document for every rule of its set. `decide`
  then compares them with the thresholds of its section. Taggers that follow each other see the
  same documents, also those that one of them drops, and share what they compute of them.
- An editor (`EDITORS`) may also rewrite texts. It sees the documents that are left and runs alone,
  as what is costly does too.
- A `Duplicates` stage compares documents with all that came before them: workers compute a
  signature of each document, one process resolves the signatures in the order of the corpus.
"""

from jaxlm.corpus.stages.base import Changes, Edit, Tags
from jaxlm.corpus.stages.decide import Failure, decide
from jaxlm.corpus.stages.duplicates import DUPLICATES, Duplicate
from jaxlm.corpus.stages.quality import TAGGERS
from jaxlm.corpus.stages.unicode import EDITORS

__all__ = [
    "DUPLICATES",
    "EDITORS",
    "TAGGERS",
    "Changes",
    "Duplicate",
    "Edit",
    "Failure",
    "Tags",
    "decide",
]
