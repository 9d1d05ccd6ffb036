"""Compiled models, whose losses and metrics are what users write: closures and lambdas."""

import numpy as np
import tensorflow as tf

from zoo.table import add, normal, relu

layers = tf.keras.layers


def scaled(factor):
    """Two of these have one name."""

    def loss(y, p):
        return factor * tf.reduce_mean(tf.square(y - p), axis=-1)

    return loss


def absolute(y, p):
    return tf.reduce_mean(tf.abs(y - p), axis=-1)


class Huge(tf.keras.losses.Loss):
    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, y, p):
        return self.factor * tf.reduce_mean(tf.square(y - p), axis=-1)


class Largest(tf.keras.metrics.Metric):
    def __init__(self, name="largest", **kwargs):
        super().__init__(name=name, **kwargs)
        self.seen = self.add_weight(name="seen", shape=(), initializer="zeros")

    def update_state(self, y, p, sample_weight=None):
        self.seen.assign(tf.maximum(self.seen, tf.reduce_max(p)))

    def result(self):
        return self.seen


class Falling(tf.keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.01 / (1.0 + tf.cast(step, tf.float32))

    def get_config(self):
        return {}


def plain():
    x = tf.keras.Input((6,))
    y = layers.Dense(5, activation=relu.string)(x)
    y = layers.BatchNormalization()(y)
    return tf.keras.Model(x, layers.Dense(2)(relu.layer()(layers.Dense(5)(y))))


def two_outputs():
    x = tf.keras.Input((6,))
    y = layers.Dense(5, activation=relu.string)(x)
    return tf.keras.Model(x, {"a": layers.Dense(2, name="a")(y), "b": layers.Dense(1, name="b")(y)})


def fitted(model, **compiled):
    """The model after two steps, so that its optimizer has a state."""
    model.compile(run_eagerly=True, **compiled)
    x = normal(4, 6)
    y = targets(model, x)
    for _ in range(2):
        model.train_on_batch(x, y)
    return model, x


def targets(model, x):
    """Something to learn: outputs of the model, moved."""
    return tf.nest.map_structure(lambda y: np.cos(np.asarray(y)), model(x, training=False))


add(
    "closures of one name, and a lambda",
    lambda: fitted(
        two_outputs(),
        optimizer=tf.keras.optimizers.Adam(0.01),
        loss={"a": scaled(1.0), "b": scaled(5.0)},
        metrics={
            "a": [scaled(2.0), lambda y, p: tf.reduce_mean(y - p)],
            "b": [scaled(3.0), tf.keras.metrics.MeanSquaredError(name="error")],
        },
        loss_weights={"a": 0.5, "b": 2.0},
    ),
    relus=1,
    compiled=True,
)
add(
    "its own classes, weighted metrics, clipped gradients, averaged weights",
    lambda: fitted(
        plain(),
        optimizer=tf.keras.optimizers.AdamW(Falling(), clipnorm=1.0, use_ema=True),
        loss=Huge(3.0),
        metrics=[Largest(), "mse"],
        weighted_metrics=[absolute],
    ),
    relus=2,
    compiled=True,
)
add(
    "an optimizer of the old kind",
    lambda: fitted(
        plain(), optimizer=tf.keras.optimizers.legacy.Adam(0.01, amsgrad=True), loss="mse"
    ),
    relus=2,
    compiled=True,
    only="tf_keras",
)
