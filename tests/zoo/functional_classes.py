"""Functional models whose class is the user's own."""

import tensorflow as tf

from zoo.table import add, normal, relu

layers = tf.keras.layers
register = tf.keras.utils.register_keras_serializable(package="zoo")


@register
class Backbone(tf.keras.Model):
    """Builds its graph in `__init__`, as KerasHub's backbones do."""

    def __init__(self, units=5, depth=2, **kwargs):
        x = tf.keras.Input((6,), name="features")
        y = x
        for i in range(depth):
            y = layers.Dense(units, name=f"dense_{i}")(y)
            y = relu.layer(name=f"act_{i}")(y)
        super().__init__(inputs=x, outputs=y, **kwargs)
        self.units = units
        self.depth = depth

    def get_config(self):
        return {"units": self.units, "depth": self.depth, "name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@register
class Task(tf.keras.Model):
    """Holds a backbone as a layer, and keeps it as an attribute."""

    def __init__(self, backbone, classes=3, **kwargs):
        inputs = backbone.input
        y = backbone(inputs)
        y = layers.Dense(classes, activation=relu.string, name="head")(y)
        super().__init__(inputs=inputs, outputs=y, **kwargs)
        self.backbone = backbone
        self.classes = classes

    def predicted_classes(self, x):
        return tf.argmax(self(x), -1)

    def get_config(self):
        backbone = tf.keras.utils.serialize_keras_object(self.backbone)
        return {"backbone": backbone, "classes": self.classes, "name": self.name}

    @classmethod
    def from_config(cls, config):
        backbone = tf.keras.utils.deserialize_keras_object(config["backbone"])
        return cls(**config | {"backbone": backbone})


class Extractor(tf.keras.Model):
    """Takes its graph from an encoder that it keeps, whose last layers the graph doesn't use.

    As KerasHub's BASNetBackbone. Its constructor takes an encoder, and no graph.
    """

    def __init__(self, encoder, **kwargs):
        y = encoder.get_layer("middle").output
        y = layers.Dense(4, activation=relu.string, name="top")(y)
        super().__init__(encoder.input, y, **kwargs)
        self.encoder = encoder
        self.extra = {"heads": [layers.Dense(2, name="extra")]}
        self.extra["heads"][0].build((None, 4))
        self.scale = self.add_weight(name="scale", shape=(3,))


class Steps(tf.keras.Model):
    """Has only a training step of its own."""

    def train_step(self, data):
        x, y, _ = tf.keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(y - self(x, training=True)))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


class Methods(tf.keras.Model):
    def embed(self, x):
        return self(x) / 2


class Handmade(tf.keras.Model):
    """Builds its graph in `__init__` and has no config of its own."""

    def __init__(self, **kwargs):
        x = tf.keras.Input((6,))
        y = layers.Dense(5, activation=relu.string)(x)
        super().__init__(x, layers.Dense(2)(relu.layer()(y)), **kwargs)


class Stack(tf.keras.Sequential):
    def halved(self, x):
        return self(x) / 2


class Distilled(tf.keras.Model):
    """Its constructor takes inputs, outputs and a number."""

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


def graph():
    x = tf.keras.Input((6,))
    y = layers.Dense(5, activation=relu.string)(x)
    y = relu.layer()(layers.Dense(5)(y))
    return x, layers.Dense(2)(y)


def steps():
    model = Steps(*graph())
    model.compile("adam", "mse", run_eagerly=True)
    x = normal(5, 6)
    model.train_on_batch(x, x[:, :2])
    return model, x


def of_a_part():
    """A feature extractor: the outputs of a layer within, under another class, with methods."""
    whole = tf.keras.Model(*graph())
    return Methods(whole.input, [whole.layers[2].output, whole.output]), normal(5, 6)


def extractor(**kwargs):
    x = tf.keras.Input((6,))
    y = relu.layer(name="middle")(layers.Dense(5, name="first")(x))
    y = layers.BatchNormalization(name="norm")(layers.Dense(3, name="last")(y))
    return Extractor(tf.keras.Model(x, y, name="encoder"), **kwargs)


def around_extractor():
    inner = extractor(name="inner")
    x = tf.keras.Input((6,))
    return tf.keras.Model(x, layers.Dense(2, name="head")(inner(x)))


def stack():
    return Stack([layers.Dense(5), relu.layer(), layers.Dense(2, activation=relu.string)])


add("a backbone", lambda: (Backbone(), normal(5, 6)), relus=2)
add("a task with a backbone", lambda: (Task(Backbone(4)), normal(5, 6)), relus=3, exported=True)
add("a model with a train_step", steps, relus=2, compiled=True)
add("a class that makes its graph", lambda: (Handmade(), normal(5, 6)), relus=2)
add("a feature extractor", of_a_part, relus=2)
add("a model that takes more", distilled, relus=2)
add("a subclass of Sequential", lambda: (stack(), normal(5, 6)), relus=2)
