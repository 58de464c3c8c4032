"""Parameters under transformers' names in the layout of our decoder, and back for gradients."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlm.config import Config
from jaxlm.models import Decoder
from jaxlm.parallel import sharding_of
from tests.models.small import config_of

REFERENCE = Path(__file__).parents[1] / "reference"

type Arrays = dict[str, np.ndarray]

SIZES = {"d_model": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "d_mlp": 128, "vocab_size": 97}
VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama_tied": {"tied": True},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": True},
}


def reference(name: str) -> Arrays:
    with np.load(REFERENCE / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def reference_config(name: str) -> Config:
    return config_of(SIZES | VARIANTS[name])


WITHIN_A_LAYER = {
    "attention.norm": "input_layernorm.weight",
    "attention.query": "self_attn.q_proj.weight",
    "attention.key": "self_attn.k_proj.weight",
    "attention.value": "self_attn.v_proj.weight",
    "attention.query_bias": "self_attn.q_proj.bias",
    "attention.key_bias": "self_attn.k_proj.bias",
    "attention.value_bias": "self_attn.v_proj.bias",
    "attention.query_norm": "self_attn.q_norm.weight",
    "attention.key_norm": "self_attn.k_norm.weight",
    "attention.out": "self_attn.o_proj.weight",
    "mlp.norm": "post_attention_layernorm.weight",
    "mlp.gate": "mlp.gate_proj.weight",
    "mlp.up": "mlp.up_proj.weight",
    "mlp.down": "mlp.down_proj.weight",
}


def ours(config: Config, theirs: Mapping[str, np.ndarray]) -> Arrays:
    """Our arrays by dotted name: layers stacked, matrices as [in, out]; gradients map alike."""
    arrays = {
        "embedding": theirs["model.embed_tokens.weight"],
        "norm": theirs["model.norm.weight"],
    }
    if "lm_head.weight" in theirs:
        arrays["head"] = theirs["lm_head.weight"]
    for name, their_name in WITHIN_A_LAYER.items():
        if f"model.layers.0.{their_name}" in theirs:
            layers = range(config.model.layers)
            arrays[f"blocks.{name}"] = np.stack(
                [theirs[f"model.layers.{layer}.{their_name}"].T for layer in layers]
            )
    return arrays


def by_name(tree: Decoder) -> dict[str, jax.Array]:
    """Leaves of a decoder (parameters or gradients) by dotted name."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value"): leaf
        for path, leaf in leaves
    }


def decoder(config: Config, theirs: Mapping[str, np.ndarray]) -> Decoder:
    """A decoder with transformers' parameters, on the mesh that is set.

    Every array must fit, and none be left over.
    """
    shapes = jax.eval_shape(
        lambda key: Decoder(config.model, config.vocab_size, key), jax.random.key(0)
    )
    arrays = ours(config, theirs)
    assert by_name(shapes).keys() == arrays.keys()
    leaves, structure = jax.tree.flatten(shapes)
    values = [arrays[name] for name in by_name(shapes)]
    assert [v.shape for v in values] == [leaf.shape for leaf in leaves]
    params = jax.tree.unflatten(structure, [np.asarray(v, np.float32) for v in values])
    return jax.device_put(params, sharding_of(shapes, jax.sharding.get_mesh()))
