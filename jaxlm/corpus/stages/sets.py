"""Named rule sets of `jaxlm tag`: a stage, its section, and the names that the original uses."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxlm.config.chinese import Chinese
from jaxlm.config.classifiers import Toxicity
from jaxlm.config.code import Code
from jaxlm.config.dolma import DolmaC4, DolmaGopher
from jaxlm.config.privacy import Privacy
from jaxlm.config.prose import C4, FineWeb, Gopher, Repetition
from jaxlm.config.quality import Length
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


_GOPHER = {
    "min_words": "gopher_short_doc",
    "max_words": "gopher_long_doc",
    "min_mean_word_length": "gopher_below_avg_threshold",
    "max_mean_word_length": "gopher_above_avg_threshold",
    "max_hash_ratio": "gopher_too_many_hashes",
    "max_ellipsis_ratio": "gopher_too_many_ellipsis",
    "max_bullet_lines": "gopher_too_many_bullets",
    "max_ellipsis_lines": "gopher_too_many_end_ellipsis",
    "min_alphabetic_words": "gopher_below_alpha_threshold",
    "min_stop_words": "gopher_enough_stop_words",
}
_REPETITION = {
    "min_characters": "empty",
    "max_duplicate_paragraphs": "dup_para_frac",
    "max_duplicate_paragraph_characters": "dup_para_char_frac",
    "max_duplicate_lines": "dup_line_frac",
    "max_duplicate_line_characters": "dup_line_char_frac",
    **{f"max_top_{n}gram": f"top_{n}_gram" for n in (2, 3, 4)},
    **{f"max_duplicate_{n}grams": f"duplicated_{n}_n_grams" for n in range(5, 11)},
}
_C4 = {
    "max_lorem_ipsum": "lorem_ipsum",
    "max_curly_brackets": "curly_bracket",
    "min_sentences": "too_few_sentences",
}
_FINEWEB = {
    "min_lines": "empty",
    "min_ended_lines": "line_punct_ratio",
    "max_short_lines": "short_line_ratio",
    "max_duplicate_characters": "char_dup_ratio",
    "max_newline_ratio": "list_ratio",
}

SETS: dict[str, RuleSet] = {
    "length": RuleSet("quality.length", Length()),
    "gopher_quality": RuleSet("quality.gopher", Gopher(), _GOPHER),
    "gopher_repetition": RuleSet("quality.repetition", Repetition(), _REPETITION),
    "c4": RuleSet("quality.c4", C4(), _C4),
    "fineweb": RuleSet("quality.fineweb", FineWeb(), _FINEWEB),
    "gopher_quality.datatrove": RuleSet("quality.gopher", Gopher(words="spacy"), _GOPHER),
    "gopher_repetition.datatrove": RuleSet(
        "quality.repetition", Repetition(words="spacy"), _REPETITION
    ),
    "c4.datatrove": RuleSet("quality.c4", C4(words="spacy"), _C4),
    "fineweb.datatrove": RuleSet("quality.fineweb", FineWeb(words="spacy"), _FINEWEB),
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
    "toxicity": RuleSet("toxicity", Toxicity()),
    "pii": RuleSet("privacy", Privacy()),
    "repeats": RuleSet("quality.repeats", Repeats()),
    "stop_words": RuleSet("quality.stop_words", StopWords()),
    "symbols": RuleSet("quality.symbols", Symbols()),
    "forum": RuleSet("quality.forum", Forum()),
    "wiki": RuleSet("quality.wiki", Wiki()),
}
