"""`BatchNormLeakyReLU` computes what BatchNormalization and then LeakyReLU compute: the numbers."""

import cases
import modes
import numpy as np
import oracle
import pytest
import tensorflow as tf
from conftest import KERAS_3
from test_function_gradients import cubic, forward, jacobians, reverse

from tf_leaky import BatchNormLeakyReLU
from tf_leaky.batch_norm_ops import Batch, Channels, batch_norm_leaky_relu

each_case = pytest.mark.parametrize("case", cases.BATCH_NORMS, ids=cases.names)


def both(case, rng, dtype="float64", batch=4):
    """The layer and its two stock ones with the same weights, none an initial value, and a batch.

    Each as a function of x and `training` (and a mask), with its weights.
    """
    layer, (norm, activation) = case.make(dtype=dtype), case.stock(dtype=dtype)
    for each in (layer, norm, activation):
        each.build((None, *case.input_shape))
    weights = [rng.uniform(0.2, 1.5, weight.shape) for weight in layer.weights]
    layer.set_weights(weights)
    norm.set_weights(weights[: len(norm.weights)])
    activation.set_weights(weights[len(norm.weights) :])
    x = tf.constant(rng.normal(1, 2, (batch, *case.input_shape)), layer.compute_dtype)
    return layer, Pair(norm, activation), x


class Pair:
    """Two layers as one."""

    def __init__(self, norm, activation):
        self.norm, self.activation = norm, activation

    def __call__(self, x, **options):
        return self.activation(self.norm(x, **options))

    @property
    def weights(self):
        return [*self.norm.weights, *self.activation.weights]

    @property
    def trainable_weights(self):
        return [*self.norm.trainable_weights, *self.activation.trainable_weights]


def results(layer, x, upstream, **options):
    """y and the gradients of x and of the layer's weights, in the order of its weights."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, **options)
    return [y, *tape.gradient(y, [x, *layer.trainable_weights], tf.cast(upstream, y.dtype))]


def assert_close(found, expected, tolerance):
    """Each as close as such a share of its largest value, or of 1: sums are of numbers near 1."""
    for one, other in zip(found, expected, strict=True):
        one, other = np.float64(one), np.float64(other)
        assert one.shape == other.shape
        atol = tolerance * max(1, np.abs(other).max(initial=0))
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


@each_case
@pytest.mark.parametrize("training", [True, False])
def test_values_gradients_and_averages_are_those_of_stock_layers(case, training, rng):
    layer, stock, x = both(case, rng)
    upstream = rng.normal(size=x.shape)
    found = results(layer, x, upstream, training=training)
    expected = results(stock, x, upstream, training=training)
    assert_close(found, expected, 1e-14)
    # tf_keras rounds 1 - momentum to float32.
    exact = KERAS_3 or case.arguments.get("momentum", 0.99) != 0.99
    assert_close(layer.weights, stock.weights, 1e-14 if exact else 1e-8)


@each_case
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_results_are_the_formula_in_every_precision(case, dtype, rng):
    """Of a batch of exact numbers of that precision."""
    layer, _, x = both(case, rng, dtype=f"mixed_{dtype}" if "16" in dtype else dtype)
    upstream = tf.cast(rng.normal(size=x.shape), dtype)
    before = {w.name.split("/")[-1].split(":")[0]: np.float64(w) for w in layer.weights}
    given = {"gamma": 1.0, "beta": 0.0, "alpha": 0.1, "epsilon": 1e-3, "axis": -1}
    given = {name: before.get(name, case.arguments.get(name, given[name])) for name in given}
    given["alpha"] = given["alpha"] * np.ones(x.shape[given["axis"]])
    exact = oracle.batch_norm(x, upstream=upstream, **given)
    y, dz, *rest = results(layer, x, upstream, training=True)
    assert y.dtype == dz.dtype == tf.as_dtype(dtype)
    tolerance = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 1.6e-2}[dtype]
    assert_close([y, dz], [exact["y"], exact["dz"]], tolerance)
    if case.alpha_shape == ():
        exact["dalpha"] = exact["dalpha"].sum()
    names = ["gamma", "beta"] + ["alpha"] * case.trained
    assert {each.dtype for each in rest} <= {tf.float32}
    assert_close(rest, [exact[f"d{name}"] for name in names if name in before], 4 * tolerance)


def test_nothing_is_nan_if_the_variance_overflows(rng):
    case = cases.BatchNorm("", {"alpha": 0.25}, (3,), None)
    layer, stock, x = both(case, rng, dtype="float32", batch=8)
    upstream = rng.normal(size=x.shape)
    found, expected = (results(f, 1e30 * x, upstream, training=True) for f in (layer, stock))
    assert_close(found, expected, 1e-5)


def masked(rng, shape):
    mask = rng.uniform(size=shape[:-1]) < 0.6
    mask.ravel()[:2] = (True, False)
    return mask


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("training", [True, False])
def test_masks_do_what_they_do_in_stock_layers(axis, training, rng):
    case = cases.BatchNorm("", {"alpha": 0.25, "axis": axis, "momentum": 0.5}, (5, 3), None)
    layer, stock, x = both(case, rng)
    upstream = rng.normal(size=x.shape)
    options = {"training": training, "mask": tf.constant(masked(rng, x.shape))}
    found, expected = (results(each, x, upstream, **options) for each in (layer, stock))
    assert_close(found, expected, 1e-13)
    assert_close(layer.weights, stock.weights, 1e-14)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        *(((6,), -1), ((5, 3), 1), ((5, 4, 3), -1), ((5, 4, 3), 2), ((5, 4, 2, 3), -1)),
        *([((5, 4, 3), 1), ((5, 4, 2, 3), 1)] if KERAS_3 else []),  # tf_keras's needs a GPU
    ],
    ids=str,
)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("mixed_float16", 2e-3)])
def test_moving_averages_are_those_of_the_stock_layer_of_each_keras(
    shape, axis, dtype, tolerance, rng
):
    """tf_keras corrects the variance where its kernel for images and volumes does, only there."""
    layer, stock = (
        kind(axis=axis, momentum=0.5, dtype=dtype)
        for kind in (BatchNormLeakyReLU, tf.keras.layers.BatchNormalization)
    )
    x = rng.normal(1, 2, (3, *shape)).astype("float32")
    for each in (layer, stock):
        each(x, training=True)
    assert_close(layer.weights, stock.weights, tolerance)


SLOPES = {"fixed": 0.25, "trained": np.array([0.2, 0.5, 1.5])}


def plain(z, gamma, beta, alpha):
    """The formula by operations whose gradients of every order are TensorFlow's own."""
    mean = tf.reduce_mean(z, [0, 1, 2])
    variance = tf.reduce_mean((z - mean) ** 2, [0, 1, 2])
    u = gamma * (z - mean) / tf.sqrt(variance + 0.1) + beta
    return tf.where(u > 0, u, alpha * u)


def as_functions(name, rng):
    """The layer's operation and the formula as functions of tensors, and these."""
    fixed = [] if name == "trained" else [tf.constant(SLOPES[name], tf.float64)]

    def ours(z, gamma, beta, alpha=SLOPES[name]):
        channels = Channels(4, 3, 3)
        batch = Batch(channels, z, mask=None, extra=0.0, all_reduce=lambda tensor: tensor)
        return batch_norm_leaky_relu(z, gamma, beta, alpha, batch, 0.1)[0]

    inputs = [rng.normal(size=(3, 5, 4, 3)), *rng.uniform(0.3, 1.5, (2, 3))]
    inputs += [SLOPES[name]] if name == "trained" else []
    return ours, lambda *inputs: plain(*inputs, *fixed), [tf.constant(each) for each in inputs]


def twice(loss):
    return reverse(reverse(loss))


def forward_over_reverse(loss):
    return forward(reverse(loss))


@pytest.mark.parametrize(
    ("derivative", "mode", "name"),
    [
        *((twice, mode, "trained") for mode in modes.ALL),
        *((forward_over_reverse, mode, "trained") for mode in (modes.eager, modes.graph)),
        (jacobians, modes.graph, "trained"),
        (twice, modes.eager, "fixed"),
    ],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_derivatives_of_every_kind_are_those_of_the_formula(derivative, mode, name, rng):
    ours, formula, inputs = as_functions(name, rng)
    weights = tf.constant(rng.normal(size=inputs[0].shape))
    found = mode(derivative(cubic(ours, weights)))(*inputs)
    expected = derivative(cubic(formula, weights))(*inputs)
    for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10 * np.abs(other).max())


def test_gradients_are_finite_differences(rng):
    ours, _, inputs = as_functions("trained", rng)
    weights = tf.constant(rng.normal(size=inputs[0].shape))
    theory, numeric = tf.test.compute_gradient(
        lambda *inputs: tf.reduce_sum(weights * ours(*inputs)), inputs, delta=1e-5
    )
    for exact, close in zip(theory, numeric, strict=True):
        np.testing.assert_allclose(exact, close, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mode", modes.ALL, ids=lambda mode: mode.__name__)
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_modes_agree_at_sizes_that_are_unknown_when_they_are_traced(mode, training, dtype, rng):
    case = cases.BATCH_NORMS[3]
    layer, stock, x = both(case, rng, dtype=dtype, batch=3)
    upstream = tf.constant(rng.normal(size=x.shape), x.dtype)

    def step(x, upstream):
        return results(layer, x, upstream, training=training)

    if mode is not modes.eager:
        spec = tf.TensorSpec([None, None, None, 3], x.dtype)
        options = {"jit_compile": True} if mode is modes.xla else {}
        step = tf.function(step, input_signature=[spec, spec], autograph=False, **options)
    found = step(x, upstream)
    expected = results(stock, x, upstream, training=training)
    assert_close(found, expected, 4e-3 if "16" in dtype else 2e-6)
    assert_close(layer.weights, stock.weights, 1e-5)


def near_zero(gamma, beta, dtype):
    """What comes of such a gamma, which the backward pass has to divide by, and what is right."""
    rng = np.random.default_rng(7)
    layer = BatchNormLeakyReLU(alpha=0.25, dtype=dtype)
    layer.build((None, 3))
    layer.set_weights([np.full(3, value) for value in (gamma, beta, 0.0, 1.0)])
    x = tf.constant(rng.normal(size=(64, 3)), layer.compute_dtype)
    upstream = tf.cast(rng.normal(size=x.shape) + 0.5 * np.sin(7 * np.float64(x)), x.dtype)
    exact = oracle.batch_norm(x, gamma, beta, 0.25, upstream, axis=-1, epsilon=1e-3)
    return results(layer, x, upstream, training=True), exact


each_policy = pytest.mark.parametrize(
    "dtype", ["float64", "float32", "mixed_bfloat16", "mixed_float16"]
)


@each_policy
def test_gradients_at_gamma_zero_are_those_just_above_it_where_beta_is_zero(dtype):
    """So a block that starts with both at 0 leaves it."""
    (y, dz, *found), _ = near_zero(0.0, 0.0, dtype)
    assert np.abs(np.float64(y)).max() < (5e-4 if dtype == "mixed_float16" else 1e-18)
    np.testing.assert_array_equal(dz, np.zeros_like(dz))
    _, exact = near_zero(1e-15, 0.0, dtype)
    tolerance = {"float64": 1e-14, "float32": 1e-6}.get(dtype, 0.01)
    assert_close(found, [exact["dgamma"], exact["dbeta"]], tolerance)


@each_policy
@pytest.mark.parametrize("gamma", [0.0, -0.0, 1e-30, -1e-12, 1e-6, -1e-4, 1e-3, -1e-3, 0.1, 3.0])
@pytest.mark.parametrize("beta", [0.0, 0.7, -0.7])
def test_nothing_is_nan_near_gamma_zero_and_all_is_right_from_a_thousandth_on(gamma, beta, dtype):
    (_, *found), exact = near_zero(gamma, beta, dtype)
    assert all(np.isfinite(np.float64(each)).all() for each in found)
    expected = [exact[name] for name in ("dz", "dgamma", "dbeta")]
    scale = np.abs(exact["dz"]).max()
    if beta and scale > 1e-6:
        atol = {"float64": 1e-9, "float32": 1e-3}.get(dtype, 0.5) * scale + 1e-7
        np.testing.assert_allclose(found[0], exact["dz"], rtol=0, atol=atol)
    if abs(gamma) >= 1e-3 and "mixed" not in dtype:
        tolerance = {"float64": 1e-14, "float32": 1e-6}[dtype]
        assert_close(found, expected, max(1, abs(beta / gamma)) * tolerance)
