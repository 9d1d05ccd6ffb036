"""The layer called eagerly on 2048 elements, where what counts is the work around the kernel.

The last rows are the limit for any layer that keeps its own gradient: Keras's layer that does
nothing, and `tf.custom_gradient` around nothing, each a part of what ours does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.nets import activation_of
from benchmarks.op import ALPHA
from benchmarks.tables import table
from benchmarks.timing import interleaved, summary
from tf_leaky import LeakyReLU, leaky_relu

SHAPE = (2, 1024)
BASE = "Keras LeakyReLU"


@tf.custom_gradient
def _nothing(x: tf.Tensor) -> Any:
    return x, lambda upstream: upstream


RIVALS = {
    BASE: lambda: activation_of(BASE, ALPHA),
    "ours, fixed": lambda: LeakyReLU(ALPHA),
    "ours, fixed, the function": lambda: lambda x: leaky_relu(x, ALPHA),
    "tf.nn.leaky_relu": lambda: lambda x: tf.nn.leaky_relu(x, ALPHA),
    "Keras PReLU, one slope": lambda: activation_of("Keras PReLU, one slope", ALPHA, rank=2),
    "ours, one slope": lambda: LeakyReLU(ALPHA, trainable_alpha=True),
    "a Keras layer that does nothing": lambda: tf.keras.layers.Activation("linear"),
    "tf.custom_gradient around nothing": lambda: _nothing,
}
_NOTHING = list(RIVALS)[-2:]


def measure(*, rounds: int, progress: Any) -> dict[str, Any]:
    """Median seconds of a call, and its ratio to Keras LeakyReLU's, with their quartiles."""
    x = tf.constant(np.random.default_rng(0).standard_normal(SHAPE, np.float32))
    expected = np.where(x.numpy() > 0, x, ALPHA * x.numpy())
    calls = {}
    for name, make in RIVALS.items():
        activation = make()
        np.testing.assert_allclose(activation(x), x if name in _NOTHING else expected, rtol=1e-6)
        calls[name] = lambda activation=activation: activation(x)
    progress.start("eager calls", rounds)
    seconds = interleaved(calls, rounds=rounds, progress=progress.step)
    return summary(seconds, {name: (name, BASE) for name in RIVALS})


def report(results: dict[str, Any]) -> str:
    """The table of `measure`'s results."""
    rows = {
        name: {f"/ {BASE}": ratio, "quartiles": results["ratios, quartiles"][name]}
        for name, ratio in results["ratios"].items()
    }
    return table("Eager call of 2048 elements, ratio of medians", rows)
