"""Finds which of Keras's and TensorFlow's activations are leaky ReLUs, and their slopes."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import tensorflow as tf

from tf_leaky.keras_compat import (
    LEGACY,
    arguments_of,
    calls_of,
    operations_of,
    slope_of_keras_leaky_relu,
)
from tf_leaky.structure import BACKEND_RELU, LEAKY_RELUS, RELUS, is_layer

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
    function = _function_of(layer)
    if function == "nn.leaky_relu":
        slope = arguments_of(layer, ("alpha", "name")).get("alpha", _DEFAULT)
        return float(slope) if isinstance(slope, int | float) else None
    if function != "nn.relu":
        return None
    return "bounded" if _is_part_of_bounded(layer) else "plain"


def _is_part_of_bounded(relu: Any) -> bool:
    """Whether tf_keras computes a ReLU with a maximum or a threshold with a relu in a graph.

    With a maximum, that is clip(relu(x), 0, maximum). With a slope too, it is
    y - slope * relu(threshold - x), where y is the one without a slope.
    """
    after = _only_user(relu)
    if _function_of(after) == "clip_by_value":
        least = arguments_of(after, ("clip_value_min",))["clip_value_min"]
        return len(calls_of(after)[0][0]) == 1 and bool(np.all(np.equal(least, 0)))
    if (
        _function_of(after) != "math.multiply"
        or _function_of(whole := _only_user(after)) != "math.subtract"
    ):
        return False
    y, *_ = calls_of(whole)[0][0]
    clipped = _argument(y, "clip_by_value")
    relus = ("nn.relu6", "math.multiply") if clipped is y else ("nn.relu", "math.multiply")
    negative = _argument(calls_of(relu)[0][0][0], "__operators__.add")
    x = _argument(negative, "math.negative")
    return x is not negative and x is _argument(clipped, *relus)


def _function_of(layer: Any) -> str | None:
    """Returns the name of the function for which tf_keras made a layer, or None."""
    return str(layer.get_config()["function"]) if type(layer) in _operations() else None


def _only_user(layer: Any) -> Any:
    """Returns the layer that alone uses the output of a layer of tf_keras, or None."""
    nodes = layer.outbound_nodes
    return nodes[0].layer if len(nodes) == 1 else None


def _argument(x: Any, *functions: str) -> Any:
    """Returns the tensor from which one of these functions made a tensor; itself if none did."""
    layer = x.node.layer
    return calls_of(layer)[0][0][0] if _function_of(layer) in functions else x


@functools.cache
def _operations() -> set[type]:
    """Returns the classes that Keras uses for these functions on symbolic tensors."""
    of_tensorflow = {tf.nn.relu, tf.nn.leaky_relu, BACKEND_RELU}  # no symbolic tensors in Keras 3
    functions = {*RELUS, *LEAKY_RELUS} - (set() if LEGACY else of_tensorflow)
    x = tf.keras.Input((1,), name="x")
    models = [tf.keras.Model(x, function(x), name="one") for function in functions]
    return {type(operations_of(model)[-1]) for model in models}
