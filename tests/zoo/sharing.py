"""Layers that are shared, several inputs and outputs, and weights that are tied."""

import tensorflow as tf

from zoo.table import add, normal, relu, whole

layers = tf.keras.layers


def activation_of_one_width():
    x = tf.keras.Input((6,))
    act = relu.layer()
    return tf.keras.Model(x, act(layers.Dense(6)(act(layers.Dense(6)(x))))), normal(5, 6)


def activation_of_several_widths():
    x = tf.keras.Input((6,))
    act = relu.layer(name="act")
    y = act(layers.Dense(4)(act(layers.Dense(8)(act(x)))))
    return tf.keras.Model(x, layers.Dense(2)(y)), normal(5, 6)


def activation_of_several_ranks():
    x = tf.keras.Input((8, 8, 3))
    act = relu.layer()
    y = layers.Flatten()(act(layers.Conv2D(2, 3, strides=3)(x)))
    return tf.keras.Model(x, act(layers.Dense(5)(y))), normal(2, 8, 8, 3)


def activation_in_hosts():
    """One layer is the activation of two others."""
    act = relu.layer()
    steps = [layers.Dense(6, activation=act), layers.Dense(6, activation=act), layers.Dense(2)]
    return tf.keras.Sequential([tf.keras.Input((6,)), *steps]), normal(5, 6)


def shared_across_models():
    """One activation is called by a model and by a model within it, on other widths."""
    act = relu.layer(name="act")
    inner_x = tf.keras.Input((4,))
    inner = tf.keras.Model(inner_x, act(layers.Dense(7)(inner_x)))
    x = tf.keras.Input((6,))
    y = inner(act(layers.Dense(4)(x)))
    return tf.keras.Model(x, layers.Dense(2)(y)), normal(5, 6)


def siamese():
    """One model is called on two inputs, and on what it returned."""
    a, b = tf.keras.Input((6,), name="left"), tf.keras.Input((6,), name="right")
    encoder = tf.keras.Sequential([layers.Dense(5, activation=relu.string), layers.Dense(6)])
    distance = layers.Subtract()([encoder(a), encoder(encoder(b))])
    return tf.keras.Model([a, b], layers.Dense(1)(distance)), [normal(5, 6), 2 * normal(5, 6)]


def dicts():
    a, b = tf.keras.Input((6,), name="wide"), tf.keras.Input((3,), name="deep")
    y = relu.layer()(layers.Dense(4)(layers.Concatenate()([a, b])))
    out = {"sum": layers.Dense(2, name="sum")(y), "hidden": y}
    return tf.keras.Model({"wide": a, "deep": b}, out), {"wide": normal(5, 6), "deep": normal(5, 3)}


class TiedOutput(layers.Layer):
    """Multiplies by the embedding's own matrix."""

    def __init__(self, embedding, **kwargs):
        super().__init__(**kwargs)
        self.embedding = embedding

    def call(self, x):
        return tf.matmul(x, self.embedding.embeddings, transpose_b=True)

    def get_config(self):
        embedding = tf.keras.utils.serialize_keras_object(self.embedding)
        return super().get_config() | {"embedding": embedding}

    @classmethod
    def from_config(cls, config):
        embedding = tf.keras.utils.deserialize_keras_object(config.pop("embedding"))
        return cls(embedding, **config)


class Reversible(layers.Layer):
    """An embedding that is used both ways, as language models do."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding = layers.Embedding(9, 4)
        self.inner = layers.Dense(4, activation=relu.string)

    def call(self, x):
        y = self.inner(self.embedding(x))
        return tf.matmul(y, self.embedding.embeddings, transpose_b=True)


def tied():
    x = tf.keras.Input((3,), dtype="int32")
    return tf.keras.Model(x, relu.layer()(Reversible()(x) - 0.1)), whole(9, 5, 3)


def tied_across():
    """Two layers of the graph have one weight: a config can't say that it is the same."""
    x = tf.keras.Input((3,), dtype="int32")
    embedding = layers.Embedding(9, 4, name="embedding")
    y = layers.Dense(4, activation=relu.string)(embedding(x))
    return tf.keras.Model(x, TiedOutput(embedding, name="tied")(y)), whole(9, 5, 3)


def nested():
    inner = tf.keras.Sequential([tf.keras.Input((6,)), layers.Dense(5), relu.layer()], name="in")
    x = tf.keras.Input((6,))
    middle = tf.keras.Model(x, layers.Dense(4, activation=relu.string)(inner(x)), name="middle")
    x = tf.keras.Input((6,))
    y = middle(layers.Dense(6)(x))
    return tf.keras.Model(x, relu.layer()(layers.Dense(2)(y))), normal(5, 6)


def frozen_base():
    """Transfer learning: the base isn't trained."""
    base = tf.keras.Sequential(
        [tf.keras.Input((6,)), layers.Dense(5, activation=relu.string), layers.BatchNormalization()]
    )
    base.trainable = False
    return tf.keras.Sequential([base, relu.layer(), layers.Dense(2)]), normal(5, 6)


add("a shared ReLU", activation_of_one_width, relus=2)
add("a shared ReLU of several widths", activation_of_several_widths, relus=3)
add("a shared ReLU of several ranks", activation_of_several_ranks, relus=2)
add("a ReLU as the activation of two layers", activation_in_hosts, relus=2)
add("shared across models", shared_across_models, relus=2)
add("a siamese net", siamese, relus=3)
add("dicts of inputs and outputs", dicts, relus=1)
add("an embedding used both ways", tied, relus=2)
add("weights tied across layers", tied_across, refused=("embedding",))
add("models in models", nested, relus=3)
add("a frozen base", frozen_base, relus=2)
