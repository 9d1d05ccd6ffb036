"""What is kept between the forward and the backward pass."""

import gc
import weakref

import pytest
import tensorflow as tf

from tf_leaky import LeakyReLU, leaky_relu

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
    return lambda: LeakyReLU(**arguments)


LAYERS = {
    "ReLU": (1, tf.keras.layers.ReLU),
    "stock LeakyReLU": (2, tf.keras.layers.LeakyReLU),
    "stock PReLU": (3, lambda: tf.keras.layers.PReLU("ones", shared_axes=[1, 2])),
    "fixed": (1, layer()),
    "fixed negative": (2, layer(alpha=-0.1)),
    "one slope": (1, layer(trainable_alpha=True)),
    "per channel": (1, layer(trainable_alpha=True, axis=-1)),
    "per element": (1, layer(trainable_alpha=True, axis=(1, 2, 3))),
    "unconstrained": (2, layer(trainable_alpha=True, alpha_constraint=None)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_input_is_freed_in_eager_mode_where_the_output_is_enough(name, dtype):
    kept, function = FUNCTIONS[name]
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
        assert (watcher() is None) == (kept == 1)
    assert tape.gradient(y, source).shape == source.shape


def kept_by_a_graph(activation, channels=4):
    """How many activation-sized tensors of the forward pass the backward pass uses.

    A conv -> activation -> conv graph with its gradients; a tensor is of the forward pass if it
    doesn't depend on the upstream gradient, and IdentityN's and reshape's outputs are their inputs.
    """
    first, second = (
        tf.keras.layers.Conv2D(channels, 3, padding="same", use_bias=False) for _ in range(2)
    )
    x = tf.ones([2, 8, 8, channels])
    activation.build(x.shape)
    first.build(x.shape)
    second.build(x.shape)

    @tf.function(autograph=False)
    def step(x, upstream):
        with tf.GradientTape() as tape:
            y = second(activation(first(x)))
        weights = [first.kernel, second.kernel, *activation.trainable_variables]
        weights = [w if isinstance(w, tf.Variable) else w.value for w in weights]  # Keras 3's own
        return tape.gradient(y, weights, upstream)

    graph = step.get_concrete_function(x, tf.ones_like(x)).graph
    after = set()  # operations that wait for the upstream gradient
    for operation in graph.get_operations():
        needs = {tensor.op for tensor in operation.inputs} | set(operation.control_inputs)
        if operation is graph.inputs[1].op or needs & after:
            after.add(operation)
    kept = set()
    for operation in after:
        for tensor in operation.inputs:
            source = origin(tensor)
            if (
                source.op not in after
                and tensor.shape == x.shape
                and tensor.op.type != "Placeholder"
            ):
                kept.add(source.ref())
    return len(kept)


def origin(tensor):
    while tensor.op.type in ("Identity", "IdentityN", "StopGradient"):
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


@pytest.mark.parametrize("name", LAYERS)
def test_tensors_kept_by_a_graph(name):
    expected, make = LAYERS[name]
    assert kept_by_a_graph(make()) == expected


def ancestors(tensors):
    """The operations that have to run for these tensors; the rest of a graph is pruned."""
    found, waiting = set(), [tensor.op for tensor in tensors]
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting += [tensor.op for tensor in operation.inputs] + operation.control_inputs
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_backward_pass_of_a_graph_waits_for_the_upstream_gradient(name, dtype):
    """What is ready early is run early, and held to the end."""
    _, function = FUNCTIONS[name]

    @tf.function(autograph=False)
    def step(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        forward = set(tf.compat.v1.get_default_graph().get_operations())
        gradients = tape.gradient(y, [x, SLOPE, SLOPES], upstream)
        graph = tf.compat.v1.get_default_graph()
        step.backward = [op for op in graph.get_operations() if op not in forward]
        return [g for g in gradients if g is not None]

    spec = tf.TensorSpec([None, 2], dtype)
    graph = step.get_concrete_function(spec, spec).graph
    after = {graph.inputs[1].op}
    for operation in graph.get_operations():
        if ({t.op for t in operation.inputs} | set(operation.control_inputs)) & after:
            after.add(operation)
    needed = ancestors(graph.outputs)
    early = [op for op in step.backward if op in needed and op not in after]
    assert [op.name for op in early if op.type != "Const"] == []


def test_plain_custom_gradient_keeps_its_input_in_eager_mode():
    """The fact behind `_hidden`. If this fails, `_hidden` can go."""

    @tf.custom_gradient
    def operation(x):
        y = tf.raw_ops.LeakyRelu(features=x, alpha=0.1)
        return y, lambda upstream: tf.raw_ops.LeakyReluGrad(
            gradients=upstream, features=y, alpha=0.1
        )

    source = tf.ones([5])
    with tf.GradientTape() as tape:
        tape.watch(source)
        x = source * 2
        y = operation(x)
        watcher = weakref.ref(x)
        del x
        gc.collect()
        assert watcher() is not None
    assert tape.gradient(y, source) is not None
