"""Leaky ReLU for Keras on TensorFlow: a function, layers, model conversion, export and plots."""

from importlib.metadata import version

from tf_leaky import keras_compat as _first  # noqa: F401  first: it checks dependencies
from tf_leaky.batch_norm import BatchNormLeakyReLU
from tf_leaky.conversion import convert, freeze, to_keras
from tf_leaky.inspection import (
    ActivationMonitor,
    activation_memory,
    plot_activations,
    plot_leaky_relu,
)
from tf_leaky.layer import LeakyReLU
from tf_leaky.ops import DEFAULT_ALPHA, leaky_relu
from tf_leaky.serving import export_saved_model

__all__ = [
    "DEFAULT_ALPHA",
    "ActivationMonitor",
    "BatchNormLeakyReLU",
    "LeakyReLU",
    "activation_memory",
    "convert",
    "export_saved_model",
    "freeze",
    "leaky_relu",
    "plot_activations",
    "plot_leaky_relu",
    "to_keras",
]
__version__ = version("tf_leaky")
