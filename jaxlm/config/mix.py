"""The section `mix`: search of the sources' shares with small proxy models."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from jaxlm.config.base import Section


class ProxyModel(Section):
    """Sizes that take the place of those of `model`; everything else is as it is there."""

    layers: PositiveInt = 2
    """Number of blocks."""
    d_model: PositiveInt = 32
    """Width of the residual stream."""
    heads: PositiveInt = 2
    """Heads, of queries, keys and values alike."""
    d_mlp: PositiveInt = 64
    """Hidden width of the MLP."""


class Mix(Section):
    """How `jaxlm mix` searches the proportions of the sources that have a weight."""

    method: Literal["regmix", "doremi"] = "regmix"
    """regmix: many proxies on drawn mixtures, and a regression from shares to loss (Liu et al.
    2024). doremi: a reference on the config's own mixture, and a proxy whose sources are reweighted
    by how far it is behind (Xie et al. 2023); `target` plays no part in it."""
    model: ProxyModel = ProxyModel()
    """The proxy model."""
    proxies: PositiveInt = 40
    """Mixtures that are tried, the config's own and the uniform one among them (regmix)."""
    steps: PositiveInt = 300
    """Optimizer steps of a proxy."""
    batch_size: PositiveInt = 8
    """Sequences a step of a proxy."""
    seq_len: Annotated[int, Field(ge=2, le=1 << 24)] = 64
    """Tokens of a sequence of a proxy."""
    learning_rate: PositiveFloat = 1e-2
    """Peak rate of the proxies, with AdamW, a tenth of the steps as warm-up and a cosine decay to
    a tenth; a wider model has it divided by how much wider it is (Yang et al. 2022)."""
    at_once: PositiveInt = 16
    """Proxies that a device holds at once; fewer of larger models."""
    vmap: bool | None = None
    """Whether they are computed by one batched program, or one by one; null: one by one on a CPU,
    where that is faster."""
    target: Annotated[dict[str, PositiveFloat], Field(min_length=1)] | None = None
    """Sources whose validation loss counts, and how much; they need not take part in training.
    null: all sources, equally."""
    validation_tokens: PositiveInt = 16_384
    """Validation tokens of each source that are scored, at most."""
    concentration: PositiveFloat = 1.0
    """How close drawn mixtures are to the config's own: parameters of the Dirichlet distribution
    are this, times the number of sources, times the sources' tempered shares."""
    temperature: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Power that the config's own shares are raised to before mixtures are drawn; 0: uniform."""
    minimum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Least share of each source."""
    refine: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.33
    """Share of the proxies whose mixtures are drawn last, among those that a regression on the
    others predicts to be the best."""
    confirm: PositiveInt = 2
    """Best mixtures that are trained again: the one found, and the best that were tried."""
    seeds: Annotated[int, Field(ge=1, le=64)] = 3
    """Times that each of them is trained, besides the config's own mixture and the uniform one,
    from other initial weights and in another order of the data."""
    scales: tuple[Annotated[float, Field(gt=1.0, le=1024.0)], ...] = (4, 16)
    """How many times larger the models are on which the proxies' ranking is checked; empty: it is
    not checked."""
    candidates: Annotated[int, Field(ge=3)] = 6
    """Mixtures that are trained for that check: the one found, the config's own, the uniform one
    and others from the best that was tried to the worst."""

    @model_validator(mode="after")
    def _scales(self) -> Self:
        if len(set(self.scales)) < len(self.scales):
            raise ValueError("scales: names a size twice")
        return self
