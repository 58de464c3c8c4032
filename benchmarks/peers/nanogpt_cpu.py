"""nanoGPT's CPU recipe for characters of tinyshakespeare, as our own minimal PyTorch program.

    ENV/bin/python benchmarks/peers/nanogpt_cpu.py TEXT [--steps 2000] [--threads 2] [--seed 1337]

(ENV: Python 3.11 with torch 2.13.0.) The recipe: 4 layers, 4 heads, width 128, context 64, batch
12, 2000 steps, no dropout, LayerNorm without bias, GELU, learned positions, tied head; AdamW with
beta2 0.99, weight decay 0.1 on matrices, clip 1.0; learning rate 1e-3 with 100 steps of warmup,
then cosine to 1e-4. The first 90 % of the characters train, the last 10 % validate: the
loss of the whole validation part in windows of 64 that do not overlap, in nats per character.

Prints one JSON line a 100 steps to stderr and one result line to stdout:
{"steps","wall_s","cpu_s","loss","valid_loss","characters","parameters"}; the seconds cover training
(eager mode), not validation.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

LAYERS, HEADS, WIDTH, CONTEXT, BATCH = 4, 4, 128, 64, 12
PEAK, FLOOR, WARMUP = 1e-3, 1e-4, 100


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, bias=False)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm2 = nn.LayerNorm(WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (
            part.view(b, t, HEADS, d // HEADS).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).split(d, 2)
        )
        a = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(a.transpose(1, 2).reshape(b, t, d))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Model(nn.Module):
    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*[Block() for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                # Products that write into the residual stream start smaller, as in GPT-2.
                into_stream = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * LAYERS) if into_stream else 0.02)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        logits = self.norm(self.blocks(x)) @ self.tokens.weight.T
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def learning_rate(step: int, steps: int) -> float:
    if step < WARMUP:
        return PEAK * (step + 1) / (WARMUP + 1)
    done = (step - WARMUP) / (steps - WARMUP)
    return FLOOR + 0.5 * (1 + math.cos(math.pi * done)) * (PEAK - FLOOR)


@torch.no_grad()
def validation_loss(model: Model, valid: Tensor) -> float:
    """Mean over every character but the first, windows of CONTEXT, the last one shorter."""
    total, count = 0.0, len(valid) - 1
    whole = count // CONTEXT * CONTEXT
    inputs, targets = valid[:whole].view(-1, CONTEXT), valid[1 : whole + 1].view(-1, CONTEXT)
    for x, y in zip(inputs.split(256), targets.split(256), strict=True):
        total += float(model(x, y)) * y.numel()
    if whole < count:
        rest = valid[whole:]
        total += float(model(rest[None, :-1], rest[None, 1:])) * (count - whole)
    return total / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("text", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1337)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    text = options.text.read_text(encoding="utf-8")
    characters = {c: i for i, c in enumerate(sorted(set(text)))}
    data = torch.tensor(np.array([characters[c] for c in text]))
    train, valid = data[: int(0.9 * len(data))], data[int(0.9 * len(data)) :]

    model = Model(len(characters))
    groups = [
        {"params": [p for p in model.parameters() if p.dim() == 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.99))
    loss = torch.tensor(math.nan)
    wall, cpu = time.perf_counter(), time.process_time()
    for step in range(options.steps):
        starts = torch.randint(len(train) - CONTEXT, (BATCH,))
        x = torch.stack([train[i : i + CONTEXT] for i in starts])
        y = torch.stack([train[i + 1 : i + CONTEXT + 1] for i in starts])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options.steps)
        loss = model(x, y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 100 == 0:
            seconds = round(time.process_time() - cpu, 1)
            print(
                json.dumps({"step": step + 1, "cpu_s": seconds, "loss": loss.item()}),
                file=sys.stderr,
            )
    result = {
        "steps": options.steps,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "loss": loss.item(),
        "valid_loss": validation_loss(model, valid),
        "characters": options.steps * BATCH * CONTEXT,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
