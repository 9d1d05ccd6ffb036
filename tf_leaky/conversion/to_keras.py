"""`to_keras`: replaces our activations with stock ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tf_leaky.batch_norm import BatchNormLeakyReLU
from tf_leaky.checks import check_built_model
from tf_leaky.conversion.fusing import leaky_relu_of, split
from tf_leaky.conversion.remaining import check_none_of_ours
from tf_leaky.conversion.remaking import copied, identity_of
from tf_leaky.conversion.tracer import TAKEN_BY_ONEDNN, Call, Tracer, is_sum_of_convolution
from tf_leaky.keras_compat import keras_leaky_relu
from tf_leaky.layer import LeakyReLU
from tf_leaky.ops import DEFAULT_ALPHA, leaky_relu
from tf_leaky.slopes import slopes_in_use
from tf_leaky.structure import layers_within

_layers = tf.keras.layers


def to_keras(model: Any) -> Any:
    """Returns a copy of a model with stock activations, whose files load without `tf_leaky`.

    A fixed slope of 0 or more becomes a Keras LeakyReLU, other fixed slopes become a PReLU that
    isn't trained, and trained slopes a PReLU with the same sharing. After a convolution with a bias
    and a sum, fixed slopes become a PReLU too, since TensorFlow may compute LeakyReLU with a slope
    of 0.2 there. The constraint "positive" becomes NonNeg, the nearest stock one. A
    `BatchNormLeakyReLU` becomes a Sequential of a BatchNormalization and one of these activations.

    Args:
        model: A built model of `tf.keras`, as for `convert`. It is not changed.

    Returns:
        A new model of the same class. Its files load under the Keras that wrote them; those of
        tf_keras load under Keras 3 too.

    Raises:
        TypeError: If `model` is not a model of `tf.keras`.
        ValueError: If `model` is not built, can't be made again, or has an activation that no stock
            layer can replace; the error names it.

    Example:
        >>> import tensorflow as tf
        >>> stock = to_keras(tf.keras.Sequential([tf.keras.Input((4,)), LeakyReLU(0.25)]))
        >>> type(stock.layers[0]) is tf.keras.layers.LeakyReLU
        True
    """
    check_built_model(model, subject="to_keras")
    calls_of = _calls_of_ours(model)

    def rule(found: Any, host: Any) -> Any:
        if found is leaky_relu:
            return keras_leaky_relu(DEFAULT_ALPHA, name=f"{host.name}_activation")
        if isinstance(found, BatchNormLeakyReLU):
            activation = leaky_relu_of(found)
            return split(found, rule(activation, found))
        if not isinstance(found, LeakyReLU):
            return None
        calls = calls_of.get(id(found), [])
        if _needs_prelu(found, calls):
            return _to_prelu(found, host, calls)
        return keras_leaky_relu(found.alpha, **identity_of(found))

    new = copied(model, rule, subject="to_keras", carry=False)
    check_none_of_ours(new)
    return new


def _calls_of_ours(model: Any) -> dict[int, list[Call]]:
    """Returns the calls of each `LeakyReLU` of a model, by its id; none if it can't be traced."""
    layers = [layer for layer in layers_within(model) if isinstance(layer, LeakyReLU)]
    try:
        return Tracer(model, layers).calls if layers else {}
    except Exception:  # of any kind: `check_none_of_ours` traces the copy, and says what fails
        return {}


def _needs_prelu(layer: LeakyReLU, calls: list[Call]) -> bool:
    """Whether a Keras LeakyReLU can't have the slopes of a layer, or would be wrong in its place.

    After a convolution with a bias and a sum, TensorFlow's LeakyRelu has a slope of 0.2 on a CPU,
    whatever it is given (docs/upstream.md). PReLU is right there.
    """
    if layer.trainable_alpha or layer.axis is not None or layer.alpha < 0:
        return True
    wrong = layer.alpha not in (0, TAKEN_BY_ONEDNN)
    return wrong and any(is_sum_of_convolution(call.x) for call in calls)


def _to_prelu(layer: LeakyReLU, host: Any, calls: list[Call]) -> Any:
    rank = _rank(layer, host, calls)
    axes = () if layer.axis is None else np.atleast_1d(layer.axis)
    named = {int(axis) % rank for axis in axes}
    identity = identity_of(layer)
    trained: dict[str, Any] = {}
    if layer.trainable_alpha:
        positive = layer.alpha_constraint == "positive"
        constraint = tf.keras.constraints.NonNeg() if positive else layer.alpha_constraint
        trained = {"alpha_constraint": constraint, "alpha_regularizer": layer.alpha_regularizer}
    else:
        identity["trainable"] = False
    return _layers.PReLU(
        alpha_initializer=tf.keras.initializers.Constant(float(slopes_in_use(layer).mean())),
        shared_axes=[axis for axis in range(1, rank) if axis not in named] or None,
        **trained,
        **identity,
    )


def _rank(layer: LeakyReLU, host: Any, calls: list[Call]) -> int:
    """Returns the rank of the layer's input, which a PReLU needs."""
    spec = (host if isinstance(host, BatchNormLeakyReLU) else layer).input_spec
    if spec is not None and spec.ndim is not None:
        return int(spec.ndim)
    if calls and (rank := calls[0].x.shape.rank) is not None:
        return int(rank)
    if layer.built and (shape := (layer.get_build_config() or {}).get("input_shape")) is not None:
        return len(shape)
    raise ValueError(
        "to_keras: expected activations that a stock layer can replace. "
        f"Received: {layer.name!r} in {host.name!r}, a slope for inputs of an unknown rank. "
        "Freeze the model first."
    )
