"""The derivatives of `leaky_relu`, held against closed forms, finite differences and plain code."""

import cases
import modes
import numpy as np
import oracle
import pytest
import tensorflow as tf
from conftest import SLOW_UNDER_TF_KERAS

from tf_leaky import leaky_relu

pytestmark = list(SLOW_UNDER_TF_KERAS)

each_case = pytest.mark.parametrize("case", cases.FUNCTIONS, ids=cases.names)
each_mode = pytest.mark.parametrize("mode", modes.ALL, ids=lambda mode: mode.__name__)


def as_float64(tensor):
    return tf.cast(tensor, tf.float64).numpy()


def gradients(case, mode, x, alpha, upstream):
    def run(x, alpha, upstream):
        with tf.GradientTape() as tape:
            tape.watch([x, alpha])
            y = case(x, alpha)
        return tape.gradient(y, [x, alpha] if case.trained else [x], upstream)

    return mode(run)(x, alpha, upstream)


def check_closed_form(case, mode, dtype, rng):
    """Holds the value and the gradients of a case against the oracle; returns the gradients."""
    x, upstream = cases.sample(case, rng, dtype)
    alpha = tf.constant(case.alpha, tf.float64 if dtype == "float64" else tf.float32)
    dx, *dalpha = gradients(case, mode, x, alpha, upstream)
    in_use = np.maximum(alpha, 1e-3) if case.positive else alpha
    exact = [as_float64(x), as_float64(in_use), as_float64(upstream)]
    tolerance = cases.TOLERANCE[dtype]
    y = mode(case)(x, alpha)
    assert (y.dtype, y.shape) == (dx.dtype, dx.shape) == (x.dtype, x.shape)
    np.testing.assert_allclose(as_float64(y), oracle.value(*exact[:2]), rtol=tolerance, atol=0)
    np.testing.assert_allclose(as_float64(dx), oracle.dx(*exact), rtol=tolerance, atol=0)
    if case.trained:
        assert dalpha[0].dtype == alpha.dtype
        assert dalpha[0].shape == alpha.shape
        terms = np.abs(exact[0] * exact[2]).sum()  # cancellation makes sums less exact than terms
        np.testing.assert_allclose(
            as_float64(dalpha[0]), oracle.dalpha(*exact), rtol=0, atol=4 * tolerance * terms
        )
    return [dx, *dalpha]


@each_case
@modes.each_mode_and_dtype
def test_value_and_gradient_are_the_closed_form(case, mode, dtype, rng):
    check_closed_form(case, mode, dtype, rng)


def plain(x, alpha):
    """The same value by plain operations; TensorFlow differentiates each of them."""
    return tf.where(x > 0, x, alpha * x)


def plainly(case):
    """What a case computes, by plain operations: a bound of slopes lets their gradient pass."""
    if not case.trained:
        return lambda x, _: plain(x, tf.constant(case.alpha, x.dtype))
    if not case.positive:
        return plain
    return lambda x, alpha: plain(x, alpha + tf.stop_gradient(tf.maximum(alpha, 1e-3) - alpha))


def cubic(function, weights):
    """A loss with second and third derivatives, so that none of the terms is hidden."""
    return lambda *inputs: tf.reduce_sum(weights * function(*inputs) ** 3)


def reverse(function):
    """The gradient of a loss, or of the sum of squares of some derivatives."""

    def run(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            values = function(*inputs)
            if isinstance(values, list):
                values = tf.add_n([tf.reduce_sum(each**2) for each in values])
        return list(tape.gradient(values, inputs, unconnected_gradients="zero"))

    return run


def forward(function):
    """The directional derivatives of a loss, or of a list of tensors, by forward mode."""

    def run(*inputs):
        directions = [1.3 + tf.cos(7 * each) for each in inputs]
        with tf.autodiff.ForwardAccumulator(list(inputs), directions) as accumulator:
            values = tf.nest.flatten(function(*inputs))
        return [accumulator.jvp(value, unconnected_gradients="zero") for value in values]

    return run


def jacobians(loss):
    """The second derivatives, one by one: the Jacobians of the gradient."""

    def run(*inputs):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(inputs)
            parts = reverse(loss)(*inputs)
        return [tape.jacobian(part, inputs, unconnected_gradients="zero") for part in parts]

    return run


DERIVATIVES = {
    "third order": lambda loss: reverse(reverse(reverse(loss))),
    "jacobians of the gradient": jacobians,
    "forward over reverse": lambda loss: forward(reverse(loss)),
    "reverse over forward": lambda loss: reverse(forward(loss)),
}
# One case for each way in which the function computes; TensorFlow has no third order of numbers.
NUMBERS = ("fixed exact in float32", "fixed negative")
TENSORS = ("constant slopes", "one slope", "per channel", "per channel, positive")
HIGHER = [
    pytest.param(case, derivative, id=f"{derivative}-{cases.names(case)}")
    for case in cases.FUNCTIONS
    if case.name in NUMBERS + TENSORS
    for derivative in (["forward over reverse"] if case.name in NUMBERS else DERIVATIVES)
]


@pytest.mark.parametrize(("case", "derivative"), HIGHER)
@pytest.mark.parametrize(
    "mode", [modes.eager, modes.graph, pytest.param(modes.xla, marks=pytest.mark.slow)]
)
def test_derivatives_of_every_kind(case, derivative, mode, rng):
    x, weights = tf.constant(rng.normal(size=(2, 2, 5, 3)))
    alpha = tf.constant(case.alpha, tf.float64)
    differentiate = DERIVATIVES[derivative]
    ours = mode(differentiate(cubic(case, weights)))(x, alpha)
    exact = differentiate(cubic(plainly(case), weights))(x, alpha)
    for mine, theirs in zip(tf.nest.flatten(ours), tf.nest.flatten(exact), strict=True):
        scale = float(tf.reduce_max(tf.abs(theirs)))
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-11 * scale)


@pytest.mark.parametrize(
    "case",
    [case for case in cases.TRAINED if case.name in ("per channel", "per row, positive")],
    ids=cases.names,
)
def test_gradient_agrees_with_finite_differences(case, rng):
    x, weights = cases.sample(case, rng)
    x = tf.where(tf.abs(x) < 1e-2, tf.constant(0.5, tf.float64), x)  # off the kink
    alpha = tf.constant(case.alpha, tf.float64)
    theory, numeric = tf.test.compute_gradient(
        lambda x, alpha: weights * case(x, alpha) ** 3, [x, alpha], delta=1e-5
    )
    for exact, close in zip(theory, numeric, strict=True):
        np.testing.assert_allclose(exact, close, atol=1e-6, rtol=1e-6)


@modes.each_mode_and_dtype
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_upstream_stays_out_of_the_slope_where_x_is_positive(mode, dtype, positive, bad):
    case = cases.Function("", np.array(0.5), positive)
    x, upstream = tf.constant([2.0, -2.0], dtype), tf.constant([bad, 5.0], dtype)
    dx, dalpha = gradients(case, mode, x, tf.constant(0.5, dtype), upstream)
    np.testing.assert_array_equal(as_float64(dx), [bad, 2.5])
    assert float(dalpha) == -10.0


@modes.each_mode_and_dtype
@pytest.mark.parametrize("positive", [False, True])
def test_nan_is_not_lost_at_any_place(mode, dtype, positive):
    """Kernels work on packets of several elements, and one by one on the rest."""
    x = tf.linalg.set_diag(tf.ones([19, 19], dtype), tf.constant([np.nan] * 19, dtype))
    slopes = np.full([19, 1], 0.5)
    case = cases.Function("", slopes, positive)
    _, dalpha = gradients(case, mode, x, tf.constant(slopes, dtype), tf.ones_like(x))
    assert np.isnan(as_float64(dalpha)).all()


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("shape", [(), (1, 3)], ids=str)
def test_upstream_of_unknown_rank(positive, shape, rng):
    x = tf.constant(rng.normal(size=(4, 2, 3)), tf.float32)
    case = cases.Function("", rng.uniform(0.1, 0.9, shape), positive)

    def hidden(x, alpha):
        upstream = tf.numpy_function(np.copy, [x], tf.float32)
        return gradients(case, modes.eager, x, alpha, upstream)

    alpha = tf.constant(case.alpha, tf.float32)
    found = tf.function(hidden, autograph=False)(x, alpha)
    for mine, theirs in zip(found, gradients(case, modes.eager, x, alpha, x), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


@each_mode
def test_slope_of_nan_stays_visible(mode):
    x = tf.constant([[-2.0, -2.0], [2.0, 2.0]])
    case = cases.Function("", np.array([np.nan, 0.5]), positive=True)
    alpha = tf.constant(case.alpha, tf.float32)
    dx, dalpha = gradients(case, mode, x, alpha, tf.ones_like(x))
    np.testing.assert_array_equal(mode(case)(x, alpha), [[np.nan, -1.0], [2.0, 2.0]])
    np.testing.assert_array_equal(dx, [[np.nan, 0.5], [1.0, 1.0]])
    np.testing.assert_array_equal(dalpha, [np.nan, -2.0])


@each_mode
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("positive", [False, True])
def test_slope_gradient_is_summed_in_float32(mode, dtype, positive):
    """Each of 4096 terms is -4: a float16 sum stops at -8192, where the truth is -16384."""
    x = -2 * tf.ones([4096, 3], dtype)
    case = cases.Function("", np.full(3, 0.5), positive)
    for alpha in (tf.fill([3], 0.5), tf.cast(tf.fill([3], 0.5), dtype)):
        _, dalpha = gradients(case, mode, x, alpha, 2 * tf.ones_like(x))
        assert dalpha.dtype == alpha.dtype
        assert as_float64(dalpha).tolist() == [-16384] * 3


@pytest.mark.parametrize("mode", [modes.graph, modes.xla])
@pytest.mark.parametrize("shape", [(), (8,)], ids=str)
@pytest.mark.parametrize("positive", [False, True])
def test_sum_over_images_is_exact(mode, shape, positive, rng):
    """All terms are of one sign, so that a long sum in float32 would be off by 1e-5."""
    x = tf.constant(-np.abs(rng.normal(size=(32, 64, 64, 8))), tf.float32)
    upstream = tf.constant(np.abs(rng.normal(size=x.shape)), tf.float32)
    case = cases.Function("", np.full(shape, 0.5), positive)
    _, dalpha = gradients(case, mode, x, tf.fill(shape, 0.5), upstream)
    exact = (as_float64(x) * as_float64(upstream)).sum(axis=(0, 1, 2) if shape else None)
    np.testing.assert_allclose(dalpha, exact, rtol=2e-7)


def test_keras_prelu_sums_its_slope_in_float16():
    """As docs/slopes.md says. If this fails, that sentence is out of date."""
    layer = tf.keras.layers.PReLU(shared_axes=[1], dtype="mixed_float16")
    with tf.GradientTape() as tape:
        y = layer(-tf.ones([1, 1 << 16], tf.float16))
    dalpha = tape.gradient(y, layer.trainable_variables, 16 * tf.ones_like(y))[0]
    assert abs(float(tf.squeeze(dalpha)) + (1 << 20)) > 1000


@pytest.mark.parametrize(
    ("dtype", "alpha", "size", "worst"),
    [
        ("float16", 1e-1, 1e-3, 5e-4),
        ("float16", 1e-3, 1e-1, 6e-4),
        ("float16", 1e-3, 1e-2, 6e-3),
        ("float16", 1e-3, 1e-3, 6e-2),
        ("bfloat16", 1e-3, 1e-4, 4e-3),
        ("float32", 1e-3, 1e-4, 1e-7),
    ],
)
def test_rounding_of_the_recovered_input_is_as_the_page_on_slopes_says(dtype, alpha, size, worst):
    """With positive_alpha each term is y / alpha, and carries the rounding of y."""
    x = tf.cast(-size * tf.linspace(0.5, 1.0, 1000), dtype)
    slopes = tf.fill(x.shape, alpha)  # a slope for each element, so that its gradient is one term
    with tf.GradientTape() as tape:
        tape.watch(slopes)
        y = leaky_relu(x, slopes, positive_alpha=True)
    terms = as_float64(tape.gradient(y, slopes))
    error = np.abs(terms / as_float64(x) - 1).max()
    assert worst / 3 < error < worst


def second_in_a_branch(function, **signature):
    """The second derivative of a function that a branch of `tf.cond` calls."""

    def loss(x, alpha):
        y = tf.cond(tf.size(x) > 0, lambda: function(x, alpha) ** 3, lambda: x)
        return tf.reduce_sum(y)

    return tf.function(
        lambda *inputs: reverse(reverse(loss))(*inputs)[0], autograph=False, **signature
    )


@pytest.mark.parametrize(
    ("case", "known"),
    [
        pytest.param(case, known, id=f"{cases.names(case)}-{known}")
        for case in cases.FUNCTIONS
        for known in (True, False)
        if case.name in TENSORS + NUMBERS * known
    ],
)
def test_second_derivative_inside_a_branch(case, known, rng):
    """The branch is given tensors of the graph around it; it spreads slopes of unknown shape."""
    x, _ = cases.sample(case, rng)
    alpha = tf.constant(case.alpha, tf.float64)
    signature = {"input_signature": [tf.TensorSpec(None, tf.float64)] * 2}
    found, expected = (
        second_in_a_branch(each, **({} if known else signature))(x, alpha)
        for each in (case, plainly(case))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-13)
