"""Search of the sources' shares with small proxy models."""

from jaxlm.mixing.search import refuse, search

__all__ = ["refuse", "search"]
