"""Leaky ReLU for Keras on TensorFlow: a function and a layer."""

from importlib.metadata import version

from tf_leaky.layer import LeakyReLU
from tf_leaky.ops import DEFAULT_ALPHA, leaky_relu

__all__ = ["DEFAULT_ALPHA", "LeakyReLU", "leaky_relu"]
__version__ = version("tf_leaky")
