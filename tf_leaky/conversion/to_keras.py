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
from tf_leaky.conversion.tracer import TAKEN_BY_ONEDNN, Tracer, is_sum_of_convolution
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
    ranks = _after_sums(model)

    def rule(found: Any, host: Any) -> Any:
        if found is leaky_relu:
            return keras_leaky_relu(DEFAULT_ALPHA, name=f"{host.name}_activation")
        if isinstance(found, BatchNormLeakyReLU):
            activation = leaky_relu_of(found)
            return split(found, rule(activation, found))
        if not isinstance(found, LeakyReLU):
            return None
        if found.trainable_alpha or found.axis is not None or found.alpha < 0 or id(found) in ranks:
            return _to_prelu(found, host, ranks.get(id(found)))
        return keras_leaky_relu(found.alpha, **identity_of(found))

    new = copied(model, rule, subject="to_keras", carry=False)
    check_none_of_ours(new)
    return new


def _after_sums(model: Any) -> dict[int, int]:
    """Returns the rank of the input, by the id, of layers for which a LeakyReLU would be wrong.

    After a convolution with a bias and a sum, TensorFlow's LeakyRelu has a slope of 0.2 on a CPU,
    whatever it is given (docs/upstream.md). PReLU is right there.
    """
    layers = [
        layer
        for layer in layers_within(model)
        if isinstance(layer, LeakyReLU)
        and not layer.trainable_alpha
        and layer.axis is None
        and layer.alpha > 0
        and layer.alpha != TAKEN_BY_ONEDNN
    ]
    if not layers:
        return {}
    try:
        tracer = Tracer(model, layers)
    except Exception:  # of any kind: `check_none_of_ours` traces the copy, and says what fails
        return {}
    return {
        id(layer): call.x.shape.rank
        for layer in layers
        for call in tracer.calls[id(layer)]
        if is_sum_of_convolution(call.x)
    }


def _to_prelu(layer: LeakyReLU, host: Any, rank: int | None = None) -> Any:
    rank = rank or _rank(layer, host)
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


def _rank(layer: LeakyReLU, host: Any) -> int:
    """Returns the rank of the layer's input, which a PReLU needs."""
    spec = (host if isinstance(host, BatchNormLeakyReLU) else layer).input_spec
    if spec is not None and spec.ndim is not None:
        return int(spec.ndim)
    if layer.built and (shape := (layer.get_build_config() or {}).get("input_shape")) is not None:
        return len(shape)
    try:
        tensor = host.output
    except (AttributeError, RuntimeError, ValueError):
        tensor = None
    if tensor is None or not hasattr(tensor, "shape"):
        raise ValueError(
            "to_keras: expected activations that a stock layer can replace. "
            f"Received: {layer.name!r} in {host.name!r}, a slope for inputs of an unknown rank. "
            "Freeze the model first."
        )
    return len(tensor.shape)
