"""Leaky ReLU for Keras on TensorFlow: a function, a layer, whole models, an export, pictures."""

from importlib.metadata import version

from tf_leaky.export import export_saved_model
from tf_leaky.layer import LeakyReLU
from tf_leaky.models import convert, freeze, to_keras
from tf_leaky.monitor import ActivationMonitor
from tf_leaky.ops import DEFAULT_ALPHA, leaky_relu
from tf_leaky.plot import plot_activations, plot_leaky_relu

__all__ = [
    "DEFAULT_ALPHA",
    "ActivationMonitor",
    "LeakyReLU",
    "convert",
    "export_saved_model",
    "freeze",
    "leaky_relu",
    "plot_activations",
    "plot_leaky_relu",
    "to_keras",
]
__version__ = version("tf_leaky")
