"""The section `prepare.quality.code`: rules for source files."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from jaxlm.config.rules import Kind, Rules, Share

PERMISSIVE = (
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "MIT",
    "MIT-0", "PSF-2.0", "Python-2.0", "Unlicense", "WTFPL", "Zlib",
)  # fmt: skip


class Code(Rules):
    """Rules for source files.

    Line lengths and alphanumeric_share: Codex (Chen et al. 2021, arXiv:2107.03374) with the
    thresholds of The Stack. generated, xml, visible text of HTML, comments: StarCoder (Li et al.
    2023, arXiv:2305.06161). encoded: StarCoder2 (Lozhkov et al. 2024, arXiv:2402.19173).
    min_space_share is ours, for minified files with short lines.
    """

    kinds: tuple[Kind, ...] = ("code",)
    """Kinds of source that are judged."""
    language_field: Annotated[str, Field(min_length=1)] = "programming_language"
    """The meta field that names the language of a file, by GitHub's names."""
    generated_lines: PositiveInt = 5
    """A marker of generated files counts in so many first lines."""
    licences: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9.+-]+$")], ...] = ()
    """SPDX identifiers that are wanted; `permissive` stands for the common permissive ones; empty:
    any."""
    max_mean_line_length: NonNegativeFloat | None = 100.0
    """Mean characters a line, at most."""
    max_line_length: NonNegativeInt | None = 1000
    """Characters of the longest line, at most."""
    min_alphanumeric_share: Share | None = 0.25
    """Share of characters that are letters or digits, at least."""
    min_space_share: Share | None = 0.02
    """Share of bytes that are white space, at least."""
    max_generated: Annotated[int, Field(ge=0, le=1)] | None = 0
    """1 for a file that says that a program made it, at most."""
    max_xml: Annotated[int, Field(ge=0, le=1)] | None = 0
    """1 for a file that begins with an XML declaration, at most."""
    min_visible_share: Share | None = 0.2
    """Share of an HTML page that is seen, at least; other files are not judged."""
    min_visible_characters: NonNegativeInt | None = 100
    """Characters of an HTML page that are seen, at least."""
    min_comment_share: Share | None = None
    """Share of bytes in comments and docstrings, at least (StarCoder: 0.01 for Python, Java and
    JavaScript); files in languages whose comments are not known here are not judged."""
    max_comment_share: Share | None = 0.8
    """The same, at most."""
    max_encoded_run: NonNegativeInt | None = 1024
    """Bytes of the longest run of base64 or of numbers in hexadecimal, at most."""
    max_encoded_share: Share | None = 0.5
    """Share of bytes in such runs of at least 64 bytes, at most."""
    max_unwanted_licence: Annotated[int, Field(ge=0, le=1)] | None = 0
    """1 for a file whose header names a licence that is not one of licences, at most."""
    max_without_licence: Annotated[int, Field(ge=0, le=1)] | None = None
    """1 for a file whose header names no licence, at most."""
