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


def activation_of(name: str, alpha: float = ALPHA, rank: int = 4) -> Any:
    """An activation of `ACTIVATIONS`, for inputs of so many axes."""
    import tensorflow as tf

    from tf_leaky import LeakyReLU

    keras = tf.keras.layers
    trained = {"trainable_alpha": True}
    prelu = {"alpha_initializer": tf.keras.initializers.Constant(alpha)}
    all_axes, all_but_channels = [*range(1, rank)], [*range(1, rank - 1)] or None
    return {
        "Keras ReLU": keras.ReLU,
        "ours, fixed": lambda: LeakyReLU(alpha),
        "ours, one slope": lambda: LeakyReLU(alpha, **trained),
        "ours, per channel": lambda: LeakyReLU(alpha, **trained, axis=-1),
        "ours, per channel, unconstrained": lambda: LeakyReLU(
            alpha, **trained, axis=-1, alpha_constraint=None
        ),
        "Keras LeakyReLU": lambda: keras.LeakyReLU(alpha),  # its argument has two names
        "Keras PReLU, one slope": lambda: keras.PReLU(**prelu, shared_axes=all_axes),
        "Keras PReLU, per channel": lambda: keras.PReLU(**prelu, shared_axes=all_but_channels),
    }[name]()


def compiled_net(activation: str, *, normalised: bool, side: int | None, layers: int = 20) -> Any:
    """A compiled model of (Conv2D of 32 channels, 3 x 3, then the activation), on square images.

    Args:
        activation: One of `ACTIVATIONS`.
        normalised: Whether BatchNormalization stands between the two.
        side: Height and width of the images, in pixels; None for any.
        layers: How many times.
    """
    import tensorflow as tf

    keras = tf.keras.layers
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.Sequential([tf.keras.Input((side, side, CHANNELS))])
    for _ in range(layers):
        model.add(keras.Conv2D(CHANNELS, 3, padding="same"))
        if normalised:
            model.add(keras.BatchNormalization())
        model.add(activation_of(activation))
    model.compile("sgd", "mse")
    return model


def images(count: int, side: int) -> Any:
    """Random images for such a net: inputs and targets in one."""
    import numpy as np

    return np.random.default_rng(0).random((count, side, side, CHANNELS), np.float32)
