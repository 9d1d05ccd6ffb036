"""The nets that are trained to measure memory and time: 20 convolutions, 20 activations."""

from __future__ import annotations

from typing import Any

ALPHA = 0.1
CHANNELS = 32
ACTIVATIONS = (
    "Keras ReLU",
    "ours, fixed",
    "ours, one slope",
    "ours, per channel",
    "ours, per channel, unconstrained",
    "Keras LeakyReLU",
    "Keras PReLU, one slope",
    "Keras PReLU, per channel",
)


def compiled_net(activation: str, *, normalised: bool, side: int | None, layers: int = 20) -> Any:
    """A compiled model of (Conv2D of 32 channels, 3 x 3, then the activation), on square images.

    Args:
        activation: One of `ACTIVATIONS`.
        normalised: Whether BatchNormalization stands between the two.
        side: Height and width of the images, in pixels; None for any.
        layers: How many times.
    """
    import tensorflow as tf

    from tf_leaky import LeakyReLU

    keras = tf.keras.layers
    initial = tf.keras.initializers.Constant(ALPHA)
    make = {
        "Keras ReLU": keras.ReLU,
        "ours, fixed": lambda: LeakyReLU(ALPHA),
        "ours, one slope": lambda: LeakyReLU(ALPHA, trainable_alpha=True),
        "ours, per channel": lambda: LeakyReLU(ALPHA, trainable_alpha=True, axis=-1),
        "ours, per channel, unconstrained": lambda: LeakyReLU(
            ALPHA, trainable_alpha=True, axis=-1, alpha_constraint=None
        ),
        "Keras LeakyReLU": lambda: keras.LeakyReLU(ALPHA),
        "Keras PReLU, one slope": lambda: keras.PReLU(initial, shared_axes=[1, 2, 3]),
        "Keras PReLU, per channel": lambda: keras.PReLU(initial, shared_axes=[1, 2]),
    }[activation]
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.Sequential([tf.keras.Input((side, side, CHANNELS))])
    for _ in range(layers):
        model.add(keras.Conv2D(CHANNELS, 3, padding="same"))
        if normalised:
            model.add(keras.BatchNormalization())
        model.add(make())
    model.compile("sgd", "mse")
    return model


def images(count: int, side: int) -> Any:
    """Random images for such a net: inputs and targets in one."""
    import numpy as np

    return np.random.default_rng(0).random((count, side, side, CHANNELS), np.float32)
