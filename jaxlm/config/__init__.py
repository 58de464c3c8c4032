"""Typed config of a run: YAML in, frozen objects out."""

from jaxlm.config.base import Section
from jaxlm.config.load import dump, load
from jaxlm.config.schema import Config, json_schema

__all__ = ["Config", "Section", "dump", "json_schema", "load"]
