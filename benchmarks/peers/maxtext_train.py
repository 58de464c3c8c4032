"""Peer: MaxText's own training step, float32, minimal remat, unrolled layers, one fixed batch.

Needs an environment of its own with Python 3.12 (maxtext names its dependencies only for
accelerators, so those that a CPU run imports are named here):

    pip install maxtext==0.2.5 jax==0.12.0.1 flax optax orbax-checkpoint grain qwix aqtp
        ml-collections ml-goodput-measurement pathwaysutils omegaconf pydantic sentencepiece
        transformers tokenizers tiktoken jaxtyping drjax tensorboardX cloud-accelerator-diagnostics
        cloud-tpu-diagnostics gcsfs datasets tokamax einops jinja2 pillow tensorflow-cpu

Random tokens of MaxText's own synthetic data; metrics and checkpoints are left out, the step is
called as MaxText's loop calls it. Speaks the protocol of blocks.py:
    echo 'run 3' | ENV/bin/python -m benchmarks.peers.maxtext_train
"""

import os
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks.peers.blocks import serve

OPTIONS = """
    run_name=cpu hardware=cpu dataset_type=synthetic enable_checkpointing=false steps=100000
    decoder_block=llama2 base_num_decoder_layers=4 base_emb_dim=256 base_mlp_dim=1024
    base_num_query_heads=4 base_num_kv_heads=4 head_dim=64 vocab_size=8192
    logits_via_embedding=false mlp_activations=["silu","linear"] max_target_length=256
    per_device_batch_size=8 dtype=float32 weight_dtype=float32 attention=dot_product
    scan_layers=false remat_policy=minimal gradient_clipping_threshold=1.0
    adam_b1=0.9 adam_b2=0.95 adam_weight_decay=0.1 learning_rate=0.001
    enable_goodput_recording=false skip_jax_distributed_system=true
    log_config=false enable_tensorboard=false
"""


def main() -> None:
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import maxtext  # type: ignore[import-not-found]
    from flax import linen, nnx
    from maxtext.trainers.pre_train import train  # type: ignore[import-not-found]
    from maxtext.utils import sharding, train_utils  # type: ignore[import-not-found]

    base = Path(maxtext.__file__).parent / "configs" / "base.yml"
    with tempfile.TemporaryDirectory() as folder:
        argv = ["train", str(base), *OPTIONS.split(), f"base_output_directory={folder}"]
        config, recorder = train.initialize(argv)
        setup = train_utils.setup_train_loop(config, recorder)
        _, _, shardings, _, mesh, _, _, loader, _, _, state = setup
        graph, state = nnx.split(state)
        params, shardings = sharding.maybe_update_params_sharding_with_opt(config, shardings)
        step, _ = train_utils.jit_train_and_eval_step(
            config, graph, mesh, state, shardings, train.train_step, train.eval_step, None, params
        )
        batch = loader.load_next_batch()

        def run(steps: int) -> float:
            nonlocal state
            metrics = {}
            with jax.set_mesh(mesh), linen.logical_axis_rules(config.logical_axis_rules):
                for _ in range(steps):
                    state, metrics = step(state, batch)
                jax.block_until_ready(state)
            return float(metrics["scalar"]["learning/loss"])

        serve({"peer": "maxtext", "maxtext": version("maxtext"), "jax": jax.__version__}, run)


if __name__ == "__main__":
    main()
