"""What `leaky_relu` returns and how; the formula itself is held in `test_function_gradients.py`."""

import cases
import modes
import numpy as np
import oracle
import pytest
import tensorflow as tf

from tf_leaky import leaky_relu

each_mode = pytest.mark.parametrize("mode", modes.ALL, ids=lambda mode: mode.__name__)
each_dtype = pytest.mark.parametrize("dtype", cases.DTYPES)


def as_float64(tensor):
    return tf.cast(tensor, tf.float64).numpy()


@pytest.mark.parametrize("x_dtype", cases.DTYPES)
@pytest.mark.parametrize("alpha_dtype", cases.DTYPES)
def test_value_has_the_dtype_of_x_and_one_rounding(x_dtype, alpha_dtype):
    x = tf.cast(tf.constant([-3.14159, 2.0, -1e-3]), x_dtype)
    alpha = tf.cast(tf.constant(0.3), alpha_dtype)
    y = leaky_relu(x, alpha)
    assert y.dtype == x.dtype
    exact = tf.constant(oracle.value(as_float64(x), as_float64(alpha)))
    if x_dtype in ("float16", "bfloat16") and "float64" not in (x_dtype, alpha_dtype):
        exact = tf.cast(exact, tf.float32)  # products are made in float32
    np.testing.assert_array_equal(as_float64(y), as_float64(tf.cast(exact, x_dtype)))


@each_mode
@each_dtype
@pytest.mark.parametrize("alpha_dtype", cases.DTYPES)
def test_positive_alpha_is_bounded(mode, dtype, alpha_dtype):
    """To the digit: in bfloat16, 1e-3 would be below itself."""
    x = tf.cast(tf.constant([-3.0, 3.0, -1e4]), dtype)
    function = mode(lambda x, alpha: leaky_relu(x, alpha, positive_alpha=True))
    wide = "float64" if "float64" in (dtype, alpha_dtype) else "float32"
    expected = as_float64(leaky_relu(x, tf.constant(1e-3, wide)))
    for alpha in (9.99e-4, 0.0, -0.0, -0.5, -1e4):
        y = function(x, tf.constant(alpha, alpha_dtype))
        np.testing.assert_array_equal(as_float64(y), expected)


def test_fused_kernel_in_float64_rounds_alpha_to_float32():
    """The fact behind the float64 branch of `_fixed`. If this fails, that branch can go."""
    y = tf.nn.leaky_relu(tf.constant([-1.0], tf.float64), 0.1).numpy()
    assert y[0] == -np.float64(np.float32(0.1)) != -0.1


def test_slope_of_minus_zero_is_that_of_zero():
    assert np.signbit(leaky_relu([-2.0], -0.0))
    assert np.signbit(leaky_relu([-2.0], 0.0))


def op_types(function, *specs):
    graph = tf.function(function, autograph=False).get_concrete_function(*specs).graph
    return [operation.type for operation in graph.get_operations()]


@pytest.mark.parametrize("alpha", [0.1, np.float32(0.2), 1, np.array(0.3), np.int8(2)])
def test_number_uses_the_fused_kernel_both_ways(alpha):
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = leaky_relu(x, alpha)
        return tape.gradient(y, x)

    types = op_types(gradient, tf.TensorSpec([3]))
    assert types.count("LeakyRelu") == types.count("LeakyReluGrad") == 1
    assert not {"Select", "SelectV2", "Greater", "Maximum"} & set(types)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    ("x_spec", "alpha_spec"),
    [
        (None, None),
        (None, (3,)),
        ((None, 3), (3,)),
        ((2, None), (1, 3)),
        (None, (1, 1)),
        ((2, 3), None),
        ((None, None), None),
        ((None, 3), (None,)),
    ],
)
def test_unknown_static_shapes(x_spec, alpha_spec, jit_compile, rng):
    x, upstream = rng.normal(size=(2, 2, 3)).astype("float32")
    alpha = rng.uniform(0.1, 1, size=[1 if n == 1 else 3 for n in alpha_spec or (3,)])
    alpha = alpha.astype("float32")

    def run(x, alpha, upstream):
        with tf.GradientTape() as tape:
            tape.watch([x, alpha])
            y = leaky_relu(x, alpha, positive_alpha=True)
        return y, *tape.gradient(y, [x, alpha], upstream)

    specs = [tf.TensorSpec(shape) for shape in (x_spec, alpha_spec, x_spec)]
    run = tf.function(run, input_signature=specs, autograph=False, jit_compile=jit_compile)
    y, dx, dalpha = run(x, alpha, upstream)
    np.testing.assert_allclose(y, oracle.value(x, alpha), rtol=1e-6)
    np.testing.assert_allclose(dx, oracle.dx(x, alpha, upstream), rtol=1e-6)
    np.testing.assert_allclose(dalpha, oracle.dalpha(x, alpha, upstream), rtol=1e-4)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_alpha_never_enlarges_x_even_where_shapes_are_unknown(jit_compile):
    function = tf.function(
        leaky_relu,
        input_signature=[tf.TensorSpec([None, None]), tf.TensorSpec([3])],
        autograph=False,
        jit_compile=jit_compile,
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?i)shape"):
        function(tf.ones([2, 1]), tf.ones([3]))


@pytest.mark.parametrize("slope", [0.0, 0.1, 0.5, 1.5])
def test_slope_is_alpha_after_a_convolution_with_a_bias_and_a_sum(slope, rng):
    """TensorFlow's own LeakyRelu, fused with these on a CPU with oneDNN, has a slope of 0.2."""
    x, kernel = (tf.constant(rng.normal(size=s), tf.float32) for s in ((2, 8, 8, 4), (3, 3, 4, 4)))

    def block(x):
        y = tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), tf.ones(4))
        return leaky_relu(y + x, slope)

    expected = block(x)
    np.testing.assert_allclose(tf.function(block)(x), expected, rtol=1e-4, atol=1e-4)
