"""Finds which of Keras's and TensorFlow's activations are leaky ReLUs, and their slopes."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from tf_leaky.keras_compat import LEGACY, arguments_of, operations_of, slope_of_keras_leaky_relu
from tf_leaky.structure import LEAKY_RELUS, RELUS, is_layer

_layers = tf.keras.layers
_DEFAULT = 0.2  # the slope of the functions `leaky_relu` of TensorFlow and Keras


def stock_slope(found: Any) -> float | str | None:
    """Returns the slope of a stock activation: a layer, a function, or a function in a graph.

    Returns:
        The slope; "plain" for ReLU; "bounded" for a ReLU with a maximum or a threshold; None for
        anything else, and for PReLU, which has several slopes.
    """
    if any(found is each for each in RELUS):
        return "plain"
    if any(found is each for each in LEAKY_RELUS):
        return _DEFAULT
    if type(found) is _layers.Activation:
        return stock_slope(found.activation)
    if type(found) is _layers.Lambda:
        return stock_slope(found.function) if not getattr(found, "arguments", None) else None
    if type(found) is _layers.LeakyReLU:
        return slope_of_keras_leaky_relu(found)
    if type(found) is _layers.ReLU:
        return _slope_of_relu(vars(found))
    if is_function_in_graph(found):
        return _slope_of_call(found) if LEGACY else _slope_of_relu(vars(found))
    return None


def is_function_in_graph(found: Any) -> bool:
    """Whether Keras made something of one of these functions on symbolic tensors."""
    return (LEGACY or not is_layer(found)) and type(found) in _operations()


def _slope_of_relu(arguments: dict[str, Any]) -> float | str:
    if arguments.get("max_value") is not None or float(arguments.get("threshold") or 0):
        return "bounded"
    return float(arguments.get("negative_slope") or 0) or "plain"


def _slope_of_call(layer: Any) -> float | str | None:
    """Returns the slope of a layer that tf_keras made of a function on symbolic tensors."""
    function = layer.get_config()["function"]
    if function == "nn.leaky_relu":
        slope = arguments_of(layer, ("alpha", "name")).get("alpha", _DEFAULT)
        return float(slope) if isinstance(slope, int | float) else None
    return "plain" if function == "nn.relu" else None


@functools.cache
def _operations() -> set[type]:
    """Returns the classes that Keras uses for these functions on symbolic tensors."""
    functions = {*RELUS, *LEAKY_RELUS} - (set() if LEGACY else {tf.nn.relu, tf.nn.leaky_relu})
    x = tf.keras.Input((1,), name="x")
    models = [tf.keras.Model(x, function(x), name="one") for function in functions]
    return {type(operations_of(model)[-1]) for model in models}
