"""What is kept between the forward and the backward pass."""

import functools
import gc
import itertools
import weakref

import numpy as np
import pytest
import tensorflow as tf

from tf_leaky import BatchNormLeakyReLU, LeakyReLU, leaky_relu
from tf_leaky.inspection import graphs

SLOPE = tf.Variable(0.3)
SLOPES = tf.Variable([0.2, 0.4])
# One entry: how many tensors of the activation's size a backward pass may keep.
FUNCTIONS = {
    "fixed": (1, lambda x: leaky_relu(x, 0.1)),
    "fixed zero": (1, lambda x: leaky_relu(x, 0.0)),
    "fixed above one": (1, lambda x: leaky_relu(x, 1.5)),
    "fixed negative": (2, lambda x: leaky_relu(x, -0.1)),
    "constant slopes": (1, lambda x: leaky_relu(x, [0.0, 1.5])),
    "constant slopes, one negative": (2, lambda x: leaky_relu(x, [0.1, -0.1])),
    "one slope, positive": (1, lambda x: leaky_relu(x, SLOPE, positive_alpha=True)),
    "per channel, positive": (1, lambda x: leaky_relu(x, SLOPES, positive_alpha=True)),
    "one slope": (2, lambda x: leaky_relu(x, SLOPE)),
    "per channel": (2, lambda x: leaky_relu(x, SLOPES)),
}


def layer(**arguments):
    return lambda **more: LeakyReLU(**arguments, **more)


LAYERS = {
    "ReLU": (1, tf.keras.layers.ReLU),
    "stock LeakyReLU": (2, tf.keras.layers.LeakyReLU),
    "stock PReLU": (3, lambda **more: tf.keras.layers.PReLU("ones", shared_axes=[1, 2], **more)),
    "fixed": (1, layer()),
    "fixed negative": (2, layer(alpha=-0.1)),
    "one slope": (1, layer(trainable_alpha=True)),
    "per channel": (1, layer(trainable_alpha=True, axis=-1)),
    "per element": (1, layer(trainable_alpha=True, axis=(1, 2, 3))),
    "unconstrained": (2, layer(trainable_alpha=True, alpha_constraint=None)),
}


def frees_its_input(function, dtype):
    """Whether the input of a function is gone in eager mode before the backward pass."""
    source = tf.ones([5, 2], dtype)
    gc.freeze()  # so that the search below leaves out what was there before: TensorFlow itself
    with tf.GradientTape() as tape:
        tape.watch(source)
        x = source * 2
        y = function(x)
        watcher = weakref.ref(x)
        del x
        gc.collect()
        gc.unfreeze()
        freed = watcher() is None
    assert tape.gradient(y, source).shape == source.shape
    return freed


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_input_is_freed_in_eager_mode_where_the_output_is_enough(name, dtype):
    kept, function = FUNCTIONS[name]
    assert frees_its_input(function, dtype) == (kept == 1)


NUMBERS = itertools.count()


def traced(function, *shapes, dtype="float32"):
    """For such arguments, the names of which no other function has: so the right graph is found."""
    specs = [tf.TensorSpec(shape, dtype, name=f"argument_{next(NUMBERS)}") for shape in shapes]
    return function.get_concrete_function(*specs)


def kept(step, shape, dtype="float32"):
    """How many tensors of a shape step(upstream, x) makes in the forward pass for the backward one.

    In the graph that TensorFlow runs, after Grappler: what doesn't need the upstream gradient may
    run in the forward pass, and is counted with it. Masks of a byte for each element are, too.
    """
    found = graphs.kept_by(traced(step, shape, shape, dtype=dtype))
    return sum(each.bytes >= np.prod(shape) for each in found)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_tensors_kept_by_a_graph_of_the_function(name, dtype):
    expected, function = FUNCTIONS[name]
    matrix = tf.ones([2, 2], dtype)

    @tf.function(autograph=False)
    def step(upstream, x):
        with tf.GradientTape() as tape:
            tape.watch([x, matrix])
            y = function(x + 1) @ matrix  # whose own gradient needs the output
        gradients = tape.gradient(y, [x, matrix, SLOPE, SLOPES], upstream)
        return [each for each in gradients if each is not None]

    assert kept(step, (50, 2), dtype) == expected


def needs(operation):
    """The operations that have to run before this one."""
    return [tensor.op for tensor in operation.inputs] + operation.control_inputs


def ancestors(operations):
    """These operations, and all that have to run before them."""
    found, waiting = set(), list(operations)
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting += needs(operation)
    return found


TRAINED = {name: make for name, (_, make) in LAYERS.items() if name.startswith(("one", "per"))} | {
    "batch norm": BatchNormLeakyReLU,
    "batch norm, slopes": functools.partial(
        BatchNormLeakyReLU, trainable_alpha=True, alpha_axis=-1
    ),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
@pytest.mark.parametrize("name", TRAINED)
def test_gradient_of_x_waits_for_those_of_the_weights(name, dtype, training):
    """Else the layers before could go on, and hold all that a later sum needs until then."""
    layer, shape = TRAINED[name](dtype=dtype), (16, 8, 8, 4)
    layer.build(shape)
    options = {"training": training} if isinstance(layer, BatchNormLeakyReLU) else {}

    @tf.function(autograph=False)
    def step(upstream, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, **options)
        return tape.gradient(y, [x, *layer.trainable_weights], upstream)

    graph = traced(step, shape, shape, dtype=layer.compute_dtype).graph
    dx, *others = [tensor.op for tensor in graph.outputs]
    late = ancestors(others) - ancestors([dx])
    assert not [op for op in late for tensor in op.inputs if tensor.shape == shape]


def test_plain_custom_gradient_keeps_its_input_in_eager_mode():
    """The fact behind `_hidden`. If this fails, `_hidden` can go."""

    @tf.custom_gradient
    def operation(x):
        y = tf.raw_ops.LeakyRelu(features=x, alpha=0.1)
        return y, lambda upstream: tf.raw_ops.LeakyReluGrad(
            gradients=upstream, features=y, alpha=0.1
        )

    assert not frees_its_input(operation, "float32")
