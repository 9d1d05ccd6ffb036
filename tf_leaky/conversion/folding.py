"""Batch normalisation folded into the convolution or Dense layer before it, as exact arithmetic.

At inference y = gamma * (conv(x) - mean) / sqrt(variance + epsilon) + beta is itself a convolution,
with another kernel and bias. A trace of the model, of whatever kind, shows which layer comes right
before a normalisation, and what else uses its output.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tf_leaky.checks import said
from tf_leaky.conversion.remaking import copied, identity_of
from tf_leaky.conversion.tracer import TAKEN_BY_ONEDNN, Tracer, maker_of, summands, users_of
from tf_leaky.conversion.weights import pairs_of
from tf_leaky.keras_compat import called_to_train
from tf_leaky.structure import is_graph, layers_within

_log = logging.getLogger("tf_leaky")
_layers = tf.keras.layers
_TRANSPOSED = (_layers.Conv1DTranspose, _layers.Conv2DTranspose, _layers.Conv3DTranspose)
_DEPTHWISE = (_layers.DepthwiseConv1D, _layers.DepthwiseConv2D)
_SEPARABLE = (_layers.SeparableConv1D, _layers.SeparableConv2D)
_KINDS = (
    *(_layers.Conv1D, _layers.Conv2D, _layers.Conv3D, _layers.Dense),
    *(*_TRANSPOSED, *_DEPTHWISE, *_SEPARABLE),
)


@dataclass
class _Fold:
    """A normalisation, the layer that it is folded into, and that layer's new weights."""

    linear: Any
    normalization: Any
    weights: list[Any]


def folded(model: Any) -> Any:
    """Returns a copy of a model with batch normalisation folded wherever that is exact.

    The layer before it gets a bias. A layer that computes nothing keeps the normalisation's name.
    What is not folded, and why, is logged at INFO.
    """
    folds = _folds(model)
    while folds:
        new, wrong = _copy(model, folds)
        for fold in wrong:
            _left(fold.normalization, "its outer layer can't be made without it")
        if not wrong:
            for fold in folds:
                _log.info("freeze: %s: folded into %s", fold.normalization.name, fold.linear.name)
            return new
        folds = [fold for fold in folds if fold not in wrong]
    return model


def _left(normalization: Any, why: str) -> None:
    _log.info("freeze: %s: not folded, as %s", normalization.name, why)


def _folds(model: Any) -> list[_Fold]:
    """Returns what can be folded in a model."""
    within = layers_within(model)
    linears = [layer for layer in within if type(layer) in _KINDS]
    normalizations = [layer for layer in within if type(layer) is _layers.BatchNormalization]
    if not normalizations:
        return []
    try:
        tracer = Tracer(model, linears + normalizations)
    except Exception as error:  # of any kind: it is the user's model that is called
        for each in normalizations:
            _left(each, f"the model can't be traced: {said(error)}")
        return []
    training = _always_training(model)
    makers = {id(call.y): layer for layer in linears for call in tracer.calls[id(layer)]}
    folds = []
    for each in normalizations:
        found = _fold(each, makers, tracer, training)
        if isinstance(found, str):
            _left(each, found)
        else:
            folds.append(found)
    return folds


def _always_training(model: Any) -> set[int]:
    """Returns the ids of the layers that graphs call with `training=True`, and of those within."""
    graphs = [each for each in (model, *layers_within(model)) if is_graph(each)]
    found = [each for graph in graphs for each in graph.layers if called_to_train(each)]
    return {id(part) for each in found for part in (each, *layers_within(each))}


def _fold(
    normalization: Any, makers: dict[int, Any], tracer: Tracer, training: set[int]
) -> _Fold | str:
    """Returns how a normalisation is folded, or why it can't be."""
    calls = tracer.calls[id(normalization)]
    before = {id(linear): linear for call in calls if (linear := makers.get(id(call.x)))}
    if len(before) != 1 or any(id(call.x) not in makers for call in calls):
        return "it doesn't come right after a single convolution or Dense layer"
    (linear,) = before.values()
    made = {id(call.y): call.y for call in tracer.calls[id(linear)]}
    for key, y in made.items():
        read = sum(call.reads for call in calls if id(call.x) == key)
        if not read or read != users_of(y):
            return f"the output of {linear.name} is used elsewhere, too"
    users = tracer.users_of_weights(linear), tracer.users_of_weights(normalization)
    changes = users[1] != {"ReadVariableOp"} or id(normalization) in training
    if None in users or changes:
        return f"its weights or those of {linear.name} are used elsewhere, or change at inference"
    if any(_computed_wrong(call.y) for call in calls):
        return "TensorFlow uses a wrong slope after a convolution with a bias and a sum"
    if linear.activation is not tf.keras.activations.linear:
        return f"{linear.name} has an activation of its own"
    if linear.compute_dtype != normalization.compute_dtype:
        return f"{linear.name} computes in {linear.compute_dtype}"
    rank = calls[0].x.shape.rank
    axis = int(np.ravel(normalization.axis)[0])
    if rank is None or axis % rank != _axis_of_channels(linear) % rank:
        return f"its axis isn't that of the channels of {linear.name}"
    weights = _folded_weights(linear, normalization)
    if weights is None:
        return f"{linear.name} has more weights than kernel and bias, or these would overflow"
    return _Fold(linear, normalization, weights)


def _axis_of_channels(linear: Any) -> int:
    if getattr(linear, "data_format", "channels_last") == "channels_last":
        return -1
    return 1 - len(linear.weights[0].shape)  # before the spatial axes, as many as its kernel's


def _folded_weights(linear: Any, normalization: Any) -> list[Any] | None:
    """Returns kernels and bias with the normalisation folded in, computed in float64."""
    weights: list[Any] = [_float64(each) for each in linear.weights]
    *kernels, bias = weights if linear.use_bias else [*weights, 0.0]
    if len(kernels) != (2 if type(linear) in _SEPARABLE else 1):  # with LoRA or quantization
        return None
    gamma, beta = (
        default if variable is None else _float64(variable)
        for variable, default in ((normalization.gamma, 1.0), (normalization.beta, 0.0))
    )
    mean, variance = map(_float64, (normalization.moving_mean, normalization.moving_variance))
    with np.errstate(all="ignore"):  # finiteness is checked below
        scale = gamma / np.sqrt(variance + normalization.epsilon)
        bias = (bias - mean) * scale + beta
        if type(linear) in _DEPTHWISE:
            scale = scale.reshape(kernels[-1].shape[-2:])
        elif type(linear) in _TRANSPOSED:
            scale = scale[:, np.newaxis]
        kernels[-1] = kernels[-1] * scale
    new = [tf.cast(each, linear.weights[0].dtype) for each in (*kernels, bias)]
    finite = [tf.reduce_all(tf.math.is_finite(tf.cast(v, linear.compute_dtype))) for v in new]
    return new if all(finite) else None


def _float64(variable: Any) -> np.ndarray:
    return np.asarray(variable).astype("float64")


def _copy(model: Any, folds: list[_Fold]) -> tuple[Any, list[_Fold]]:
    """Returns a copy with `folds` folded, and those that did not come out right."""
    linears = {id(fold.linear): fold for fold in folds}
    normalizations = {id(fold.normalization): fold for fold in folds}

    def rule(found: Any, host: Any) -> Any:
        if id(found) in linears:
            return type(found).from_config({**found.get_config(), "use_bias": True})
        if id(found) in normalizations:
            return _layers.Activation("linear", **identity_of(found))
        return None

    try:
        new = copied(model, rule, subject="freeze")
        twins = {id(old): twin for old, twin, _ in pairs_of(model, new, lambda _: None, "freeze")}
        tracer = Tracer(new, [twins[key] for key in (*linears, *normalizations)])
    except Exception:  # of any kind: a user's layer may inspect its parts
        inner = [fold for fold in folds if not _in_graphs(model, fold)]
        if not inner:
            raise
        return None, inner
    wrong = []
    for fold in folds:
        linear, nothing = twins[id(fold.linear)], twins[id(fold.normalization)]
        made = [id(call.y) for call in tracer.calls[id(linear)]]
        taken = [id(call.x) for call in tracer.calls[id(nothing)]]
        if (
            not (made == taken and made)
            or type(nothing) is not _layers.Activation
            or len(linear.weights) != len(fold.weights)
        ):
            wrong.append(fold)
            continue
        for variable, value in zip(linear.weights, fold.weights, strict=True):
            variable.assign(value)
    return new, wrong


def _in_graphs(model: Any, fold: _Fold) -> bool:
    """Whether both layers are in Sequential or functional models only."""
    waiting, found = [model], set()
    for each in waiting:  # grows
        if is_graph(each) and id(each) not in found:
            waiting += each.layers
        found.add(id(each))
    return {id(fold.linear), id(fold.normalization)} <= found


def _computed_wrong(y: Any) -> bool:
    """Whether TensorFlow's oneDNN kernels would compute what follows a folded layer wrongly.

    TensorFlow 2.21 fuses a convolution with a bias, an addition and a LeakyRelu into one operation,
    and oneDNN's kernel for that uses a slope of 0.2, whatever slope the LeakyRelu has.
    """
    made = maker_of(y)
    for each in y.graph.get_operations():
        if each.type == "LeakyRelu":
            wrong = each.get_attr("alpha") != np.float32(TAKEN_BY_ONEDNN)
        else:
            wrong = each.type in ("Maximum", "Mul") or "Call" in each.type
        if wrong and any(made in summands(x) for x in each.inputs):
            return True
    return False
