"""How exact the gradients of `BatchNormLeakyReLU` are for small gammas, against float64.

The layer reads what it needs off its output, where gamma * xhat stands beside beta: the smaller
gamma is, the more of it the rounding of the output takes. The errors are of the root mean square
over the channels, relative to that of the gradient; BatchNormalization and then LeakyReLU, which
keep their inputs, stand beside. The reference has the same inputs, in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.tables import table
from tf_leaky import BatchNormLeakyReLU, LeakyReLU

ALPHA = 0.1
GAMMAS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
BETAS = (0.0, 0.1, 1.0)
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")


def measure(
    *, progress: Any, shape: tuple[int, ...] = (32, 16, 16, 8), gammas: tuple[float, ...] = GAMMAS
) -> dict[str, Any]:
    """For each policy and beta, rows by gamma: errors of dgamma and dz of one layer and of two."""
    rng = np.random.default_rng(0)
    z = rng.normal(1, 2, shape)
    upstream = rng.normal(size=shape) + z / 4
    results: dict[str, Any] = {}
    for policy in POLICIES:
        progress.start(f"Precision, {policy}", len(BETAS) * len(gammas))
        for beta in BETAS:
            rows = {}
            for gamma in gammas:
                rows[f"gamma={gamma:g}"] = errors(z, upstream, gamma, beta, policy)
                progress.step()
            results[f"{policy}, beta={beta:g}"] = rows
    return results


def errors(
    z: np.ndarray, upstream: np.ndarray, gamma: float, beta: float, policy: str
) -> dict[str, float]:
    """Relative errors of dgamma and dz: of `BatchNormLeakyReLU`, and of two layers."""
    norm = tf.keras.layers.BatchNormalization
    one = _gradients([BatchNormLeakyReLU(alpha=ALPHA, dtype=policy)], z, upstream, gamma, beta)
    pair = [norm(dtype=policy), LeakyReLU(ALPHA, dtype=policy)]
    two = _gradients(pair, z, upstream, gamma, beta)
    dtype = policy.removeprefix("mixed_")
    exact = [norm(dtype="float64"), LeakyReLU(ALPHA, dtype="float64")]
    z, upstream = (np.float64(tf.cast(each, dtype)) for each in (z, upstream))
    right = _gradients(exact, z, upstream, gamma, beta)
    return {
        f"{name}, {layers}": float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)))
        for layers, found in (("one layer", one), ("two", two))
        for name, a, b in zip(("dgamma", "dz"), found, right, strict=True)
    }


def _gradients(
    layers: list[Any], z: np.ndarray, upstream: np.ndarray, gamma: float, beta: float
) -> list[np.ndarray]:
    point = tf.constant(z, layers[0].compute_dtype)
    layers[0].build(point.shape)
    channels = np.ones(z.shape[-1])
    layers[0].set_weights([gamma * channels, beta * channels, 0 * channels, channels])
    weight = layers[0].gamma
    variable = weight if isinstance(weight, tf.Variable) else weight.value
    with tf.GradientTape() as tape:
        tape.watch(point)
        y = layers[0](point, training=True)
        for layer in layers[1:]:
            y = layer(y)
    found = tape.gradient(y, [variable, point], tf.cast(upstream, y.dtype))
    return [np.float64(gradient) for gradient in found]


def report(results: dict[str, Any]) -> str:
    """The tables of `measure`'s results."""
    return "\n\n".join(table(f"Relative error, {name}", rows) for name, rows in results.items())
