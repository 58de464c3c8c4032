"""Named rule sets of `jaxlm tag`: a stage, its section, and the names that the original uses."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxlm.config.quality import Code, Gopher, Length, Repetition
from jaxlm.config.rules import Rules


@dataclass(frozen=True)
class RuleSet:
    """A stage with thresholds."""

    stage: str
    rules: Rules
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Rule (field of the section) -> its name in the package that the set comes from; a rule that
    is not here goes by its own name."""


SETS: dict[str, RuleSet] = {
    "length": RuleSet("quality.length", Length()),
    "gopher_quality": RuleSet("quality.gopher", Gopher()),
    "gopher_repetition": RuleSet("quality.repetition", Repetition()),
    "code": RuleSet("quality.code", Code()),
}
