"""The network: parameters, hidden states, loss."""

from jaxlm.models.attention import Mask
from jaxlm.models.layers import Cache
from jaxlm.models.loss import Head, cross_entropy, logits, nats_of
from jaxlm.models.size import flops_per_token, parameter_count
from jaxlm.models.transformer import Transformer

__all__ = [
    "Cache", "Head", "Mask", "Transformer", "cross_entropy", "flops_per_token", "logits",
    "nats_of", "parameter_count",
]  # fmt: skip
