"""What a backward pass keeps where XLA compiles it for a CPU; benchmarks/xla.py has the buffers."""

import pytest
import tensorflow as tf

import tf_leaky
from tf_leaky import xla

PLAIN, COMPILED = tf.function, tf.function(jit_compile=True)


def seen(wrap):
    """What `compiles_for_cpu` says within a function."""
    found = []

    def function(x):
        found.append(xla.compiles_for_cpu())
        return x

    wrap(function)(tf.constant(1.0))
    return found


def in_a_loop(wrap):
    return lambda function: wrap(
        lambda x: tf.while_loop(lambda x: x < 3, lambda x: function(x) + 1, [x])
    )


WRAPS = {
    "eager": (lambda function: function, False),
    "loop": (in_a_loop(PLAIN), False),
    "compiled in a graph": (lambda function: PLAIN(COMPILED(function)), True),
    "graph in what is compiled": (lambda function: COMPILED(PLAIN(function)), True),
    "loop, compiled": (in_a_loop(COMPILED), True),
}


@pytest.mark.parametrize(("wrap", "compiled"), WRAPS.values(), ids=WRAPS)
def test_what_xla_compiles_is_known_while_it_is_traced(wrap, compiled):
    """If TensorFlow renames what tells it, this fails."""
    assert set(seen(wrap)) == {compiled}


@pytest.mark.smoke
@pytest.mark.parametrize("compiled", [False, True])
def test_what_keras_compiles_is_known(compiled):
    found = []

    class Asks(tf.keras.layers.Layer):
        def call(self, x):
            found.append(xla.compiles_for_cpu())
            return x

    model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1), Asks()])
    model.compile("sgd", "mse", jit_compile=compiled)
    found.clear()
    model.train_on_batch(tf.ones((3, 2)), tf.ones((3, 1)))
    assert set(found) == {compiled}


def what_the_gradient_uses(before, *, wrap=COMPILED, alpha=0.1):
    """The operation whose output the gradient of leaky ReLU after `before` compares with zero."""

    def function(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf_leaky.leaky_relu(before(x), alpha, positive_alpha=True)
        return tape.gradient(y, x)

    graph = wrap(function).get_concrete_function(tf.TensorSpec((4, 4))).graph
    (gradient,) = [each for each in graph.get_operations() if each.type == "LeakyReluGrad"]
    return gradient.inputs[1].op.type


@pytest.mark.parametrize(("wrap", "compared"), [(PLAIN, 2), (COMPILED, 1)], ids=["plain", "XLA"])
def test_constant_slopes_keep_what_a_number_keeps(wrap, compared):
    """Forward and backward pass compare x with zero, or the one x and the other y."""

    def function(x):
        return tf.gradients(tf_leaky.leaky_relu(scaled(x), [0.1, 0.2]), x)

    graph = wrap(function).get_concrete_function(tf.TensorSpec((4, 2))).graph
    masks = [each for each in graph.get_operations() if each.type == "Greater"]
    assert len({each.inputs[0].ref() for each in masks}) == compared


def scaled(x):
    return x * 2


def dense(x):
    return tf.nn.bias_add(tf.identity(x) @ x, tf.ones(4))


def test_input_is_kept_where_xla_computes_it_again():
    assert what_the_gradient_uses(scaled) != "LeakyRelu"
    assert what_the_gradient_uses(scaled, wrap=PLAIN) == "LeakyRelu"


PRODUCTS = {
    "with bias": dense,
    "with a sum": lambda x: dense(x) + 1,
    "reshaped": lambda x: tf.reshape(x @ x, [-1]),
}


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_output_is_kept_after_a_matrix_product(product):
    assert what_the_gradient_uses(product) == "LeakyRelu"


@pytest.mark.parametrize("kind", ["GPU", "TPU"])
def test_output_is_kept_where_there_are_other_devices(monkeypatch, kind):
    devices = [tf.config.PhysicalDevice("/physical_device:0", each) for each in ("CPU", kind)]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda: devices)
    assert what_the_gradient_uses(scaled) == "LeakyRelu"


@pytest.mark.parametrize("alpha", [0.1, [0.1, 0.2, 0.3, 0.4], "one", "each"])
@pytest.mark.parametrize("before", [scaled, dense], ids=["scaled", "dense"])
def test_gradients_are_those_of_a_plain_graph(before, alpha, rng):
    slopes = {"one": [0.2], "each": [0.1, 0.2, 0.3, 0.4]}.get(str(alpha))
    alpha = alpha if slopes is None else tf.Variable(slopes)

    def function(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf_leaky.leaky_relu(before(x), alpha, positive_alpha=True)
            loss = tf.reduce_sum(y * y)
        return tape.gradient(loss, [x] if slopes is None else [x, alpha])

    x = tf.constant(rng.normal(size=(4, 4)), tf.float32)
    for one, other in zip(PLAIN(function)(x), COMPILED(function)(x), strict=True):
        tf.debugging.assert_near(one, other, rtol=1e-5, atol=1e-5)
