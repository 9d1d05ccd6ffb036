"""The kernels that a trained slope is computed with, and those of Keras PReLU, one by one.

On small tensors, the number of kernels and the time of each decide. A time is that of one kernel
among 20 in a graph, less that of one on two numbers, which is the work around it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from benchmarks.tables import table
from benchmarks.timing import interleaved_medians

SHAPE = (1, 32, 32, 64)
COPIES = 20  # each on inputs of its own, or TensorFlow would compute one for all
BASE = "Mul of two numbers"
# By name: the kernel on x, another tensor, a mask and a slope, and how often one step with one
# trained slope takes it: ours, and Keras PReLU's.
KERNELS: dict[str, tuple[Callable[..., Any], int, int]] = {
    BASE: (lambda x, u, mask, slope: slope * slope, 0, 0),
    "Greater": (lambda x, u, mask, slope: tf.raw_ops.Greater(x=x, y=0.0), 2, 0),
    "SelectV2": (
        lambda x, u, mask, slope: tf.raw_ops.SelectV2(condition=mask, t=1.0, e=slope),
        2,
        0,
    ),
    "Minimum": (lambda x, u, mask, slope: tf.raw_ops.Minimum(x=x, y=0.0), 1, 0),
    "MulNoNan": (lambda x, u, mask, slope: tf.raw_ops.MulNoNan(x=x, y=u), 1, 0),
    "Mul": (lambda x, u, mask, slope: x * u, 2, 1),
    "Mul by the slope": (lambda x, u, mask, slope: x * slope, 0, 2),
    "Sum": (lambda x, u, mask, slope: tf.reduce_sum(x), 1, 1),
    "Relu": (lambda x, u, mask, slope: tf.nn.relu(x), 0, 1),
    "Relu after Neg": (lambda x, u, mask, slope: tf.nn.relu(-x), 0, 1),
    "Neg": (lambda x, u, mask, slope: -x, 0, 1),
    "ReluGrad": (lambda x, u, mask, slope: tf.raw_ops.ReluGrad(gradients=u, features=x), 0, 2),
    "AddV2": (lambda x, u, mask, slope: x + u, 0, 2),
}


def measure(*, rounds: int, progress: Any) -> dict[str, Any]:
    """Seconds of each kernel."""
    x, other = (tf.random.stateless_normal(SHAPE, (0, seed)) for seed in (0, 1))
    given = [
        [tf.identity(each) for _ in range(COPIES)] for each in (x, other, x > 0, tf.constant(0.25))
    ]
    calls = {
        name: functools.partial(_repeated(kernel), *given) for name, (kernel, *_) in KERNELS.items()
    }
    progress.start("Kernels", rounds)
    medians = interleaved_medians(calls, rounds=rounds, progress=progress.step)
    return {name: (each - medians[BASE]) / COPIES for name, each in medians.items() if name != BASE}


def _repeated(kernel: Callable[..., Any]) -> Callable[..., Any]:
    @tf.function(autograph=False)
    def function(*given: Any) -> list[Any]:
        results: list[Any] = []
        for each in zip(*given, strict=True):
            with tf.control_dependencies(results[-1:]):
                results.append(kernel(*each))
        return results

    return function


def report(results: dict[str, Any]) -> str:
    """The table of `measure`'s results."""
    rows, columns = {}, ("ours", "Keras PReLU")
    for name, seconds in results.items():
        times = dict(zip(columns, KERNELS[name][1:], strict=True))
        rows[name] = {"time / Mul": seconds / results["Mul"], **times}
    sums = {each: sum(row["time / Mul"] * row[each] for row in rows.values()) for each in columns}
    rows["all of a step, / Mul"] = sums
    return table("Kernels on 64 k elements, and how many a step takes with one trained slope", rows)
