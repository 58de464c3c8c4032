"""Peer: the barest JAX training step of the same model, as fast as we could make it on a CPU.

No framework, no config, no sharding, no masks but the causal one. What makes it fast: activations
as (batch x sequence, width) before every product, layers unrolled, all but the weight products
recomputed, attention in blocks of queries that see only the keys before them, and a cross-entropy
that goes over the tokens in chunks and computes its gradient in the forward pass. Speaks the
protocol of blocks.py: echo 'run 3' | python -m benchmarks.peers.bare_jax
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.peers.blocks import serve

LAYERS, WIDTH, HEADS, MLP, VOCAB = 4, 256, 4, 1024, 8192
BATCH, STEPS = 8, 256
HEAD, TOKENS = WIDTH // HEADS, BATCH * STEPS
QUERIES = 64  # in an attention block
CHUNK = 256  # tokens of the cross-entropy at a time
RATE, BETA1, BETA2, EPSILON, DECAY = 1e-3, 0.9, 0.95, 1e-8, 0.1

FREQUENCIES = 10000.0 ** (-np.arange(HEAD // 2) / (HEAD // 2))
ANGLES = np.arange(STEPS)[:, None, None] * FREQUENCIES
SIN, COS = np.sin(ANGLES).astype(np.float32), np.cos(ANGLES).astype(np.float32)


def init(key: Array) -> dict[str, Any]:
    keys = iter(jax.random.split(key, 2 + 7 * LAYERS))

    def matrix(*shape: int) -> Array:
        return 0.02 * jax.random.normal(next(keys), shape)

    layers = [
        {
            "attn_norm": jnp.ones(WIDTH),
            "q": matrix(WIDTH, WIDTH),
            "k": matrix(WIDTH, WIDTH),
            "v": matrix(WIDTH, WIDTH),
            "out": matrix(WIDTH, WIDTH),
            "mlp_norm": jnp.ones(WIDTH),
            "gate": matrix(WIDTH, MLP),
            "up": matrix(WIDTH, MLP),
            "down": matrix(MLP, WIDTH),
        }
        for _ in range(LAYERS)
    ]
    embed, head = matrix(VOCAB, WIDTH), matrix(WIDTH, VOCAB)
    return {"embed": embed, "layers": layers, "norm": jnp.ones(WIDTH), "head": head}


def normed(x: Array, scale: Array) -> Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5) * scale


def rotated(x_BTHD: Array) -> Array:
    a, b = jnp.split(x_BTHD, 2, -1)
    return jnp.concatenate([a * COS - b * SIN, b * COS + a * SIN], -1)


def attention(q_BTHD: Array, k_BSHD: Array, v_BSHD: Array) -> Array:
    out = []
    for start in range(0, STEPS, QUERIES):
        end = start + QUERIES
        scores = jnp.einsum("bthd,bshd->bhts", q_BTHD[:, start:end], k_BSHD[:, :end]) * HEAD**-0.5
        seen = np.arange(end) <= np.arange(start, end)[:, None]
        weights = jax.nn.softmax(jnp.where(seen, scores, -1e30), -1)
        out.append(jnp.einsum("bhts,bshd->bthd", weights, v_BSHD[:, :end]))
    return jnp.concatenate(out, 1)


@partial(jax.checkpoint, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable)
def block(x: Array, p: dict[str, Array]) -> Array:
    """One layer; x is [TOKENS, WIDTH]."""
    h = normed(x, p["attn_norm"])
    q, k, v = ((h @ p[name]).reshape(BATCH, STEPS, HEADS, HEAD) for name in "qkv")
    x = x + attention(rotated(q), rotated(k), v).reshape(TOKENS, WIDTH) @ p["out"]
    h = normed(x, p["mlp_norm"])
    return x + (jax.nn.silu(h @ p["gate"]) * (h @ p["up"])) @ p["down"]


def cross_entropy_and_gradients(x: Array, head: Array, y: Array) -> tuple[Array, Array, Array]:
    """Mean loss and its gradients by x and head; the logits exist for CHUNK tokens at a time."""

    def chunk(carry: tuple[Array, Array], xy: tuple[Array, Array]) -> Any:
        loss, d_head = carry
        x, y = xy
        logits = x @ head
        largest = jnp.max(logits, -1, keepdims=True)
        exp = jnp.exp(logits - largest)
        total = jnp.sum(exp, -1, keepdims=True)
        label = jnp.arange(VOCAB) == y[:, None]
        loss += jnp.sum(jnp.log(total) + largest) - jnp.sum(jnp.where(label, logits, 0))
        d_logits = (exp / total - label) / TOKENS
        return (loss, d_head + x.T @ d_logits), d_logits @ head.T

    start = jnp.zeros(()), jnp.zeros_like(head)
    chunks = x.reshape(-1, CHUNK, WIDTH), y.reshape(-1, CHUNK)
    (loss, d_head), d_x = jax.lax.scan(chunk, start, chunks)
    return loss / TOKENS, d_x.reshape(TOKENS, WIDTH), d_head


@jax.custom_vjp
def cross_entropy(x: Array, head: Array, y: Array) -> Array:
    return cross_entropy_and_gradients(x, head, y)[0]


def _forward(x: Array, head: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
    loss, *gradients = cross_entropy_and_gradients(x, head, y)
    return loss, (gradients[0], gradients[1])


def _backward(gradients: tuple[Array, Array], g: Array) -> tuple[Array, Array, None]:
    return gradients[0] * g, gradients[1] * g, None


cross_entropy.defvjp(_forward, _backward)


def loss_of(params: dict[str, Any], tokens: Array) -> Array:
    x = params["embed"][tokens[:, :-1].reshape(-1)]
    for layer in params["layers"]:
        x = block(x, layer)
    return cross_entropy(normed(x, params["norm"]), params["head"], tokens[:, 1:].reshape(-1))


@partial(jax.jit, donate_argnums=0)
def train_step(state: dict[str, Any], tokens: Array) -> tuple[dict[str, Any], Array]:
    loss, gradients = jax.value_and_grad(loss_of)(state["params"], tokens)
    count = state["count"] + 1
    norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradients)))
    clip = jnp.minimum(1.0, 1.0 / norm)

    def mean_of(m: Array, g: Array) -> Array:
        return BETA1 * m + (1 - BETA1) * clip * g

    def square_of(v: Array, g: Array) -> Array:
        return BETA2 * v + (1 - BETA2) * (clip * g) ** 2

    def updated(p: Array, m: Array, v: Array) -> Array:
        adam = m / (1 - BETA1**count) / (jnp.sqrt(v / (1 - BETA2**count)) + EPSILON)
        return p - RATE * (adam + (DECAY * p if p.ndim > 1 else 0))

    mean = jax.tree.map(mean_of, state["mean"], gradients)
    square = jax.tree.map(square_of, state["square"], gradients)
    params = jax.tree.map(updated, state["params"], mean, square)
    return {"params": params, "mean": mean, "square": square, "count": count}, loss


def main() -> None:
    params = init(jax.random.key(0))
    state = {
        "params": params,
        "mean": jax.tree.map(jnp.zeros_like, params),
        "square": jax.tree.map(jnp.zeros_like, params),
        "count": jnp.zeros(()),
    }
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(0, VOCAB, (BATCH, STEPS + 1)), jnp.int32)

    def run(steps: int) -> float:
        nonlocal state
        loss = jnp.zeros(())
        for _ in range(steps):
            state, loss = train_step(state, tokens)
        jax.block_until_ready(state)
        return float(loss)

    parameters = sum(p.size for p in jax.tree.leaves(params))
    serve({"peer": "bare_jax", "jax": jax.__version__, "parameters": parameters}, run)


if __name__ == "__main__":
    main()
