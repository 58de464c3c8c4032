"""Raw text to clean documents."""

from jaxlm.corpus.prepare import inputs, prepare

__all__ = ["inputs", "prepare"]
