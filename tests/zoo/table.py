"""What a model of the zoo is, and the activation that each of them is written with.

Models are written with `relu` in the place of Keras's own names: `relu.layer()` for
`layers.ReLU()`, `relu.string` for `"relu"` and so on. It is the real thing, but within
`relu.sloped()`, where the same code builds the model that `convert(model, alpha=0.2)` has to
equal: the oracle.
"""

import contextlib
import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

LEGACY = tf.keras.layers.Layer.__module__.startswith("tf_keras")
layers = tf.keras.layers


SLOPE = 0.2  # of the oracle, which stands where a model has ReLU


@tf.keras.utils.register_keras_serializable(package="zoo")
def sloped(x):
    return tf.nn.leaky_relu(x, SLOPE)


class Relu:
    """ReLU as users spell it, or the same with a slope."""

    plain = True

    @contextlib.contextmanager
    def sloped(self):
        self.plain = False
        try:
            yield
        finally:
            self.plain = True

    def spelled(self, plain):
        """`plain`, or what computes the slope in its place."""
        return plain if self.plain else sloped

    def layer(self, **kwargs):
        return layers.ReLU(**kwargs) if self.plain else leaky(SLOPE, **kwargs)

    def __call__(self, x, by=None):
        """For a tensor of Keras within a graph of layers."""
        return (by or self.function)(x) if self.plain else leaky(SLOPE)(x)

    @property
    def string(self):
        return self.spelled("relu")

    @property
    def function(self):
        return self.spelled(tf.keras.activations.relu)

    @property
    def nn(self):
        return self.spelled(tf.nn.relu)


relu = Relu()


def leaky(slope, **kwargs):
    return layers.LeakyReLU(**{"alpha" if LEGACY else "negative_slope": slope}, **kwargs)


def prelu(**kwargs):
    return layers.PReLU(
        alpha_initializer=tf.keras.initializers.RandomUniform(0.1, 0.5, 7), **kwargs
    )


def normal(*shape, dtype="float32"):
    return np.random.default_rng(5).normal(size=shape).astype(dtype)


def whole(high, *shape):
    return np.random.default_rng(5).integers(0, high, size=shape)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A model of the zoo, and what is expected of it.

    Attributes:
      build: Returns the model and inputs for one call.
      relus: How many ReLUs `alpha` has to change: the operations in its graph.
      left: Names that the warning has to give, of layers whose ReLUs nothing can reach.
      stays: How many ReLUs stay, by `left` or because they are no plain ReLUs.
      slopes: How many of the weights are slopes of PReLU.
      refused: Where there is no way to convert it, what the error has to name.
      compiled: Whether it has an optimizer, losses and metrics, and has been trained.
      exported: Whether it is one of those that are exported, which takes long.
      only: "Keras 3" or "tf_keras", where the other can't build it.
    """

    build: Callable
    relus: int = 0
    left: tuple = ()
    stays: int = 0
    slopes: int = 0
    refused: tuple = ()
    compiled: bool = False
    exported: bool = False
    only: str = ""


MODELS: dict[str, Entry] = {}


def add(name, build, **expected):
    entry = Entry(build, **expected)
    if entry.only != ("Keras 3" if LEGACY else "tf_keras"):
        MODELS[name] = entry


def called(network, x):
    """Calls it as users do: a list of inputs is one argument."""
    return network(x, training=False)


def named(variable):
    return getattr(variable, "name", "")  # a vocabulary of tf_keras has none


def stirred(network):
    """Moves every weight, so that no two are equal. Slopes stay positive.

    Normalization reads what it adapted to only once.
    """
    rng = np.random.default_rng(11)
    moved = []
    for variable, weight in zip(network.weights, network.get_weights(), strict=True):
        adapted = "mean" in named(variable) or "variance" in named(variable)
        if np.issubdtype(weight.dtype, np.floating) and not adapted:
            least = 0 if weight.ndim < 2 or "alpha" in named(variable) else -0.3
            weight = weight + rng.uniform(least, 0.3, weight.shape).astype(weight.dtype)
        moved.append(weight)
    network.set_weights(moved)


def built(name, oracle=False):
    """The model of a name with its inputs; the oracle has a slope in the place of ReLU."""
    tf.keras.utils.set_random_seed(1)
    with relu.sloped() if oracle else contextlib.nullcontext():
        network, x = MODELS[name].build()
        if not network.built:
            called(network, x)
    if not MODELS[name].compiled:
        stirred(network)
    return network, x
