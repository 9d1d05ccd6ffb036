"""Nets as they are built for images, sequences, text and tables."""

import numpy as np
import tensorflow as tf

from zoo.table import add, leaky, normal, prelu, relu, whole

layers = tf.keras.layers


def conv_block(x, filters):
    for _ in range(2):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = relu.layer()(layers.BatchNormalization()(x))
    return x


def unet():
    x = tf.keras.Input((None, None, 2))
    high = conv_block(x, 3)
    low = conv_block(layers.MaxPooling2D()(high), 4)
    up = layers.Conv2DTranspose(3, 2, strides=2, activation=relu.string)(low)
    y = conv_block(layers.Concatenate()([up, high]), 3)
    return tf.keras.Model(x, layers.Conv2D(1, 1, activation="sigmoid")(y)), normal(1, 8, 8, 2)


class Residual(layers.Layer):
    def __init__(self, filters, strides=1, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.strides = filters, strides
        self.conv1 = layers.Conv2D(filters, 3, strides, padding="same")
        self.conv2 = layers.Conv2D(filters, 3, padding="same")
        self.bn1, self.bn2 = layers.BatchNormalization(), layers.BatchNormalization()
        self.relu1, self.relu2 = relu.layer(), relu.layer()
        self.shortcut = layers.Conv2D(filters, 1, strides) if strides > 1 else None

    def call(self, x, training=False):
        y = self.relu1(self.bn1(self.conv1(x), training=training))
        y = self.bn2(self.conv2(y), training=training)
        return self.relu2(y + (x if self.shortcut is None else self.shortcut(x)))

    def get_config(self):
        return super().get_config() | {"filters": self.filters, "strides": self.strides}


def resnet():
    x = tf.keras.Input((8, 8, 3))
    y = Residual(4)(layers.Conv2D(4, 3, padding="same", activation=relu.string)(x))
    y = layers.GlobalAveragePooling2D()(Residual(5, strides=2)(y))
    return tf.keras.Model(x, layers.Dense(2)(y)), normal(2, 8, 8, 3)


def super_resolution():
    """PReLU per channel on images of any size."""
    x = tf.keras.Input((None, None, 1))
    y = prelu(shared_axes=[1, 2])(layers.Conv2D(4, 3, padding="same")(x))
    y = prelu(shared_axes=[1, 2])(layers.Conv2D(3, 1)(y))
    return tf.keras.Model(x, layers.UpSampling2D()(layers.Conv2D(1, 3)(y))), normal(1, 6, 6, 1)


@tf.keras.utils.register_keras_serializable(package="zoo")
class Cell(layers.Layer):
    """A recurrent cell with an activation of its own."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units
        self.mix = layers.Dense(units)
        self.act = relu.layer()

    def build(self, shape):
        self.mix.build((shape[0], shape[-1] + self.units))
        super().build(shape)

    def call(self, x, states):
        y = self.act(self.mix(tf.concat([x, states[0]], -1)))
        return y, [y]

    def get_config(self):
        return super().get_config() | {"units": self.units}


def recurrent():
    x = tf.keras.Input((4, 3))
    y = layers.LSTM(4, activation=relu.string, return_sequences=True)(x)
    gates = {"activation": relu.string, "recurrent_activation": relu.string}
    y = layers.Bidirectional(layers.GRU(3, **gates, reset_after=False, return_sequences=True))(y)
    y = layers.TimeDistributed(layers.Dense(3, activation=relu.string))(y)
    return tf.keras.Model(x, layers.SimpleRNN(2, activation=relu.string)(y)), normal(2, 4, 3)


def cells():
    steps = [
        layers.RNN(Cell(4), return_sequences=True),
        layers.Bidirectional(layers.RNN(Cell(3), return_sequences=True)),
        layers.RNN([layers.LSTMCell(3), Cell(2)]),
    ]
    return tf.keras.Sequential([tf.keras.Input((4, 3)), *steps]), normal(2, 4, 3)


def of_frames():
    frame = tf.keras.Sequential([layers.Conv2D(2, 3), relu.layer(), layers.Flatten()])
    x = tf.keras.Input((2, 5, 5, 1))
    y = layers.TimeDistributed(frame)(x)
    y = layers.TimeDistributed(relu.layer())(layers.TimeDistributed(layers.Dense(3))(y))
    return tf.keras.Model(x, layers.LSTM(2)(y)), normal(2, 2, 5, 5, 1)


def masked():
    x = tf.keras.Input((5,), dtype="int32")
    y = layers.Embedding(9, 4, mask_zero=True)(x)
    y = relu.layer()(layers.Dense(4)(y))
    return tf.keras.Model(x, layers.LSTM(3)(y)), whole(9, 3, 5) * (np.arange(5) < 3)


class Transformer(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 2)
        self.norms = [layers.LayerNormalization() for _ in range(2)]
        self.feed = [layers.Dense(8, activation=relu.string), layers.Dense(4)]
        self.drop = layers.Dropout(0.1)

    def call(self, x, training=False):
        x = self.norms[0](x + self.attention(x, x))
        return self.norms[1](x + self.drop(self.feed[1](self.feed[0](x)), training=training))


def transformer():
    x = tf.keras.Input((5,), dtype="int32")
    y = layers.Embedding(9, 4)(x)
    for _ in range(2):
        y = Transformer()(y)
    y = layers.EinsumDense("abc,cd->abd", (5, 3), bias_axes="d", activation=relu.string)(y)
    return tf.keras.Model(x, layers.GlobalMaxPooling1D()(y)), whole(9, 2, 5)


def adapted():
    """Statistics and vocabularies that `adapt` found."""
    number, word = tf.keras.Input((3,), name="number"), tf.keras.Input((1,), dtype="string")
    normalization = layers.Normalization()
    normalization.adapt(3 + 2 * normal(20, 3))
    lookup = layers.StringLookup(output_mode="one_hot")
    lookup.adapt(np.array([["red"], ["green"], ["red"], ["blue"]]))
    y = layers.Concatenate()([normalization(number), lookup(word)])
    y = layers.Dense(4, activation=relu.string)(y)
    words = tf.constant([["red"], ["blue"], ["none"]])
    return tf.keras.Model([number, word], relu.layer()(layers.Dense(2)(y))), [
        tf.constant(normal(3, 3)),
        words,
    ]


def text():
    vectors = layers.TextVectorization(output_sequence_length=4)
    vectors.adapt(["one two three", "two four", "one five six"])
    x = tf.keras.Input((), dtype="string")
    y = layers.Embedding(10, 3)(vectors(x))
    y = layers.Conv1D(4, 2, padding="causal", activation=relu.string)(y)
    return tf.keras.Model(x, layers.GlobalAveragePooling1D()(y)), tf.constant(
        ["one two", "six ten"]
    )


def seeded():
    """Noise, dropout and augmentation, whose seeds are a state."""
    x = tf.keras.Input((6, 6, 2))
    y = layers.RandomFlip(seed=1)(layers.GaussianNoise(0.1, seed=2)(x))
    y = layers.SpatialDropout2D(0.3, seed=3)(relu.layer()(layers.Conv2D(3, 3)(y)))
    y = layers.Dense(4, activation=relu.string)(layers.Flatten()(y))
    return tf.keras.Model(x, layers.Dropout(0.5)(y)), normal(2, 6, 6, 2)


def mixed():
    x = tf.keras.Input((6,), dtype="float32")
    y = layers.Dense(8, activation=relu.string, dtype="mixed_float16")(x)
    y = relu.layer(dtype="mixed_float16")(layers.Dense(8, dtype="mixed_float16")(y))
    return tf.keras.Model(x, layers.Dense(2, dtype="float32")(y)), normal(5, 6)


def doubles():
    steps = [layers.Dense(5, activation=relu.string, dtype="float64"), relu.layer(dtype="float64")]
    return tf.keras.Sequential([tf.keras.Input((6,), dtype="float64"), *steps]), normal(
        3, 6, dtype="float64"
    )


def penalised():
    l2, limit = tf.keras.regularizers.L2(0.1), tf.keras.constraints.MaxNorm(1.0)
    x = tf.keras.Input((6,))
    y = layers.Dense(5, relu.string, kernel_regularizer=l2, bias_constraint=limit)(x)
    y = layers.Dense(4, activity_regularizer=tf.keras.regularizers.L1(0.1))(y)
    y = layers.SpectralNormalization(layers.Dense(5, activation=relu.string))(relu.layer()(y))
    return tf.keras.Model(x, layers.Dense(2)(y)), normal(5, 6)


def never_called():
    """Layers as activations of others, whose own weights come with the first call."""
    steps = [
        *(layers.Conv1D(4, 1, activation=prelu(shared_axes=[1])), layers.Dense(3, prelu())),
        *(layers.Dense(5, activation=leaky(0.3)), layers.Dense(4, activation=relu.layer())),
        *(layers.Dense(5, activation=relu.string), relu.layer()),
    ]
    model = tf.keras.Sequential(steps)
    model.build((None, 3, 6))
    return model, normal(5, 3, 6)


add("a U-Net", unet, relus=7)
add("residual blocks", resnet, relus=5)
add("super-resolution", super_resolution, slopes=2)
add("recurrent layers", recurrent, relus=7)
add("recurrent cells", cells, relus=4)
add("a model for each frame", of_frames, relus=2)
add("masks", masked, relus=1)
add("transformer blocks", transformer, relus=3)
add("adapted layers", adapted, relus=2)
add("text", text, relus=1)
add("seeds", seeded, relus=2)
add("mixed precision", mixed, relus=2)
add("float64", doubles, relus=2)
add("regularizers, constraints and a wrapper", penalised, relus=3)
add("never called", never_called, relus=3, slopes=2)
