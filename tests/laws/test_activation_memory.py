"""What `activation_memory` counts, on nets of which it is known."""

import numpy as np
import pytest
import tensorflow as tf
from test_memory import LAYERS, traced

from tf_leaky import BatchNormLeakyReLU, LeakyReLU, activation_memory, convert
from tf_leaky.inspection.graphs import kept_by

layers = tf.keras.layers
SIDE, BATCH, CHANNELS = 8, 16, 4
SPEC = tf.TensorSpec((BATCH, SIDE, SIDE, CHANNELS), tf.float32)
IMAGE = BATCH * SIDE * SIDE * CHANNELS * 4  # bytes
# How many tensors of the activation's size the layers between two convolutions make a step keep.
BLOCKS = {
    **{name: (expected, lambda make=make: [make()]) for name, (expected, make) in LAYERS.items()},
    "BN + ReLU": (2, lambda: [layers.BatchNormalization(), layers.ReLU()]),
    "BN + Keras LeakyReLU": (3, lambda: [layers.BatchNormalization(), layers.LeakyReLU()]),
    "BatchNormLeakyReLU": (1, lambda: [BatchNormLeakyReLU()]),
}


def conv(**options):
    return layers.Conv2D(CHANNELS, 3, padding="same", **options)


def net(*between, **options):
    parts = [conv(**options), *between, conv(**options)]
    return tf.keras.Sequential([tf.keras.Input(SPEC.shape[1:]), *parts])


def check_tensors_kept(name):
    expected, make = BLOCKS[name]
    found = activation_memory(net(*make()), SPEC)
    # Statistics and slopes are small, but for those of each element.
    assert found.total / IMAGE == pytest.approx(expected, abs=0.2)
    assert found.total == sum(found.by_layer.values())
    assert not found.unknown


@pytest.mark.smoke
@pytest.mark.parametrize("name", BLOCKS)
def test_tensors_kept_between_two_convolutions(name):
    check_tensors_kept(name)


def test_count_is_exact_and_by_the_layer_that_makes_it():
    first, relu = conv(name="first"), layers.ReLU(name="relu")
    second = conv(name="second", activation=tf.nn.softplus)
    model = tf.keras.Sequential([tf.keras.Input(SPEC.shape[1:]), first, relu, second], name="net")
    found = activation_memory(model, SPEC).by_layer
    assert found == {"net": 0, "first": 0, "relu": IMAGE, "second": IMAGE}


def test_arrays_count_as_their_specs_and_halves_take_half():
    model = net(layers.ReLU())
    for dtype in ("float32", "float64"):  # which `fit` casts before it calls the model
        found = activation_memory(model, np.zeros(SPEC.shape, dtype))
        assert found.by_layer == activation_memory(model, SPEC).by_layer
    twice = activation_memory(model, tf.TensorSpec([2 * BATCH, *SPEC.shape[1:]], tf.float32))
    assert twice.total == 2 * IMAGE
    half = net(LeakyReLU(dtype="mixed_float16", name="half"), dtype="mixed_float16")
    assert activation_memory(half, SPEC).by_layer["half"] == IMAGE / 2


def test_nothing_is_run_and_nothing_changes():
    model = net(layers.BatchNormalization(), layers.Dropout(0.5), LeakyReLU(trainable_alpha=True))
    model.compile("adam", "mse")
    before = [np.array(each) for each in model.get_weights()]
    # More than any machine has.
    found = activation_memory(model, tf.TensorSpec([2**30, *SPEC.shape[1:]], tf.float32))
    assert found.total > 2**40
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not getattr(model.optimizer, "built", False)
    assert "call" not in vars(model.layers[0])


def test_shared_and_nested_layers():
    shared = layers.ReLU(name="shared")
    inner = tf.keras.Sequential([conv(name="conv"), shared], name="inner")
    x = tf.keras.Input(SPEC.shape[1:])
    y = inner(shared(inner(x)))
    found = activation_memory(tf.keras.Model(x, conv()(y)), SPEC).by_layer
    # ReLU of ReLU is kept too: for its own gradient.
    assert {name for name, size in found.items() if size} == {"inner/shared"}
    assert found["inner/shared"] == 3 * IMAGE


class Block(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.conv = conv(name="conv")

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.built = True

    def call(self, inputs):
        return tf.nn.relu(self.conv(inputs))


class Subclassed(tf.keras.Model):
    def __init__(self, name):
        super().__init__(name=name)
        self.one, self.two = Block(name="one"), Block(name="two")

    def call(self, inputs, training=None):
        return tf.math.exp(self.two(self.one(inputs)))


def test_custom_layers_and_subclassed_models():
    model = Subclassed("mine")
    model(tf.zeros(SPEC.shape))
    found = activation_memory(model, SPEC).by_layer
    assert found["one"] == found["two"] == found["mine"] == IMAGE
    assert found["one/conv"] == found["two/conv"] == 0


def test_what_is_frozen_keeps_nothing():
    model = net(layers.LeakyReLU())
    assert activation_memory(model, SPEC).total == 2 * IMAGE
    model.layers[0].trainable = False
    assert activation_memory(model, SPEC).total == IMAGE
    model.trainable = False
    assert activation_memory(model, SPEC).total == 0


@pytest.mark.parametrize("name", ["attention", "zebra"])
def test_names_of_rows_do_not_change_the_count(name):
    """TensorFlow optimizes the products in the gradient of softmax by the names of factors."""
    inputs = tf.keras.Input((16, 8))
    outputs = layers.MultiHeadAttention(2, 4)(inputs, inputs)
    model = tf.keras.Model(inputs, outputs, name=name)

    @tf.function(autograph=False)
    def step(upstream, x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True))
        return tape.gradient(loss, model.trainable_variables, upstream)

    plain = kept_by(traced(step, (), (4, 16, 8)))
    found = activation_memory(model, tf.TensorSpec((4, 16, 8)))
    assert found.total == sum(each.bytes for each in plain)


@pytest.mark.smoke
@pytest.mark.parametrize("steps", [7, 19])
def test_every_step_of_a_recurrent_layer_counts(steps):
    units, batch, width = 5, 64, 3
    inputs = tf.keras.Input((steps, width))
    outputs = layers.Dense(1)(layers.LSTM(units, return_sequences=True)(inputs))
    found = activation_memory(tf.keras.Model(inputs, outputs), tf.TensorSpec((batch, steps, width)))
    # Three gates, the candidate, the state before and after its tanh, the output: of each step. The
    # outputs as one tensor, for the Dense layer, and the inputs by steps.
    expected = 4 * batch * steps * (8 * units + width)
    assert found.total == pytest.approx(expected, rel=0.12)
    assert not found.unknown
    # The gradient of reading a step of a GRU asks for its shape, which is no part of what is kept.
    outputs = layers.GRU(4)(layers.Dense(3)(inputs))
    assert not activation_memory(
        tf.keras.Model(inputs, outputs), tf.TensorSpec((2, steps, width))
    ).unknown


def test_models_with_several_inputs_and_losses_of_their_own():
    one, two = tf.keras.Input((3,), name="one"), tf.keras.Input((3,), name="two")
    wide = layers.Dense(16, activity_regularizer="l2", name="wide")(layers.add([one, two]))
    model = tf.keras.Model({"one": one, "two": two}, wide)
    spec = tf.TensorSpec((8, 3), tf.float32)
    found = activation_memory(model, {"one": spec, "two": spec})
    assert found.by_layer["wide"] == 8 * 16 * 4


@pytest.mark.smoke
def test_table_shows_what_converting_makes():
    model = net(layers.BatchNormalization(), layers.ReLU())
    found = activation_memory(model, SPEC)
    converted = convert(model, alpha=0.01, fuse_batch_norm=True)
    assert found.converted.total == activation_memory(converted, SPEC).total < 0.6 * found.total
    text = str(found)
    assert f"{found.converted.total:,} bytes" in text
    assert all(name in text for name, size in found.by_layer.items() if size)
    assert f"{found.total:,} bytes" in text
    assert model.name in repr(found)
    plain = activation_memory(net(layers.ReLU()), SPEC)
    assert plain.converted is None
    assert "convert" not in str(plain)


@pytest.mark.parametrize(
    ("model", "inputs", "error", "text"),
    [
        (net(), tf.TensorSpec((None, 8, 8, 4)), ValueError, "inputs whose shapes are fully known"),
        (net(), (SPEC, SPEC), ValueError, "inputs with one array for each input of .* has 1"),
        (net(), "images", TypeError, "expected inputs to be arrays or tf.TensorSpecs"),
        (layers.ReLU(), SPEC, TypeError, "activation_memory: expected a model"),
        (tf.keras.Sequential([layers.Dense(1)]), SPEC, ValueError, "expected model to be built"),
    ],
)
def test_wrong_arguments(model, inputs, error, text):
    with pytest.raises(error, match=text):
        activation_memory(model, inputs)


def test_scopes_of_strategies_are_refused():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = net(layers.ReLU())
        with pytest.raises(ValueError, match="outside of the scope of a strategy"):
            activation_memory(model, SPEC)
    assert activation_memory(model, SPEC).total == IMAGE


def test_errors_of_the_model_are_noted():
    with pytest.raises(Exception, match=r".") as raised:
        activation_memory(net(layers.ReLU()), tf.TensorSpec((2, 8, 8, 3), tf.float32))
    if hasattr(raised.value, "__notes__"):
        assert any("activation_memory" in note for note in raised.value.__notes__)


def test_models_without_a_name_are_counted():
    """As in TensorFlow's guide to custom layers."""
    model = Subclassed("")
    model(tf.zeros(SPEC.shape))
    assert activation_memory(model, SPEC).by_layer["Subclassed"] == IMAGE
