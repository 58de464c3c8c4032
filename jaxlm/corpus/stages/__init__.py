"""What happens to documents, by three kinds of stage.

- A tagger (`TAGGERS`) is a pure function from texts to attributes: one number a document for every
  rule of its set. `decide` then compares them with the thresholds of the config. Adding a rule set
  is a section of min_/max_ fields in the config and a tagger here.
- A changer (`CHANGERS`) rewrites texts.
- A `Duplicates` stage compares documents with all that came before them: workers compute a
  signature of each document, one process resolves the signatures in the order of the corpus.
"""

from jaxlm.corpus.stages.decide import Failure, decide
from jaxlm.corpus.stages.duplicates import DUPLICATES, Duplicate
from jaxlm.corpus.stages.quality import TAGGERS
from jaxlm.corpus.stages.unicode import CHANGERS

__all__ = ["CHANGERS", "DUPLICATES", "TAGGERS", "Duplicate", "Failure", "decide"]
