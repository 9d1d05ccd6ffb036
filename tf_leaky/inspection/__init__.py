"""Inspects the activations of a model: plots, a callback, and the memory of a training step."""

from tf_leaky.inspection.memory import activation_memory
from tf_leaky.inspection.monitor import ActivationMonitor
from tf_leaky.inspection.plots import plot_activations, plot_leaky_relu

__all__ = ["ActivationMonitor", "activation_memory", "plot_activations", "plot_leaky_relu"]
