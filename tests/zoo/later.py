"""Models that have several of what the others have, as nets of users do."""

import collections

import tensorflow as tf

from zoo.compiled import fitted, scaled
from zoo.table import LEGACY, add, leaky, normal, prelu, relu, whole

layers = tf.keras.layers
register = tf.keras.utils.register_keras_serializable(package="zoo")
Acts = collections.namedtuple("Acts", ["inner", "outer"])


class Inception(layers.Layer):
    """Branches in a dict of models, made in `build`; activations in a named tuple; a gate."""

    def __init__(self, filters=3, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.acts = Acts(relu.layer(), relu.nn)

    def build(self, shape):
        self.branches = {
            str(size): tf.keras.Sequential(
                [layers.Conv2D(self.filters, size, padding="same"), relu.layer()]
            )
            for size in (1, 3)
        }
        for branch in self.branches.values():
            branch.build(shape)
        self.gate = self.add_weight(name="gate", shape=(2 * self.filters,), initializer="ones")
        super().build(shape)

    def call(self, x):
        y = tf.concat([self.branches[key](x) for key in sorted(self.branches)], -1)
        return self.acts.outer(self.acts.inner(y - 0.2) * self.gate - 0.1)

    def get_config(self):
        return super().get_config() | {"filters": self.filters}


def inception():
    x = tf.keras.Input((6, 6, 2))
    y = Inception(2, name="one")(Inception(name="two")(x))
    return tf.keras.Model(x, layers.GlobalAveragePooling2D()(y)), normal(2, 6, 6, 2)


class SqueezeExcite(layers.Layer):
    """Keeps a list of pairs, and an activation that its first call makes."""

    def __init__(self, ratio=2):
        super().__init__()
        self.ratio, self.late = ratio, None
        self.pairs = [(layers.Dense(3), relu.layer()), (layers.Dense(6), prelu())]

    def call(self, x):
        if self.late is None:
            self.late = layers.Activation(relu.string)
        y = x
        for dense, act in self.pairs:
            y = act(dense(y))
        return self.late(x * y - 0.1)

    def get_config(self):
        return super().get_config() | {"ratio": self.ratio}


def excited():
    x = tf.keras.Input((6,))
    return tf.keras.Model(x, layers.Dense(2)(SqueezeExcite()(layers.Dense(6)(x)))), normal(5, 6)


class Distilled(tf.keras.Model):
    """Its constructor takes inputs, outputs and more, and keeps a loss of its own."""

    def __init__(self, inputs, outputs, temperature=1.0, **kwargs):
        super().__init__(inputs, outputs, **kwargs)
        self.temperature = temperature

    def soft(self, x):
        return tf.nn.softmax(self(x) / self.temperature)

    def get_config(self):
        return super().get_config() | {"temperature": self.temperature}


def distilled():
    x = tf.keras.Input((6,))
    y = relu(layers.Dense(5)(x))
    return Distilled(x, layers.Dense(3, activation=relu.string)(y), 2.0), normal(5, 6)


class Scaler:
    """Whose method is an activation."""

    def scaled(self, x):
        return 0.5 * tf.tanh(x)


def methods_and_gates():
    x = tf.keras.Input((4, 3))
    y = layers.GRU(4, activation=relu.string, recurrent_activation=relu.string,
                   return_sequences=True, reset_after=False)(x)  # fmt: skip
    y = layers.Conv1D(3, 1, activation=Scaler().scaled)(y)
    act = layers.Activation("leaky_relu") if not LEGACY else layers.Activation(tf.nn.leaky_relu)
    y = act(layers.Dense(4, activation=tf.keras.activations.get(relu.string))(y))
    return tf.keras.Model(x, layers.Flatten()(y)), normal(2, 4, 3)


def functions_within_models():
    """Functions in the graph of a model that a TimeDistributed calls, and one around it."""
    frame = tf.keras.Input((5,))
    y = relu(layers.Dense(4)(frame))
    inner = tf.keras.Model(frame, relu(layers.Dense(3)(y)) + 1.0, name="inner")
    x = tf.keras.Input((5,))
    return tf.keras.Model(x, [inner(x), relu(inner(x * 2.0) - 1.2)]), normal(3, 5)


def shared_across_models():
    """One activation is called by a model and by a model within it, on other widths."""
    act = relu.layer(name="act")
    inner_x = tf.keras.Input((4,))
    inner = tf.keras.Model(inner_x, act(layers.Dense(7)(inner_x)))
    x = tf.keras.Input((6,))
    y = inner(act(layers.Dense(4)(x)))
    return tf.keras.Model(x, layers.Dense(2)(y)), normal(5, 6)


def several_losses():
    x = tf.keras.Input((6,))
    y = relu.layer()(layers.Dense(5)(x))
    model = tf.keras.Model(x, [layers.Dense(2, name="a")(y), layers.Dense(1, name="b")(y)])
    # What tf_keras's Nadam does hangs on how often its step was traced.
    optimizer = tf.keras.optimizers.Adam if LEGACY else tf.keras.optimizers.Nadam
    return fitted(
        model,
        optimizer=optimizer(0.01),
        loss=[scaled(2.0), tf.keras.losses.Huber(0.5)],
        loss_weights=[0.5, 2.0],
        metrics=[["mae", scaled(3.0)], [tf.keras.metrics.MeanSquaredError(name="error")]],
    )


@register
class Encoder(tf.keras.Model):
    """Models in a model, one of them in a dict; takes a dict."""

    def __init__(self, units=4, depth=2, **kwargs):
        super().__init__(**kwargs)
        self.units, self.depth = units, depth
        self.embed = layers.Embedding(9, units)
        self.stages = {f"stage {i}": Stage(units) for i in range(depth)}
        self.head = layers.Dense(2, activation=relu.string)

    def call(self, inputs, training=False):
        y = self.embed(inputs["tokens"]) + inputs["offsets"]
        for i in range(self.depth):
            y = self.stages[f"stage {i}"](y, training=training)
        return self.head(y)

    def get_config(self):
        return {"units": self.units, "depth": self.depth, "name": self.name}


@register
class Stage(tf.keras.Model):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self._norm, self._proj = layers.LayerNormalization(), layers.Dense(units)
        self._acts = [leaky(0.3), relu.layer()]

    def call(self, x, training=False):
        return x + self._acts[1](self._acts[0](self._proj(self._norm(x))) - 0.1)

    def get_config(self):
        return {"units": self.units, "name": self.name}


def encoder():
    return Encoder(), {"tokens": tf.constant(whole(9, 3, 5)), "offsets": normal(3, 5, 4)}


class Part(layers.Layer):
    """A function among its arguments, and no `get_config`: only its owner can make it again."""

    def __init__(self, width, act, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.act = layers.Dense(width), act

    def build(self, shape):
        self.dense.build(shape)
        super().build(shape)

    def call(self, x):
        return self.act(self.dense(x) - 0.2)


class Parts(layers.Layer):
    def __init__(self, width=4, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def build(self, shape):
        self.parts = [Part(self.width, relu.nn, name=f"part_{i}") for i in range(2)]
        for part in self.parts:
            part.build(shape)
            shape = (*shape[:-1], self.width)
        super().build(shape)

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x

    def get_config(self):
        return super().get_config() | {"width": self.width}


def staged():
    return tf.keras.Sequential([tf.keras.Input((3,)), Parts(), layers.Dense(2)]), normal(4, 3)


add("an Inception block", inception, relus=8)
add("pairs, and a late activation", excited, relus=2, slopes=1)
add("a model that takes more", distilled, relus=2)
add("methods and gates", methods_and_gates, relus=3)
add("functions within models", functions_within_models, relus=5)
add("shared across models", shared_across_models, relus=2)
add("several losses", several_losses, relus=1, compiled=True)
add("models in a dict", encoder, relus=3)
add("parts without a config", staged, relus=2)
