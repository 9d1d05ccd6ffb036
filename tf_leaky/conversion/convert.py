"""`convert`: replaces the stock activations of a model with ours."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import tensorflow as tf

from tf_leaky.checks import check_bool, check_built_model, checked_axis, constant_slopes, shown
from tf_leaky.conversion.remaining import report_left
from tf_leaky.conversion.remaking import copied, identity_of
from tf_leaky.conversion.stock import stock_slope
from tf_leaky.layer import LeakyReLU
from tf_leaky.ops import DEFAULT_ALPHA, SMALLEST_POSITIVE_ALPHA, leaky_relu
from tf_leaky.structure import is_layer

_log = logging.getLogger("tf_leaky")
_layers = tf.keras.layers


def convert(
    model: Any,
    *,
    alpha: Any = None,
    trainable_alpha: bool | None = None,
    axis: Any = None,
    fuse_batch_norm: bool = False,
    strict: bool = False,
) -> Any:
    """Returns a copy of a model with `tf_leaky`'s layers for stock ReLU, LeakyReLU and PReLU.

    It finds them as layers, as `activation=` of other layers, as functions in a functional graph
    (`tf.nn.relu`, `keras.ops.relu`), and as attributes of layers of your own classes. Without
    arguments, the outputs stay the same. Names, weights, `trainable` flags, dtype policies, shared
    layers and compile settings are kept, and so is the optimizer's state if the trained variables
    are the same.

    | stock | no arguments | `alpha=a` | `trainable_alpha=True` |
    | --- | --- | --- | --- |
    | plain ReLU | left alone | slope a | trained from a |
    | LeakyReLU, or ReLU with a slope | its slope | its slope | trained from its slope |
    | PReLU | its slopes and sharing | the same | the same; False fixes them |

    Trained slopes of a PReLU that are all at least 1e-3 stay there, as `LeakyReLU`'s own do; others
    have no bounds. A ReLU with a threshold or a maximum is left alone. The logger `tf_leaky`
    reports at INFO what was changed, and what was left alone and why.

    If an activation is replaced in a layer of your own class, the layer gets a subclass of that
    class, which saves and loads with the replacement. Loading needs `tf_leaky` and your class
    imported.

    After the conversion the new model is traced. A UserWarning names each ReLU that could not be
    changed, such as `tf.nn.relu(...)` in the `call` of your own layer.

    Args:
        model: A built model of `tf.keras`. It is not changed. If it is neither Sequential nor
            functional, `from_config(get_config())` must be able to make it again.
        alpha: The slope (dimensionless) that replaces ReLU's 0.
        trainable_alpha: Whether slopes are trained; None keeps what the stock layers do.
        axis: The axes along which slopes differ, as in `LeakyReLU`; needs `trainable_alpha=True`.
            The slopes of a PReLU keep their own sharing.
        fuse_batch_norm: Whether each `BatchNormalization` and the activation after it, with slopes
            of at least 1e-3, become one `BatchNormLeakyReLU`, which keeps half as much for the
            backward pass. A layer that computes nothing keeps the activation's name.
        strict: Whether to raise an error for a ReLU that could not be changed.

    Returns:
        A new model of the same class. If the constructor of the class doesn't take inputs and
        outputs, a plain functional model, with a UserWarning.

    Raises:
        TypeError: If `model` is not a model of `tf.keras`, or an argument has a wrong type.
        ValueError: If `model` is not built, or can't be made again (the error lists what to edit);
            if a weight would be lost; if `alpha` is not finite; if `axis` is given without
            `trainable_alpha=True`; if a plain ReLU is to be trained and no `alpha` is given; or,
            with `strict=True`, if a ReLU could not be changed.

    Example:
        >>> import tensorflow as tf
        >>> layers = [tf.keras.Input((4,)), tf.keras.layers.Dense(3, activation="relu")]
        >>> new = convert(tf.keras.Sequential(layers), alpha=0.2)
        >>> new.layers[0].activation.alpha
        0.2

    References:
        - He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", https://arxiv.org/abs/1502.01852
    """
    check_built_model(model, subject="convert")
    alpha = _checked_alpha(alpha)
    if trainable_alpha is not None and not isinstance(trainable_alpha, bool):
        raise TypeError(
            "convert: expected trainable_alpha to be True, False or None. "
            f"Received: trainable_alpha={shown(trainable_alpha)}. Give a Python bool."
        )
    check_bool(fuse_batch_norm, "fuse_batch_norm", subject="convert")
    check_bool(strict, "strict", subject="convert")
    if checked_axis(axis) is not None and not trainable_alpha:
        raise ValueError(
            "convert: expected axis only if slopes are to be trained. "
            f"Received: axis={shown(axis)}, trainable_alpha={shown(trainable_alpha)}. "
            "Give trainable_alpha=True too."
        )
    left: list[str] = []

    def rule(found: Any, host: Any) -> Any:
        if type(found) is _layers.PReLU:
            return _from_prelu(found, host, trained=trainable_alpha is not False)
        slope: Any = stock_slope(found)
        if slope is None:
            return None
        if slope == "bounded":
            left.append(host.name if is_layer(host) else "")
            _log.info("convert: %s: left alone, as it has a maximum or a threshold", host.name)
            return None
        if slope == "plain" and alpha is None:
            if trainable_alpha:
                raise ValueError(
                    "convert: expected alpha, the initial slope of ReLUs that are to be trained. "
                    f"Received: alpha=None, trainable_alpha=True, and a ReLU in {host.name!r}. "
                    "Give alpha, as in alpha=0.25."
                )
            _log.info("convert: %s: ReLU left alone, as no alpha is given", host.name)
            return None
        slope = float(alpha if slope == "plain" else slope)
        name = getattr(found, "__name__", type(found).__name__)
        _log.info("convert: %s: %s to slope %g", host.name, name, slope)
        plain = getattr(found, "activity_regularizer", None) is None
        if found is not host and plain and not trainable_alpha and slope == DEFAULT_ALPHA:
            return leaky_relu
        return _ours(found, host, slope, trained=bool(trainable_alpha), axis=axis)

    new = copied(model, rule, subject="convert", fuse=fuse_batch_norm)
    kinds = {"LeakyRelu"} if alpha is None else {"LeakyRelu", "Relu"}
    report_left(new, kinds, left, strict=strict)
    return new


def _checked_alpha(alpha: Any) -> float | None:
    if alpha is None:
        return None
    number = constant_slopes(alpha, tf.float32, subject="convert")
    if number.ndim:
        raise ValueError(
            "convert: expected alpha to be one number or None. "
            f"Received: alpha={shown(number.tolist())}. Give one slope for all activations."
        )
    return float(number)


def _ours(found: Any, host: Any, slope: float, *, trained: bool, axis: Any) -> LeakyReLU:
    identity = identity_of(found if is_layer(found) else host)
    if found is not host and not is_layer(found):
        identity["name"] += "_activation"
        identity.pop("activity_regularizer", None)  # the outer layer keeps its own
    if not trained:
        return LeakyReLU(slope, **identity)
    free = {"alpha_constraint": None} if slope < SMALLEST_POSITIVE_ALPHA else {}
    return LeakyReLU(slope, trainable_alpha=True, axis=axis, **free, **identity)


def _from_prelu(prelu: Any, host: Any, *, trained: bool) -> LeakyReLU:
    slopes = _slopes_of_prelu(prelu, host)
    # As in Keras: for a negative number, PReLU shares the axis before the one that it names.
    shared = {(axis - 1) % slopes.ndim for axis in prelu.shared_axes or ()}
    axes = tuple(i + 1 for i in range(slopes.ndim) if i not in shared)
    axis = None if not axes else -1 if axes == (slopes.ndim,) else axes
    alpha = slopes.reshape([slopes.shape[i - 1] for i in axes])
    identity = identity_of(prelu)
    _log.info("convert: %s: PReLU to LeakyReLU with axis=%s", prelu.name, axis)
    if not trained:
        return LeakyReLU(alpha, axis=axis, **identity)
    positive = (slopes >= SMALLEST_POSITIVE_ALPHA).all()
    own = prelu.alpha_constraint
    stock = own is None or type(own) is tf.keras.constraints.NonNeg
    return LeakyReLU(
        alpha,
        trainable_alpha=True,
        axis=axis,
        alpha_constraint="positive" if positive and stock else own,
        alpha_regularizer=prelu.alpha_regularizer,
        **identity,
    )


def _slopes_of_prelu(prelu: Any, host: Any) -> np.ndarray:
    if not prelu.built:
        # The activation of another layer, in a model that was never called: its initial slopes.
        prelu = type(prelu).from_config(prelu.get_config())
        try:
            prelu.build(host.output.shape)
        except (AttributeError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"convert: expected {prelu.name!r} to have slopes. Received: a PReLU in "
                f"{host.name!r} that was never called. Call the model once on data."
            ) from error
    return np.asarray(tf.convert_to_tensor(prelu.alpha))
