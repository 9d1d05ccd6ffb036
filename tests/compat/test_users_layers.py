"""Layers in ways that users write them: every conversion of them computes what it should.

The slope of 0 is the oracle: with it a leaky ReLU is a ReLU.
"""

import warnings

import numpy as np
import pytest
import tensorflow as tf

from tf_leaky import convert, freeze, to_keras

layers = tf.keras.layers
MODELS = {}


def model(kind):
    """Registers a layer or a model, which is called on five numbers."""
    MODELS[kind.__name__] = tf.keras.utils.register_keras_serializable("users")(kind)
    return kind


@model
class Gain(layers.Layer):
    """Its constructor looks at the name of its activation."""

    def __init__(self, units=4, activation="relu", **kwargs):
        super().__init__(**kwargs)
        self.units, self.dense = units, layers.Dense(units)
        self.activation = tf.keras.activations.get(activation)
        self.gain = 2**0.5 if activation == "relu" else 1.0
        self.norm = layers.LayerNormalization() if activation == "relu" else layers.Dropout(0.1)

    def call(self, x):
        return self.activation(self.norm(self.dense(x)) * self.gain)

    def get_config(self):
        activation = tf.keras.activations.serialize(self.activation)
        return super().get_config() | {"units": self.units, "activation": activation}


@model
class Gated(layers.Layer):
    """Its activation is a method of its own, with a layer and a weight in it."""

    def __init__(self, kind="gated", **kwargs):
        super().__init__(**kwargs)
        self.kind = kind
        self.gate, self.out = layers.Dense(5), layers.Dense(4, activation="relu")
        self.activation = self.gated if kind == "gated" else tf.keras.activations.get(kind)

    def build(self, shape):
        self.beta = self.add_weight(shape=(), initializer="ones", name="beta")
        super().build(shape)

    def gated(self, x):
        return x * tf.sigmoid(self.gate(self.beta * x))

    def call(self, x):
        return self.out(self.activation(x))

    def get_config(self):
        return super().get_config() | {"kind": self.kind}


class Squeeze(layers.Layer):
    def build(self, shape):
        self.act = layers.ReLU()
        dense = [layers.Dense(shape[-1], activation="relu"), layers.Dense(shape[-1])]
        self.fc = tf.keras.Sequential(dense)
        super().build(shape)

    def call(self, x):
        return self.act(x - 0.1) * self.fc(x)


@model
class BuiltWithin(layers.Layer):
    """Has a `build`, and a layer that makes its own in the first call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.squeeze = Squeeze()

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
        super().build(shape)

    def call(self, x):
        return self.scale * self.squeeze(x)


@model
class Functions(layers.Layer):
    """Has a function in an attribute of any name, beside a layer with an activation."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.out = layers.Dense(4), layers.Dense(4, activation="relu")
        self.act = tf.nn.relu

    def call(self, x):
        return self.act(self.dense(x)) + self.out(x)


@model
class AutoEncoder(layers.Layer):
    """Has models, and a model of these."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        x, code = tf.keras.Input((5,)), tf.keras.Input((3,))
        hidden = layers.Dense(6, activation="relu")(x)
        self.encoder = tf.keras.Model(x, layers.Dense(3)(hidden))
        self.decoder = tf.keras.Model(code, layers.Dense(5)(layers.ReLU()(code)))
        self.whole = tf.keras.Model(x, self.decoder(self.encoder(x)))

    def call(self, x):
        return self.whole(x) + self.decoder(self.encoder(x) + 1)


@model
class Features(layers.Layer):
    """Has a model, and one that ends at a layer within it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        x = tf.keras.Input((5,))
        first = layers.Dense(5, name="first")(x)
        second = layers.Dense(6, activation="relu", name="second")(first)
        self.base = tf.keras.Model(x, layers.Dense(4, activation="relu")(second))
        self.start = tf.keras.Model(x, self.base.get_layer("first").output)
        self.middle = tf.keras.Model(x, self.base.get_layer("second").output)

    def call(self, x):
        return tf.concat([self.base(x), self.start(x), self.middle(x)], -1)


@model
class Parts(layers.Layer):
    """Has layers, and a Sequential of these."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.norm, self.act = (
            layers.Dense(5),
            layers.BatchNormalization(),
            layers.ReLU(),
        )
        self.net = tf.keras.Sequential([self.dense, self.norm, self.act])

    def call(self, x, training=None):
        return self.net(x, training=training) + self.act(self.dense(x) - 0.1)


X = np.random.default_rng(5).normal(size=(7, 5)).astype("float32")


def assert_same(one, other):
    np.testing.assert_allclose(one(X), other(X), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*looks like it has unbuilt state:UserWarning")  # Keras 3 first
@pytest.mark.filterwarnings("ignore:.*does not have a `build")
@pytest.mark.filterwarnings("ignore:to_keras. .* computes with stock activations:UserWarning")
@pytest.mark.parametrize(
    "options",
    [{}, {"trainable_alpha": True}, {"fuse_batch_norm": True}],
    ids=["fixed", "trained", "fused"],
)
@pytest.mark.parametrize("kind", MODELS.values(), ids=MODELS)
def test_conversions_compute_what_they_should(kind, options, tmp_path):
    if "fuse_batch_norm" in options and kind is not Parts:
        pytest.skip("has nothing to fuse")
    old = tf.keras.Sequential([tf.keras.Input((5,)), kind(), layers.Dense(2)])
    for weight in old.weights:
        weight.assign(weight + 0.01 * np.arange(np.size(weight)).reshape(weight.shape))
    options = dict(options, strict=True)
    if "fuse_batch_norm" not in options:
        assert_same(convert(old, alpha=0.0, **options), old)
    new = convert(old, alpha=0.1, **options)
    assert not np.allclose(new(X), old(X), atol=1e-3)
    new.save(tmp_path / "new.keras")
    loaded = tf.keras.models.load_model(tmp_path / "new.keras")
    loaded.save(tmp_path / "again.keras")
    again = tf.keras.models.load_model(tmp_path / "again.keras")
    for each in (loaded, again, convert(new), freeze(new), to_keras(new)):
        assert_same(each, new)
    for change in (freeze, to_keras):
        assert_same(change(loaded), new)
    assert len(loaded.weights) == len(new.weights)
    assert len(loaded.trainable_weights) == len(new.trainable_weights)


@tf.keras.utils.register_keras_serializable("users")
class OfParts(layers.Layer):
    """Its config has the model that it was made of."""

    def __init__(self, net, **kwargs):
        super().__init__(**kwargs)
        self.net = net

    def call(self, x):
        return self.net(x)

    def get_config(self):
        return super().get_config() | {"net": tf.keras.layers.serialize(self.net)}

    @classmethod
    def from_config(cls, config):
        return cls(**config | {"net": tf.keras.layers.deserialize(config["net"])})


def test_to_keras_does_not_warn_if_the_file_is_right(tmp_path):
    parts = [tf.keras.Input((5,)), layers.Dense(4, activation="relu"), layers.LeakyReLU(0.3)]
    old = tf.keras.Sequential([tf.keras.Input((5,)), OfParts(tf.keras.Sequential(parts))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stock = to_keras(convert(old, alpha=0.1))
    stock.save(tmp_path / "stock.keras")
    assert_same(tf.keras.models.load_model(tmp_path / "stock.keras"), stock)


ACTIVATION = layers.ReLU(name="common")


class Default(layers.Layer):
    """Has the activation of all others of its class."""

    def __init__(self, activation_layer=ACTIVATION, **kwargs):
        super().__init__(**kwargs)
        self.act = activation_layer

    def call(self, x):
        return self.act(x)

    def get_config(self):
        return super().get_config()


def test_slopes_that_a_file_would_lose_are_named():
    parts = [layers.Dense(4), Default(name="one"), layers.Dense(4), Default(name="other")]
    old = tf.keras.Sequential([tf.keras.Input((5,)), *parts])
    assert_same(convert(old, alpha=0.0), old)
    with pytest.warns(UserWarning, match=r"'common' is in one, other\. A \.keras file of the copy"):
        convert(old, alpha=0.1, trainable_alpha=True)


@pytest.mark.parametrize("steps", [[9], [0, 0], ["dense"], 7])
def test_file_that_shares_a_layer_which_a_graph_lacks_is_refused(steps):
    old = tf.keras.Sequential([tf.keras.Input((5,)), Parts(), layers.Dense(2)])
    config = convert(old, alpha=0.1).layers[-2].get_config()
    item = next(each for each in config["replaced"] if "shared" in each)
    item["shared"][0][0] = steps
    with pytest.raises(ValueError, match=r"Converted: expected shared to name layers of a graph"):
        tf.keras.utils.get_custom_objects()["tf_leaky>Converted"].from_config(config)
