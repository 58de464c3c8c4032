"""What every section of a config is: a frozen object that refuses unknown keys."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of all config sections: immutable, hashable, strict about keys and types.

    The string under each attribute is its description; it appears in the JSON Schema.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
