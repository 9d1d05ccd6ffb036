"""The closed form holds for every input: hypothesis looks for one that breaks it.

For some dozen inputs in `make test`, for a thousand in `make test-slow`, the same in each run.
"""

import ml_dtypes
import numpy as np
import oracle
import pytest
import tensorflow as tf
from cases import DTYPES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tf_leaky import leaky_relu

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


def as_float64(values):
    return np.asarray(tf.cast(values, tf.float64))


@pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_value_and_gradients_are_the_closed_form(count):
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    options = {"derandomize": True, "database": None, "deadline": None}
    fixed = settings(max_examples=count, suppress_health_check=slow, **options)
    fixed(given(differentiable(), st.booleans())(check_closed_form))()


def check_closed_form(case, in_graph):
    dtype, x, upstream, alpha, positive = case

    def gradients(x, alpha, upstream):
        with tf.GradientTape() as tape:
            tape.watch([x, alpha])
            y = leaky_relu(x, alpha, positive_alpha=positive)
        return y, *tape.gradient(y, [x, alpha], upstream)

    run = tf.function(gradients, autograph=False) if in_graph else gradients
    y, dx, dalpha = run(*map(tf.constant, (x, alpha, upstream)))
    assert (y.shape, y.dtype) == (dx.shape, dx.dtype) == (x.shape, x.dtype)
    assert (dalpha.shape, dalpha.dtype) == (alpha.shape, alpha.dtype)
    for found, exact, roundings in (
        (y, oracle.value(x, alpha), 1),
        (dx, oracle.dx(x, alpha, upstream), 2),
    ):
        limit = roundings * EPSILON[dtype] * abs(exact) + SMALLEST_NORMAL[dtype]
        assert (abs(as_float64(found) - exact) <= limit).all(), (found, exact)
    exact = oracle.dalpha(x, alpha, upstream)
    sizes = oracle.dalpha(-abs(np.float64(x)), alpha, abs(np.float64(upstream)))
    each = oracle.dalpha(-np.ones(x.shape), alpha, abs(np.float64(upstream)))
    summed = EPSILON["float64" if "float64" in (dtype, dalpha.dtype.name) else "float32"]
    read = EPSILON[dtype] if positive else 0  # x is read off y
    limit = (x.size + 4) * summed * abs(sizes) + EPSILON[dalpha.dtype.name] * abs(exact)
    limit += read * abs(sizes) + SMALLEST_NORMAL[dtype] * abs(each) / 1e-3
    limit += SMALLEST_NORMAL[dalpha.dtype.name]
    assert (abs(as_float64(dalpha) - exact) <= limit).all(), (dalpha, exact, limit)
