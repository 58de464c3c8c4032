"""The `model` section: what the network is."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from jaxlm.config.base import Section


class Rope(Section):
    """Rotary positions (Su et al. 2021, RoFormer), half-split as LLaMA's checkpoints have them."""

    kind: Literal["rope"] = "rope"
    """Rotary embedding of queries and keys."""
    theta: PositiveFloat = 10_000.0
    """Base of the geometric series of wavelengths."""


class Attention(Section):
    """Which keys a query sees, and which kernel computes it."""

    kernel: Literal["auto", "cudnn", "splash", "xla"] = "auto"
    """auto takes the first kernel of the platform's table that accepts the shapes."""


class NgramEmbedding(Section):
    """Embeddings of hashed token n-grams that end at a position, added to the token's embedding."""

    orders: tuple[Annotated[int, Field(ge=2, le=8)], ...] = (2, 3)
    """Lengths of the n-grams; each has a table of its own."""
    buckets: PositiveInt = 16_384
    """Rows of each table; n-grams share rows by hash."""


class Model(Section):
    """A LLaMA-style decoder and its variations."""

    kind: Literal["decoder"] = "decoder"
    """Architecture."""
    layers: PositiveInt = 4
    """Number of blocks."""
    d_model: PositiveInt = 256
    """Width of the residual stream."""
    heads: PositiveInt = 4
    """Query heads."""
    kv_heads: PositiveInt | None = None
    """Key and value heads (grouped-query attention); null: as many as `heads`."""
    head_dim: PositiveInt | None = None
    """Width of a head; null: d_model / heads."""
    d_mlp: PositiveInt = 1024
    """Hidden width of the MLP."""
    mlp: Literal["swiglu", "geglu", "relu2"] = "swiglu"
    """Gated SiLU or GELU (Shazeer 2020), or ungated squared ReLU (So et al. 2021)."""
    norm_eps: PositiveFloat = 1e-5
    """Added to the mean square in RMSNorm."""
    qk_norm: bool = False
    """RMSNorm on each query and key head before the rotation (as in Qwen3)."""
    qkv_bias: bool = False
    """Biases on query, key and value projections (as in Qwen2)."""
    tied: bool = False
    """The output head is the transposed token embedding."""
    ngram_embedding: NgramEmbedding | None = None
    """Hashed n-gram embeddings beside the token embedding; null: none."""
    position: Rope = Rope()
    """Position encoding."""
    attention: Attention = Attention()
    """Attention kernel and, later, windows."""
    init_std: PositiveFloat = 0.02
    """Standard deviation of weights at the start; output projections get 1/sqrt(2 layers) of it."""
    vocab_size: PositiveInt | None = None
    """Rows of the embedding; null: tokenizer.vocab_size."""

    @property
    def kv_head_count(self) -> int:
        return self.kv_heads or self.heads

    @property
    def head_width(self) -> int:
        return self.head_dim or self.d_model // self.heads
