"""The section `prepare.quality.chinese`: text of scripts that put no space between words."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, model_validator

from jaxlm.config.rules import PROSE, Kind, Rules, Share

Script = Literal["han", "kana", "hangul", "thai", "lao", "khmer", "myanmar"]


class Chinese(Rules):
    """Rules by characters for languages without spaces between words, by default for Chinese.

    Characters are those that are not white space. Published thresholds: ChineseWebText (Chen et al.
    2023, arXiv:2311.01149): min_characters, min_mean_line_length, min_script_share,
    max_duplicate_ngrams; FineWeb-2 (arXiv:2506.20920, configuration cmn_Hani): min_ended_lines,
    max_duplicate_lines, the stop words, of which Gopher wants two. The others are ours. For another
    language give its script, stop words and thresholds, or set them in prepare.routes.
    """

    kinds: tuple[Kind, ...] = PROSE
    """Kinds of source that are judged."""
    languages: tuple[str, ...] = ("zh",)
    """Languages that are judged; empty: all."""
    script: Annotated[tuple[Script, ...], Field(min_length=1)] = ("han",)
    """Scripts of the language; Japanese has han and kana."""
    stop_words: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] = (
        "的", "年", "在", "月", "是", "和", "日", "了", "於", "为", "為", "有", "被", "人", "中",
        "他", "与", "與", "後", "也", "而", "由",
    )  # fmt: skip
    """Words of which a text in the language has some."""
    short_line: NonNegativeInt = 10
    """A line of at most so many characters is short."""
    ngram: Annotated[int, Field(ge=2, le=100)] = 13
    """Characters of the runs that duplicate_ngrams counts."""
    min_characters: NonNegativeInt | None = 200
    """Characters, at least."""
    max_characters: NonNegativeInt | None = None
    """Characters, at most."""
    min_mean_line_length: NonNegativeFloat | None = 10.0
    """Mean characters a non-blank line, at least."""
    min_script_share: Share | None = 0.3
    """Share of characters of the scripts, at least. MNBVC asks for 0.7."""
    min_stop_words: NonNegativeInt | None = 2
    """How many of the stop words occur, at least."""
    min_ended_lines: Share | None = 0.106
    """Share of non-blank lines that end in 。！？… or another closing mark, at least."""
    max_short_lines: Share | None = 0.67
    """Share of non-blank lines that are short, at most (FineWeb's share, with its 30 letters as 10
    characters)."""
    max_duplicate_lines: Share | None = 0.287
    """Share of non-blank lines that occurred before in the document, at most."""
    max_duplicate_sentences: Share | None = 0.3
    """Share of sentences that occurred before in the document, at most."""
    max_duplicate_ngrams: Share | None = 0.5
    """Share of runs of ngram characters that occurred before in the document, at most."""
    min_punctuation_share: Share | None = 0.005
    """Share of punctuation marks, at least: lists of names and keywords have none."""
    max_punctuation_share: Share | None = 0.35
    """Share of punctuation marks, at most."""
    max_symbol_share: Share | None = 0.1
    """Share of symbols (signs, arrows, emoji), at most."""
    min_traditional_share: Share | None = None
    """Of the characters that are written differently in simplified and traditional Chinese, share
    of traditional ones, at least; without such characters there is no rule."""
    max_traditional_share: Share | None = None
    """The same, at most: 0.1 or so where only simplified text is wanted."""

    @model_validator(mode="after")
    def _check_words(self) -> Self:
        for word in self.stop_words:
            if any(c.isspace() for c in word):
                raise ValueError(f"stop_words: {word!r} has white space in it")
        return self
