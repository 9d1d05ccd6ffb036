"""Whole models: stock activations to ours, trained slopes to constants, and back to stock."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import tensorflow as tf

from tf_leaky.checks import check_built_model, checked_axis, constant_slopes, shown
from tf_leaky.conversion.cloning import clone
from tf_leaky.conversion.frozen import PRELU_RANK, FrozenLeakyReLU
from tf_leaky.keras_compat import (
    is_graph,
    keras_leaky_relu,
    slope_of_keras_leaky_relu,
)
from tf_leaky.layer import SMALLEST_POSITIVE_ALPHA, LeakyReLU
from tf_leaky.ops import DEFAULT_ALPHA, leaky_relu

_log = logging.getLogger("tf_leaky")
_layers = tf.keras.layers


def convert(
    model: Any, *, alpha: Any = None, trainable_alpha: bool | None = None, axis: Any = None
) -> Any:
    """Returns a copy of a model in which stock ReLU, LeakyReLU and PReLU are `tf_leaky`'s.

    Layers are replaced, and so are activations within layers: `activation="relu"` of a Dense, a
    convolution, a recurrent layer, a TimeDistributed or Bidirectional one. A fixed slope of
    `DEFAULT_ALPHA` becomes the function `leaky_relu` there, anything else a `LeakyReLU`. With no
    arguments, the outputs stay what they are. Names, weights, `trainable` flags, dtype policies,
    shared layers and compile settings are kept, and so is the optimizer's state where the trained
    variables are the same. What was changed, and what was left alone and why, goes to the logger
    `tf_leaky` at INFO.

    | stock | no arguments | `alpha=a` | `trainable_alpha=True` |
    | --- | --- | --- | --- |
    | plain ReLU | left alone | slope a | trained from a |
    | LeakyReLU, or a ReLU that is one | its slope | its slope | trained from its slope |
    | PReLU | its slopes and sharing | the same | the same; False fixes them |

    A ReLU with a threshold or a maximum is left alone.

    Args:
        model: A built Sequential or functional model of `tf.keras`. It is not touched.
        alpha: The slope (dimensionless) that takes the place of ReLU's 0.
        trainable_alpha: Whether slopes are trained; None keeps what the stock layers do.
        axis: The axes with slopes of their own, as in `LeakyReLU`, where `trainable_alpha=True`.
            The slopes of a PReLU keep their own sharing.

    Returns:
        A new model of the same kind.

    Raises:
        TypeError: If `model` is no model of `tf.keras`, or an argument is of a wrong type.
        ValueError: If `model` is not built; if it is a subclassed model, which no public means of
            Keras can rewrite (the error lists the edits); if `alpha` is not finite; if `axis` is
            given where nothing is trained; or if a plain ReLU is to be trained from no `alpha`.

    Example:
        >>> import tensorflow as tf
        >>> layers = [tf.keras.Input((4,)), tf.keras.layers.Dense(3, activation="relu")]
        >>> new = convert(tf.keras.Sequential(layers), alpha=0.2)
        >>> new.layers[0].activation.alpha
        0.2

    References:
        - He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", https://arxiv.org/abs/1502.01852
    """
    _check_graph(model, "convert")
    if alpha is not None:
        alpha = constant_slopes(alpha, tf.float32, subject="convert")
        if alpha.ndim:
            raise ValueError(
                "convert: expected alpha to be one number or None. "
                f"Received: alpha={shown(alpha.tolist())}. One slope fits all activations."
            )
        alpha = float(alpha)
    if trainable_alpha is not None and not isinstance(trainable_alpha, bool):
        raise TypeError(
            "convert: expected trainable_alpha to be True, False or None. "
            f"Received: trainable_alpha={shown(trainable_alpha)}. Give a Python bool."
        )
    if checked_axis(axis) is not None and not trainable_alpha:
        raise ValueError(
            "convert: expected axis only where slopes are to be trained. "
            f"Received: axis={shown(axis)}, trainable_alpha={shown(trainable_alpha)}. "
            "Give trainable_alpha=True too."
        )

    def rule(found: Any, host: Any) -> Any:
        if isinstance(found, _layers.Layer) and type(found) is _layers.PReLU:
            return _from_prelu(found, trained=trainable_alpha is not False)
        slope = _stock_slope(found)
        if slope is None:
            return None
        if slope == "plain":
            if alpha is None and not trainable_alpha:
                _log.info("convert: %s: ReLU left alone, as no alpha is given", host.name)
                return None
            if alpha is None:
                raise ValueError(
                    "convert: expected alpha, the slope that ReLUs are to be trained from. "
                    f"Received: alpha=None, trainable_alpha=True, and a ReLU in {host.name!r}. "
                    "Give alpha, as in alpha=0.25."
                )
            slope = alpha
        standing = isinstance(found, _layers.Layer) and found is host
        if not standing and not trainable_alpha and slope == DEFAULT_ALPHA:
            new: Any = leaky_relu
        else:
            new = _ours(found, host, slope, trained=bool(trainable_alpha), axis=axis)
        _log.info("convert: %s: %s to slope %g", host.name, _name(found), slope)
        return new

    return clone(model, rule, subject="convert")


def freeze(model: Any, *, target: str = "serving") -> Any:
    """Returns a copy of a model in which the slopes of `LeakyReLU` layers are constants.

    The outputs are the same. One slope becomes a fixed number, which is one fused operation
    (LeakyRelu; LEAKY_RELU in LiteRT) in every export. Slopes along an `axis` are computed in the
    form that suits the target. Stock layers stay as they are: `convert` them first.

    Args:
        model: A built Sequential or functional model of `tf.keras`. It is not touched.
        target: "serving" for the fastest exact graph: maximum(alpha * x, x) where all slopes are
            in [0, 1], else where(x > 0, x, alpha * x). "litert" for relu(x) + (-alpha) * relu(-x),
            which LiteRT's converter fuses to PRELU, on inputs of up to four dimensions: LiteRT
            has no PRELU for more, which take the form for serving.

    Returns:
        A new model of the same kind, which saves, loads and exports as any other.

    Gradient:
        That of `LeakyReLU` in x; with "litert", it is 0 at x = 0. There is none in the slopes.

    Raises:
        TypeError: If `model` is no model of `tf.keras`.
        ValueError: If `model` is not built or is a subclassed model, or `target` is unknown.

    Example:
        >>> import tensorflow as tf
        >>> layers = [tf.keras.Input((4,)), LeakyReLU(0.25, trainable_alpha=True)]
        >>> freeze(tf.keras.Sequential(layers)).layers[0].alpha
        0.25
    """
    if not isinstance(target, str) or target not in ("serving", "litert"):
        raise ValueError(
            'freeze: expected target to be "serving" or "litert". '
            f"Received: target={shown(target)}. See the docstring for what each does."
        )
    _check_graph(model, "freeze")

    def rule(found: Any, host: Any) -> Any:
        if not isinstance(found, LeakyReLU) or isinstance(found.alpha, float):
            return None
        slopes = _slopes(found)
        if found.axis is None:
            return LeakyReLU(float(slopes), **_identity(found))
        form = "by maximum" if ((slopes >= 0) & (slopes <= 1)).all() else "by where"
        if target == "litert" and found.input_spec.ndim <= PRELU_RANK:
            form = "by relu"
        return FrozenLeakyReLU(float(slopes.mean()), axis=found.axis, form=form, **_identity(found))

    return clone(model, rule, subject="freeze")


def to_keras(model: Any) -> Any:
    """Returns a copy of a model in which every layer is a stock one, for files without `tf_leaky`.

    A fixed slope of 0 or more becomes a Keras LeakyReLU, other fixed slopes a PReLU that isn't
    trained, and trained ones a PReLU with the same sharing. The constraint "positive" becomes
    NonNeg, the nearest stock one.

    Args:
        model: A built Sequential or functional model of `tf.keras`. It is not touched.

    Returns:
        A new model of the same kind. Its files load under the Keras that wrote them; those of
        tf_keras load under Keras 3 too.

    Raises:
        TypeError: If `model` is no model of `tf.keras`.
        ValueError: If `model` is not built, is a subclassed model, or holds an activation that no
            stock layer can stand for; the error names it.

    Example:
        >>> import tensorflow as tf
        >>> stock = to_keras(tf.keras.Sequential([tf.keras.Input((4,)), LeakyReLU(0.25)]))
        >>> type(stock.layers[0]) is tf.keras.layers.LeakyReLU
        True
    """
    _check_graph(model, "to_keras")

    def rule(found: Any, host: Any) -> Any:
        if found is leaky_relu:
            return keras_leaky_relu(DEFAULT_ALPHA, name=f"{host.name}_activation")
        if not isinstance(found, LeakyReLU):
            return None
        if isinstance(found.alpha, float) and found.alpha >= 0:
            return keras_leaky_relu(found.alpha, **_identity(found))
        return _to_prelu(found, host)

    return clone(model, rule, subject="to_keras")


def _check_graph(model: Any, subject: str) -> None:
    check_built_model(model, subject=subject)
    if is_graph(model):
        return
    edits = _edits(model, model.name, set())
    raise ValueError(
        f"{subject}: expected a Sequential or functional model of Keras's own classes: Keras "
        "has no public means to replace layers of a subclassed one. "
        f"Received: model={model.name!r} of type {type(model).__qualname__}. "
        + (f"Edit its code instead: {'; '.join(edits)}." if edits else "Nothing in it needs it.")
    )


def _edits(holder: Any, path: str, seen: set[int]) -> list[str]:
    """What to edit in the code of a subclassed model: each activation, by its attribute path."""
    edits = []
    for name, value in vars(holder).items():
        if name.startswith("_"):
            continue
        parts = (
            [(f".{name}[{key!r}]", each) for key, each in value.items()]
            if isinstance(value, dict)
            else [(f".{name}[{i}]", each) for i, each in enumerate(value)]
            if isinstance(value, list | tuple)
            else [(f".{name}", value)]
        )
        for step, part in parts:
            if not isinstance(part, _layers.Layer) or id(part) in seen:
                continue
            seen.add(id(part))
            where = path + step
            slope = _stock_slope(part)
            if is_graph(part):
                edits.append(f"{where} is a {type(part).__name__}: pass it by itself")
            elif type(part) is _layers.PReLU:
                edits.append(f"{where}: PReLU to LeakyReLU(trainable_alpha=True, axis=...)")
            elif isinstance(part, LeakyReLU):
                edits.append(f"{where}: {part!r}")
            elif slope is not None:
                number = "alpha" if slope == "plain" else f"{slope:g}"
                edits.append(f"{where}: {type(part).__name__} to LeakyReLU({number})")
            else:
                slope = _stock_slope(getattr(part, "activation", None))
                if slope is not None:
                    number = "alpha" if slope == "plain" else f"{slope:g}"
                    edits.append(f"{where}: activation=LeakyReLU({number})")
                edits += _edits(part, where, seen)
    return edits


def _stock_slope(found: Any) -> Any:
    """The slope of a stock activation, "plain" for ReLU; None for one that is no leaky ReLU."""
    if type(found) is _layers.Activation:
        return _stock_slope(found.activation)
    if found in (tf.keras.activations.relu, tf.nn.relu):
        return "plain"
    if found in (getattr(tf.keras.activations, "leaky_relu", tf.nn.leaky_relu), tf.nn.leaky_relu):
        return 0.2
    if type(found) is _layers.LeakyReLU:
        return slope_of_keras_leaky_relu(found)
    if type(found) is _layers.ReLU:
        if found.max_value is not None or float(found.threshold):
            _log.info("convert: %s: left alone, as it has a maximum or a threshold", found.name)
            return None
        return float(found.negative_slope) or "plain"
    return None


def _name(found: Any) -> str:
    return str(getattr(found, "__name__", type(found).__name__))


def _identity(layer: Any) -> dict[str, Any]:
    """What a layer hands on to the one that takes its place."""
    config = layer.get_config()
    return {"name": layer.name, "trainable": layer.trainable, "dtype": config["dtype"]}


def _ours(found: Any, host: Any, slope: float, *, trained: bool, axis: Any) -> LeakyReLU:
    identity = _identity(found if isinstance(found, _layers.Layer) else host)
    if not isinstance(found, _layers.Layer):
        identity["name"] += "_activation"
    if not trained:
        return LeakyReLU(slope, **identity)
    free = {"alpha_constraint": None} if slope < SMALLEST_POSITIVE_ALPHA else {}
    return LeakyReLU(slope, trainable_alpha=True, axis=axis, **free, **identity)


def _from_prelu(prelu: Any, *, trained: bool) -> LeakyReLU:
    slopes = np.asarray(tf.convert_to_tensor(prelu.alpha))
    # As Keras does: PReLU shares the axis before the one that a negative number names.
    shared = {(axis - 1) % slopes.ndim for axis in prelu.shared_axes or ()}
    axes = tuple(i + 1 for i in range(slopes.ndim) if i not in shared)
    axis = None if not axes else -1 if axes == (slopes.ndim,) else axes
    mean = float(slopes.mean())
    identity = _identity(prelu)
    _log.info("convert: %s: PReLU to LeakyReLU with axis=%s", prelu.name, axis)
    if not trained:
        return LeakyReLU(mean, axis=axis, **identity)
    positive = (slopes >= SMALLEST_POSITIVE_ALPHA).all()
    own = prelu.alpha_constraint
    stock = own is None or type(own) is tf.keras.constraints.NonNeg
    return LeakyReLU(
        mean,
        trainable_alpha=True,
        axis=axis,
        alpha_constraint="positive" if positive and stock else own,
        alpha_regularizer=prelu.alpha_regularizer,
        **identity,
    )


def _to_prelu(layer: LeakyReLU, host: Any) -> Any:
    rank = _rank(layer, host)
    axes = () if layer.axis is None else np.atleast_1d(layer.axis)
    named = {int(axis) % rank for axis in axes}
    identity = _identity(layer)
    trained: dict[str, Any] = {}
    if layer.trainable_alpha:
        positive = layer.alpha_constraint == "positive"
        constraint = tf.keras.constraints.NonNeg() if positive else layer.alpha_constraint
        trained = {"alpha_constraint": constraint, "alpha_regularizer": layer.alpha_regularizer}
    else:
        identity["trainable"] = False
    return _layers.PReLU(
        alpha_initializer=tf.keras.initializers.Constant(float(_slopes(layer).mean())),
        shared_axes=[axis for axis in range(1, rank) if axis not in named] or None,
        **trained,
        **identity,
    )


def _rank(layer: LeakyReLU, host: Any) -> int:
    """The rank of what the layer is called on, which a PReLU has to know."""
    spec = getattr(layer, "input_spec", None)
    if spec is not None and spec.ndim is not None:
        return int(spec.ndim)
    try:
        tensor = host.output
    except (AttributeError, RuntimeError, ValueError):
        tensor = None
    if tensor is None or not hasattr(tensor, "shape"):
        raise ValueError(
            "to_keras: expected activations that a stock layer can stand for. "
            f"Received: {layer.name!r} in {host.name!r}, a slope for inputs of an unknown rank. "
            "Freeze the model first."
        )
    return len(tensor.shape)


def _slopes(layer: LeakyReLU) -> np.ndarray:
    return np.asarray(tf.convert_to_tensor(layer.alpha))
