"""Models whose `call` is the user's own."""

import tensorflow as tf

from zoo.custom_layers import Named, Private
from zoo.table import add, normal, prelu, relu, whole

layers = tf.keras.layers


class Plain(tf.keras.Model):
    """Makes all of itself, without arguments."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(5)
        self._act = relu.layer()
        self.blocks = [Private(), layers.Dense(4, activation=relu.string)]
        self.drop = layers.Dropout(0.5, seed=2)

    def call(self, x, training=False):
        x = self.drop(self._act(self.first(x)), training=training)
        for block in self.blocks:
            x = block(x)
        return x


class Sized(tf.keras.Model):
    """Takes sizes and an activation, and writes them into its config."""

    def __init__(self, sizes, activation="relu", **kwargs):
        super().__init__(**kwargs)
        self.sizes = sizes
        self.given = activation
        self.activation = tf.keras.activations.get(activation)
        self.steps = [layers.Dense(n) for n in sizes]
        self.norm = layers.BatchNormalization()

    def call(self, x, training=False):
        for step in self.steps:
            x = self.activation(step(x))
        return self.norm(x, training=training)

    def get_config(self):
        return {"sizes": list(self.sizes), "activation": self.given, "name": self.name}


class BuildsLate(tf.keras.Model):
    def build(self, shape):
        self.d = layers.Dense(shape[-1])
        self.block = Named(4)
        self.act = relu.layer()
        super().build(shape)

    def call(self, x):
        return self.act(self.block(self.d(x)) - 0.1)


class Pair(tf.keras.Model):
    """Two models, of which only one is called: a GAN."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = tf.keras.Sequential(
            [tf.keras.Input((6,)), layers.Dense(8), relu.layer(), layers.Dense(6)]
        )
        self.discriminator = tf.keras.Sequential(
            [tf.keras.Input((6,)), layers.Dense(8, activation=relu.string), layers.Dense(1)]
        )

    def call(self, x):
        return self.discriminator(self.generator(x))


class LearnsSlopes(tf.keras.Model):
    """PReLU between convolutions, as in mtcnn."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv1, self.prelu1 = layers.Conv2D(3, 3), prelu(shared_axes=[1, 2])
        self.conv2, self.prelu2 = layers.Conv2D(2, 3), prelu(shared_axes=[1, 2])
        self.head = layers.Dense(2, activation=relu.string)

    def call(self, x):
        return self.head(self.prelu2(self.conv2(self.prelu1(self.conv1(x)))))


class SeveralInputs(tf.keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.left, self.right = layers.Dense(4), layers.Dense(4)
        self.act = relu.layer()

    def call(self, inputs):
        a, b = inputs
        return {"sum": self.act(self.left(a) + self.right(b)), "first": self.act(self.left(a))}


class OfIntegers(tf.keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.d, self.act = layers.Dense(4), relu.layer()

    def call(self, x):
        return self.act(self.d(tf.one_hot(x, 5)))


class TakesFunction(tf.keras.Model):
    """Takes a function, which no config holds."""

    def __init__(self, fn):
        super().__init__()
        self.fn = fn
        self.d = layers.Dense(5)
        self._hidden_act = relu.layer()
        self.steps = [layers.Dense(4, activation=relu.string, name="inner")]

    def call(self, x):
        x = self._hidden_act(self.fn(self.d(x)))
        return self.steps[0](tf.nn.relu(x))

    def get_config(self):
        raise NotImplementedError("TakesFunction takes a function")


class TakesFunctionOnly(tf.keras.Model):
    """Nothing in it needs converting."""

    def __init__(self, fn):
        super().__init__()
        self.fn = fn
        self.d = layers.Dense(5, activation="tanh")

    def call(self, x):
        return self.fn(self.d(x))

    def get_config(self):
        raise NotImplementedError("TakesFunctionOnly takes a function")


class CallsReluItself(tf.keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.d = layers.Dense(5)
        self.act = relu.layer()

    def call(self, x):
        return self.act(tf.nn.relu(self.d(x)) - 0.1)


def within():
    x = tf.keras.Input((6,))
    y = Plain()(layers.Dense(6)(x))
    return tf.keras.Model(x, relu.layer()(layers.Dense(3)(y))), normal(5, 6)


add("subclassed, no arguments", lambda: (Plain(), normal(5, 6)), relus=3)
add("subclassed, with arguments", lambda: (Sized([5, 4], relu.string), normal(5, 6)), relus=2)
add("subclassed, built late", lambda: (BuildsLate(), normal(5, 6)), relus=3)
add("subclassed, a GAN", lambda: (Pair(), normal(5, 6)), relus=2)
add("subclassed, PReLU between", lambda: (LearnsSlopes(), normal(1, 6, 6, 1)), relus=1, slopes=2)
add("subclassed, several inputs", lambda: (SeveralInputs(), (normal(5, 6), normal(5, 3))), relus=2)
add("subclassed, of integers", lambda: (OfIntegers(), whole(5, 6)), relus=1)
add(
    "subclassed, relu named in call",
    lambda: (CallsReluItself(name="calls"), normal(5, 6)),
    relus=1,
    stays=1,
    left=("calls",),
)
add("subclassed in a graph", within, relus=4)
add(
    "subclassed, no config",
    lambda: (TakesFunction(tf.abs), normal(5, 6)),
    refused=("_hidden_act", "steps[0]", "call"),
)
add(
    "subclassed, nothing to convert",
    lambda: (TakesFunctionOnly(tf.abs), normal(5, 6)),
    refused=("othing in it needs",),
)
