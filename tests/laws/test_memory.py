"""What is kept between the forward and the backward pass."""

import collections
import gc
import tempfile
import weakref
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_leaky import BatchNormLeakyReLU, LeakyReLU, leaky_relu

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


VIEWS = {"Identity", "IdentityN", "Reshape", "Squeeze"}  # whose outputs are their inputs
GIVEN = {"Placeholder", "Const", "VarHandleOp", "ReadVariableOp"}


def after_grappler(function, *arguments):
    """The graph that TensorFlow runs when `function` is called: what its optimizers made of it.

    TensorFlow may hand out the graphs of a call with those of the next one, so the right one is
    known by its names.
    """
    traced = function.get_concrete_function(*arguments).graph
    names = {operation.name for operation in traced.get_operations()}

    def shared(graphs):
        return len(names & {node.name for node in graphs.pre_optimization_graph.node})

    found = max(graphs_of_a_call(function, *arguments), key=shared)
    assert shared(found) > 0.8 * len(names), "the graph of another function"
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(with_arguments(found.post_optimization_graph), name="")
    return graph


def graphs_of_a_call(function, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        with tf.summary.create_file_writer(folder).as_default():
            tf.summary.trace_on(graph=True, profiler=False)
            function(*arguments)
            tf.identity(0)
            tf.summary.trace_export("run", step=0)
        (path,) = Path(folder).iterdir()
        events = [
            tf.compat.v1.Event.FromString(record.numpy())
            for record in tf.data.TFRecordDataset(str(path))
        ]
    (trace,) = [value.tensor for event in events for value in event.summary.value]
    graphs = tf.compat.v1.RunMetadata.FromString(trace.string_val[0]).function_graphs
    return [each for each in graphs if has_shapes(each)]


def has_shapes(graphs):
    """Whether it is of a traced function, and not one of those that Keras runs beside it."""
    nodes = graphs.post_optimization_graph.node
    return all(
        node.attr["_output_shapes"].list.shape or node.attr["_handle_shapes"].list.shape
        for node in nodes
        if node.op == "_Arg"
    )


def with_arguments(found):
    """Such a graph with placeholders and variables as arguments, of the shapes that it has."""
    made = tf.compat.v1.GraphDef(versions=found.versions)
    for node in found.node:
        new = made.node.add(name=node.name, op=node.op, input=node.input)
        if node.op == "_Retval":
            del made.node[-1]
        elif node.op == "_Arg" and "_handle_shapes" in node.attr:
            new.op = "VarHandleOp"
            new.attr["dtype"].type = node.attr["_handle_dtypes"].list.type[0]
            new.attr["shape"].shape.CopyFrom(node.attr["_handle_shapes"].list.shape[0])
        elif node.op == "_Arg":
            new.op = "Placeholder"
            new.attr["dtype"].type = node.attr["T"].type
            new.attr["shape"].shape.CopyFrom(node.attr["_output_shapes"].list.shape[0])
        else:
            for name in node.attr:
                if not name.startswith("_"):
                    new.attr[name].CopyFrom(node.attr[name])
    return made


def needs(operation):
    """The operations that have to run before this one."""
    return [tensor.op for tensor in operation.inputs] + operation.control_inputs


def origin(tensor):
    while tensor.op.type in VIEWS:
        tensor = tensor.op.inputs[tensor.op.outputs.index(tensor)]
    return tensor


def in_order(graph):
    """How long a chain of operations has to run before each: as soon as it is ready, it is run."""
    levels, waiting = {}, list(graph.get_operations())
    while waiting:
        operation = waiting[-1]
        before = [each for each in needs(operation) if each not in levels]
        waiting += before
        if not before:
            levels[waiting.pop()] = 1 + max((levels[each] for each in needs(operation)), default=0)
    return levels


def kept_by_a_graph(activation, channels=4):
    """How many activation-sized tensors of the forward pass the backward pass uses.

    In the graph that is run, of convolution, activation, convolution and their gradients: what
    doesn't need the upstream gradient may run in the forward pass, and is counted with it.
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

    return kept(after_grappler(step, x, x), x.shape)


def kept(graph, shape):
    """How many tensors of a shape are made without the upstream gradient and used with it."""
    after = {graph.get_operation_by_name("upstream")}
    for operation in in_order(graph):
        if not after.isdisjoint(needs(operation)):
            after.add(operation)
    used = {origin(tensor).ref() for operation in after for tensor in operation.inputs}
    tensors = [ref.deref() for ref in used]
    return sum(t.op not in after and t.op.type not in GIVEN and t.shape == shape for t in tensors)


@pytest.mark.parametrize("name", LAYERS)
def test_tensors_kept_by_a_graph(name):
    expected, make = LAYERS[name]
    assert kept_by_a_graph(make()) == expected


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_tensors_kept_by_a_graph_of_the_function(name, dtype):
    expected, function = FUNCTIONS[name]

    @tf.function(autograph=False)
    def step(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch([x, matrix])
            y = function(x + 1) @ matrix  # whose own gradient needs the output
        gradients = tape.gradient(y, [x, matrix, SLOPE, SLOPES], upstream)
        return [each for each in gradients if each is not None]

    x, matrix = tf.ones([5, 2], dtype), tf.ones([2, 2], dtype)
    assert kept(after_grappler(step, x, x), x.shape) == expected


def bytes_at_most(graph, *, hurried):
    """The most bytes that are alive at once when a graph runs, in one of two orders.

    Each operation as soon as it is ready; or, in a hurry, first what the last large tensor needs,
    which is the gradient that reaches the first layer, and only then all the rest.
    """
    levels = in_order(graph)
    sizes = {  # of the work space of tf_keras's BatchNormalization, none is known
        tensor.ref(): (tensor.shape.num_elements() or 0) * tensor.dtype.size
        for operation in levels
        if operation.type not in GIVEN | VIEWS
        for tensor in operation.outputs
    }
    order = sorted(levels, key=levels.get)
    if hurried:
        large = max(sizes.values())
        last = max((ref.deref().op for ref in sizes if sizes[ref] == large), key=levels.get)
        needed = ancestors([last])
        order.sort(key=lambda operation: operation not in needed)
    uses = collections.Counter()
    for operation in order:
        uses.update({origin(tensor).ref() for tensor in operation.inputs})
    alive = most = 0
    for operation in order:
        made = [tensor.ref() for tensor in operation.outputs]
        alive += sum(sizes.get(ref, 0) for ref in made)
        most = max(most, alive)
        for ref in {origin(tensor).ref() for tensor in operation.inputs}:
            uses[ref] -= 1
            alive -= sizes.get(ref, 0) if uses[ref] == 0 else 0
        alive -= sum(sizes.get(ref, 0) for ref in made if ref not in uses)
    assert alive == 0
    return most


def ancestors(operations):
    """These operations, and all that have to run before them."""
    found, waiting = set(), list(operations)
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting += needs(operation)
    return found


SIDE, COUNT, CHANNELS, DEPTH = 8, 2, 4, 5
ACTIVATION = SIDE * SIDE * COUNT * CHANNELS * 4  # bytes


def peaks_of_training(make, *, normalised, dtype="float32", depth=DEPTH):
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

    graph = after_grappler(step, tf.ones([COUNT, SIDE, SIDE, CHANNELS]))
    return np.array([bytes_at_most(graph, hurried=late) for late in (False, True)]) / ACTIVATION


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


def held_for_each_block(make, *, normalised, dtype):
    """By how much the peaks grow with the depth of the net, in activations of float32."""
    deep, flat = (
        peaks_of_training(make, normalised=normalised, dtype=dtype, depth=depth)
        for depth in (DEPTH + 3, DEPTH)
    )
    return (deep - flat) / 3


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_batch_norm_leaky_relu_holds_in_any_order_what_relu_alone_holds(dtype):
    relu = held_for_each_block(tf.keras.layers.ReLU, normalised=False, dtype=dtype)
    stock = held_for_each_block(tf.keras.layers.ReLU, normalised=True, dtype=dtype)
    assert stock[0] > relu[0] + 0.5
    for slopes in ({}, {"trainable_alpha": True}, {"trainable_alpha": True, "alpha_axis": -1}):

        def make(slopes=slopes, **more):
            return BatchNormLeakyReLU(**slopes, **more)

        ours = held_for_each_block(make, normalised=False, dtype=dtype)
        assert (ours <= relu + 0.05).all(), (slopes, ours, relu)


@pytest.mark.parametrize("name", ["fixed", "one slope", "per channel"])
def test_half_precision_holds_what_relu_holds_for_each_block(name):
    settings = {"normalised": False, "dtype": "mixed_float16"}
    relu = held_for_each_block(tf.keras.layers.ReLU, **settings)
    ours = held_for_each_block(LAYERS[name][1], **settings)
    assert (ours <= relu + 0.02).all(), (ours, relu)


def test_plain_custom_gradient_keeps_its_input_in_eager_mode():
    """The fact behind `_hidden`. If this fails, `_hidden` can go."""

    @tf.custom_gradient
    def operation(x):
        y = tf.raw_ops.LeakyRelu(features=x, alpha=0.1)
        return y, lambda upstream: tf.raw_ops.LeakyReluGrad(
            gradients=upstream, features=y, alpha=0.1
        )

    assert not frees_its_input(operation, "float32")
