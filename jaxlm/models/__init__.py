"""The network: parameters, hidden states, loss."""

from jaxlm.models.attention import Mask
from jaxlm.models.decoder import Decoder
from jaxlm.models.layers import Cache
from jaxlm.models.loss import cross_entropy
from jaxlm.models.size import flops_per_token, parameter_count

__all__ = ["Cache", "Decoder", "Mask", "cross_entropy", "flops_per_token", "parameter_count"]
