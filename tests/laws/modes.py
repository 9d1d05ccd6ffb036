"""The three ways in which TensorFlow runs a function."""

import cases
import pytest
import tensorflow as tf


def eager(function):
    return function


def graph(function):
    return tf.function(function, autograph=False)


def xla(function):
    return tf.function(function, autograph=False, jit_compile=True)


ALL = (eager, graph, xla)
# A graph runs the kernels of eager mode: there one dtype is enough, and under XLA one of each size.
each_mode_and_dtype = pytest.mark.parametrize(
    ("mode", "dtype"),
    [
        pytest.param(mode, dtype, id=f"{mode.__name__}-{dtype}")
        for mode, dtypes in (
            (eager, cases.DTYPES),
            (graph, ["float32"]),
            (xla, ["bfloat16", "float32", "float64"]),
        )
        for dtype in dtypes
    ],
)
