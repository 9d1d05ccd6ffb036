"""The most bytes that are alive at once in a training step, counted in two orders of execution.

The graph is the one that TensorFlow runs, after Grappler. Its operations run as soon as they are
ready, or in a hurry: first all that the gradient needs that reaches the first layer, then the rest.
"""

import collections
import functools

import numpy as np
import pytest
import tensorflow as tf
from test_memory import LAYERS, ancestors, needs, traced

from tf_leaky import BatchNormLeakyReLU
from tf_leaky.inspection import graphs

SIDE, COUNT, CHANNELS, DEPTH = 8, 2, 4, 4
ACTIVATION = SIDE * SIDE * COUNT * CHANNELS * 4  # bytes
ONE_BUFFER = graphs._VIEWS | graphs._GIVEN | {"IdentityN"}  # which take no memory of their own


def origin(tensor):
    while tensor.op.type in graphs._VIEWS | {"IdentityN"}:
        tensor = tensor.op.inputs[tensor.op.outputs.index(tensor)]
    return tensor.ref()


def bytes_at_most(graph, *, hurried):
    """The most bytes that are alive at once when a graph runs, in one of the two orders."""
    levels = {}  # how long a chain of operations has to run before each
    for operation in graph.get_operations():  # each stands after those that it needs
        levels[operation] = 1 + max((levels[each] for each in needs(operation)), default=0)
    sizes = {  # of the work space of tf_keras's BatchNormalization, none is known
        tensor.ref(): (tensor.shape.num_elements() or 0) * tensor.dtype.size
        for operation in levels
        if operation.type not in ONE_BUFFER
        for tensor in operation.outputs
    }
    order = sorted(levels, key=levels.get)
    if hurried:
        large = max(sizes.values())
        last = max((ref.deref().op for ref in sizes if sizes[ref] == large), key=levels.get)
        first = ancestors([last])
        order.sort(key=lambda operation: operation not in first)
    uses = collections.Counter(ref for each in order for ref in {*map(origin, each.inputs)})
    alive = most = 0
    for operation in order:
        made = [tensor.ref() for tensor in operation.outputs]
        alive += sum(sizes.get(ref, 0) for ref in made)
        most = max(most, alive)
        used = {*map(origin, operation.inputs)}
        uses.subtract(used)
        alive -= sum(sizes.get(ref, 0) for ref in used.union(made) if uses[ref] == 0)
    assert alive == 0
    return most


def peaks_of_training(make, *, normalised=False, dtype="float32", depth=DEPTH):
    """The peaks of a training step of a Keras model, in both orders, in activations."""
    layers = tf.keras.layers
    model = tf.keras.Sequential([tf.keras.Input((SIDE, SIDE, CHANNELS))])
    for _ in range(depth):
        model.add(layers.Conv2D(CHANNELS, 3, padding="same", dtype=dtype))
        if normalised:
            model.add(layers.BatchNormalization(dtype=dtype))
        model.add(make(dtype=dtype))

    @tf.function(autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            y = model(x, training=True)
            loss = tf.reduce_mean((y - tf.cast(x, y.dtype)) ** 2)
        return loss, tape.gradient(loss, model.trainable_variables)

    function = traced(step, (COUNT, SIDE, SIDE, CHANNELS))
    graph = graphs._imported(graphs._optimized(function, function.inputs[0].op.name))
    return np.array([bytes_at_most(graph, hurried=late) for late in (False, True)]) / ACTIVATION


def held_for_each_block(make, **options):
    """By how much the peaks grow with the depth of the net, in activations of float32."""
    deep, flat = (peaks_of_training(make, depth=depth, **options) for depth in (DEPTH + 2, DEPTH))
    return (deep - flat) / 2


@pytest.mark.parametrize("normalised", [False, True])
def test_training_holds_what_relu_holds_in_any_order(normalised):
    """One tensor of work more for trained slopes, however deep the net is."""
    relu = peaks_of_training(tf.keras.layers.ReLU, normalised=normalised)
    assert (relu >= DEPTH).all()
    stock = peaks_of_training(tf.keras.layers.LeakyReLU, normalised=normalised)
    assert stock[0] - relu[0] > DEPTH - 2
    for name, more in (("fixed", 0), ("one slope", 1), ("per channel", 1)):
        peaks = peaks_of_training(LAYERS[name][1], normalised=normalised)
        assert (peaks - relu < more + 0.1).all(), (name, peaks, relu)


FUSED = {
    "fused": BatchNormLeakyReLU,
    "fused, per channel": functools.partial(
        BatchNormLeakyReLU, trainable_alpha=True, alpha_axis=-1
    ),
}
HALF = {name: LAYERS[name][1] for name in ("fixed", "one slope", "per channel")}  # see above


@pytest.mark.parametrize(
    ("dtype", "layers"),
    [("float32", FUSED), ("mixed_float16", FUSED | HALF)],
    ids=["float32", "mixed_float16"],
)
def test_each_block_holds_what_relu_alone_holds_in_any_order(dtype, layers):
    relu = held_for_each_block(tf.keras.layers.ReLU, dtype=dtype)
    stock = held_for_each_block(tf.keras.layers.ReLU, normalised=True, dtype=dtype)
    assert stock[0] > relu[0] + 0.5
    for name, make in layers.items():
        found = held_for_each_block(make, dtype=dtype)
        assert (found <= relu + 0.05).all(), (name, found, relu)
