"""`BatchNormLeakyReLU` as a layer: what it keeps, masks, switches, weights, training, config."""

import gc
import json
import weakref

import cases
import numpy as np
import pytest
import tensorflow as tf
from test_memory import ancestors, kept_by_a_graph

from tf_leaky import BatchNormLeakyReLU, LeakyReLU
from tf_leaky.batch_norm_ops import (
    Batch,
    Channels,
    batch_norm_leaky_relu,
    normalized_leaky_relu,
)

KERAS_3 = tf.keras.layers.Layer.__module__.startswith("keras.")
layers = tf.keras.layers
each_case = pytest.mark.parametrize("case", cases.BATCH_NORMS, ids=cases.names)


class InTraining:
    """Layers one after another, called in training."""

    def __init__(self, *parts):
        self.parts = parts

    def build(self, shape):
        for part in self.parts:
            part.build(shape)

    def __call__(self, x):
        for part in self.parts:
            options = {} if isinstance(part, LeakyReLU | layers.ReLU) else {"training": True}
            x = part(x, **options)
        return x

    @property
    def trainable_variables(self):
        return [weight for part in self.parts for weight in part.trainable_variables]


STOCK = {
    "BatchNormalization and ReLU": (2, lambda: (layers.BatchNormalization(), layers.ReLU())),
    "BatchNormalization and ours": (2, lambda: (layers.BatchNormalization(), LeakyReLU())),
}
BLOCKS = {
    **(STOCK if KERAS_3 else {}),  # tf_keras's own kernel keeps what no operation here tells
    "fixed": (1, lambda: [BatchNormLeakyReLU()]),
    "one slope": (1, lambda: [BatchNormLeakyReLU(trainable_alpha=True)]),
    "per channel": (1, lambda: [BatchNormLeakyReLU(trainable_alpha=True, alpha_axis=-1)]),
    "bare": (1, lambda: [BatchNormLeakyReLU(center=False, scale=False)]),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_tensors_kept_by_a_graph_between_two_convolutions(name):
    expected, make = BLOCKS[name]
    assert kept_by_a_graph(InTraining(*make())) == expected


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_float16"])
@pytest.mark.parametrize("trained", [True, False])
def test_input_is_freed_in_eager_mode(training, dtype, trained):
    layer = BatchNormLeakyReLU(trainable_alpha=trained, dtype=dtype)
    source = tf.ones([5, 2], layer.compute_dtype)
    layer.build(source.shape)
    gc.freeze()  # so that the search below leaves out what was there before: TensorFlow itself
    with tf.GradientTape() as tape:
        tape.watch(source)
        z = source * 2
        y = layer(z, training=training)
        watcher = weakref.ref(z)
        del z
        gc.collect()
        gc.unfreeze()
        assert watcher() is None
    assert tape.gradient(y, source).shape == source.shape


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_float16"])
@pytest.mark.parametrize("trained", [True, False])
def test_backward_pass_of_a_graph_needs_the_upstream_for_all_that_is_large(
    training, dtype, trained
):
    """By data: what hangs on a control dependency alone Grappler may run early and hold."""
    layer = BatchNormLeakyReLU(trainable_alpha=trained, dtype=dtype)
    layer.build((None, 6, 5))

    @tf.function(autograph=False)
    def step(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
        graph = tf.compat.v1.get_default_graph()
        forward = set(graph.get_operations())
        weights = [w if isinstance(w, tf.Variable) else w.value for w in layer.trainable_weights]
        gradients = tape.gradient(y, [x, *weights], upstream)
        step.backward = [each for each in graph.get_operations() if each not in forward]
        return gradients

    spec = tf.TensorSpec([7, 6, 5], layer.compute_dtype)
    graph = step.get_concrete_function(spec, spec).graph
    after = {graph.inputs[1].op}
    for operation in graph.get_operations():
        if {tensor.op for tensor in operation.inputs} & after:
            after.add(operation)
    needed = ancestors([tensor.op for tensor in graph.outputs])
    large = [
        op for op in step.backward if any(out.shape.num_elements() == 210 for out in op.outputs)
    ]
    assert any(operation in needed for operation in large)
    assert [op.name for op in large if op in needed and op not in after] == []


def kept_after_grappler(make_y, size):
    """The operations whose results the backward pass uses, of such a size, by their type.

    As they are run, after Grappler: a result is the forward pass's if no data leads to it from the
    upstream gradient.
    """
    graph, metadata = tf.Graph(), tf.compat.v1.RunMetadata()
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.min_graph_nodes = -1
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [size, 3])
        upstream = tf.compat.v1.placeholder(tf.float32, [size, 3], "upstream")
        z = tf.exp(x)
        with tf.GradientTape() as tape:
            tape.watch(z)
            y = make_y(z)
        gradient = tape.gradient(y, z, tf.exp(tf.cast(upstream, y.dtype)))
    with tf.compat.v1.Session(graph=graph, config=config) as session:
        options = tf.compat.v1.RunOptions(output_partition_graphs=True, trace_level=3)
        feed = {x: np.ones((size, 3)), upstream: np.ones((size, 3))}
        session.run([y, gradient], feed, options=options, run_metadata=metadata)
    nodes = {node.name: node for part in metadata.partition_graphs for node in part.node}
    inputs = {
        name: {each.partition(":")[0] for each in node.input if not each.startswith("^")}
        for name, node in nodes.items()
    }
    after, before = {name for name in nodes if name.startswith("_arg_upstream")}, set()
    while after != before:
        before = set(after)
        after |= {name for name, needs in inputs.items() if needs & after}
    large = {
        stats.node_name
        for device in metadata.step_stats.dev_stats
        for stats in device.node_stats
        for output in stats.output
        if output.tensor_description.shape.dim
        and output.tensor_description.shape.dim[0].size == size
    }
    kept = {need for name in after for need in inputs[name]} - after
    return sorted(nodes[name].op for name in kept & large)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_float16"])
@pytest.mark.parametrize("alpha", ["fixed", "trained"])
def test_what_is_run_keeps_one_tensor(training, dtype, alpha):
    """The fact behind `tf.identity_n` in `batch_norm_ops`: Grappler leaves it there."""

    def make_y(z):
        wide = tf.float64 if dtype == "float64" else tf.float32
        values = tf.cast(tf.stop_gradient(z[0]), wide)  # no constants, which Grappler would fold
        gamma, beta, variance = values + 0.5, values - 3, values * values
        slope = 0.25 if alpha == "fixed" else values[0] / 8
        z = tf.cast(z, tf.float16 if "16" in dtype else wide)
        channels = Channels(2, 1, 3)
        if not training:
            return normalized_leaky_relu(
                z, gamma, beta, slope, beta, variance, channels, epsilon=0.1
            )
        batch = Batch(channels, z, mask=None, extra=0.0, all_reduce=lambda tensor: tensor)
        return batch_norm_leaky_relu(z, gamma, beta, slope, batch, 0.1)[0]

    assert len(kept_after_grappler(make_y, 37)) == 1


def test_count_after_grappler_sees_what_is_run_early():
    """That the test above can fail: a mask that only a control dependency makes wait."""

    @tf.custom_gradient
    def early(z):
        y = tf.nn.leaky_relu(z, 0.25)

        def backward(upstream):
            return tf.where(y > 0, upstream, 0.25 * upstream)

        return y, backward

    assert kept_after_grappler(early, 37) == ["Greater"]


def masked(rng, shape):
    mask = rng.uniform(size=shape[:-1]) < 0.6
    mask.ravel()[:2] = (True, False)
    return mask


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("training", [True, False])
def test_masks_do_what_they_do_in_stock_layers(axis, training, rng):
    layer = BatchNormLeakyReLU(alpha=0.25, axis=axis, momentum=0.5, dtype="float64")
    stock = layers.BatchNormalization(axis=axis, momentum=0.5, dtype="float64")
    activation = LeakyReLU(0.25, dtype="float64")
    x = tf.constant(rng.normal(3, 2, (4, 5, 3)))
    mask, upstream = tf.constant(masked(rng, x.shape)), tf.constant(rng.normal(size=x.shape))
    found = []
    for function in (layer, lambda x, **given: activation(stock(x, **given))):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x, training=training, mask=mask)
        found.append([y, tape.gradient(y, x, upstream)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)
    for one, other in zip(layer.weights, stock.weights, strict=True):
        np.testing.assert_allclose(np.float64(one), np.float64(other), rtol=1e-12, atol=1e-15)


def test_masks_count_on_images_and_hide_nan(rng):
    """Where tf_keras's own layer ignores them, with a warning."""
    layer = BatchNormLeakyReLU(momentum=0.0)
    x = rng.normal(size=(2, 4, 4, 3)).astype("float32")
    mask = masked(rng, x.shape)
    hidden = np.where(mask[..., None], x, np.float32(np.nan))
    layer(hidden, training=True, mask=mask)
    mean, variance = layer.get_weights()[2:]
    np.testing.assert_allclose(mean, x[mask].mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, x[mask].var(0), rtol=1e-5)


def test_mask_reaches_the_layer_and_the_one_after_it(rng):
    x = rng.normal(size=(4, 5, 3)).astype("float32")
    x[:, 3:] = 0
    ours = BatchNormLeakyReLU(momentum=0.0)
    model = tf.keras.Sequential([tf.keras.Input((5, 3)), layers.Masking(), ours, layers.LSTM(2)])
    model(x, training=True)
    np.testing.assert_allclose(ours.get_weights()[2], x[:, :3].mean((0, 1)), rtol=1e-5, atol=1e-6)
    shorter = model.layers[-1](ours(x[:, :3]))
    np.testing.assert_allclose(model(x), shorter, rtol=1e-5, atol=1e-6)


@each_case
def test_frozen_layer_is_in_inference_mode(case, rng):
    layer = case.make()
    layer.build((None, *case.input_shape))
    x = rng.normal(size=(4, *case.input_shape)).astype("float32")
    expected = layer(x, training=False)
    trained = layer(x, training=True)
    assert not np.allclose(trained, expected)
    before = layer.get_weights()
    layer.trainable = False
    frozen = layer(x, training=True)
    assert not np.allclose(frozen, trained)
    for one, other in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    layer.trainable = True
    assert len(layer.trainable_weights) == len(case.make_and_build().trainable_weights)


def test_sums_of_a_mixed_layer_go_beyond_float16():
    layer = BatchNormLeakyReLU(alpha=0.5, dtype="mixed_float16", scale=False)
    x = tf.reshape(tf.tile(tf.constant([-1.0, 1.0], tf.float16), [1 << 17]), [-1, 1])
    with tf.GradientTape() as tape:
        y = layer(x, training=True)
    beta = layer.beta if isinstance(layer.beta, tf.Variable) else layer.beta.value
    assert y.dtype == tf.float16
    assert float(tape.gradient(y, beta, tf.ones_like(y))[0]) == 1.5 * (1 << 17)


def test_weights_are_float32_at_least():
    for dtype in ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16"):
        layer = BatchNormLeakyReLU(trainable_alpha=True, dtype=dtype)
        layer.build((None, 2))
        assert {tf.as_dtype(weight.dtype) for weight in layer.weights} == {tf.float32}


def test_empty_batch_leaves_the_averages_alone():
    layer = BatchNormLeakyReLU()
    layer.build((None, 4, 3))
    before = layer.get_weights()
    y = layer(np.zeros((0, 4, 3), "float32"), training=True)
    assert y.shape == (0, 4, 3)
    for one, other in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_integers_are_cast_as_by_the_stock_layer():
    x = np.array([[1, 5], [2, 7]])
    np.testing.assert_allclose(
        BatchNormLeakyReLU(alpha=0.5)(x, training=True),
        LeakyReLU(0.5)(layers.BatchNormalization()(x, training=True)),
        rtol=1e-5,
    )


@pytest.mark.parametrize("set_to", [0.0, -0.5])
def test_slopes_below_the_bound_count_as_the_bound_and_come_back(set_to):
    layer = BatchNormLeakyReLU(alpha=0.5, trainable_alpha=True)
    layer.build((None, 1))
    layer.set_weights([*layer.get_weights()[:4], np.float32(set_to)])
    x = tf.constant([[-1.0], [1.0]])
    with tf.GradientTape() as tape:
        y = layer(x, training=True)
    np.testing.assert_allclose(y[0], [-1e-3], rtol=1e-3)
    alpha = layer.alpha if isinstance(layer.alpha, tf.Variable) else layer.alpha.value
    np.testing.assert_allclose(tape.gradient(y, alpha, [[1.0], [1.0]]), -1, rtol=1e-3)


def test_nan_slopes_stay_visible():
    layer = BatchNormLeakyReLU(alpha=0.5, trainable_alpha=True)
    layer.build((None, 1))
    layer.set_weights([*layer.get_weights()[:4], np.float32(np.nan)])
    assert np.isnan(layer(tf.constant([[-1.0], [1.0]]), training=True)[0])


def test_initializers_regularizers_and_constraints_act():
    layer = BatchNormLeakyReLU(
        alpha=0.5,
        trainable_alpha=True,
        alpha_regularizer="l2",
        alpha_constraint="non_neg",
        beta_initializer=tf.keras.initializers.Constant(0.5),
        gamma_initializer=tf.keras.initializers.Constant(2.0),
        moving_mean_initializer="ones",
        moving_variance_initializer=tf.keras.initializers.Constant(4.0),
        beta_regularizer=tf.keras.regularizers.L1(1.0),
        gamma_regularizer=lambda weight: 100 * tf.reduce_sum(weight),
        beta_constraint=lambda weight: 0 * weight,
        gamma_constraint="non_neg",
    )
    model = tf.keras.Sequential([tf.keras.Input((2,)), layer])
    for weight, value in zip(layer.get_weights(), [2, 0.5, 1, 4, 0.5], strict=True):
        np.testing.assert_array_equal(weight, np.full_like(weight, value))
    assert float(sum(model.losses)) == pytest.approx(1 + 400 + 0.01 * 0.25)
    model.compile(tf.keras.optimizers.SGD(1.0), "mse")
    model.fit(np.array([[1.0, 2], [3, 5]]), np.ones((2, 2)), verbose=0)
    np.testing.assert_array_equal(layer.get_weights()[:2], np.zeros((2, 2)))


def net(fused, dtype="float64"):
    tf.keras.utils.set_random_seed(1)
    policy = {"dtype": dtype}
    model = tf.keras.Sequential([tf.keras.Input((8, 8, 1), **policy)])
    for channels in (4, 6):
        model.add(layers.Conv2D(channels, 3, use_bias=False, **policy))
        if fused:
            model.add(BatchNormLeakyReLU(alpha=0.2, momentum=0.75, **policy))
        else:
            model.add(layers.BatchNormalization(momentum=0.75, **policy))
            model.add(LeakyReLU(0.2, **policy))
    model.add(layers.GlobalAveragePooling2D(**policy))
    model.add(layers.Dense(3, **policy))
    return model


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, "float64"),
        pytest.param({"jit_compile": True}, "float64", marks=pytest.mark.slow),
        pytest.param({"run_eagerly": True}, "float64", marks=pytest.mark.slow),
        pytest.param({}, "float32", marks=pytest.mark.slow),
        pytest.param({}, "mixed_bfloat16", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_training_follows_that_of_stock_layers(options, dtype, rng):
    x = rng.normal(size=(64, 8, 8, 1))
    target = np.abs(x).mean((1, 2)) * [1.0, -1.0, 2.0]
    histories = []
    for fused in (True, False):
        model = net(fused, dtype)
        model.compile(tf.keras.optimizers.SGD(0.2, momentum=0.9), "mse", **options)
        fitted = model.fit(x, target, batch_size=16, epochs=5, shuffle=False, verbose=0)
        histories.append([*fitted.history["loss"], model.evaluate(x, target, verbose=0)])
    assert histories[0][4] < 0.5 * histories[0][0]
    tolerance = {"float64": 1e-9, "float32": 1e-3}.get(dtype, 0.1)
    np.testing.assert_allclose(*histories, rtol=tolerance)


def test_weights_go_to_stock_layers_and_back(rng):
    ours, stock = net(True), net(False)
    weights = [rng.uniform(0.1, 1, weight.shape) for weight in stock.get_weights()]
    ours.set_weights(weights)
    stock.set_weights(ours.get_weights())
    x = rng.normal(size=(3, 8, 8, 1))
    np.testing.assert_allclose(ours(x), stock(x), rtol=1e-12)


@each_case
def test_config_survives_json(case):
    layer = case.make(name="here", gamma_regularizer="l2", beta_constraint="non_neg")
    config = layer.get_config()
    again = BatchNormLeakyReLU.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    for name, value in case.arguments.items():
        assert config[name] == value
    assert again.momentum == case.arguments.get("momentum", 0.99)
    again.build((None, *case.input_shape))
    assert len(again.weights) == len(case.make_and_build().weights)


def test_options_of_a_stock_layer_are_taken():
    config = layers.BatchNormalization(axis=1, momentum=0.5, epsilon=0.25, scale=False).get_config()
    layer = BatchNormLeakyReLU(alpha=0.25, **config)
    assert (layer.axis, layer.momentum, layer.epsilon, layer.scale) == (1, 0.5, 0.25, False)
    assert layer.name == config["name"]


@each_case
def test_shape_of_a_symbolic_call(case):
    layer = case.make()
    inputs = tf.keras.Input(case.input_shape)
    outputs = layer(inputs)
    assert tuple(outputs.shape) == (None, *case.input_shape)
    assert tuple(layer.compute_output_shape((None, *case.input_shape))) == tuple(outputs.shape)
    x = np.ones((2, *case.input_shape), "float32")
    np.testing.assert_array_equal(tf.keras.Model(inputs, outputs)(x), layer(x))


def test_fixed_number_may_be_set():
    layer = BatchNormLeakyReLU(alpha=0.5, center=False, scale=False, epsilon=0.0)
    assert layer.weights == []
    assert (layer.alpha, type(layer.alpha)) == (0.5, float)
    layer.alpha = 0.25
    assert float(layer(tf.constant([[-2.0]]))[0, 0]) == -0.5
    assert BatchNormLeakyReLU.from_config(layer.get_config()).alpha == 0.25
