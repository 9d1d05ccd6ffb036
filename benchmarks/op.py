"""Forward and backward passes of one activation: in a graph, with XLA and eagerly.

Every rival's value and gradients are held against float64 before the clock starts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.nets import activation_of
from benchmarks.tables import by_kind
from benchmarks.timing import interleaved, summary

ALPHA = 0.25
SHAPES = {
    "64 k": (1, 32, 32, 64),
    "4 M": (16, 64, 64, 64),
    "16 M": (64, 64, 64, 64),
}
ALL, PER_CHANNEL = (0, 1, 2, 3), (0, 1, 2)  # axes of (batch, height, width, channels)


def _of(name: str) -> Callable[[], Any]:
    return functools.partial(activation_of, name, ALPHA)


# What makes each, and which axes share a slope.
RIVALS: dict[str, tuple[Callable[[], Any], tuple[int, ...] | None]] = {
    "fixed, ours": (_of("ours, fixed"), None),
    "fixed, tf.nn.leaky_relu": (lambda: lambda x: tf.nn.leaky_relu(x, ALPHA), None),
    "fixed, Keras LeakyReLU": (_of("Keras LeakyReLU"), None),
    "one slope, ours": (_of("ours, one slope"), ALL),
    "one slope, Keras PReLU": (_of("Keras PReLU, one slope"), ALL),
    "per channel, ours": (_of("ours, per channel"), PER_CHANNEL),
    "per channel, Keras PReLU": (_of("Keras PReLU, per channel"), PER_CHANNEL),
}
EARLY = "graph, upstream early"  # so that the two passes may run side by side, as in no net
# What is divided by what.
RATIOS = {
    "fixed / tf.nn.leaky_relu": ("fixed, ours", "fixed, tf.nn.leaky_relu"),
    "fixed / Keras LeakyReLU": ("fixed, ours", "fixed, Keras LeakyReLU"),
    "one slope / Keras PReLU": ("one slope, ours", "one slope, Keras PReLU"),
    "per channel / Keras PReLU": ("per channel, ours", "per channel, Keras PReLU"),
}
MODES: dict[str, Callable[[Any], Any]] = {
    "graph": lambda step: tf.function(step, autograph=False),
    EARLY: lambda step: tf.function(step, autograph=False),
    "XLA": lambda step: tf.function(step, autograph=False, jit_compile=True),
    "eager": lambda step: step,
}


def measure(*, rounds: int, shapes: dict[str, tuple[int, ...]], progress: Any) -> dict[str, Any]:
    """Times and their ratios, and errors of the slopes' gradients, by size and mode."""
    results: dict[str, Any] = {}
    for size, shape in shapes.items():
        x, upstream = _noise(shape)
        for mode, compile_ in MODES.items():
            progress.start(f"{size}, {mode}", rounds)
            steps = {
                name: functools.partial(compile_(step_of(make(), x, mode == EARLY)), x, upstream)
                for name, (make, _) in RIVALS.items()
            }
            errors = {name: _checked(name, step(), x, upstream) for name, step in steps.items()}
            seconds = interleaved(steps, rounds=rounds, progress=progress.step)
            results[f"{size}, {mode}"] = {
                **summary(seconds, RATIOS),
                "slope gradient errors": {k: v for k, v in errors.items() if v is not None},
            }
    return results


def report(results: dict[str, Any]) -> str:
    """The tables of `measure`'s results."""
    kinds = {
        "ratios": "Forward + backward, ratio of medians",
        "ratios, quartiles": "Forward + backward, quartiles of the ratios by round",
        "slope gradient errors": "Largest error of the slope's gradient, relative",
    }
    return by_kind(kinds, results)


def _noise(shape: tuple[int, ...]) -> tuple[tf.Tensor, tf.Tensor]:
    rng = np.random.default_rng(0)
    x, upstream = (rng.standard_normal(shape, np.float32) for _ in range(2))
    x[x == 0] = 1  # where Keras PReLU's gradient is another: 0
    return tf.constant(x), tf.constant(upstream)


def step_of(activation: Any, x: tf.Tensor, early: bool = False) -> Callable[..., Any]:
    """A function of x and upstream: the value, and the gradients of x and of what is trained.

    Unless it is `early`, upstream waits for the value, as in a net, where the loss comes between.
    """
    activation(x[:1])  # builds it
    weights = [
        weight if isinstance(weight, tf.Variable) else weight.value  # Keras 3's own variables
        for weight in getattr(activation, "trainable_variables", [])
    ]

    def step(x: tf.Tensor, upstream: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = activation(x)
        with tf.control_dependencies([] if early else [y]):
            upstream = tf.identity(upstream)
        return y, tape.gradient(y, [x, *weights], upstream)

    return step


def _checked(name: str, answer: Any, x: tf.Tensor, upstream: tf.Tensor) -> float | None:
    """The error of the slopes' gradient, relative to its largest, if there is one.

    Raises:
        AssertionError: If the value or a gradient is not leaky ReLU's.
    """
    y, (dx, *dalpha) = answer
    positive = x.numpy() > 0
    np.testing.assert_allclose(y, np.where(positive, x, ALPHA * x), rtol=1e-6)
    np.testing.assert_allclose(dx, np.where(positive, upstream, ALPHA * upstream), rtol=1e-6)
    shared = RIVALS[name][1]
    if shared is None:
        return None
    terms = np.where(positive, 0.0, x.numpy().astype(np.float64) * upstream.numpy())
    exact = terms.sum(axis=shared).ravel()
    np.testing.assert_allclose(np.ravel(dalpha[0]), exact, atol=1e-3 * np.abs(exact).max())
    return float(np.abs(np.ravel(dalpha[0]) - exact).max() / np.abs(exact).max())
