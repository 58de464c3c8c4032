"""Peer: transformers' LLaMA trained with plain PyTorch, eager, float32, fused AdamW, 2 threads.

Needs Python 3.11 with torch 2.13.0 and transformers 5.23.0. Speaks the protocol of blocks.py:
    echo 'run 3' | ENV/bin/python -m benchmarks.peers.torch_llama
"""

import numpy as np
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.peers.blocks import serve

BATCH, STEPS, VOCAB = 8, 256, 8192


def main() -> None:
    torch.set_num_threads(2)
    torch.manual_seed(0)
    config = LlamaConfig(
        num_hidden_layers=4,
        hidden_size=256,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        intermediate_size=1024,
        vocab_size=VOCAB,
        max_position_embeddings=STEPS,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    model.train()
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=1e-3,
        betas=(0.9, 0.95),
        eps=1e-8,
        fused=True,
    )
    rng = np.random.default_rng(0)
    tokens = torch.tensor(rng.integers(0, VOCAB, (BATCH, STEPS + 1)))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].reshape(-1)

    def run(steps: int) -> float:
        loss = torch.zeros(())
        for _ in range(steps):
            logits = model(input_ids=inputs).logits
            loss = torch.nn.functional.cross_entropy(logits.view(-1, VOCAB), targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item()

    serve(
        {
            "peer": "torch",
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "attention": config._attn_implementation,
            "parameters": sum(p.numel() for p in model.parameters()),
        },
        run,
    )


if __name__ == "__main__":
    main()
