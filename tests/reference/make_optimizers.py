"""Writes adamw.npz, adafactor.npz and schedules.npz: what torch's and transformers' optimizers do.

Made with Python 3.11.7, torch 2.13.0 (CPU), transformers 5.23.0, numpy 2.4.6. To repeat, in an
environment of its own (the project does not depend on torch):

    python3.11 -m venv ENV && ENV/bin/pip install torch==2.13.0 transformers==5.23.0
    ENV/bin/python tests/reference/make_optimizers.py

adamw.npz: torch.optim.AdamW, betas (0.9, 0.95), epsilon 1e-8, weight decay 0.1 on the matrix alone,
after torch's clip_grad_norm_ to 1.0 over both; 20 steps of given gradients, some norms below 1.
    matrix_start [8,6], vector_start [6]            parameters before the first step
    matrix_gradients [20,8,6], vector_gradients [20,6]   before clipping
    norms [20]                                      global norm before clipping
    learning_rates [20]                             5 steps of warmup to 1e-2, cosine to 1e-3
    matrix [20,8,6], vector [20,6]                  parameters after each step
torch decays before the Adam update, p <- p (1 - lr wd) - lr u, which is optax's p - lr (u + wd p).
torch's clip divides by norm + 1e-6, optax's by the norm: relative difference 1e-6 at most.

adafactor.npz: transformers.optimization.Adafactor, a matrix, a vector, 4 steps of given gradients;
relative steps off, parameter scaling off, second-moment decay 1 - k**-0.8 (k counts from 1), update
clipped to root mean square 1.0, epsilon 1e-30 added to the squared gradient, weight decay 0.1
multiplied by the learning rate and taken of the parameter before the update, p (1 - lr wd) - u.
The matrix is larger than 128 both ways, so optax factors it too (transformers factors any matrix).
    matrix_start [160,130], vector_start [160]      before the first step
    matrix_gradients [4,160,130], vector_gradients [4,160]  (int8: the gradient is 1/64 of it; the
                                                    values are exact)
    learning_rates [4]                              rising, then falling
    constant_rate []                                the one rate of the case with momentum
    plain.matrix [160,130], plain.vector [160]      after 4 steps, no momentum, learning_rates
    plain.rms [4,2]                                 root mean square of both parameters by step
    momentum.matrix [160,130], momentum.vector [160]  after 4 steps, beta1 0.9, constant_rate
    momentum.rms [4,2]
The momentum is an average of the updates *after* they are multiplied by the learning rate and
starts at zero without bias correction; at a constant rate it does not matter which comes first.

schedules.npz: factors of the peak rate at steps 0..119, warmup 20 of 120 steps, from transformers'
schedules: cosine (to 0), cosine_floor (to 0.1), linear (to 0), linear_floor (to 0.1: the polynomial
one with power 1), inverse_sqrt (timescale 20). All of them use 0 for the first step: at step k < 20
the factor is k / 20, so the peak is used at step 20 (counted from 0).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import optimization

HERE = Path(__file__).parent


def save(name: str, arrays: dict[str, np.ndarray]) -> None:
    path = HERE / name
    np.savez_compressed(path, allow_pickle=False, **arrays)
    print(f"{name}: {path.stat().st_size} bytes, {len(arrays)} arrays")


def adamw(steps: int = 20) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(shape).astype(np.float32) for shape in ((8, 6), (6,))]
    sizes = np.geomspace(0.02, 2, steps)[rng.permutation(steps)]
    gradients = [
        (sizes.reshape(-1, *[1] * p.ndim) * rng.standard_normal((steps, *p.shape))).astype("f4")
        for p in start
    ]
    k = np.arange(steps)
    done = np.clip((k - 5) / (steps - 5), 0, 1)
    rates = 1e-2 * np.where(k < 5, (k + 1) / 5, 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * done)))

    matrix, vector = (torch.nn.Parameter(torch.tensor(p)) for p in start)
    optimizer = torch.optim.AdamW(
        [{"params": [matrix], "weight_decay": 0.1}, {"params": [vector], "weight_decay": 0.0}],
        betas=(0.9, 0.95),
        eps=1e-8,
    )
    norms, matrices, vectors = [], [], []
    for step in range(steps):
        for p, g in zip((matrix, vector), gradients, strict=True):
            p.grad = torch.tensor(g[step])
        norms.append(torch.nn.utils.clip_grad_norm_([matrix, vector], 1.0).item())
        for group in optimizer.param_groups:
            group["lr"] = float(rates[step])
        optimizer.step()
        matrices.append(matrix.detach().numpy().copy())
        vectors.append(vector.detach().numpy().copy())
    assert min(norms) < 1 < max(norms), "both sides of the clip are wanted"
    return {
        "matrix_start": start[0],
        "vector_start": start[1],
        "matrix_gradients": gradients[0],
        "vector_gradients": gradients[1],
        "norms": np.array(norms, np.float32),
        "learning_rates": rates.astype(np.float32),
        "matrix": np.stack(matrices),
        "vector": np.stack(vectors),
    }


def adafactor_run(
    start: list[np.ndarray], gradients: list[np.ndarray], rates: np.ndarray, beta1: float | None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns the parameters after the last step and their root mean squares [step, parameter]."""
    params = [torch.nn.Parameter(torch.tensor(p)) for p in start]
    optimizer = optimization.Adafactor(
        params,
        lr=float(rates[0]),
        eps=(1e-30, 1e-3),
        clip_threshold=1.0,
        decay_rate=-0.8,
        beta1=beta1,
        weight_decay=0.1,
        scale_parameter=False,
        relative_step=False,
        warmup_init=False,
    )
    rms = []
    for step, rate in enumerate(rates):
        for p, g in zip(params, gradients, strict=True):
            p.grad = torch.tensor(g[step].astype(np.float32) / 64)
        optimizer.param_groups[0]["lr"] = float(rate)
        optimizer.step()
        rms.append([p.detach().square().mean().sqrt().item() for p in params])
    return [p.detach().numpy() for p in params], np.array(rms, np.float32)


def adafactor(steps: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    start = [rng.integers(-127, 128, s).astype(np.float32) / 64 for s in ((160, 130), (160,))]
    gradients = []
    for p in start:
        # Rows of different size, and a step much larger than the others: clipping must act.
        rows = np.geomspace(1, 12, p.shape[0]).reshape(-1, *[1] * (p.ndim - 1))
        steps_size = np.array([1.0, 0.3, 4.0, 1.0]).reshape(-1, *[1] * p.ndim)
        noise = rng.standard_normal((steps, *p.shape))
        gradients.append(np.clip(np.rint(noise * rows * steps_size), -127, 127).astype(np.int8))
    rates = np.array([0.005, 0.01, 0.02, 0.01], np.float32)
    constant = np.float32(0.01)
    plain, plain_rms = adafactor_run(start, gradients, rates, None)
    momentum, momentum_rms = adafactor_run(start, gradients, np.full(steps, constant), 0.9)
    return {
        "matrix_start": start[0],
        "vector_start": start[1],
        "matrix_gradients": gradients[0],
        "vector_gradients": gradients[1],
        "learning_rates": rates,
        "constant_rate": np.array(constant),
        "plain.matrix": plain[0],
        "plain.vector": plain[1],
        "plain.rms": plain_rms,
        "momentum.matrix": momentum[0],
        "momentum.vector": momentum[1],
        "momentum.rms": momentum_rms,
    }


def schedules(warmup: int = 20, steps: int = 120) -> dict[str, np.ndarray]:
    def curve(make: Any, **options: Any) -> np.ndarray:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = make(optimizer, num_warmup_steps=warmup, **options)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return np.array(rates)

    total = {"num_training_steps": steps}
    cosine_floor = optimization.get_cosine_with_min_lr_schedule_with_warmup
    polynomial = optimization.get_polynomial_decay_schedule_with_warmup
    return {
        "cosine": curve(optimization.get_cosine_schedule_with_warmup, **total),
        "cosine_floor": curve(cosine_floor, min_lr_rate=0.1, **total),
        "linear": curve(optimization.get_linear_schedule_with_warmup, **total),
        "linear_floor": curve(polynomial, lr_end=0.1, power=1.0, **total),
        "inverse_sqrt": curve(optimization.get_inverse_sqrt_schedule, timescale=warmup),
    }


def main() -> None:
    torch.set_num_threads(1)
    save("adamw.npz", adamw())
    save("adafactor.npz", adafactor())
    save("schedules.npz", schedules())


if __name__ == "__main__":
    main()
