"""Named rule sets of `jaxlm tag`: a stage, its section, and the names that the original uses."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxlm.config.chinese import Chinese
from jaxlm.config.code import Code
from jaxlm.config.dolma import DolmaC4, DolmaGopher
from jaxlm.config.quality import Gopher, Length, Repetition
from jaxlm.config.rules import Rules
from jaxlm.config.text import Language
from jaxlm.config.words import Forum, Repeats, StopWords, Symbols, Wiki


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
    "gopher.dolma": RuleSet(
        "quality.dolma_gopher",
        DolmaGopher(),
        {
            "min_words": "word_count<50",
            "max_words": "word_count>100000",
            "min_median_word_length": "median<3",
            "max_median_word_length": "median>10",
            "max_symbol_ratio": "symbol>0.1",
            "min_alphabetic_words": "alpha<0.8",
            "min_required_words": "required<2",
            "max_bullet_lines": "bullet>0.9",
            "max_ellipsis_lines": "ellipsis>0.3",
            "max_duplicate_lines": "dup_lines>0.3",
            "max_duplicate_line_characters": "dup_line_chars>0.3",
        }
        | {f"max_duplicate_{n}grams": f"dup_{n}grams" for n in range(5, 11)},
    ),
    "c4.dolma": RuleSet(
        "quality.dolma_c4",
        DolmaC4(),
        {
            "max_curly_brace": "has_curly_brace",
            "max_lorem_ipsum": "has_lorem_ipsum",
            "max_javascript": "has_javascript",
            "max_naughty_word": "has_naughty_word",
        },
    ),
    "chinese": RuleSet("quality.chinese", Chinese()),
    "language": RuleSet("language", Language()),
    "repeats": RuleSet("quality.repeats", Repeats()),
    "stop_words": RuleSet("quality.stop_words", StopWords()),
    "symbols": RuleSet("quality.symbols", Symbols()),
    "forum": RuleSet("quality.forum", Forum()),
    "wiki": RuleSet("quality.wiki", Wiki()),
}
