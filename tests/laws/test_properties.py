"""Laws that hold for every input: hypothesis looks for one that breaks them.

Each is tried on a few dozen inputs in `make test`, and on a thousand in `make test-slow`, of any
shape, dtype, slope and axis, the same ones in each run. TensorFlow's threads may take subnormal
numbers for 0, so that each is right as itself or as 0.
"""

import json

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
EPSILON = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 2**-23, "float64": 2**-52}
SMALLEST_NORMAL = {
    "float16": 2.0**-14,
    "bfloat16": 2.0**-126,
    "float32": 2.0**-126,
    "float64": 2.0**-1022,
}
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
SLOPES = st.one_of(
    st.sampled_from([-1.0, 0.0, 0.1, 0.25, 1.0, 1.5]),
    # -0.0 becomes 0.0: one operation is kept for both, and only signs of zeros differ.
    st.floats(-10, 10, allow_subnormal=False)
    .filter(lambda a: a == 0 or abs(a) > 1e-3)
    .map(lambda a: a + 0.0),
)
POSITIVE_SLOPES = st.floats(0.002, 10)


def law(**strategies):
    """Makes a test of a function: it holds for 30 inputs, under `slow` for 1000."""

    def decorate(function):
        @pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.slow)])
        def test(count):
            fixed = settings(
                max_examples=count,
                derandomize=True,
                database=None,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            )
            fixed(given(**strategies)(function))()

        return test

    return decorate


def numbers(dtype, low=None, high=None, **kwargs):
    width = {"float16": 16, "float64": 64}.get(dtype, 32)
    return st.floats(low, high, width=width, **kwargs)


@st.composite
def arrays(draw, low=None, high=None, shapes=SHAPES, **kwargs):
    """An array of one of the four dtypes, and the name of that."""
    dtype = draw(st.sampled_from(DTYPES))
    of = numbers(dtype, low, high, **kwargs)
    made = draw(hnp.arrays(np.float64, draw(shapes), elements=of))
    with np.errstate(over="ignore"):
        return dtype, made.astype(NUMPY[dtype])


@st.composite
def differentiable(draw):
    """An x and an upstream, slopes that broadcast to it, and whether they are bounded."""
    dtype, x = draw(arrays(-1000.0, 1000.0, allow_subnormal=False))
    upstream = draw(hnp.arrays(np.float64, x.shape, elements=st.integers(-8, 8).map(float)))
    positive = draw(st.booleans())
    lead = draw(st.integers(0, x.ndim))
    shape = tuple(draw(st.sampled_from([1, size])) for size in x.shape[lead:])
    of = POSITIVE_SLOPES if positive else SLOPES
    alpha = draw(hnp.arrays(np.float64, shape, elements=of))
    alpha_dtype = draw(st.sampled_from(DTYPES))
    return dtype, x, upstream.astype(NUMPY[dtype]), alpha.astype(NUMPY[alpha_dtype]), positive


def flushed(array, dtype):
    """`array` with 0 where it is subnormal."""
    exact = np.float64(array)
    return np.where(abs(exact) < SMALLEST_NORMAL[dtype], 0 * exact, exact)


def array_of(values):
    """As NumPy has them, which reads no scalar tensor of bfloat16 by itself."""
    return np.asarray(values.numpy() if tf.is_tensor(values) else values)


def same_bits(found, expected):
    found, expected = array_of(found), array_of(expected)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(np.float64(found), np.float64(expected))
    numbers = ~np.isnan(np.float64(expected))
    np.testing.assert_array_equal(np.signbit(found)[numbers], np.signbit(expected)[numbers])


def in_dtype(alpha, dtype):
    """A slope that is a number as the fused kernels take it; for float64 it stays as it is."""
    return float(NUMPY[dtype](np.float32(alpha))) if dtype != "float64" else alpha


def near(found, candidates, dtype, roundings=1):
    """Whether each element found is one of those that are right, within some roundings."""
    found = array_of(found).astype(np.float64)
    right = np.zeros(found.shape, bool)
    with np.errstate(over="ignore", invalid="ignore"):
        for exact in candidates:
            limit = roundings * EPSILON[dtype] * abs(exact) + SMALLEST_NORMAL[dtype]
            right |= abs(found - exact) <= limit
            right |= np.float64(exact.astype(NUMPY[dtype])) == found  # infinite ones
            right |= np.isnan(found) & np.isnan(exact)
    assert right.all(), (found[~right], [exact[~right] for exact in candidates])


@law(case=arrays(), alpha=SLOPES, trained=st.booleans())
def test_value_is_the_formula(case, alpha, trained):
    dtype, x = case
    # A tensor of slopes is of float32 here, and multiplies in it; a number is taken in x's dtype.
    slope = tf.constant(alpha, "float32") if trained else alpha
    exact = float(np.float32(alpha)) if trained else in_dtype(alpha, dtype)
    y = leaky_relu(tf.constant(x), slope)
    assert (y.shape, y.dtype) == (x.shape, dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        candidates = [oracle.value(each, exact) for each in (x, flushed(x, dtype))]
    near(y, candidates, dtype)


@law(case=arrays(), alpha=SLOPES)
def test_value_and_gradient_are_those_of_tensorflow(case, alpha):
    dtype, x = case
    if dtype == "float64":
        alpha = float(np.float32(alpha))  # all that tf.nn.leaky_relu knows of a slope
    x, found = tf.constant(x), []
    for function in (leaky_relu, tf.nn.leaky_relu):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x, alpha)
        found.append((y, tape.gradient(y, x, tf.ones_like(y) * 3)))
    for ours, theirs in zip(*found, strict=True):
        same_bits(ours, theirs)


@law(case=differentiable(), in_graph=st.sampled_from([False] * 9 + [True]))
def test_gradients_are_the_closed_form(case, in_graph):
    dtype, x, upstream, alpha, positive = case

    def gradients(x, alpha, upstream):
        with tf.GradientTape() as tape:
            tape.watch([x, alpha])
            y = leaky_relu(x, alpha, positive_alpha=positive)
        return tape.gradient(y, [x, alpha], upstream)

    run = tf.function(gradients, autograph=False) if in_graph else gradients
    dx, dalpha = run(*map(tf.constant, (x, alpha, upstream)))
    assert (dx.shape, dx.dtype) == (x.shape, x.dtype)
    assert (dalpha.shape, dalpha.dtype) == (alpha.shape, alpha.dtype)
    near(dx, [oracle.dx(x, alpha, upstream)], dtype, roundings=2)
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
    same_bits(again(tf.constant(x)), y)
