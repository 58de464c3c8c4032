"""Parameters and floating-point operations of a config, without building the model."""

import math
from functools import partial

import jax

from jaxlm.config import Config
from jaxlm.models.decoder import Decoder


def parameter_count(config: Config) -> int:
    """Parameters of the model, embeddings and norms included."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(_shapes(config)))


def flops_per_token(config: Config, causal: bool) -> float:
    """Floating-point operations of forward and backward pass for one token.

    6 a parameter that takes part in a product (the output head does, tables do not), and
    12 * layers * heads * head width * seq_len for attention (Chowdhery et al. 2022, PaLM, appendix
    B), or half of that when what the causal mask hides is not counted. What is computed again in
    the backward pass is not counted.
    """
    model = config.model
    shapes = _shapes(config)
    products = sum(
        math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes.blocks) if len(leaf.shape) > 2
    )
    products += config.vocab_size * model.d_model
    attention = 12 * model.layers * model.heads * model.head_width * config.data.seq_len
    return 6.0 * products + attention * (0.5 if causal else 1.0)


def _shapes(config: Config) -> Decoder:
    build = partial(Decoder, config.model, config.vocab_size)
    return jax.eval_shape(build, jax.random.key(0))


def summary_lines(config: Config) -> list[str]:
    """The model's table: shape and parameters of every array, then the totals."""
    shapes = _shapes(config)
    leaves, _ = jax.tree_util.tree_flatten_with_path(shapes)
    lines = [f"{'array':32} {'shape':28} {'parameters':>16}"]
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")
        shape = " x ".join(map(str, leaf.shape))
        lines.append(f"{name:32} {shape:28} {math.prod(leaf.shape):>16}")
    lines.append(f"{'parameters':32} {'':28} {parameter_count(config):>16}")
    for causal, label in ((False, "FLOPs a token"), (True, "FLOPs a token, causal half")):
        lines.append(f"{label:32} {'':28} {flops_per_token(config, causal):>16.0f}")
    return lines
