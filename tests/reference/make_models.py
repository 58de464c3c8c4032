"""Writes llama.npz, llama_gradients.npz, llama_tied.npz, qwen2.npz and qwen3.npz: what transformers
computes with small random LLaMA-style models. Tests compare our decoder with them.

Made with Python 3.11.7, torch 2.13.0 (CPU), transformers 5.23.0, numpy 2.4.6. To repeat, in an
environment of its own (the project does not depend on torch):

    python3.11 -m venv ENV && ENV/bin/pip install torch==2.13.0 transformers==5.23.0
    ENV/bin/python tests/reference/make_models.py

Configuration: 2 layers, width 64, 4 heads, 2 key/value heads, head width 16, gated mlp 128,
vocabulary 97, rope base 10000 (half-rotated layout), RMSNorm epsilon 1e-5, output head untied
(tied in llama_tied.npz), attention in plain eager float32. Weights are random, large enough for
attention to be far from uniform, and rounded to float16 values (stored as float32) so that the
files stay small.

Keys, the same in every file but llama_gradients.npz:
    model.* and lm_head.weight  parameters under transformers' names, Linear weights as [out, in]
    input_ids [2,24]            two rows of tokens
    logits [2,24,97]            their logits
    loss []                     mean of the cross-entropy of tokens 1..23 of both rows
    packed_ids [1,24], packed_positions [1,24], packed_segments [1,24]
                                two documents (10 and 14 tokens) in one row; positions restart, and
                                no token sees the other document
    packed_logits [1,24,97]     their logits
    prompt [1,5], greedy [1,21] prompt, and prompt with 16 tokens by argmax
    greedy_margin [16]          best logit minus second best at each of these tokens
llama_gradients.npz: d loss / d parameter under the parameters' names, to 16 bits of significand.
llama_tied.npz holds besides `gradient.model.embed_tokens.weight` (the sum of both uses).
"""

from pathlib import Path

import numpy as np
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

HERE = Path(__file__).parent
VOCAB = 97
SIZES = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 128,
    "vocab_size": VOCAB,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "attn_implementation": "eager",
    "use_cache": False,
    "bos_token_id": None,
    "eos_token_id": None,
}


def randomize(model: PreTrainedModel, seed: int) -> None:
    """Gives every parameter, norms and biases too, random float16-representable values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            value = 1 + 0.2 * noise if "norm" in name else 0.15 * noise
            p.copy_(value.half().float())


def packed_row(ids: torch.Tensor, lengths: list[int]) -> tuple[torch.Tensor, ...]:
    """Positions, segments [1,T] and the additive block-diagonal causal mask [1,1,T,T]."""
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    segments = torch.cat([torch.full((n,), i + 1) for i, n in enumerate(lengths)])[None]
    steps = ids.shape[1]
    seen = torch.tril(torch.ones(steps, steps, dtype=torch.bool))
    seen = seen & (segments[0, :, None] == segments[0, None, :])
    mask = torch.zeros(1, 1, steps, steps).masked_fill(~seen, torch.finfo(torch.float32).min)
    return positions, segments, mask


def check_packing(model: PreTrainedModel, ids: torch.Tensor, packed: torch.Tensor) -> None:
    """The packed row must give what each document gives alone, or the mask was not used."""
    alone = torch.cat([model(ids[:, :10]).logits, model(ids[:, 10:]).logits], 1)
    torch.testing.assert_close(packed, alone, atol=2e-5, rtol=2e-5)


def significand_16(x: np.ndarray) -> np.ndarray:
    """float32 rounded to 16 bits of significand: relative error below 2**-16."""
    bits = x.view(np.uint32)
    return ((bits + np.uint32(0x80)) & np.uint32(0xFFFFFF00)).view(np.float32)


def reference(
    model: PreTrainedModel, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns (parameters, inputs and outputs; gradients of the loss by parameter name)."""
    model.eval()
    randomize(model, seed)
    out = {name: p.detach().numpy() for name, p in model.named_parameters()}
    rng = np.random.default_rng(seed)
    ids = torch.tensor(rng.integers(0, VOCAB, (2, 24)))
    logits = model(ids).logits
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, VOCAB), ids[:, 1:].reshape(-1)
    )
    loss.backward()
    gradients = {name: significand_16(p.grad.numpy()) for name, p in model.named_parameters()}

    with torch.no_grad():
        packed_ids = torch.tensor(rng.integers(0, VOCAB, (1, 24)))
        positions, segments, mask = packed_row(packed_ids, [10, 14])
        packed = model(packed_ids, attention_mask=mask, position_ids=positions).logits
        check_packing(model, packed_ids, packed)

        prompt = torch.tensor(rng.integers(0, VOCAB, (1, 5)))
        text, margins = prompt, []
        for _ in range(16):
            best = model(text).logits[0, -1].topk(2)
            margins.append(float(best.values[0] - best.values[1]))
            text = torch.cat([text, best.indices[:1, None]], 1)
    assert min(margins) > 1e-3, f"greedy choice hangs on rounding: {min(margins)}; change the seed"
    own = model.generate(prompt, max_new_tokens=16, do_sample=False, use_cache=True, pad_token_id=0)
    assert torch.equal(own, text), "generate() with its cache disagrees"

    out |= {
        "input_ids": ids.numpy().astype(np.int32),
        "logits": logits.detach().numpy(),
        "loss": loss.detach().numpy(),
        "packed_ids": packed_ids.numpy().astype(np.int32),
        "packed_positions": positions.numpy().astype(np.int32),
        "packed_segments": segments.numpy().astype(np.int32),
        "packed_logits": packed.numpy(),
        "prompt": prompt.numpy().astype(np.int32),
        "greedy": text.numpy().astype(np.int32),
        "greedy_margin": np.array(margins, np.float32),
    }
    return out, gradients


def save(name: str, arrays: dict[str, np.ndarray]) -> None:
    path = HERE / name
    np.savez_compressed(path, allow_pickle=False, **arrays)
    print(f"{name}: {path.stat().st_size} bytes, {len(arrays)} arrays")


def main() -> None:
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)

    arrays, gradients = reference(LlamaForCausalLM(LlamaConfig(**SIZES)), seed=1)
    save("llama.npz", arrays)
    save("llama_gradients.npz", gradients)

    tied = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True))
    arrays, gradients = reference(tied, seed=2)
    embedding = "model.embed_tokens.weight"
    save("llama_tied.npz", arrays | {f"gradient.{embedding}": gradients[embedding]})

    arrays, _ = reference(Qwen2ForCausalLM(Qwen2Config(**SIZES)), seed=3)
    save("qwen2.npz", arrays)
    arrays, _ = reference(Qwen3ForCausalLM(Qwen3Config(**SIZES)), seed=4)
    save("qwen3.npz", arrays)


if __name__ == "__main__":
    main()
