"""Laws that hold for every input: hypothesis looks for one that breaks them.

For some dozen inputs in `make test`, for a thousand in `make test-slow`, the same in each run.
"""

import json

import ml_dtypes
import numpy as np
import oracle
import pytest
import tensorflow as tf
from cases import DTYPES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tf_leaky import LeakyReLU, leaky_relu

NUMPY = {name: tf.as_dtype(name).as_numpy_dtype for name in DTYPES}
EPSILON, SMALLEST_NORMAL = (
    {name: float(getattr(ml_dtypes.finfo(kind), what)) for name, kind in NUMPY.items()}
    for what in ("eps", "smallest_normal")
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
SLOPES = st.one_of(
    st.sampled_from([0.0, 0.1, 0.25, 1.0]), st.floats(-10, -1e-3), st.floats(1e-3, 10)
)
POSITIVE_SLOPES = st.floats(0.002, 10)


def law(**strategies):
    """Makes a test of a function: it holds for 30 inputs, under `slow` for 1000."""

    def decorate(function):
        @pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.slow)])
        def test(count):
            slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
            options = {"derandomize": True, "database": None, "deadline": None}
            fixed = settings(max_examples=count, suppress_health_check=slow, **options)
            fixed(given(**strategies)(function))()

        return test

    return decorate


@st.composite
def differentiable(draw):
    """An x and an upstream, slopes that broadcast to it, and whether they are bounded."""
    dtype = draw(st.sampled_from(DTYPES))
    of = st.floats(-1000, 1000, width=16, allow_subnormal=False)
    x = draw(hnp.arrays(np.float64, draw(SHAPES), elements=of)).astype(NUMPY[dtype])
    upstream = draw(hnp.arrays(np.float64, x.shape, elements=st.integers(-8, 8).map(float)))
    positive = draw(st.booleans())
    lead = draw(st.integers(0, x.ndim))
    shape = tuple(draw(st.sampled_from([1, size])) for size in x.shape[lead:])
    of = POSITIVE_SLOPES if positive else SLOPES
    alpha = draw(hnp.arrays(np.float64, shape, elements=of))
    alpha_dtype = draw(st.sampled_from(DTYPES))
    return dtype, x, upstream.astype(NUMPY[dtype]), alpha.astype(NUMPY[alpha_dtype]), positive


def array_of(values):
    """As NumPy has them, which reads no scalar tensor of bfloat16 by itself."""
    return np.asarray(values.numpy() if tf.is_tensor(values) else values)


def near(found, exact, dtype, roundings=1):
    """Whether each element found is right within some roundings."""
    found = array_of(found).astype(np.float64)
    limit = roundings * EPSILON[dtype] * abs(exact) + SMALLEST_NORMAL[dtype]
    assert (abs(found - exact) <= limit).all(), (found, exact)


@law(case=differentiable(), in_graph=st.sampled_from([False] * 9 + [True]))
def test_value_and_gradients_are_the_closed_form(case, in_graph):
    dtype, x, upstream, alpha, positive = case

    def gradients(x, alpha, upstream):
        with tf.GradientTape() as tape:
            tape.watch([x, alpha])
            y = leaky_relu(x, alpha, positive_alpha=positive)
        return y, *tape.gradient(y, [x, alpha], upstream)

    run = tf.function(gradients, autograph=False) if in_graph else gradients
    y, dx, dalpha = run(*map(tf.constant, (x, alpha, upstream)))
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert (dx.shape, dx.dtype) == (x.shape, x.dtype)
    assert (dalpha.shape, dalpha.dtype) == (alpha.shape, alpha.dtype)
    near(y, oracle.value(x, alpha), dtype)
    near(dx, oracle.dx(x, alpha, upstream), dtype, roundings=2)
    exact = oracle.dalpha(x, alpha, upstream)
    sizes = oracle.dalpha(-abs(np.float64(x)), alpha, abs(np.float64(upstream)))
    each = oracle.dalpha(-np.ones(x.shape), alpha, abs(np.float64(upstream)))
    summed = EPSILON["float64" if "float64" in (dtype, dalpha.dtype.name) else "float32"]
    read = EPSILON[dtype] if positive else 0  # x is read off y
    limit = (x.size + 4) * summed * abs(sizes) + EPSILON[dalpha.dtype.name] * abs(exact)
    limit += read * abs(sizes) + SMALLEST_NORMAL[dtype] * abs(each) / 1e-3
    limit += SMALLEST_NORMAL[dalpha.dtype.name]
    assert (abs(array_of(dalpha).astype(np.float64) - exact) <= limit).all(), (dalpha, exact, limit)


@st.composite
def layers(draw):
    """The arguments of a layer, and an x that it takes."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=4))
    some = draw(st.sets(st.integers(1, len(shape) - 1)))
    signed = [
        axis - len(shape) * draw(st.booleans()) for axis in draw(st.permutations(sorted(some)))
    ]
    axis = None if not some else signed[0] if draw(st.booleans()) else tuple(signed)
    trained = draw(st.booleans())
    constraint = draw(st.sampled_from(["positive", None, "non_neg"]))
    of = POSITIVE_SLOPES if trained and constraint else SLOPES
    named = sorted(a % len(shape) for a in ([axis] if isinstance(axis, int) else axis or ()))
    sizes = tuple(shape[a] for a in named)
    alpha = draw(st.one_of(of, hnp.arrays(np.float64, sizes, elements=of)))
    arguments = {
        "alpha": alpha,
        "trainable_alpha": trained,
        "axis": axis,
        "alpha_constraint": constraint,
        "alpha_regularizer": draw(st.sampled_from([None, "l2"])),
        "dtype": draw(st.sampled_from(["float32", "float64"])),
    }
    x = draw(hnp.arrays(np.float32, shape, elements=st.floats(-9, 9, width=16)))
    spread = [shape[a] if a in named else 1 for a in range(len(shape))]
    slopes = np.broadcast_to(np.float64(alpha), sizes).reshape(spread)
    return arguments, x.astype(arguments["dtype"]), slopes


@law(case=layers())
def test_layer_is_the_formula_along_its_axes_and_comes_back_from_its_config(case):
    arguments, x, slopes = case
    layer = LeakyReLU(**arguments)
    y = layer(tf.constant(x))
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    tolerance = 1e-15 if arguments["dtype"] == "float64" else 1e-6
    np.testing.assert_allclose(y, oracle.value(x, slopes), rtol=tolerance)
    config = layer.get_config()
    again = LeakyReLU.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    np.testing.assert_array_equal(again(tf.constant(x)), y)
